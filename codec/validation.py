"""What emitted rules stand on: `vt.*` annotations in an IDL become plain code, and that code finds violations.

    item.validate()                      # raises ValidationError with everything that breaks a rule
    violations(item)                     # or asks: a list, empty when all is well

Emitted modules give each class that has rules a function `(value, at, found)` by `rules`; it adds to `found` what is wrong, `at` is the path
so far, as in ``items[3].``.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from codec.errors import UsageError

__all__ = ["Check", "ValidationError", "Violation", "Violations", "add", "check", "has_rules", "matches", "modulo", "rule_call", "rule_function", "rules", "sprintf", "validate", "violations"]

_T = TypeVar("_T")

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 60


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule. `path` names the value from the outside in (``items[3].name``), `rule` is the annotation without ``vt.``."""

    path: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path or 'the value'}: {self.message} (vt.{self.rule})"


class Violations(list[Violation]):
    """Collects the broken rules of one value."""

    def add(self, path: str, rule: str, expected: str, value: object) -> None:
        """Note that `value`, which is at `path`, is not as `expected` says."""
        self.append(Violation(path, rule, f"must {expected}, got {_shown.repr(value)}"))


class ValidationError(UsageError):
    """A value breaks rules of its IDL: all of them in `violations`, in the order of the fields."""

    def __init__(self, owner: str, found: list[Violation]) -> None:
        super().__init__(f"{owner} breaks rules of its IDL: " + "; ".join(map(str, found)))
        self.owner = owner
        self.violations = tuple(found)


Check: TypeAlias = Callable[[Any, str, Violations], None]

def rules(cls: type[_T], function: Callable[[_T, str, Violations], None]) -> None:
    """Give a class the function that checks its instances; emitted code calls it once for each class with rules."""
    cls.__check__ = function  # type: ignore[attr-defined]


def has_rules(cls: type) -> bool:
    """Has the IDL rules for this class, or for what it is made of?"""
    return getattr(cls, "__check__", None) is not None


def check(value: object, at: str, found: Violations) -> None:
    """Check a value inside another; one of a class without rules is fine."""
    function = getattr(type(value), "__check__", None)
    if function is not None:
        function(value, f"{at}." if at else "", found)


def violations(value: object) -> list[Violation]:
    """Everything about a struct, union or exception that breaks a rule of its IDL."""
    found = Violations()
    check(value, "", found)
    return found


def validate(value: object) -> None:
    """Raise ValidationError if something about a struct, union or exception breaks a rule of its IDL."""
    found = violations(value)
    if found:
        raise ValidationError(type(value).__name__, found)


# ---- functions that rules may call -----------------------------------------------------------------------------------


def add(left: Any, right: Any) -> Any:
    """The sum."""
    return left + right


def modulo(left: int, right: int) -> int:
    """The remainder with the sign of `left`, as Go has it; 0 for a division by 0, which no rule should end in an exception for."""
    if right == 0:
        return 0
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def matches(pattern: Any, text: Any) -> bool:
    """Is the pattern, which came with the data, found in the text? One that is no pattern matches nothing."""
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def sprintf(template: str, *values: object) -> str:
    """Go's `Sprintf` with the verbs rules use: %v, %s, %d, %f, %x, %q and %%."""
    parts = template.replace("%v", "%s").replace("%q", "%r")
    return parts % values


_functions: dict[str, Callable[..., Any]] = {}


def rule_function(name: str, function: Callable[..., Any]) -> None:
    """Give rules a function of yours: `@name(…)` in a `vt.*` annotation calls it with the values of its arguments."""
    _functions[name] = function


def rule_call(name: str, *values: Any) -> Any:
    """What a rule's own function says. UsageError when nobody gave it."""
    function = _functions.get(name)
    if function is None:
        raise UsageError(f'a rule of the IDL calls "@{name}": give that function with weego.rule_function("{name}", …)')
    return function(*values)

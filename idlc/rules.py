"""The `vt.*` annotations of fields and structs, read and checked: which rules a value must keep.

The table is that of thrift-gen-validator, with what Apache's Go generator reads too (lists as ``vt.in = "[1, 2]"``, bare enum names). An unknown
key, one that does not belong to the type, a value that does not parse, a bound outside of the type, a name that is not there: each is an error
where the annotation stands.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from idlc import model
from idlc.ast import Annotation, Annotations
from idlc.errors import Report

__all__ = ["Call", "Expression", "FieldRef", "FieldRules", "Literal", "MemberRef", "Rule", "StructRules", "read_rules"]

PREFIX: Final = "vt."


# ---- expressions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, text, bytes or truth."""

    value: bool | int | float | str | bytes


@dataclass(frozen=True, slots=True)
class MemberRef:
    """A member of an enum."""

    enum: model.Enum
    member: model.EnumMember


@dataclass(frozen=True, slots=True)
class FieldRef:
    """`$name`: another field of the same struct."""

    field: model.Field


@dataclass(frozen=True, slots=True)
class Call:
    """`@name(a, b)`."""

    name: str
    arguments: tuple[Expression, ...]


Expression = Literal | MemberRef | FieldRef | Call

FUNCTIONS: Final = {"len": 1, "equal": 2, "mod": 2, "add": 2, "now_unix_nano": 0, "sprintf": None}
"""Name → number of arguments; None for any."""


# ---- rules -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Lists of `in` and `not_in` have all their values in `values`, the others exactly one."""

    key: str
    values: tuple[Expression, ...]


@dataclass(slots=True)
class FieldRules:
    """The rules of one value, and of what it holds."""

    type: model.Type
    rules: list[Rule] = field(default_factory=list)
    elem: FieldRules | None = None
    """Of the items of a list or set, or the values of a map."""
    key: FieldRules | None = None
    not_nil: bool = False
    skip: bool = False

    @property
    def is_empty(self) -> bool:
        """Is there nothing to check, nested structs aside?"""
        return not self.rules and not self.not_nil and self.elem is None and self.key is None


@dataclass(slots=True)
class StructRules:
    """The rules of a struct: those of its fields, in the order of the file, and `vt.assert`."""

    struct: model.Struct
    fields: list[tuple[model.Field, FieldRules]]
    asserts: list[Expression]

    @property
    def is_empty(self) -> bool:
        """Has the struct no rules of its own?"""
        return not self.asserts and all(rules.is_empty for _, rules in self.fields)


_NUMBER: Final = ("const", "lt", "le", "gt", "ge", "in", "not_in", "not_nil")
_TEXT: Final = (
    "const", "in", "not_in", "min_size", "max_size", "min_rune_size", "max_rune_size", "pattern", "prefix", "suffix", "contains",
    "not_contains", "not_nil",
)  # fmt: skip
_BITS: Final = {"i8": 8, "i16": 16, "i32": 32, "i64": 64}


def read_rules(struct: model.Struct, report: Report) -> StructRules:
    """The rules of a struct; mistakes go to the report."""
    return _Reader(struct, report).read()


def _vt(annotations: Annotations) -> Iterator[tuple[str, Annotation]]:
    for annotation in annotations:
        if annotation.key.startswith(PREFIX):
            yield annotation.key.removeprefix(PREFIX), annotation


@dataclass(slots=True)
class _Reader:
    struct: model.Struct
    report: Report

    def read(self) -> StructRules:
        fields = []
        for each in self.struct.fields:
            rules = FieldRules(each.type)
            for key, annotation in _vt(each.annotations):
                self._add(rules, key, annotation)
            fields.append((each, rules))
        asserts = []
        for key, annotation in _vt(self.struct.annotations):
            if key != "assert":
                self._error(annotation, f"a {self.struct.kind} takes vt.assert only, not {annotation.key}")
                continue
            expression = self._parse(annotation.value, annotation)
            if expression is not None:
                asserts.append(expression)
        return StructRules(self.struct, fields, asserts)

    def _error(self, annotation: Annotation, message: str, hint: str | None = None) -> None:
        self.report.error("vt", message, annotation.pos, hint)

    # ---- keys --------------------------------------------------------------------------------------------------------

    def _add(self, rules: FieldRules, key: str, annotation: Annotation) -> None:
        """Add one annotation; `key` is what is left of it: `elem.key.gt` on the way down."""
        head, dot, rest = key.partition(".")
        type_ = model.strip(rules.type)
        if dot and head in ("elem", "key", "value"):
            match head, type_:
                case "elem", model.ListOf(elem) | model.SetOf(elem):
                    rules.elem = rules.elem or FieldRules(elem)
                    self._add(rules.elem, rest, annotation)
                case "value", model.MapOf(_, value):
                    rules.elem = rules.elem or FieldRules(value)
                    self._add(rules.elem, rest, annotation)
                case "key", model.MapOf(inner, _):
                    rules.key = rules.key or FieldRules(inner)
                    self._add(rules.key, rest, annotation)
                case _:
                    wanted = {"elem": "a list or set", "key": "a map", "value": "a map"}[head]
                    self._error(annotation, f"{annotation.key} is for {wanted}, this is {model.spell(rules.type)}")
            return
        allowed = _keys(type_)
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, 1)
            hint = f'did you mean "vt.{close[0]}"?' if close else f"it takes {', '.join(allowed)}"
            self._error(annotation, f"{annotation.key} is no rule for {model.spell(rules.type)}", hint)
            return
        self._rule(rules, type_, key, annotation)

    def _rule(self, rules: FieldRules, type_: model.Type, key: str, annotation: Annotation) -> None:
        if key in ("not_nil", "skip", "defined_only", "no_sparse"):
            if annotation.value not in ("true", "false", "1", "0"):
                self._error(annotation, f'{annotation.key} cannot be "{annotation.value}"', 'use "true" or "false"')
                return
            wanted = annotation.value in ("true", "1")
            if key == "not_nil":
                rules.not_nil = rules.not_nil or wanted
            elif key == "skip":
                rules.skip = wanted
            elif wanted:
                rules.rules.append(Rule(key, ()))
            return
        if key in ("in", "not_in"):
            values = self._list(type_, annotation)
            if values is None:
                return
            earlier = next((rule for rule in rules.rules if rule.key == key), None)
            if earlier is not None:
                rules.rules[rules.rules.index(earlier)] = Rule(key, (*earlier.values, *values))
            else:
                rules.rules.append(Rule(key, tuple(values)))
            return
        size = key.endswith("_size")
        value = self._value(model.Base("i64") if size else type_, annotation.value, annotation)
        if value is None:
            return
        if size and isinstance(value, Literal) and isinstance(value.value, int) and value.value < 0:
            self._error(annotation, f"{annotation.key} cannot be negative")
            return
        if key == "pattern" and isinstance(value, Literal) and isinstance(value.value, str | bytes):
            try:
                re.compile(value.value)
            except re.error as error:
                self._error(annotation, f"{annotation.key} is no regular expression: {error}")
                return
        rules.rules.append(Rule(key, (value,)))

    # ---- values ------------------------------------------------------------------------------------------------------

    def _list(self, type_: model.Type, annotation: Annotation) -> list[Expression] | None:
        """One value, or several in brackets, as Apache's generator writes them."""
        text = annotation.value.strip()
        if not (text.startswith("[") and text.endswith("]")):
            value = self._value(type_, annotation.value, annotation)
            return None if value is None else [value]
        values = [self._value(type_, part.strip(), annotation) for part in _split(text[1:-1])]
        return None if any(value is None for value in values) else [value for value in values if value is not None]

    def _value(self, type_: model.Type, text: str, annotation: Annotation) -> Expression | None:
        """What an annotation's text is for a value of a type; None when it is nothing, which is then reported."""
        if text.startswith(("$", "@")):
            return self._parse(text, annotation)
        match type_:
            case model.Base("bool"):
                if text in ("true", "false"):
                    return Literal(text == "true")
            case model.Base("double"):
                try:
                    return Literal(float(text))
                except ValueError:
                    pass
            case model.Base("string"):
                return Literal(_unquoted(text))
            case model.Base("binary"):
                return Literal(_unquoted(text).encode())
            case model.Base(name) if name in _BITS:
                number = _integer(text)
                if number is not None:
                    bound = 2 ** (_BITS[name] - 1)
                    if not -bound <= number < bound:
                        self._error(annotation, f"{annotation.key}: {text} does not fit in {name}")
                        return None
                    return Literal(number)
            case model.Enum():
                return self._member(type_, text, annotation)
        self._error(annotation, f'{annotation.key}: "{text}" is no value of {model.spell(type_)}')
        return None

    def _member(self, enum: model.Enum, text: str, annotation: Annotation) -> Expression | None:
        qualifier, _, name = text.rpartition(".")
        wanted = {"", enum.name, f"{enum.program.stem}.{enum.name}"}
        member = enum.member(name) if qualifier in wanted else None
        if member is None:
            names = [f"{enum.name}.{each.name}" for each in enum.members]
            close = difflib.get_close_matches(text, names, 1, 0.4)
            self._error(annotation, f'{annotation.key}: enum {enum.name} has no member "{text}"', f'did you mean "{close[0]}"?' if close else None)
            return None
        return MemberRef(enum, member)

    # ---- expressions -------------------------------------------------------------------------------------------------

    def _parse(self, text: str, annotation: Annotation) -> Expression | None:
        """`$field`, `@function(…)`, a number or a quoted text."""
        text = text.strip()
        if text.startswith("$"):
            return self._field_ref(text[1:], annotation)
        call = re.fullmatch(r"@(\w+)\s*\((.*)\)", text, re.DOTALL)
        if call is not None:
            return self._call(call.group(1), call.group(2), annotation)
        if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1:
            return Literal(_unquoted(text))
        if text in ("true", "false"):
            return Literal(text == "true")
        number: int | float | None = _integer(text)
        if number is None:
            try:
                number = float(text)
            except ValueError:
                number = None
        if number is None or (isinstance(number, float) and not math.isfinite(number)):
            self._error(annotation, f'{annotation.key}: cannot read "{text}"', "write $field, @function(…), a number or a quoted text")
            return None
        return Literal(number)

    def _field_ref(self, name: str, annotation: Annotation) -> Expression | None:
        found = self.struct.field(name)
        if found is not None:
            return FieldRef(found)
        close = difflib.get_close_matches(name, [each.name for each in self.struct.fields], 1)
        message = f'{annotation.key}: {self.struct.name} has no field "{name}"'
        self._error(annotation, message, f'did you mean "${close[0]}"?' if close else None)
        return None

    def _call(self, name: str, inside: str, annotation: Annotation) -> Expression | None:
        if name not in FUNCTIONS:
            close = difflib.get_close_matches(name, FUNCTIONS, 1)
            message = f'{annotation.key}: "@{name}" is no function of ours: give it with weego.rule_function before anything is validated'
            self.report.warn("vt-function", message, annotation.pos, f'did you mean "@{close[0]}"?' if close else None)
        arguments = [self._parse(part, annotation) for part in _split(inside)]
        if any(each is None for each in arguments):
            return None
        wanted = FUNCTIONS.get(name)
        if wanted is not None and len(arguments) != wanted:
            self._error(annotation, f"{annotation.key}: @{name} takes {wanted} arguments, here are {len(arguments)}")
            return None
        first = arguments[0] if arguments else None
        if name == "sprintf" and not (isinstance(first, Literal) and isinstance(first.value, str)):
            self._error(annotation, f"{annotation.key}: @sprintf begins with a quoted template")
            return None
        if name == "len" and not isinstance(first, FieldRef):
            self._error(annotation, f"{annotation.key}: @len takes a field, such as @len($name)")
            return None
        return Call(name, tuple(each for each in arguments if each is not None))


def _keys(type_: model.Type) -> tuple[str, ...]:
    """The rules that a type takes."""
    match type_:
        case model.Base("bool"):
            return "const", "not_nil"
        case model.Base("string" | "binary"):
            return _TEXT
        case model.Base("uuid"):
            return ("not_nil",)
        case model.Base():
            return _NUMBER
        case model.Enum():
            return "const", "in", "not_in", "defined_only", "not_nil"
        case model.ListOf() | model.SetOf():
            return "min_size", "max_size", "not_nil"
        case model.MapOf():
            return "min_size", "max_size", "min_rune_size", "max_rune_size", "no_sparse", "not_nil"
        case _:
            return "skip", "not_nil"


def _split(text: str) -> Sequence[str]:
    """At commas that stand in no quotes and no brackets."""
    parts: list[str] = []
    depth, quote, current = 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        if char == "," and not quote and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    return [part for part in [*parts, current] if part.strip() or len(parts)]


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


def _integer(text: str) -> int | None:
    """As Go reads it in base 0: decimal, 0x, 0o, 0b, and a leading 0 for octal."""
    digits = text.lstrip("+-")
    try:
        if re.fullmatch(r"0[0-7]+", digits):
            return int(digits, 8) * (-1 if text.startswith("-") else 1)
        return int(text, 0)
    except ValueError:
        return None

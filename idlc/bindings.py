"""The names an emitted module uses, and what must stand at its top for them.

Python looks a name up in the class body before the module, so a field `Base: Base` or a method `list` hides the type it is
written with. Such a use gets another name, `Base_` or `list_`, which is then imported or assigned beside the first.
"""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

_BUILTINS = frozenset(dir(builtins))


@dataclass(slots=True)
class Bindings:
    """Local name → what it stands for, in one module."""

    _owners: dict[str, tuple[str, str]] = field(default_factory=dict)
    _imports: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    _aliases: dict[str, list[str]] = field(default_factory=dict)

    def define(self, names: Iterable[str]) -> None:
        """Names the module defines itself; they win over all imports."""
        for name in names:
            self._owners[name] = ("", name)

    def private(self, wished: str) -> str:
        """A module-level name of ours that nothing else has."""
        name = wished
        while name in self._owners:
            name += "_"
        self._owners[name] = ("", name)
        return name

    def own(self, name: str, hidden: Collection[str] = ()) -> str:
        """How to write a definition of this module where the names `hidden` mean something else."""
        local = self._local(("", name), name, hidden)
        if local != name and local not in self._aliases.setdefault(name, []):
            self._aliases[name].append(local)
        return local

    def imported(self, module: str, name: str, hidden: Collection[str] = ()) -> str:
        """How to write a name that another module has."""
        local = self._local((module, name), name, hidden)
        self._imports.setdefault(module, {}).setdefault(name, set()).add(local)
        return local

    def builtin(self, name: str, hidden: Collection[str] = ()) -> str:
        """How to write a builtin."""
        local = self._local(("builtins", name), name, hidden)
        if local != name:
            self._imports.setdefault("builtins", {}).setdefault(name, set()).add(local)
        return local

    def means_builtin(self, name: str, hidden: Collection[str]) -> bool:
        """Does the plain name still mean the builtin?"""
        return name not in hidden and self._owners.get(name, ("builtins", name)) == ("builtins", name)

    def _local(self, thing: tuple[str, str], wished: str, hidden: Collection[str]) -> str:
        local = wished
        while (
            local in hidden
            or self._owners.get(local, thing) != thing
            or (local in _BUILTINS and thing[0] not in ("", "builtins"))
        ):
            local += "_"
        self._owners[local] = thing
        return local

    def aliases(self, name: str) -> list[str]:
        """Second names of a definition of this module."""
        return self._aliases.get(name, [])

    def imports(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Module → (name, local name) pairs, all sorted as import sorters want them."""
        return [
            (module, sorted(((name, local) for name, all_ in names.items() for local in all_), key=_name_order))
            for module, names in sorted(self._imports.items(), key=lambda item: module_order(item[0]))
        ]


def module_order(module: str) -> tuple[int, int, str]:
    """Standard library, then weego, then relative imports from far to near."""
    dots = len(module) - len(module.lstrip("."))
    section = 3 if dots else 1 if module == "weego" else 0
    return section, -dots, module


def _name_order(pair: tuple[str, str]) -> tuple[object, ...]:
    name, local = pair
    return (*import_order(name), local)


def export_order(name: str) -> tuple[int, tuple[tuple[int, str], ...]]:
    """Constants, classes, the rest, numbers inside names by their value: the order of names in `__all__`."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, natural_order(name)


def import_order(name: str) -> tuple[int, tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]:
    """The same without regard to case: the order of names inside an import."""
    kind, exact = export_order(name)
    return kind, natural_order(name.lower()), exact


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """`int8` before `int16`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((int(part), "") if part.isdigit() else (sys.maxsize, part) for part in parts)

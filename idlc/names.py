"""What things are called in Python.

Types, fields, arguments, enum members and constants keep the spelling of the IDL; methods are spelled as PEP 8 wants unless
the user asked for the IDL's names. A name that Python keeps for itself gets a trailing underscore. A name of ours
(`close`, `timeout`, an import) that meets an IDL name gives way: then ours gets the underscore.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from idlc import model
from idlc.errors import Position, Report

MethodStyle = Literal["pep8", "idl"]

# Members that `int` and `enum` have: an enum member of that name would hide or break them.
_ENUM_RESERVED: Final = frozenset(
    {
        "as_integer_ratio",
        "bit_count",
        "bit_length",
        "conjugate",
        "denominator",
        "from_bytes",
        "imag",
        "is_integer",
        "mro",
        "name",
        "numerator",
        "real",
        "to_bytes",
        "value",
    }
)
# What every Python exception has.
_EXCEPTION_RESERVED: Final = frozenset({"add_note", "args", "with_traceback"})


def pep8(name: str) -> str:
    """`GetItem`, `getItem` and `get_item` → `get_item`; `getHTTPPage` → `get_http_page`."""
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", spaced)
    return re.sub(r"(?<=[^_])__+(?=[^_])", "_", spaced).lower()


def identifier(text: str) -> str:
    """Any text made a name for a module or package: `foo.bar` → `foo_bar`, `class` → `class_`."""
    name = re.sub(r"[^0-9A-Za-z_]", "_", text)
    if not name or name[0].isdigit():
        name = "_" + name
    return name + "_" if keyword.iskeyword(name) or name == "__init__" else name


def is_python_word(name: str) -> bool:
    """Is it a keyword, so that nothing can be called it?"""
    return keyword.iskeyword(name)


def _is_runtimes(name: str) -> bool:
    """The client keeps its own parts under names like `_invoke`: a method of such a name would break it."""
    return name.startswith("_") and not name.endswith("_")


def _is_modules(name: str) -> bool:
    """`annotations` is what `from __future__ import annotations` binds."""
    return name == "annotations" or _is_private_or_special(name)


def _is_private_or_special(name: str) -> bool:
    """`__x` is mangled inside a class, `__x__` belongs to Python."""
    return name.startswith("__") and not name.endswith("___")


@dataclass(slots=True)
class Names:
    """The Python names of one run. Each table is made when first asked for and does not depend on the asker."""

    report: Report
    style: MethodStyle = "pep8"
    _tops: dict[model.Program, dict[str, str]] = field(default_factory=dict)
    _members: dict[model.Enum, dict[str, str]] = field(default_factory=dict)
    _fields: dict[tuple[model.Field, ...], dict[str, str]] = field(default_factory=dict)
    _methods: dict[model.Service, dict[str, str]] = field(default_factory=dict)

    def top(self, definition: model.Definition) -> str:
        """A struct, enum, typedef, constant or service of a module."""
        return self.module(definition.program)[definition.name]

    def module(self, program: model.Program) -> dict[str, str]:
        """IDL name → Python name of all definitions of a file."""
        table = self._tops.get(program)
        if table is None:
            positions = {each.name: each.pos for each in program.definitions}
            table = self._rename(positions, "definition", "", _is_modules)
            self._tops[program] = table
        return table

    def client(self, service: model.Service) -> str:
        """The client class: `EchoClient`, unless the IDL has something of that name."""
        taken = set(self.module(service.program).values())
        name = self.top(service) + "Client"
        while name in taken:
            name += "_"
        return name

    def member(self, enum: model.Enum, member: model.EnumMember) -> str:
        """A member of an enum."""
        table = self._members.get(enum)
        if table is None:
            table = self._rename(
                {each.name: each.pos for each in enum.members},
                "member",
                f" of enum {enum.name}",
                lambda name: name in _ENUM_RESERVED or (name[0] == "_" and name[-1] == "_" and name[-2:] != "__")
                or _is_private_or_special(name),
            )  # fmt: skip
            self._members[enum] = table
        return table[member.name]

    def fields(self, struct: model.Struct) -> dict[str, str]:
        """IDL name → Python name of a struct's fields."""
        reserved: Callable[[str], bool] = _is_private_or_special
        if struct.kind == "exception":

            def reserved(name: str) -> bool:
                return name in _EXCEPTION_RESERVED or _is_private_or_special(name)

        return self._field_table(struct.fields, "field", f" of {struct.kind} {struct.name}", reserved)

    def arguments(self, service: model.Service, function: model.Function) -> dict[str, str]:
        """IDL name → Python name of a function's arguments."""
        owner = f" of {service.name}.{function.name}"
        return self._field_table(function.args, "argument", owner, _is_private_or_special)

    def thrown(self, service: model.Service, function: model.Function) -> dict[str, str]:
        """IDL name → Python name of the declared exceptions."""
        owner = f" of {service.name}.{function.name}"
        return self._field_table(function.throws, "exception", owner, _is_private_or_special)

    def _field_table(
        self, fields: tuple[model.Field, ...], what: str, owner: str, reserved: Callable[[str], bool]
    ) -> dict[str, str]:
        table = self._fields.get(fields)
        if table is None:
            table = self._rename({each.name: each.pos for each in fields}, what, owner, reserved)
            self._fields[fields] = table
        return table

    def _rename(
        self, positions: dict[str, Position], what: str, owner: str, reserved: Callable[[str], bool]
    ) -> dict[str, str]:
        """Names that can stay stay; the others get underscores until they are free."""
        table = {name: name for name in positions if not (is_python_word(name) or reserved(name))}
        taken = set(table)
        for name, position in positions.items():
            if name in table:
                continue
            renamed = name + "_"
            while renamed in taken or reserved(renamed):
                renamed += "_"
            taken.add(renamed)
            table[name] = renamed
            why = "is a Python keyword" if is_python_word(name) else "belongs to Python"
            self.report.warn("renamed", f'{what} "{name}"{owner} {why}: it becomes {renamed}', position)
        return {name: table[name] for name in positions}

    def methods(self, service: model.Service) -> dict[str, str]:
        """IDL name → Python name of a service's functions, inherited ones included."""
        table = self._methods.get(service)
        if table is not None:
            return table
        table = dict(self.methods(service.base)) if service.base is not None else {}
        own = [function for function in service.functions if function.name not in table]
        taken = set(table.values())
        wished = {function.name: self._styled(function.name) for function in own}
        clashing = _repeated(wished.values()) | (set(wished.values()) & taken)
        # Those that keep what they wish come first, so that a spelling kept because of a clash gives way to them.
        for function in sorted(own, key=lambda each: wished[each.name] in clashing):
            name = wished[function.name]
            if name in clashing:
                kept = _free(function.name, taken)
                if kept != name:
                    message = f"{service.name}.{function.name} would become {name} as another method; it stays {kept}"
                    self.report.note("method-names", message, function.pos)
                name = kept
            free = _free(name, taken)
            if free != name:
                why = "is a Python keyword" if is_python_word(name) else "would meet a name of the runtime"
                message = f'method "{function.name}" of {service.name} {why}: it becomes {free}'
                self.report.warn("renamed", message, function.pos)
            table[function.name] = free
            taken.add(free)
        self._methods[service] = table
        return table

    def _styled(self, name: str) -> str:
        return pep8(name) if self.style == "pep8" else name


def _free(name: str, taken: set[str]) -> str:
    while name in taken or is_python_word(name) or _is_runtimes(name) or _is_private_or_special(name):
        name += "_"
    return name


def _repeated(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]

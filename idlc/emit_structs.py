"""Structs, unions and exceptions: the classes, and the tables that tell the codec about their fields."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from idlc import model
from idlc.bindings import natural_order
from idlc.emit_types import Types, is_immutable
from idlc.layout import INDENT, WIDTH, Group, Node, call, docstring, flat, lay_out, quoted, tuple_of

_BASES: Final = {"struct": "Struct", "union": "Union", "exception": "IdlException"}

# Public names of the runtime's base classes that a field may hide; ours then gets a trailing underscore.
_OURS: Final = {
    "struct": {"copy": "Struct", "validate": "Struct"},
    "union": {"copy": "Struct", "validate": "Struct", "value": "Union", "which": "Union"},
    "exception": {"copy": "Struct", "validate": "Struct"},
}


# The annotation of a struct whose unknown fields are kept and written back, and the slot that they are kept in (codec/plan.pyx).
_KEEP_UNKNOWN = "py.keep_unknown"
_UNKNOWN = "__unknown__"


@dataclass(slots=True)
class Structs:
    """Emits the structs of one module. `factories` remembers the functions that make mutable defaults."""

    types: Types
    factories: dict[model.Field, str] = field(default_factory=dict)
    _later: set[str] = field(default_factory=set)

    def expect(self, names: Iterable[str]) -> None:
        """Names the module will define, some of them below the classes that use them.

        A type checker reads one that is also a builtin, such as `TimeoutError`, as the builtin until it is defined.
        """
        self._later = {name for name in names if hasattr(builtins, name)}

    def emit(self, struct: model.Struct) -> list[list[str]]:
        """The functions that make defaults, then the class: each a block of lines."""
        self._later.discard(self.types.names.top(struct))
        blocks = [] if struct.kind == "union" else [self._factory(struct, each) for each in struct.fields]
        return [block for block in blocks if block] + [self._class(struct)]

    # The class

    def _class(self, struct: model.Struct) -> list[str]:
        table = self.types.names.fields(struct)
        slots = list(table.values())
        lines = [f"class {self.types.definition(struct)}({self.types.stub(_BASES[struct.kind])}):"]
        lines += docstring(struct.doc, INDENT)
        lines += [""] if len(lines) > 1 else []
        lines += lay_out(_prefixed_slots([*slots, _UNKNOWN] if _keeps_unknown(struct) else slots), INDENT)
        if _keeps_unknown(struct):
            lines.append(f"{INDENT}{_UNKNOWN}: bytes | None")
        for each in struct.fields:
            name = table[each.name]
            annotation = self._attribute_type(struct, each, {*slots, *self._later})
            hides_ours = name in _OURS[struct.kind]
            ignore = "  # type: ignore[assignment, unused-ignore]" if hides_ours else ""
            lines.append(f"{INDENT}{name}: {annotation}{ignore}")
            lines += docstring(each.doc, INDENT)
        lines += self._ours(struct, slots)
        if struct.fields:
            lines += ["", *self._init(struct, table)]
        return lines

    def _ours(self, struct: model.Struct, slots: list[str]) -> list[str]:
        """Names of the runtime that fields hide, under another name."""
        lines: list[str] = []
        for name, owner in _OURS[struct.kind].items():
            if name in slots:
                other = _free(name + "_", slots)
                lines.append(f"{INDENT}{other} = {self.types.stub(owner, slots)}.{name}")
        return lines

    def _attribute_type(self, struct: model.Struct, each: model.Field, hidden: Collection[str]) -> str:
        text = self.types.annotation(each.type, hidden)
        return f"{text} | None" if may_be_none(struct, each) else text

    def _init(self, struct: model.Struct, table: dict[str, str]) -> list[str]:
        slots = list(table.values())
        self_name = _free("self", slots)
        in_body = {*slots, self_name}
        parameters: list[Node] = [self_name, "*"]
        body: list[str] = []
        for each in struct.fields:
            name = table[each.name]
            annotation = self.types.annotation(each.type, {*slots, *self._later})
            default = self._immutable_default(struct, each, slots)
            make = None if default is not None else self._make(struct, each, in_body)
            if default is not None:
                if default == "None":
                    annotation += " | None"
                parameters.append(f"{name}: {annotation} = {default}")
                body.append(f"{self_name}.{name} = {name}")
            elif make is not None:
                parameters.append(f"{name}: {annotation} | None = None")
                choice = f"{make} if {name} is None else {name}"
                if len(f"{INDENT * 2}{self_name}.{name} = {choice}") <= WIDTH:
                    body.append(f"{self_name}.{name} = {choice}")
                else:
                    body += [f"{self_name}.{name} = (", INDENT + choice, ")"]
            else:
                parameters.append(f"{name}: {annotation}")
                body.append(f"{self_name}.{name} = {name}")
        if struct.kind == "union":
            parent, arguments = "super()", [f"{name}={name}" for name in slots]
            if not self.types.bindings.means_builtin("super", in_body):
                parent, arguments = self.types.stub("Union", in_body), [self_name, *arguments]
            body = lay_out(call(f"{parent}.__init__", *arguments))
        lines = lay_out(Group("def __init__(", tuple(parameters), ") -> None:"), INDENT)
        return lines + [INDENT * 2 + line for line in body]

    # Defaults

    def _immutable_default(
        self, struct: model.Struct, each: model.Field, hidden: Collection[str], *, explicit: bool = False
    ) -> str | None:
        """What can stand in a signature; None when the value must be made anew for each instance, or there is none.

        `explicit`: leave out what the runtime assumes by itself.
        """
        if struct.kind == "union":
            return None if explicit else "None"
        return immutable_default(self.types, each, hidden, explicit=explicit)

    def _make(self, struct: model.Struct, each: model.Field, hidden: Collection[str]) -> str | None:
        """An expression that makes a mutable default; None for a required field."""
        if each in self.factories:
            return self.types.bindings.own(self.factories[each], hidden) + "()"
        if each.default is None and each.requiredness == "required":
            return None
        empty = _empty(each.type)
        if empty == "set":
            return self.types.bindings.builtin("set", hidden) + "()"
        return {"list": "[]", "dict": "{}", None: None}[empty]

    def _factory(self, struct: model.Struct, each: model.Field) -> list[str]:
        """A function that makes the default of a field, unless it is a plain empty container."""
        if each.default is None or _fits_signature(each.type, each.default):
            return []
        value = model.plain(each.default)
        if isinstance(value, model.Sequence) and not value.items:
            return []
        if isinstance(value, model.Mapping) and not value.pairs:
            return []
        name = self.types.names.fields(struct)[each.name]
        function = self.types.bindings.private(f"_{self.types.definition(struct).lstrip('_')}_{name}")
        self.factories[each] = function
        made = self.types.value(each.default, each.type, by_name=False)
        return [
            f"def {function}() -> {self.types.annotation(each.type, self._later)}:",
            *lay_out(made if isinstance(made, str) else Group("return " + made.open, made.items, made.close), INDENT),
        ]

    # The table

    def define(self, struct: model.Struct) -> list[str]:
        """The call that gives the runtime the fields."""
        table = self.types.names.fields(struct)
        fields = [self._field(struct, each, table[each.name]) for each in struct.fields]
        return lay_out(call(self.types.stub("define"), self.types.definition(struct), *fields))

    def _field(self, struct: model.Struct, each: model.Field, name: str) -> Node:
        factory = None
        if each in self.factories:
            factory = self.factories[each]
        elif struct.kind != "union" and (each.default is not None or each.requiredness == "default"):
            empty = _empty(each.type)
            factory = None if empty is None else self.types.bindings.builtin(empty)
        default = self._immutable_default(struct, each, (), explicit=True)
        return field_table(self.types, each, name, default, factory)


def immutable_default(
    types: Types, each: model.Field, hidden: Collection[str], *, explicit: bool = False
) -> str | None:
    """The default of a field or argument if one value can serve all; None if there is none such.

    `explicit`: leave out what the runtime assumes by itself.
    """
    if each.default is not None:
        fits = _fits_signature(each.type, each.default)
        return flat(types.value(each.default, each.type, hidden)) if fits else None
    if each.requiredness == "required":
        return None
    if each.requiredness == "optional":
        return None if explicit else "None"
    if explicit and not isinstance(model.strip(each.type), model.Enum):
        return None
    if _empty(each.type) is not None:
        return None
    return types.zero(each.type, hidden) or "None"


def field_table(types: Types, each: model.Field, name: str, default: str | None, factory: str | None) -> Group:
    """`stub.Field(1, "name", stub.STRING, …)`."""
    items: list[Node] = [str(each.id), quoted(name), types.descriptor(each.type)]
    if each.requiredness != "default":
        items.append(types.stub(each.requiredness.upper()))
    if default is not None:
        items.append(f"default={default}")
    if factory is not None:
        items.append(f"factory={factory}")
    if name != each.name:
        items.append(f"wire_name={quoted(each.name)}")
    return call(types.stub("Field"), *items)


def _fits_signature(type_: model.Type, default: model.Value) -> bool:
    """Can the default stand in a signature? Not what is mutable, nor what takes a call to make."""
    if model.strip(type_) == model.Base("uuid"):
        return isinstance(default, model.Reference)
    return is_immutable(type_)


def may_be_none(struct: model.Struct, each: model.Field) -> bool:
    """May the attribute be None?"""
    if struct.kind == "union":
        return True
    if each.default is not None or each.requiredness == "required":
        return False
    if each.requiredness == "optional":
        return True
    type_ = model.strip(each.type)
    no_members = isinstance(type_, model.Enum) and not type_.members
    return no_members or isinstance(type_, model.Struct) or type_ == model.Base("uuid")


def _empty(type_: model.Type) -> str | None:
    """The builtin that makes an empty container of a type."""
    match model.strip(type_):
        case model.ListOf():
            return "list"
        case model.SetOf():
            return "set"
        case model.MapOf():
            return "dict"
    return None


def _prefixed_slots(slots: list[str]) -> Group:
    # Their order means nothing; sorted is what linters want.
    node = tuple_of(quoted(name) for name in sorted(slots, key=natural_order))
    return Group("__slots__ = (", node.items, ")", lone_comma=True)


def _keeps_unknown(struct: model.Struct) -> bool:
    """Does the IDL ask for it: ``struct Passed { … } (py.keep_unknown = "true")``?"""
    return any(each.key == _KEEP_UNKNOWN and each.value not in ("false", "0") for each in struct.annotations)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name

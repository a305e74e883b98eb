"""Types and values of the model, written as Python."""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from idlc import model
from idlc.bindings import Bindings
from idlc.layout import Group, Node, call, flat, prefixed, quoted, quoted_bytes, tuple_of
from idlc.names import Names
from idlc.packages import Place
from idlc.values import freeze

_PYTHON: Final = {
    "bool": "bool",
    "i8": "int",
    "i16": "int",
    "i32": "int",
    "i64": "int",
    "double": "float",
    "string": "str",
    "binary": "bytes",
}
_DESCRIPTORS: Final = {
    "bool": "BOOL",
    "i8": "BYTE",
    "i16": "I16",
    "i32": "I32",
    "i64": "I64",
    "double": "DOUBLE",
    "string": "STRING",
    "binary": "BINARY",
    "uuid": "UUID",
}
_ZEROS: Final = {"bool": "False", "double": "0.0", "string": '""', "binary": 'b""'}


@dataclass(frozen=True, slots=True)
class Types:
    """Writes types and values inside one module. `hidden` are names that mean something else at that spot."""

    place: Place
    places: dict[model.Program, Place]
    names: Names
    bindings: Bindings
    zeros: dict[model.Enum, str] = field(default_factory=dict)
    """Enums without a member 0 → the constant that stands for their zero value."""

    # Names

    def stub(self, name: str, hidden: Collection[str] = ()) -> str:
        """A name of the runtime: `stub.Struct`."""
        return f"{self.bindings.imported('weego', 'stub', hidden)}.{name}"

    def definition(self, definition: model.Definition, hidden: Collection[str] = ()) -> str:
        """A definition of this module or, imported, of another."""
        return self._named(definition.program, self.names.top(definition), hidden)

    def client(self, service: model.Service) -> str:
        """The client class of a service here or elsewhere."""
        return self._named(service.program, self.names.client(service), ())

    def _named(self, program: model.Program, name: str, hidden: Collection[str]) -> str:
        place = self.places[program]
        if place == self.place:
            return self.bindings.own(name, hidden)
        return self.bindings.imported(place.seen_from(self.place), name, hidden)

    # Types

    def annotation(self, type_: model.Type, hidden: Collection[str] = (), *, hashable: bool = False) -> str:
        """A type hint. `hashable`: in the place of a set item or map key."""
        match type_:
            case model.Base("uuid"):
                return self.bindings.imported("uuid", "UUID", hidden)
            case model.Base("binary", view=True):
                return f"{self.bindings.builtin('bytes', hidden)} | {self.bindings.builtin('memoryview', hidden)}"
            case model.Base(name):
                return self.bindings.builtin(_PYTHON[name], hidden)
            case model.Alias():
                if hashable and isinstance(model.strip(type_), model.ListOf | model.SetOf | model.MapOf):
                    return self.annotation(model.strip(type_), hidden, hashable=True)
                return self.definition(type_, hidden)
            case model.ListOf(elem):
                inner = self.annotation(elem, hidden, hashable=hashable)
                if hashable:
                    return f"{self.bindings.builtin('tuple', hidden)}[{inner}, ...]"
                return f"{self.bindings.builtin('list', hidden)}[{inner}]"
            case model.SetOf(elem):
                outer = self.bindings.builtin("frozenset" if hashable else "set", hidden)
                return f"{outer}[{self.annotation(elem, hidden, hashable=True)}]"
            case model.MapOf(key, value):
                inner = (
                    f"{self.annotation(key, hidden, hashable=True)}, "
                    f"{self.annotation(value, hidden, hashable=hashable)}"
                )
                outer = self.stub("FrozenMap", hidden) if hashable else self.bindings.builtin("dict", hidden)
                return f"{outer}[{inner}]"
            case _:
                return self.definition(type_, hidden)

    def descriptor(self, type_: model.Type) -> Node:
        """The runtime's description of a type: `stub.List(stub.I32)`."""
        match model.strip(type_):
            case model.Base(name, view=view):
                return self.stub("VIEW" if view else _DESCRIPTORS[name])
            case model.ListOf(elem):
                return call(self.stub("List"), self.descriptor(elem))
            case model.SetOf(elem):
                return call(self.stub("Set"), self.descriptor(elem))
            case model.MapOf(key, value):
                return call(self.stub("Map"), self.descriptor(key), self.descriptor(value))
            case model.Enum() as enum:
                return call(self.stub("EnumType"), self.definition(enum))
            case model.Struct() as struct:
                return call(self.stub("StructType"), self.definition(struct))
        raise AssertionError(type_)

    # Values

    def zero(self, type_: model.Type, hidden: Collection[str] = ()) -> str | None:
        """The zero value of a scalar or enum; None for what has no immutable zero."""
        match model.strip(type_):
            case model.Base("uuid"):
                return None
            case model.Base(name):
                return _ZEROS.get(name, "0")
            case model.Enum() as enum:
                if not enum.members:
                    return None  # Python cannot make a value of an enum that has none
                member = enum.numbered(0)
                if member is not None:
                    return f"{self.definition(enum, hidden)}.{self.names.member(enum, member)}"
                if enum not in self.zeros:
                    self.zeros[enum] = self.bindings.private(f"_{self.names.top(enum).lstrip('_')}_0")
                return self.zeros[enum]
        return None

    def value(
        self, value: model.Value, type_: model.Type, hidden: Collection[str] = (), *, hashable: bool = False,
        by_name: bool = True,
    ) -> Node:  # fmt: skip
        """An expression for a value. `by_name`: may other constants be named, or only copied?"""
        target = model.strip(type_)
        if isinstance(value, model.Reference):
            if is_immutable(target) or (by_name and not hashable):
                return self.definition(value.const, hidden)
            return self.value(model.plain(value), type_, hidden, hashable=hashable, by_name=by_name)
        match value:
            case model.Scalar(data):
                return self._scalar(data, hidden)
            case model.Member(enum, member):
                return f"{self.definition(enum, hidden)}.{self.names.member(enum, member)}"
            case model.Sequence(items):
                return self._sequence(items, target, hidden, hashable=hashable, by_name=by_name)
            case model.Mapping(pairs):
                return self._mapping(pairs, target, hidden, hashable=hashable, by_name=by_name)
            case model.Construction(struct, fields):
                return self._construction(struct, fields, hidden, by_name=by_name)

    def _construction(
        self, struct: model.Struct, fields: tuple[tuple[model.Field, model.Value], ...], hidden: Collection[str], *,
        by_name: bool,
    ) -> Node:  # fmt: skip
        table = self.names.fields(struct)
        given = {each.name for each, _ in fields}
        items = [
            prefixed(f"{table[each.name]}=", self.value(item, each.type, hidden, by_name=by_name))
            for each, item in fields
        ]
        # The constructor asks for required fields; the IDL may leave them out.
        items += [
            f"{table[each.name]}={self.zero(each.type, hidden) or self._empty(each.type, hidden)}"
            for each in struct.fields
            if each.requiredness == "required" and each.default is None and each.name not in given
        ]
        return call(self.definition(struct, hidden), *items)

    def _empty(self, type_: model.Type, hidden: Collection[str]) -> str:
        match model.strip(type_):
            case model.ListOf():
                return "[]"
            case model.SetOf():
                return f"{self.bindings.builtin('set', hidden)}()"
            case model.MapOf():
                return "{}"
            case _:
                return f'{self.bindings.imported("uuid", "UUID", hidden)}("{uuid.UUID(int=0)}")'

    def _scalar(self, data: float | str | bytes | uuid.UUID, hidden: Collection[str]) -> str:
        match data:
            case bool() | int():
                return repr(data)
            case float():
                if math.isinf(data):
                    return f'{self.bindings.builtin("float", hidden)}("{data!r}")'
                return repr(data).replace("e+", "e")
            case str():
                return quoted(data)
            case bytes():
                return quoted_bytes(data)
            case uuid.UUID():
                return f'{self.bindings.imported("uuid", "UUID", hidden)}("{data}")'

    def _sequence(
        self, items: tuple[model.Value, ...], target: model.Type, hidden: Collection[str], *, hashable: bool,
        by_name: bool,
    ) -> Node:  # fmt: skip
        if isinstance(target, model.ListOf):
            nodes = [self.value(item, target.elem, hidden, hashable=hashable, by_name=by_name) for item in items]
            return tuple_of(nodes) if hashable else Group("[", tuple(nodes), "]")
        assert isinstance(target, model.SetOf)
        unique = {freeze(item): item for item in items}
        nodes = [self.value(item, target.elem, hidden, hashable=True) for item in unique.values()]
        if hashable:
            outer = self.bindings.builtin("frozenset", hidden)
            return Group(f"{outer}({{", tuple(nodes), "})") if nodes else f"{outer}()"
        return Group("{", tuple(nodes), "}") if nodes else f"{self.bindings.builtin('set', hidden)}()"

    def _mapping(
        self, pairs: tuple[tuple[model.Value, model.Value], ...], target: model.Type, hidden: Collection[str], *,
        hashable: bool, by_name: bool,
    ) -> Node:  # fmt: skip
        assert isinstance(target, model.MapOf)
        unique = {freeze(key): (key, value) for key, value in pairs}
        nodes = tuple(
            prefixed(
                flat(self.value(key, target.key, hidden, hashable=True)) + ": ",
                self.value(value, target.value, hidden, hashable=hashable, by_name=by_name),
            )
            for key, value in unique.values()
        )
        if hashable:
            return Group(f"{self.stub('FrozenMap', hidden)}({{", nodes, "})")
        return Group("{", nodes, "}")


def is_immutable(type_: model.Type) -> bool:
    """Can one value be shared by all who use it?"""
    return isinstance(model.strip(type_), model.Base | model.Enum)


def makes_structs(value: model.Value) -> bool:
    """Does the value hold a struct, so that it can be made only after the structs are complete?"""
    match model.plain(value):
        case model.Construction():
            return True
        case model.Sequence(items):
            return any(makes_structs(item) for item in items)
        case model.Mapping(pairs):
            return any(makes_structs(key) or makes_structs(item) for key, item in pairs)
    return False

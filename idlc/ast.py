"""The syntax tree of one Thrift IDL file: what was written, in the order it was written, with its place.

Names are not looked up here; `resolver` turns the tree into a `model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from idlc.errors import Position, Source

Requiredness = Literal["default", "required", "optional"]
StructKind = Literal["struct", "union", "exception"]

BASE_TYPES = frozenset(
    {"bool", "byte", "i8", "i16", "i32", "i64", "double", "string", "binary", "uuid", "slist"}
)


@dataclass(frozen=True, slots=True)
class Annotation:
    """`key = "value"` in round brackets; without a value it is "1", as in Apache Thrift."""

    key: str
    value: str
    pos: Position


Annotations = tuple[Annotation, ...]


# Types


@dataclass(frozen=True, slots=True)
class BaseType:
    name: str
    pos: Position
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class NamedType:
    """A struct, enum or typedef by name, perhaps behind an include's prefix."""

    name: str
    pos: Position
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class ListType:
    elem: Type
    pos: Position
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class SetType:
    elem: Type
    pos: Position
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class MapType:
    key: Type
    value: Type
    pos: Position
    annotations: Annotations = ()


Type = BaseType | NamedType | ListType | SetType | MapType


# Values


@dataclass(frozen=True, slots=True)
class IntValue:
    value: int
    pos: Position


@dataclass(frozen=True, slots=True)
class DoubleValue:
    value: float
    text: str
    pos: Position


@dataclass(frozen=True, slots=True)
class StringValue:
    value: str
    pos: Position


@dataclass(frozen=True, slots=True)
class NameValue:
    """`true`, `false`, a constant or an enum member."""

    name: str
    pos: Position


@dataclass(frozen=True, slots=True)
class ListValue:
    items: tuple[Value, ...]
    pos: Position


@dataclass(frozen=True, slots=True)
class MapValue:
    pairs: tuple[tuple[Value, Value], ...]
    pos: Position


Value = IntValue | DoubleValue | StringValue | NameValue | ListValue | MapValue


# Headers


@dataclass(frozen=True, slots=True)
class Include:
    path: str
    pos: Position


@dataclass(frozen=True, slots=True)
class Namespace:
    scope: str
    name: str
    pos: Position
    annotations: Annotations = ()


# Definitions


@dataclass(frozen=True, slots=True)
class Const:
    name: str
    type: Type
    value: Value
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class Typedef:
    name: str
    type: Type
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class EnumMember:
    name: str
    value: int | None
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class Enum:
    name: str
    members: tuple[EnumMember, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct, an argument, or a declared exception; `id` is None where the file gives none."""

    id: int | None
    name: str
    type: Type
    requiredness: Requiredness
    default: Value | None
    pos: Position
    id_pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class Struct:
    kind: StructKind
    name: str
    fields: tuple[Field, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class Function:
    """`result` None is `void`."""

    name: str
    oneway: bool
    result: Type | None
    args: tuple[Field, ...]
    throws: tuple[Field, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    base: NamedType | None
    functions: tuple[Function, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


Definition = Const | Typedef | Enum | Struct | Service


@dataclass(frozen=True, slots=True)
class Document:
    """One IDL file."""

    source: Source
    doc: str
    includes: tuple[Include, ...]
    namespaces: tuple[Namespace, ...]
    definitions: tuple[Definition, ...]

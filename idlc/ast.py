"""The syntax tree of one Thrift IDL file: what was written, in the order it was written, with its place.

Names are not looked up here; `resolver` turns the tree into a `model`. Nodes are never changed once made; they are not
`frozen` because making tens of thousands of those would take half the time of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from idlc.errors import Position, Source

Requiredness = Literal["default", "required", "optional"]
StructKind = Literal["struct", "union", "exception"]

BASE_TYPES = frozenset({"bool", "byte", "i8", "i16", "i32", "i64", "double", "string", "binary", "uuid", "slist"})


@dataclass(slots=True, eq=False)
class Annotation:
    """`key = "value"` in round brackets; without a value it is "1", as in Apache Thrift."""

    key: str
    value: str
    pos: Position


Annotations = tuple[Annotation, ...]


# Types


@dataclass(slots=True, eq=False)
class BaseType:
    """`i32`, `string` and their like; `byte` is called `i8` here."""

    name: str
    pos: Position
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class NamedType:
    """A struct, enum or typedef by name, perhaps behind an include's prefix."""

    name: str
    pos: Position
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class ListType:
    """`list<elem>`."""

    elem: Type
    pos: Position
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class SetType:
    """`set<elem>`."""

    elem: Type
    pos: Position
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class MapType:
    """`map<key, value>`."""

    key: Type
    value: Type
    pos: Position
    annotations: Annotations = ()


Type = BaseType | NamedType | ListType | SetType | MapType


# Values


@dataclass(slots=True, eq=False)
class IntValue:
    """An integer."""

    value: int
    pos: Position


@dataclass(slots=True, eq=False)
class DoubleValue:
    """A number with a point or an exponent; `text` is how it was written."""

    value: float
    text: str
    pos: Position


@dataclass(slots=True, eq=False)
class StringValue:
    """A string, escapes decoded."""

    value: str
    pos: Position


@dataclass(slots=True, eq=False)
class NameValue:
    """`true`, `false`, a constant or an enum member."""

    name: str
    pos: Position


@dataclass(slots=True, eq=False)
class ListValue:
    """`[a, b]`, also the way to write a set."""

    items: tuple[Value, ...]
    pos: Position


@dataclass(slots=True, eq=False)
class MapValue:
    """`{key: value}`, also the way to write a struct."""

    pairs: tuple[tuple[Value, Value], ...]
    pos: Position


Value = IntValue | DoubleValue | StringValue | NameValue | ListValue | MapValue


# Headers


@dataclass(slots=True, eq=False)
class Include:
    """`include "path"`."""

    path: str
    pos: Position


@dataclass(slots=True, eq=False)
class Namespace:
    """`namespace py shop.orders`; the scope may be `*`."""

    scope: str
    name: str
    pos: Position
    annotations: Annotations = ()


# Definitions


@dataclass(slots=True, eq=False)
class Const:
    """`const i32 MAX = 10`."""

    name: str
    type: Type
    value: Value
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class Typedef:
    """`typedef i64 UserId`."""

    name: str
    type: Type
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class EnumMember:
    """One name of an enum; `value` is None where the file gives none."""

    name: str
    value: int | None
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class Enum:
    """An enum."""

    name: str
    members: tuple[EnumMember, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
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


@dataclass(slots=True, eq=False)
class Struct:
    """A struct, union or exception."""

    kind: StructKind
    name: str
    fields: tuple[Field, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
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


@dataclass(slots=True, eq=False)
class Service:
    """A service; `base` is what it extends."""

    name: str
    base: NamedType | None
    functions: tuple[Function, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


Definition = Const | Typedef | Enum | Struct | Service


@dataclass(slots=True, eq=False)
class Span:
    """Which tokens of the file an item is made of: `start` up to but not `end`, its separator included.

    `inline` items stand between round brackets: arguments and declared exceptions.
    """

    start: int
    end: int
    node: Include | Namespace | Definition | EnumMember | Field | Function | None
    inline: bool = False


@dataclass(slots=True, eq=False)
class Document:
    """One IDL file. `spans` are in the order in which items end; a header that means nothing here has no node."""

    source: Source
    doc: str
    includes: tuple[Include, ...]
    namespaces: tuple[Namespace, ...]
    definitions: tuple[Definition, ...]
    spans: tuple[Span, ...] = ()
    annotation_opens: frozenset[int] = frozenset()
    """Tokens that open annotations, told from the brackets of arguments."""

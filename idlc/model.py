"""What a set of IDL files means: every name looked up, every id and value known.

`resolver` builds it, the emitters read it. Definitions compare by identity, since they may refer to each other
in a circle.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from idlc.ast import Annotations, Document, Requiredness, StructKind
from idlc.errors import Position

StreamingMode = Literal["unary", "client", "server", "bidirectional"]


# Types: a definition is its own type


@dataclass(frozen=True, slots=True)
class Base:
    """bool, i8, i16, i32, i64, double, string, binary or uuid. `view`: a binary that a peer's message is read as a memoryview."""

    name: str
    view: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ListOf:
    """`list<elem>`."""

    elem: Type


@dataclass(frozen=True, slots=True)
class SetOf:
    """`set<elem>`."""

    elem: Type


@dataclass(frozen=True, slots=True)
class MapOf:
    """`map<key, value>`."""

    key: Type
    value: Type


@dataclass(slots=True, eq=False)
class Alias:
    """A typedef. `target` is never another alias of itself: circles were refused."""

    program: Program
    name: str
    target: Type
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class EnumMember:
    """One name of an enum and its number."""

    name: str
    value: int
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class Enum:
    """An enum, members in the order of the file."""

    program: Program
    name: str
    members: tuple[EnumMember, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()

    def member(self, name: str) -> EnumMember | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)

    def numbered(self, value: int) -> EnumMember | None:
        """The first member with that number."""
        return next((member for member in self.members if member.value == value), None)


@dataclass(slots=True, eq=False)
class Field:
    """A field of a struct, an argument, or a declared exception."""

    id: int
    name: str
    type: Type
    requiredness: Requiredness
    default: Value | None
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


@dataclass(slots=True, eq=False)
class Struct:
    """A struct, union or exception."""

    program: Program
    kind: StructKind
    name: str
    fields: tuple[Field, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()

    def field(self, name: str) -> Field | None:
        """The field of that name."""
        return next((each for each in self.fields if each.name == name), None)


Type = Base | ListOf | SetOf | MapOf | Alias | Enum | Struct


# Values


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value that needs no further names."""

    value: bool | int | float | str | bytes | uuid.UUID


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an enum."""

    enum: Enum
    member: EnumMember


@dataclass(frozen=True, slots=True)
class Reference:
    """The value of another constant of the same type."""

    const: Const


@dataclass(frozen=True, slots=True)
class Sequence:
    """Items of a list or a set, as written."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values of a map, as written."""

    pairs: tuple[tuple[Value, Value], ...]


@dataclass(frozen=True, slots=True)
class Construction:
    """A struct, union or exception and those of its fields that are given."""

    struct: Struct
    fields: tuple[tuple[Field, Value], ...]


Value = Scalar | Member | Reference | Sequence | Mapping | Construction


@dataclass(slots=True, eq=False)
class Const:
    """A constant."""

    program: Program
    name: str
    type: Type
    value: Value
    pos: Position
    doc: str = ""
    annotations: Annotations = ()


# Services


@dataclass(slots=True, eq=False)
class Function:
    """`result` None is `void`; `streaming` None is an ordinary call; `idempotent`: may be called again without harm."""

    name: str
    oneway: bool
    result: Type | None
    args: tuple[Field, ...]
    throws: tuple[Field, ...]
    streaming: StreamingMode | None
    pos: Position
    doc: str = ""
    annotations: Annotations = ()
    idempotent: bool = False

    @property
    def is_stream(self) -> bool:
        """Does either side send more than one message?"""
        return self.sends_stream or self.answers_stream

    @property
    def sends_stream(self) -> bool:
        """Does the client send any number of messages?"""
        return self.streaming in ("client", "bidirectional")

    @property
    def answers_stream(self) -> bool:
        """Does the server answer with any number of messages?"""
        return self.streaming in ("server", "bidirectional")


@dataclass(slots=True, eq=False)
class Service:
    """A service; `functions` are its own, without those of `base`."""

    program: Program
    name: str
    base: Service | None
    functions: tuple[Function, ...]
    pos: Position
    doc: str = ""
    annotations: Annotations = ()

    def ancestors(self) -> Iterator[Service]:
        """The base service, its base, and so on."""
        base = self.base
        while base is not None:
            yield base
            base = base.base


Definition = Alias | Enum | Struct | Const | Service


@dataclass(slots=True, eq=False)
class Program:
    """One IDL file. `path` is as the user would write it, `stem` the prefix other files name it by."""

    path: str
    stem: str
    digest: str
    document: Document
    namespaces: dict[str, str] = field(default_factory=dict)
    includes: list[Program] = field(default_factory=list)
    include_positions: dict[Program, Position] = field(default_factory=dict)
    used: set[Program] = field(default_factory=set)
    """Those of the included files of which something is named here."""
    definitions: list[Definition] = field(default_factory=list)
    symbols: dict[str, Definition] = field(default_factory=dict)

    @property
    def doc(self) -> str:
        """The comment at the top of the file."""
        return self.document.doc


def strip(type_: Type) -> Type:
    """The type behind any typedefs."""
    while isinstance(type_, Alias):
        type_ = type_.target
    return type_


def same(left: Type, right: Type) -> bool:
    """Do two types have the same values, typedefs looked through?"""
    left, right = strip(left), strip(right)
    match left, right:
        case (ListOf(a), ListOf(b)) | (SetOf(a), SetOf(b)):
            return same(a, b)
        case MapOf(a, b), MapOf(c, d):
            return same(a, c) and same(b, d)
    return left == right


def plain(value: Value) -> Value:
    """The value behind any references to constants."""
    while isinstance(value, Reference):
        value = value.const.value
    return value


def spell(type_: Type | None) -> str:
    """A type as an IDL author would write it, for messages."""
    match type_:
        case None:
            return "void"
        case ListOf(elem):
            return f"list<{spell(elem)}>"
        case SetOf(elem):
            return f"set<{spell(elem)}>"
        case MapOf(key, value):
            return f"map<{spell(key)}, {spell(value)}>"
        case _:
            return type_.name

"""The types an IDL can name, as plain descriptors: what `idlc` emits and what plans are compiled from.

A descriptor says nothing about one wire format; the table `WIRE` at the end does, for Thrift's binary protocol.
Descriptors are immutable, compare by value and are cheap to share. Typedefs are gone by now: the emitter resolves
them. `void` is None.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = [
    "BINARY",
    "BOOL",
    "BYTE",
    "DOUBLE",
    "I16",
    "I32",
    "I64",
    "STRING",
    "UUID",
    "VIEW",
    "EnumType",
    "List",
    "Map",
    "Primitive",
    "Set",
    "StructType",
    "Type",
    "WireType",
    "check_type",
    "min_wire_size",
    "wire_type",
]


class WireType(enum.IntEnum):
    """Type numbers of Thrift's binary protocol (Apache Thrift, `TType`)."""

    STOP = 0
    BOOL = 2
    BYTE = 3
    DOUBLE = 4
    I16 = 6
    I32 = 8
    I64 = 10
    STRING = 11
    STRUCT = 12
    MAP = 13
    SET = 14
    LIST = 15
    UUID = 16


@dataclass(frozen=True, slots=True)
class Primitive:
    """A type without parameters; only the constants of this module exist.

    `view`: decoded to a read-only memoryview, of what arrived where it is large (`codec.buffer.LARGE_VALUE`).
    """

    name: str
    view: bool = False

    def __str__(self) -> str:
        return self.name


BOOL: Final = Primitive("bool")
BYTE: Final = Primitive("byte")
I16: Final = Primitive("i16")
I32: Final = Primitive("i32")
I64: Final = Primitive("i64")
DOUBLE: Final = Primitive("double")
STRING: Final = Primitive("string")
BINARY: Final = Primitive("binary")
VIEW: Final = Primitive("binary", view=True)
UUID: Final = Primitive("uuid")


@dataclass(frozen=True, slots=True)
class List:
    """`list<elem>`; a Python list, or a tuple where it must be hashable."""

    elem: Type

    def __post_init__(self) -> None:
        check_type(self.elem, "the element type of a list")

    def __str__(self) -> str:
        return f"list<{self.elem}>"


@dataclass(frozen=True, slots=True)
class Set:
    """`set<elem>`; a Python set, or a frozenset where it must be hashable."""

    elem: Type

    def __post_init__(self) -> None:
        check_type(self.elem, "the element type of a set")

    def __str__(self) -> str:
        return f"set<{self.elem}>"


@dataclass(frozen=True, slots=True)
class Map:
    """`map<key, value>`; a Python dict, or a FrozenMap where it must be hashable."""

    key: Type
    value: Type

    def __post_init__(self) -> None:
        check_type(self.key, "the key type of a map")
        check_type(self.value, "the value type of a map")

    def __str__(self) -> str:
        return f"map<{self.key},{self.value}>"


@dataclass(frozen=True, slots=True)
class StructType:
    """A struct, union or exception: a class made by the emitter. Its fields may be defined later."""

    cls: type

    def __post_init__(self) -> None:
        if not isinstance(self.cls, type):
            raise TypeError(f"StructType takes the class of a struct, got {self.cls!r}")

    def __str__(self) -> str:
        return self.cls.__name__


@dataclass(frozen=True, slots=True)
class EnumType:
    """An enum: an IntEnum made by the emitter. On the wire it is an i32."""

    cls: type[enum.IntEnum]

    def __post_init__(self) -> None:
        cls: object = self.cls
        if not (isinstance(cls, type) and issubclass(cls, enum.IntEnum)):
            raise TypeError(f"EnumType takes an IntEnum class, got {cls!r}")

    def __str__(self) -> str:
        return self.cls.__name__


Type: TypeAlias = Primitive | List | Set | Map | StructType | EnumType


DESCRIPTORS: Final = (Primitive, List, Set, Map, StructType, EnumType)
"""The classes of types. A constant: a package of 500 structs asks ten thousand times while it is imported."""


def check_type(value: object, what: str) -> None:
    """Raise TypeError unless `value` is a type descriptor; `what` begins the sentence."""
    if not isinstance(value, DESCRIPTORS):
        raise TypeError(f"{what} must be a type such as stub.STRING or stub.List(stub.I64), got {value!r}")


WIRE: Final[dict[str, WireType]] = {
    "bool": WireType.BOOL,
    "byte": WireType.BYTE,
    "i16": WireType.I16,
    "i32": WireType.I32,
    "i64": WireType.I64,
    "double": WireType.DOUBLE,
    "string": WireType.STRING,
    "binary": WireType.STRING,
    "uuid": WireType.UUID,
}

# The fewest bytes a value of a wire type can take: a length or a count, a lone STOP. What a container says it holds,
# times this, must be there before anything is made of it.
MIN_SIZE: Final[dict[WireType, int]] = {
    WireType.BOOL: 1,
    WireType.BYTE: 1,
    WireType.I16: 2,
    WireType.I32: 4,
    WireType.I64: 8,
    WireType.DOUBLE: 8,
    WireType.STRING: 4,
    WireType.STRUCT: 1,
    WireType.MAP: 6,
    WireType.SET: 5,
    WireType.LIST: 5,
    WireType.UUID: 16,
}


def wire_type(type: Type) -> WireType:
    """The number by which the binary protocol announces a value of `type`."""
    if isinstance(type, Primitive):
        return WIRE[type.name]
    if isinstance(type, List):
        return WireType.LIST
    if isinstance(type, Set):
        return WireType.SET
    if isinstance(type, Map):
        return WireType.MAP
    if isinstance(type, StructType):
        return WireType.STRUCT
    return WireType.I32


def min_wire_size(type: Type) -> int:
    """The fewest bytes a value of `type` takes in the binary protocol."""
    return MIN_SIZE[wire_type(type)]

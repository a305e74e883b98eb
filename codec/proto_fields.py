"""What a `.proto` file says about the fields of a native message, as the emitted code writes it down."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from codec.spec import ABSENT

__all__ = ["KINDS", "Presence", "ProtoField", "ProtoMap", "Scalar"]

Scalar: TypeAlias = Literal[
    "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32",
    "sfixed32", "sfixed64", "sint32", "sint64",
]  # fmt: skip
Presence: TypeAlias = Literal["implicit", "explicit", "required"]

# FieldDescriptorProto.Type.
KINDS: Final[dict[str, int]] = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6, "fixed32": 7, "bool": 8, "string": 9,
    "bytes": 12, "uint32": 13, "sfixed32": 15, "sfixed64": 16, "sint32": 17, "sint64": 18,
}  # fmt: skip
GROUP: Final = 10
MESSAGE: Final = 11
ENUM: Final = 14

_MAX_NUMBER: Final = 2**29 - 1


@dataclass(frozen=True, slots=True)
class ProtoMap:
    """`map<key, value>`: a dict."""

    key: Scalar
    value: Any


@dataclass(frozen=True, slots=True)
class ProtoField:
    """One field of a native message.

    `type` is the name of a scalar, the class of a message or enum, or a ProtoMap. `presence`: "implicit" fields are never None and not
    sent when they are zero; "explicit" ones are None when they are absent, "required" ones must be there. Members of a `oneof`
    are explicit. `packed` is how a repeated scalar is written; both forms are read. `group`: delimited by tags
    instead of a length. `closed`: numbers the enum does not name are unknown fields (proto2). `utf8` False: text is not checked (proto2).
    `default` is what an absent explicit field stands for. `wire_name` is the IDL's spelling, if it differs.
    """

    number: int
    name: str
    type: Any
    repeated: bool = False
    presence: Presence = "implicit"
    packed: bool = False
    oneof: str | None = None
    group: bool = False
    closed: bool = False
    utf8: bool = True
    default: object = ABSENT
    wire_name: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.number <= _MAX_NUMBER:
            raise ValueError(f"field {self.name!r}: {self.number} is no field number")
        kind_of(self.type, self.group)


def kind_of(type_: Any, group: bool = False) -> int:
    """FieldDescriptorProto.Type of a field's type. TypeError for what is none."""
    if isinstance(type_, str):
        if type_ not in KINDS:
            raise TypeError(f"{type_!r} is no scalar of Protobuf; there are {', '.join(KINDS)}")
        return KINDS[type_]
    if isinstance(type_, ProtoMap):
        return MESSAGE
    if isinstance(type_, type) and issubclass(type_, enum.IntEnum):
        return ENUM
    if isinstance(type_, type):
        return GROUP if group else MESSAGE
    raise TypeError(f"the type of a field is a scalar's name, a class or a ProtoMap, not {type_!r}")

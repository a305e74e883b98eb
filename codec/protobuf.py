"""Protobuf messages and methods, as the emitted code writes them down.

What a message class is made of is its own affair: upb's classes and the native structs of `weego gen --messages native` are
behind the same `MessageType`, so that a transport never asks which of them it carries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from codec.proto_plan import ProtoPlan
from codec.spec import Method, ServiceSpec
from codec.upb_coders import upb_coders

__all__ = ["MessageType", "ProtobufMethodSpec", "message_type", "protobuf_service"]

Bytes: TypeAlias = bytes | bytearray | memoryview


class MessageType:
    """One message class and its way to bytes and back. Made by `message_type`; compares by its class.

    `encode(message)` gives bytes; EncodeError when the value is of another class or incomplete. `decode(data)` gives a
    message; ProtocolError when the bytes are not one of this type. `full_name` is the name with its package, `a.b.Request`.
    """

    __slots__ = ("cls", "decode", "encode", "full_name")

    def __init__(
        self, cls: type[Any], full_name: str, encode: Callable[[Any], bytes], decode: Callable[[Bytes], Any]
    ) -> None:
        self.cls: Final = cls
        self.full_name: Final = full_name
        self.encode: Final = encode
        self.decode: Final = decode

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MessageType) and other.cls is self.cls

    def __hash__(self) -> int:
        return hash(self.cls)

    def __repr__(self) -> str:
        return f"<MessageType {self.full_name} as {self.cls.__module__}.{self.cls.__qualname__}>"


def message_type(cls: type[Any]) -> MessageType:
    """The MessageType of a class: a generated message of protobuf's own, or a native struct. TypeError for any other."""
    descriptor = getattr(cls, "DESCRIPTOR", None)
    if descriptor is not None and hasattr(cls, "FromString"):
        encode, decode = upb_coders(cls, descriptor.full_name)
        return MessageType(cls, descriptor.full_name, encode, decode)
    plan = cls.__dict__.get("__plan__")
    if isinstance(plan, ProtoPlan):
        return MessageType(cls, plan.full_name, plan.dumps, plan.loads)
    raise TypeError(f"{cls!r} is no Protobuf message class")


class ProtobufMethodSpec(Method):
    """One method of a Protobuf service: one message type in, one out, either of them perhaps a stream."""

    kind = "protobuf"
    oneway = False

    def __init__(
        self,
        name: str,
        *,
        request: MessageType,
        response: MessageType,
        client_streaming: bool = False,
        server_streaming: bool = False,
        idempotent: bool = False,
        py_name: str | None = None,
        doc: str = "",
    ) -> None:
        self.name = name
        self.wire_name = name.encode()
        self.py_name = name if py_name is None else py_name
        self.request: Final = request
        self.response: Final = response
        self.client_streaming = client_streaming
        self.server_streaming = server_streaming
        self.idempotent = idempotent
        self.doc = doc

    def __repr__(self) -> str:
        request = f"{'stream ' if self.client_streaming else ''}{self.request.full_name}"
        response = f"{'stream ' if self.server_streaming else ''}{self.response.full_name}"
        return f"<ProtobufMethodSpec {self.name}({request}) returns ({response})>"


def protobuf_service(full_name: str, methods: tuple[ProtobufMethodSpec, ...], doc: str = "") -> ServiceSpec:
    """The spec of a Protobuf service; its name is the last part of `full_name`."""
    return ServiceSpec(full_name.rpartition(".")[2], methods, doc=doc, full_name=full_name, kind="protobuf")

"""Payloads of one's own inside a TTHeader, by name: what a user registers, and servers and clients look up.

The header names service, method and sequence id and says whether an answer is a result or an exception; all behind it is the codec's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final

from codec.errors import UsageError
from codec.spec import MethodSpec

__all__ = ["CODE", "PayloadCodec", "check_client", "payload_codec", "register"]

# The string info of an answer that is an exception: the name of its Code, so that a client's policies know a refusal from a failure.
CODE: Final = "weego-code"


class PayloadCodec(ABC):
    """Arguments and results ⇄ bytes, inside a TTHeader that names service, method and sequence id.

    A server needs the first three methods, a client the last three. Bytes come and go without the magic.
    """

    name: str = ""
    """What a client is told: ``EchoClient(…, payload="json")``."""

    magic: bytes
    """The first two bytes of each payload, by which it is told from Thrift (8001, 82..) and Kitex Protobuf (9001)."""

    @abstractmethod
    def read_args(self, spec: MethodSpec, payload: bytes) -> Iterable[Any]:
        """The arguments in `payload`, in the order of the IDL. ProtocolError when they cannot be read."""

    @abstractmethod
    def write_result(self, spec: MethodSpec, value: Any) -> bytes:
        """What a handler returned."""

    @abstractmethod
    def write_error(self, error: BaseException) -> bytes:
        """An exception: one of the IDL, an RpcError, or a handler's bug."""

    def write_args(self, spec: MethodSpec, args: tuple[Any, ...]) -> bytes:
        """The arguments of a call, in the order of the IDL. EncodeError when one does not fit."""
        raise NotImplementedError

    def read_result(self, spec: MethodSpec, payload: bytes) -> Any:
        """What `write_result` made `payload` of. ProtocolError when it cannot be read."""
        raise NotImplementedError

    def read_error(self, spec: MethodSpec, payload: bytes) -> Exception:
        """What a call of this method shall raise: one of the IDL's exceptions, or an RpcError such as ApplicationError."""
        raise NotImplementedError


_by_name: Final[dict[str, PayloadCodec]] = {}
# What the payloads of others begin with: strict Thrift, Kitex Protobuf, and (first byte) compact Thrift.
_TAKEN: Final = (b"\x80\x01", b"\x90\x01")
_COMPACT: Final = 0x82


def register(codec: PayloadCodec) -> PayloadCodec:
    """Add a codec, or replace the one of its name. UsageError when it has no name, or a magic that others have."""
    check_magic(codec)
    if not codec.name:
        raise UsageError(f"{type(codec).__name__} needs a name, by which clients ask for it")
    for other in _by_name.values():
        if other.magic == codec.magic and other.name != codec.name:
            raise UsageError(f"payload codec {codec.name}: {other.name} has the magic {codec.magic!r}")
    _by_name[codec.name] = codec
    return codec


def check_magic(codec: PayloadCodec) -> None:
    """UsageError when payloads of this codec could not be told from others."""
    magic: object = getattr(codec, "magic", None)
    if not isinstance(magic, bytes) or len(magic) != 2:
        raise UsageError(f"the magic of a payload codec is two bytes, got {magic!r}")
    if magic in _TAKEN or magic[0] == _COMPACT:
        raise UsageError(f"payload codec {codec.name or type(codec).__name__}: payloads of Thrift or Kitex Protobuf begin with {magic!r}")


def payload_codec(name: str) -> PayloadCodec:
    """The codec of this name; UsageError when there is none."""
    found = _by_name.get(name)
    if found is None:
        there = ", ".join(_by_name) or "none"
        raise UsageError(f"unknown payload codec {name!r}; there are: {there} (weego.extend.register_payload_codec adds one)")
    return found


def check_client(codec: PayloadCodec) -> PayloadCodec:
    """UsageError when the codec lacks what a client needs."""
    missing = [each for each in ("write_args", "read_result", "read_error") if getattr(type(codec), each) is getattr(PayloadCodec, each)]
    if missing:
        raise UsageError(f"payload codec {codec.name} is for servers only: a client needs its {', '.join(missing)}")
    return codec

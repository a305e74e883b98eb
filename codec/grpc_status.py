"""How a gRPC call ends: its status as trailers, and errors as statuses, with what Kitex adds.

Business errors travel as Kitex sends them: ``biz-status`` and ``biz-extra`` beside a grpc-status, the text in grpc-message.
Where Kitex answers with numbers that gRPC does not have (1 and 20 for what is unknown), the status is the one every gRPC client expects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from codec.errors import BusinessError, Code, EncodeError, ProtocolError, RpcError, StatusError
from codec.grpc import binary_value, message_bytes, message_text, text_of_binary

__all__ = ["HTTP_CODES", "RESET_CODES", "error_of", "pack_details", "status_fields", "status_of", "unpack_details"]

_KNOWN: Final = frozenset(int(code) for code in Code)

# What an HTTP status without a grpc-status means (gRPC's `http-grpc-status-mapping.md`).
HTTP_CODES: Final = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}

# What an HTTP/2 error code of a reset means (`PROTOCOL-HTTP2.md`, Errors); the others are INTERNAL.
RESET_CODES: Final = {
    7: Code.UNAVAILABLE,  # REFUSED_STREAM
    8: Code.CANCELLED,
    11: Code.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    12: Code.PERMISSION_DENIED,  # INADEQUATE_SECURITY
    1000: Code.UNAVAILABLE,  # Kitex: the server is leaving
}

Pairs = list[tuple[bytes, bytes]]


@cache
def _status_class() -> Any:
    """google.rpc.Status, in a pool of its own: the user's program may bring the real file."""
    from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="google/rpc/status.proto", package="google.rpc", syntax="proto3", dependency=["google/protobuf/any.proto"]
    )
    message = file.message_type.add(name="Status")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    message.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(
        name="details", number=3, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED, type_name=".google.protobuf.Any"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.Status"))


def pack_details(code: int, message: str, details: Iterable[Any]) -> bytes:
    """A google.rpc.Status, serialized. Each detail is a protobuf message, packed into an Any unless it is one.

    EncodeError when one is not.
    """
    from google.protobuf import any_pb2
    from google.protobuf.message import Message

    status = _status_class()(code=code, message=message)
    for detail in details:
        if not isinstance(detail, Message):
            raise EncodeError(f"a detail of a status is a protobuf message, not {type(detail).__name__}", "details")
        if detail.DESCRIPTOR.full_name == "google.protobuf.Any":
            packed: Any = detail
        else:
            packed = any_pb2.Any()
            packed.Pack(detail)
        status.details.add().ParseFromString(packed.SerializeToString())
    data: bytes = status.SerializeToString()
    return data


def unpack_details(data: bytes) -> tuple[Any, ...]:
    """The details of a serialized google.rpc.Status, as google.protobuf.Any messages; ProtocolError when it is none."""
    from google.protobuf import any_pb2
    from google.protobuf.message import DecodeError

    try:
        status = _status_class().FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"grpc-status-details-bin is no google.rpc.Status: {error}", code=Code.INTERNAL) from None
    return tuple(any_pb2.Any.FromString(each.SerializeToString()) for each in status.details)


# ---- a server's side ---------------------------------------------------------------------------------------------------


def status_of(error: BaseException) -> tuple[Code, str]:
    """Code and text that the caller is told of what a handler raised."""
    if isinstance(error, BusinessError):
        # Kitex sends 13 unless the error says otherwise; UNKNOWN is what ours says when it says nothing.
        return (Code.INTERNAL if error.code == Code.UNKNOWN else error.code), error.message
    if isinstance(error, RpcError):
        return error.code, error.message
    if isinstance(error, EncodeError):
        return Code.INTERNAL, f"the answer does not fit the IDL: {error}"
    return Code.UNKNOWN, f"{_name(type(error))}: {_text(error)}"


def status_fields(code: int, message: str, error: BaseException | None = None) -> Pairs:
    """Trailers that end a call: status, text, and what else `error` has to tell."""
    fields = [(b"grpc-status", b"%d" % (code if code in _KNOWN else Code.UNKNOWN))]
    if message:
        fields.append((b"grpc-message", message_bytes(message)))
    if isinstance(error, BusinessError):
        fields.append((b"biz-status", b"%d" % error.status))
        if error.extra:
            fields.append((b"biz-extra", json.dumps(error.extra, separators=(",", ":")).encode()))
    elif isinstance(error, StatusError) and (error.details or error.status_details):
        data = error.status_details or pack_details(code, message, error.details)
        fields.append((b"grpc-status-details-bin", text_of_binary(data).rstrip("=").encode()))
    return fields


def _name(cls: type) -> str:
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's own __str__
        return "(its text cannot be made)"


# ---- a client's side ---------------------------------------------------------------------------------------------------


def error_of(fields: Iterable[tuple[bytes, bytes]], **facts: Any) -> RpcError | None:
    """The error that trailers mean, or None when the call was good. Malformed numbers are INTERNAL, as gRPC wants it.

    A business status is a BusinessError, anything else that is not OK a StatusError. `facts` go to its constructor.
    """
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        found.setdefault(name, value)
    if b"grpc-status" not in found:
        return StatusError(Code.UNKNOWN, "the answer has no grpc-status", **facts)
    message = message_text(found.get(b"grpc-message", b""))
    number = _number(found[b"grpc-status"])
    if number is None:
        return StatusError(Code.INTERNAL, f"grpc-status {found[b'grpc-status'][:40]!r} is no number", **facts)
    if b"biz-status" in found:
        status = _number(found[b"biz-status"])
        if status is None or not -(2**31) <= status < 2**31:
            return StatusError(Code.INTERNAL, f"biz-status {found[b'biz-status'][:40]!r} is no 32-bit number", **facts)
        if status:
            try:
                extra = _extra(found.get(b"biz-extra", b""))
            except ValueError:
                return StatusError(Code.INTERNAL, "biz-extra is no JSON object of strings", **facts)
            return BusinessError(status, message, extra, code=Code(number) if number in _KNOWN else Code.UNKNOWN, **facts)
    if number == 0:
        return None
    details = b""
    if b"grpc-status-details-bin" in found:
        try:
            details = binary_value(found[b"grpc-status-details-bin"].decode("latin-1"))
        except ProtocolError as error:
            return StatusError(Code.INTERNAL, error.message, **facts)
    return StatusError(Code(number) if number in _KNOWN else Code.UNKNOWN, message, status_details=details, **facts)


def _number(value: bytes) -> int | None:
    """A decimal number of a sane length."""
    digits = value.removeprefix(b"-")
    return int(value) if digits.isdigit() and len(digits) <= 10 else None


def _extra(value: bytes) -> dict[str, str]:
    if not value:
        return {}
    found = json.loads(value)
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ValueError(value)
    return found

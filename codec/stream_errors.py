"""How a stream of TTHeaderStreaming ends badly: the words that Trailer and Rst frames have for it, as errors and back.

Kitex knows one number space for all of it (`pkg/remote/trans/ttstream/exception.go`): below 12000 a Thrift application exception, from there on what
happened to the stream itself. An exception that the IDL declares has no place there. weego sends it as Kitex does – an application exception
with its text – and beside it, for those who look, the exception itself: the result struct in base64, as string THROWS of the Trailer.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Mapping
from typing import Final

from codec.errors import Cancelled, DeadlineExceeded, Origin, ProtocolError, RpcError, Unavailable, application_error
from codec.plan import ResultPlan
from codec.structs import IdlException
from codec.ttstream import business_status, read_exception

__all__ = ["CANCEL_PATH", "FOREIGN_PATH", "THROWS", "Reason", "declared_strings", "error_of", "path_of", "reset_error", "trailer_error"]

THROWS: Final = "weego-throws"
# Names of services, with commas between them.
CANCEL_PATH: Final = "ttscp"
# Where a cancellation came from another protocol, which tells no path (Kitex `stream_client.go`).
FOREIGN_PATH: Final = "non-ttstream path"
# Bytes of a declared exception that may go along: base64 makes 4 of 3, and a TTHeader value has 65535.
_MOST_DECLARED: Final = 48_000


class Reason(enum.IntEnum):
    """What happened to a stream (Kitex `exception.go`)."""

    APPLICATION = 12001
    UNEXPECTED_HEADER = 12002
    ILLEGAL_BUSINESS = 12003
    ILLEGAL_FRAME = 12004
    ILLEGAL_OPERATION = 12005
    TRANSPORT_CLOSING = 12006
    BUSINESS_CANCEL = 12007
    CANCEL_WITH_CAUSE = 12008
    DOWNSTREAM_CANCEL = 12009
    UPSTREAM_CANCEL = 12010
    INTERNAL_CANCEL = 12011
    HANDLER_RETURNED = 12012
    CONNECTION_CLOSED = 12013
    RECV_TIMEOUT = 12014
    STREAM_TIMEOUT = 12015


_CANCELS: Final = frozenset(range(Reason.BUSINESS_CANCEL, Reason.CONNECTION_CLOSED + 1))
_TIMEOUTS: Final = frozenset((Reason.RECV_TIMEOUT, Reason.STREAM_TIMEOUT))
# What an Rst without a reason means to Kitex (`defaultRstException`).
_NO_REASON: Final = (13, "the peer ended the stream and did not say why")


def path_of(strings: Mapping[str, str]) -> tuple[str, ...]:
    """The services in the path of a cancellation, the one it began at first."""
    text = strings.get(CANCEL_PATH, "")
    return tuple(text.split(",")) if text else ()


def error_of(type: int, text: str, path: tuple[str, ...] = ()) -> RpcError:
    """The error that the peer's exception of this number means."""
    if type in _CANCELS:
        return Cancelled(text, path=path, reason=type, origin=Origin.PEER)
    if type in _TIMEOUTS:
        return DeadlineExceeded(text, origin=Origin.PEER)
    if type == Reason.TRANSPORT_CLOSING:
        return Unavailable(text, origin=Origin.PEER)
    return application_error(text, type)


def trailer_error(strings: Mapping[str, str], payload: bytes, result: ResultPlan | None = None) -> BaseException | None:
    """How a stream ended by its Trailer: an error, an exception that `result` declares, or None for well."""
    if not payload:
        return business_status(dict(strings))
    declared = strings.get(THROWS)
    if declared and result is not None:
        try:
            result.loads(base64.b64decode(declared, validate=True))
        except (binascii.Error, ProtocolError, ValueError):
            pass  # then the application exception has to do
        except RpcError:
            pass
        except IdlException as error:
            return error
    try:
        return error_of(*read_exception(payload))
    except ProtocolError as error:
        return error


def reset_error(strings: Mapping[str, str], payload: bytes) -> Cancelled:
    """What an Rst says. Whatever the reason, the stream is cancelled."""
    path = path_of(strings)
    number, text = _NO_REASON
    if payload:
        try:
            number, text = read_exception(payload)
        except ProtocolError as error:
            text = f"the peer ended the stream; its reason cannot be read: {error.message}"
    return Cancelled(text, path=path, reason=number, origin=Origin.PEER)


def declared_strings(result: ResultPlan, error: BaseException) -> dict[str, str] | None:
    """What a Trailer has beside an exception that the IDL declares: None when it does not, an empty dict when it is too long to go along."""
    content = result.dumps_exception(error)
    if content is None:
        return None
    return {THROWS: base64.b64encode(content).decode()} if len(content) <= _MOST_DECLARED else {}

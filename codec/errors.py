"""The words for what can go wrong, shared by all rooms.

    WeegoError
    ├── UsageError                  a mistake in this process: fix the program, the IDL or the configuration
    │   ├── EncodeError             a value does not fit the IDL type of its field
    │   └── ClosedError             the client, connection or server was closed by this side
    └── RpcError                    one call failed: `code` says how, `origin` says who said so
        ├── Unavailable             the peer could not be reached, or the connection broke
        ├── DeadlineExceeded        the time allowed for the call is over
        ├── Cancelled               the caller gave up
        ├── ResourceExhausted       a limit or a quota refused the call
        ├── ProtocolError           the peer sent bytes that break the rules of the protocol
        ├── ApplicationError        the peer answered with an application exception
        │   ├── UnknownMethod       … because it has no such method
        │   └── UnknownService      … because it has no such service
        ├── StatusError             the peer's handler answered with a gRPC status
        └── BusinessError           the peer's handler answered with a business status

Exceptions declared in an IDL are not part of this tree: they are raised as they are.
"""

from __future__ import annotations

import copyreg
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = [
    "ApplicationError",
    "ApplicationErrorType",
    "BusinessError",
    "Cancelled",
    "ClosedError",
    "Code",
    "DeadlineExceeded",
    "EncodeError",
    "Origin",
    "ProtocolError",
    "ProtocolErrorKind",
    "ResourceExhausted",
    "RpcError",
    "StatusError",
    "Unavailable",
    "UnknownMethod",
    "UnknownService",
    "UsageError",
    "WeegoError",
    "application_error",
]


class Code(enum.IntEnum):
    """How a call ended: the canonical gRPC status codes, used for every protocol."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Origin(enum.Enum):
    """Who said that the call failed."""

    LOCAL = "local"
    PEER = "peer"
    NETWORK = "network"


class ApplicationErrorType(enum.IntEnum):
    """Type numbers of a Thrift application exception, with Kitex's additions (20, 21)."""

    UNKNOWN = 0
    UNKNOWN_METHOD = 1
    INVALID_MESSAGE_TYPE = 2
    WRONG_METHOD_NAME = 3
    BAD_SEQUENCE_ID = 4
    MISSING_RESULT = 5
    INTERNAL_ERROR = 6
    PROTOCOL_ERROR = 7
    INVALID_TRANSFORM = 8
    INVALID_PROTOCOL = 9
    UNSUPPORTED_CLIENT_TYPE = 10
    UNKNOWN_SERVICE = 20
    NO_SERVICE_NAME = 21


class ProtocolErrorKind(enum.IntEnum):
    """Kinds of a Thrift protocol exception (Apache Thrift, gopkg's `exception.go`)."""

    UNKNOWN = 0
    INVALID_DATA = 1
    NEGATIVE_SIZE = 2
    SIZE_LIMIT = 3
    BAD_VERSION = 4
    NOT_IMPLEMENTED = 5
    DEPTH_LIMIT = 6


class WeegoError(Exception):
    """Root of every error that weego raises. Copying and pickling keep all that an error knows, notes included."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # Not through __init__, whose parameters are not `args`, and which a subclass may have changed.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class UsageError(WeegoError):
    """A mistake in this process; repeating the call cannot help."""


class EncodeError(UsageError):
    """A value does not fit the IDL type of its field.

    `path` names the field from the outside in, for example ``Request.items[3].name``.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.reason = message


class ClosedError(UsageError):
    """The object was closed by this side and cannot be used any more."""


class RpcError(WeegoError):
    """One call failed.

    `code` is the canonical code; `origin` says who said so (this side, the peer, the network);
    `instance` is the address that was called, `attempt` the number of the attempt counted from 1, and
    `elapsed` the seconds spent. The last three are None or 0 where they are not known.
    """

    default_code = Code.UNKNOWN
    default_origin = Origin.LOCAL

    def __init__(
        self,
        message: str,
        *,
        code: Code | None = None,
        origin: Origin | None = None,
        instance: str | None = None,
        attempt: int = 0,
        elapsed: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.origin = self.default_origin if origin is None else origin
        self.instance = instance
        self.attempt = attempt
        self.elapsed = elapsed

    def __str__(self) -> str:
        where = [f"{self.code.name}", self.origin.value]
        if self.instance:
            where.append(self.instance)
        if self.attempt > 1:
            where.append(f"attempt {self.attempt}")
        if self.elapsed is not None:
            where.append(f"after {self.elapsed * 1000:.1f} ms")
        return f"{self.message} [{', '.join(where)}]"


class Unavailable(RpcError):
    """The peer could not be reached, or the connection broke before the answer came.

    `sent` is False when no byte of the request had left, so that repeating the call is always safe.
    """

    default_code = Code.UNAVAILABLE
    default_origin = Origin.NETWORK

    def __init__(self, message: str, *, sent: bool = True, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.sent = sent


class DeadlineExceeded(RpcError):
    """The time allowed for the call is over."""

    default_code = Code.DEADLINE_EXCEEDED


class Cancelled(RpcError):
    """The caller gave the call up.

    Where the protocol tells (TTHeaderStreaming), `path` names the services that the cancellation came through, the one it began at first, and
    `reason` is Kitex's number for why (12007: the program wanted it …); else they are empty and 0.
    """

    default_code = Code.CANCELLED

    def __init__(self, message: str, *, path: tuple[str, ...] = (), reason: int = 0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return super().__str__() + (f" (cancelled by way of {' -> '.join(self.path)})" if self.path else "")


class ResourceExhausted(RpcError):
    """A limit, a quota or a full pool refused the call."""

    default_code = Code.RESOURCE_EXHAUSTED


class ProtocolError(RpcError):
    """The peer sent bytes that break the rules of the protocol. `kind` is Thrift's word for how."""

    default_code = Code.INTERNAL
    default_origin = Origin.PEER

    def __init__(self, message: str, kind: ProtocolErrorKind = ProtocolErrorKind.INVALID_DATA, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.kind = kind


class ApplicationError(RpcError):
    """The peer answered with a Thrift application exception of type number `type`."""

    default_code = Code.INTERNAL
    default_origin = Origin.PEER

    def __init__(self, message: str, type: int = ApplicationErrorType.INTERNAL_ERROR, **facts: Any) -> None:
        facts.setdefault("code", _CODES.get(type, Code.UNKNOWN))
        super().__init__(message, **facts)
        self.type = type


class UnknownMethod(ApplicationError):
    """The service has no such method."""

    def __init__(self, message: str, type: int = ApplicationErrorType.UNKNOWN_METHOD, **facts: Any) -> None:
        super().__init__(message, type, **facts)


class UnknownService(ApplicationError):
    """The server has no such service."""

    def __init__(self, message: str, type: int = ApplicationErrorType.UNKNOWN_SERVICE, **facts: Any) -> None:
        super().__init__(message, type, **facts)


class StatusError(RpcError):
    """A gRPC status that is not OK, with its details: a handler raises it, a caller gets it.

    `details` are protobuf messages (a caller gets each as google.protobuf.Any); `status_details` is the serialized
    google.rpc.Status they came in, if they came from a peer.
    """

    default_origin = Origin.PEER

    def __init__(
        self, code: int, message: str = "", details: Iterable[Any] = (), *, status_details: bytes = b"", **facts: Any
    ) -> None:
        super().__init__(message, code=Code(code), **facts)
        self.status_details = status_details
        self._details = tuple(details)

    @property
    def details(self) -> tuple[Any, ...]:
        """The messages that say more; ProtocolError when what a peer sent cannot be read."""
        if not self._details and self.status_details:
            from codec.grpc_status import unpack_details

            self._details = unpack_details(self.status_details)
        return self._details


# Kitex carries the status as an i32.
_MIN_STATUS = -(2**31)
_MAX_STATUS = 2**31 - 1


class BusinessError(RpcError):
    """A business status: the call worked, the handler said no.

    `status` is the application's own number (32 bits, not 0), `message` its text, `extra` further strings.
    """

    default_code = Code.UNKNOWN
    default_origin = Origin.PEER

    def __init__(self, status: int, message: str = "", extra: Mapping[str, str] | None = None, **facts: Any) -> None:
        if status == 0:
            raise ValueError("a business status of 0 means success; use any other number")
        if not _MIN_STATUS <= status <= _MAX_STATUS:
            raise ValueError(f"a business status is a 32-bit number for every peer; {status} is not")
        super().__init__(message, **facts)
        self.status = status
        self.extra: dict[str, str] = dict(extra or {})

    def __str__(self) -> str:
        return f"business status {self.status}: {super().__str__()}"


# What a type number of the peer means as a canonical code.
_CODES: dict[int, Code] = {
    ApplicationErrorType.UNKNOWN: Code.UNKNOWN,
    ApplicationErrorType.UNKNOWN_METHOD: Code.UNIMPLEMENTED,
    ApplicationErrorType.INVALID_MESSAGE_TYPE: Code.INTERNAL,
    ApplicationErrorType.WRONG_METHOD_NAME: Code.INTERNAL,
    ApplicationErrorType.BAD_SEQUENCE_ID: Code.INTERNAL,
    ApplicationErrorType.MISSING_RESULT: Code.INTERNAL,
    ApplicationErrorType.INTERNAL_ERROR: Code.INTERNAL,
    ApplicationErrorType.PROTOCOL_ERROR: Code.INVALID_ARGUMENT,
    ApplicationErrorType.INVALID_TRANSFORM: Code.INTERNAL,
    ApplicationErrorType.INVALID_PROTOCOL: Code.INTERNAL,
    ApplicationErrorType.UNSUPPORTED_CLIENT_TYPE: Code.INTERNAL,
    ApplicationErrorType.UNKNOWN_SERVICE: Code.UNIMPLEMENTED,
    ApplicationErrorType.NO_SERVICE_NAME: Code.UNIMPLEMENTED,
}


def application_error(message: str, type: int, **facts: Any) -> ApplicationError:
    """The error of the right class for a peer's exception of type number `type`."""
    if type == ApplicationErrorType.UNKNOWN_METHOD:
        return UnknownMethod(message, type, **facts)
    if type == ApplicationErrorType.UNKNOWN_SERVICE:
        return UnknownService(message, type, **facts)
    return ApplicationError(message, type, **facts)

"""What policies say no with, and what an error tells them. Each is a word of codec's tree, so that callers need not know who refused."""

from __future__ import annotations

from typing import Any

from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    Cancelled,
    Code,
    DeadlineExceeded,
    EncodeError,
    Origin,
    ProtocolError,
    ResourceExhausted,
    RpcError,
    Unavailable,
    UsageError,
)

__all__ = ["BreakerOpen", "NoInstance", "PermissionDenied", "code_of", "is_given_up", "is_own_limit", "is_refusal", "is_trouble", "is_unreachable"]


class NoInstance(Unavailable):
    """The service has no instance that could be called. Nothing was sent."""

    default_origin = Origin.LOCAL

    def __init__(self, message: str, **facts: Any) -> None:
        facts.setdefault("sent", False)
        super().__init__(message, **facts)


class BreakerOpen(Unavailable):
    """Too many calls failed of late: this one was not sent. `breaker` is the name of the breaker that is open."""

    default_origin = Origin.LOCAL

    def __init__(self, message: str, breaker: str = "", **facts: Any) -> None:
        facts.setdefault("sent", False)
        super().__init__(message, **facts)
        self.breaker = breaker


class PermissionDenied(RpcError):
    """A rule does not let this caller have this method."""

    default_code = Code.PERMISSION_DENIED


# ---- what an error says ----------------------------------------------------------------------------------------------


def code_of(error: BaseException) -> int:
    """The Code a call ended with. What the IDL declares is an answer like any other."""
    if isinstance(error, RpcError):
        return int(error.code)
    if isinstance(error, EncodeError):
        return int(Code.INVALID_ARGUMENT)
    if isinstance(error, UsageError):
        return int(Code.FAILED_PRECONDITION)
    return int(Code.UNKNOWN) if isinstance(error, Exception) else int(Code.CANCELLED)


def is_given_up(error: BaseException) -> bool:
    """Did this side want no more of a stream?"""
    return isinstance(error, Cancelled) and error.origin is Origin.LOCAL


def is_own_limit(error: BaseException) -> bool:
    """Did a limit of this side (a pool that is full) end the attempt? Then it says nothing of the instance.

    A deadline that passes while a call waits for such a limit has the limit as its cause.
    """
    if isinstance(error, DeadlineExceeded) and error.origin is Origin.LOCAL:
        error = error.__cause__ or error
    return isinstance(error, ResourceExhausted) and error.origin is Origin.LOCAL


def is_unreachable(error: Exception) -> bool:
    """Did the instance not answer at all? Connections that fail or break, and timeouts."""
    if isinstance(error, Unavailable):
        return error.origin is not Origin.PEER
    return isinstance(error, DeadlineExceeded) and error.origin is not Origin.PEER and not is_own_limit(error)


def is_refusal(error: Exception) -> bool:
    """Was the call not sent, or not served, for a reason that says nothing of the service's health?

    A refusal by a limit must not open the breaker: a service that sheds a third of its calls serves two thirds.
    """
    return isinstance(error, ResourceExhausted | BreakerOpen | NoInstance) or is_own_limit(error)


def is_trouble(error: Exception) -> bool:
    """Did the service fail? Not: what the IDL declares, a business status, an unknown method, a mistake or a limit of ours."""
    if is_own_limit(error):
        return False
    if isinstance(error, Unavailable | DeadlineExceeded | ProtocolError | ResourceExhausted):
        return True
    if isinstance(error, BusinessError):
        return False
    return isinstance(error, ApplicationError) and error.type == ApplicationErrorType.INTERNAL_ERROR

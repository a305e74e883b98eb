"""What policies say no with. Each is a word of codec's tree, so that callers need not know who refused."""

from __future__ import annotations

from typing import Any

from codec.errors import Code, Origin, RpcError, Unavailable

__all__ = ["BreakerOpen", "NoInstance", "PermissionDenied"]


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

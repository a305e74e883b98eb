"""What to answer when a call failed: a default, an older value, another error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codec.errors import DeadlineExceeded, RpcError
from governance.call import Call
from governance.chain import Handler, Middleware
from governance.errors import BreakerOpen

__all__ = ["Fallback", "fallback", "on_overload", "on_rpc_error"]

Fallback = Callable[[Call, tuple[Any, ...], BaseException], Any]
"""``fallback(call, args, error)`` returns what the caller gets instead, or raises: the same error to let it through."""


def on_rpc_error(error: BaseException) -> bool:
    """Any failure of the call, but nothing the IDL declares, and no mistake of this process."""
    return isinstance(error, RpcError)


def on_overload(error: BaseException) -> bool:
    """Timeouts and open breakers (Kitex's TimeoutAndCBFallback)."""
    return isinstance(error, DeadlineExceeded | BreakerOpen)


def fallback(instead: Fallback, when: Callable[[BaseException], bool] = on_rpc_error) -> Middleware:
    """A middleware that answers with `instead` when the call failed in a way that `when` accepts."""

    def wrap(handler: Handler) -> Handler:
        def handle(call: Call, args: tuple[Any, ...]) -> Any:
            try:
                return handler(call, args)
            except Exception as error:
                if not when(error):
                    raise
                return instead(call, args, error)

        return handle

    return wrap

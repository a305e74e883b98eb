"""Handlers, what wraps them, and the order of the wrapping.

A Handler serves one call, on either side: ``handler(call, args) -> result``. A Middleware takes a Handler and gives one. A chain is composed
once, when a server starts or a client is made; a middleware that is off is not in it.

The order, from the outside in. Each line says what it must stand above.

Server
    counters, access log    above all that can refuse a call, so that refusals are seen
    concurrency limit       above the deadline: a call that is refused needs none
    deadline                above the user's middleware, whose time counts too
    user middleware         in the order of the list, the first outermost
    handler

Client
    deadline                above all attempts: it bounds the call, not one try
    user middleware         in the order of the list, the first outermost
    connection              take one from the pool; a fresh one if it died before the first byte left
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from governance.call import Call

__all__ = ["Handler", "Middleware", "compose"]

Handler: TypeAlias = Callable[[Call, tuple[Any, ...]], Any]
"""Serves one call: ``handler(call, args) -> result``; raises what the caller is to see."""

Middleware: TypeAlias = Callable[[Handler], Handler]
"""Wraps a Handler in another."""


def compose(handler: Handler, middleware: Sequence[Middleware]) -> Handler:
    """`handler` inside `middleware`, the first of which is outermost.

    Raises TypeError when one of them does not return something callable.
    """
    for wrap in reversed(middleware):
        wrapped = wrap(handler)
        if not callable(wrapped):
            raise TypeError(f"middleware {wrap!r} returned {wrapped!r}, which is no Handler")
        handler = wrapped
    return handler

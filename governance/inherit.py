"""Calls that a handler makes at one time: what they inherit of it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from governance.call import _current, current

__all__ = ["inherit"]

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def inherit(function: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """`function`, to run in a greenlet or thread of its own as if it ran here: ``gevent.spawn(weego.inherit(self.stock.left), id)``.

    A greenlet or thread begins with nothing. With this, calls made there have the deadline of the call that is served here, carry its persistent
    metainfo, log id and tags on, and are not retried where it is a retry itself; `weego.current()` is that call. Other context variables are copied too.
    """
    context = copy_context()
    serving = current()
    if serving is not None:
        context.run(_current.set, serving)

    def run(*args: _Given.args, **options: _Given.kwargs) -> _Found:
        return context.copy().run(function, *args, **options)  # a context is entered once at a time

    return run

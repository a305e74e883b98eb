"""What a service's module wants done at the end of each worker: files flushed, connections closed, others told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import gevent

from poller.clock import monotonic

__all__ = ["MARGIN", "at_end", "run"]

log = logging.getLogger("weego.worker")

# How long hooks may take when calls have used up the time to leave (seconds): half of what the master waits between that and SIGKILL.
MARGIN: Final = 0.5

_Hook = TypeVar("_Hook", bound=Callable[[], Any])
_hooks: Final[list[Callable[[], Any]]] = []


def at_end(hook: _Hook) -> _Hook:
    """Have each worker call `hook()` before it ends, once its last call is over. Usable as a decorator; in a module that a service's module imports.

    The last registered is called first. All of them together have what is left of ``graceful_timeout``, and half a second at least.
    """
    _hooks.append(hook)
    return hook


def run(deadline: float) -> None:
    """Call all hooks, for no longer than until `deadline`, monotonic seconds, or half a second. What one raises is logged, and ends nothing but it."""
    until = max(deadline, monotonic()) + MARGIN
    for number, hook in enumerate(reversed(_hooks)):
        name = f"{getattr(hook, '__module__', '?')}:{getattr(hook, '__qualname__', repr(hook))}"
        running = gevent.spawn(_call, hook, name)
        running.join(max(0.0, until - monotonic()))
        if not running.dead:
            running.kill(block=False)
            missed = len(_hooks) - number - 1
            log.warning(
                "at_end: %s has not come to its end in time and is given up%s",
                name,
                f", {missed} others are not called" if missed else "",
            )
            return


def _call(hook: Callable[[], Any], name: str) -> None:
    try:
        hook()
    except Exception:
        log.exception("at_end: %s failed", name)

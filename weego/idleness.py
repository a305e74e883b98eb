"""Tells when gevent's hub found nothing to do."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any, Final

from poller.clock import monotonic

__all__ = ["Idleness"]

# A hub that waited at least so long (seconds) was idle; asking the kernel when something is there takes a few microseconds.
WAIT: Final = 0.0002


class Idleness:
    """Calls `idle()` after each time that `hub` waited. Costs two callbacks a turn of the hub, so it runs where somebody wants to know."""

    def __init__(self, hub: Any, idle: Callable[[], None]) -> None:
        self._idle = idle
        self._since = 0.0
        self._switches = 0
        self._watchers = (hub.loop.prepare(), hub.loop.check())
        for watcher, callback in zip(self._watchers, (self._before, self._after), strict=True):
            watcher.start(callback)

    def _before(self) -> None:
        self._since = monotonic()

    def _after(self) -> None:
        if monotonic() - self._since < WAIT:
            return
        # On a machine that is busy, time passes as well when another process was given the CPU: then this thread did not let go of it.
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        if switches != self._switches:
            self._switches = switches
            self._idle()

    def close(self) -> None:
        """No more."""
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()

"""The master's event loop: descriptors, timers, signals; one thread, and nothing in it blocks.

Signals arrive through a pipe that the interpreter's own C handler writes to (``set_wakeup_fd``), so they are ordinary
events, handled between others and never inside one. A callback that raises is logged and the loop goes on: a mistake
in one corner must not take the supervisor away from everything else.
"""

from __future__ import annotations

import heapq
import logging
import os
import signal
from typing import TYPE_CHECKING

from prefork.primitives import EPOLL_CLOEXEC, EPOLLIN, epoll, monotonic, set_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

log = logging.getLogger("weego.master")

#: A timer this late means that the master itself was stopped, suspended or starved, and so perhaps were its workers:
#: all timers move by the delay, so that nobody is killed for time in which nobody ran.
LATE_SECONDS = 0.5


class Timer:
    """A call planned; ``cancel`` to forget it."""

    __slots__ = ("_order", "callback", "when")

    _count = 0

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback
        Timer._count += 1
        self._order = Timer._count

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self._order) < (other.when, other._order)

    def cancel(self) -> None:
        """Never call it. May be said twice, and after it was called."""
        self.callback = None


class Loop:
    """One epoll instance, a heap of timers and the wake-up pipe."""

    def __init__(self) -> None:
        self._poll = epoll(flags=EPOLL_CLOEXEC)
        self._turns = 0
        # Descriptor → what to call, and the turn in which it was watched: a number may be closed and reused within one batch.
        self._watched: dict[int, tuple[Callable[[], None], int]] = {}
        self._timers: list[Timer] = []
        self._is_running = False
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._wake_reader, self._read_signals)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever ``fd`` is readable."""
        self._watched[fd] = (callback, self._turns)
        self._poll.register(fd, EPOLLIN)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a watched descriptor."""
        self._poll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor; before it is closed."""
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""
        timer = Timer(monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def on_signals(self, callbacks: dict[int, Callable[[], None]]) -> None:
        """Take over these signals of the process."""
        self._signals = callbacks
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for signum in callbacks:
            set_signal(signum, _only_wake)

    def take_signals(self) -> list[int]:
        """Those that have arrived and were not handled; whoever takes them handles them."""
        try:
            return list(os.read(self._wake_reader, 4096))
        except BlockingIOError:
            return []

    def fds(self) -> Iterable[int]:
        """Descriptors of the loop itself, for a child to close."""
        return self._poll.fileno(), self._wake_reader, self._wake_writer

    def run(self) -> None:
        """Until ``stop`` is called."""
        self._is_running = True
        while self._is_running:
            self._turn()

    def stop(self) -> None:
        """End ``run`` after the current callback."""
        self._is_running = False

    def close(self) -> None:
        """Give signals back to their default action and close everything."""
        for signum in self._signals:
            set_signal(signum, signal.SIG_DFL)
        if self._signals:
            signal.set_wakeup_fd(-1)
        for fd in self._wake_reader, self._wake_writer:
            os.close(fd)
        self._poll.close()

    def _turn(self) -> None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        due = self._timers[0].when if self._timers else None
        self._turns += 1
        for fd, _ in self._poll.poll(-1 if due is None else max(0.0, due - monotonic())):
            callback, since = self._watched.get(fd, (None, 0))
            # An event of before the watch is its former owner's; what is really ready is told again, for nothing here is edge-triggered.
            if callback is not None and since != self._turns:
                self._call(callback)
            if not self._is_running:
                return
        now = monotonic()
        if due is not None and now - due > LATE_SECONDS:
            for timer in self._timers:  # all by the same, so the heap stays one
                timer.when += now - due
            log.warning("the master was not running for %.1f s; deadlines are put off by that", now - due)
        while self._is_running and self._timers and self._timers[0].when <= now:
            timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._call(timer.callback)

    def _read_signals(self) -> None:
        arrived = self.take_signals()
        for signum in dict.fromkeys(arrived):  # coalesced, in order of arrival …
            callback = self._signals.get(signum)
            times = arrived.count(signum) if signum in _COUNTED else 1
            for _ in range(times):
                if callback is not None:
                    self._call(callback)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            log.exception("a mistake in the master; it goes on")


#: … but these mean something each time: a second INT is another order than the first.
_COUNTED = (signal.SIGINT, signal.SIGTTIN, signal.SIGTTOU)


def _only_wake(_signum: int, _frame: FrameType | None) -> None:
    """The interpreter has written the signal's number to the pipe by now."""

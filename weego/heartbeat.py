"""Is the peer of a connection that waits for its next call still there? Asked by a message that needs no handler, every so often.

A server that ends says so; one that was cut off, stopped, or hangs behind a proxy says nothing, and the next call on its connection would wait for its
whole deadline. A heartbeat finds out before. It is Thrift's message type 6 (Kitex, `remote.Heartbeat`), which weego's servers answer in the loop's turn
and Kitex's codec refuses: who has never answered one is soon not asked any more, and the kernel's keepalive, set to the same interval
(`poller.liveness`), has to do.
"""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any, Final

from codec.errors import DeadlineExceeded, RpcError
from poller.clock import monotonic
from poller.loop import Loop

__all__ = ["ALIVE", "REFUSED", "SILENT", "Hearts", "HubBeat", "ThreadBeat"]

log = logging.getLogger("weego.client")

# Seconds that an answer may take, or the interval where that is shorter: a server that needs longer to say a word is not one to wait for.
PATIENCE: Final = 3.0
# Heartbeats without an answer after which an address that has never given one is left alone. One would do, were there no servers that end just then.
MOST_UNANSWERED: Final = 2
# Addresses that something is known of; beyond, all is forgotten and found out again.
MOST_REMEMBERED: Final = 10_000

# What came of asking.
ALIVE: Final = "alive"
SILENT: Final = "silent"
REFUSED: Final = "refused"


class Hearts:
    """Asks, and remembers who answers. `beat(connection, deadline)` sends a heartbeat and gives its answer."""

    def __init__(self, interval: float, beat: Callable[[Any, float], Any], is_last: Callable[[Any], bool]) -> None:
        self.interval = interval
        self._beat = beat
        self._is_last = is_last
        # Address → heartbeats without an answer; -1: it has given one.
        self._unanswered: dict[str, int] = {}

    def wanted(self, address: str) -> bool:
        """Is it worth asking there?"""
        return self._unanswered.get(address, 0) < MOST_UNANSWERED

    def answers(self, address: str) -> bool:
        """Is it known to answer?"""
        return self._unanswered.get(address, 0) < 0

    def ask(self, connection: Any) -> str:
        """One heartbeat on a connection that nobody else uses meanwhile. All but ALIVE: it is of no use any more."""
        address = connection.address
        patience = min(self.interval, PATIENCE)
        try:
            answer = self._beat(connection, monotonic() + patience)
        except DeadlineExceeded:
            self._missed(address)
            log.warning("%s did not answer a heartbeat within %g s: its idle connections are closed", address, patience)
            return SILENT
        except RpcError:
            return self._missed(address)
        if answer.error is not None:
            return self._missed(address)
        if len(self._unanswered) >= MOST_REMEMBERED:
            self._unanswered.clear()
        self._unanswered[address] = -1
        return REFUSED if self._is_last(answer) else ALIVE

    def _missed(self, address: str) -> str:
        missed = self._unanswered.get(address, 0)
        if missed >= 0:
            self._unanswered[address] = missed + 1
            if missed + 1 == MOST_UNANSWERED:
                log.info("%s answers no heartbeats: from now on only the kernel watches connections to it", address)
        return REFUSED


class HubBeat:
    """Runs `round()` every half interval in a greenlet, from `start` until it returns False."""

    def __init__(self, loop: Loop, interval: float, round_: Callable[[], bool]) -> None:
        self._loop = loop
        self._pause = interval / 2
        self._round = weakref.WeakMethod(round_)
        self._timer: Any = None
        self._greenlet: Any = None
        self._stopped = False

    def start(self) -> None:
        """There is something to watch."""
        if self._timer is None and self._greenlet is None and not self._stopped:
            self._timer = self._loop.call_later(self._pause, self._due)

    def _due(self) -> None:
        import gevent

        self._timer = None
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        round_ = self._round()
        try:
            more = round_ is not None and round_()
        finally:
            self._greenlet = None
        if more:
            self.start()

    def stop(self) -> None:
        """No more; a connection that is being asked is closed."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._greenlet is not None:
            self._greenlet.kill(block=False)


class ThreadBeat:
    """The same in a thread, which ends when there is nothing to watch and begins anew."""

    def __init__(self, interval: float, round_: Callable[[], bool]) -> None:
        self._pause = interval / 2
        self._round = weakref.WeakMethod(round_)
        self._lock = _lock()
        self._end = _lock()
        self._end.acquire()
        self._runs = self._again = self._stopped = False

    def start(self) -> None:
        """There is something to watch."""
        with self._lock:
            if self._stopped:
                return
            if self._runs:
                self._again = True
                return
            self._runs = True
        try:
            _start(self._run)
        except RuntimeError:  # no thread to be had now: the next call tries again
            self._runs = False

    def _run(self) -> None:
        while True:
            if self._end.acquire(timeout=self._pause):
                return
            round_ = self._round()
            if round_ is None:
                return
            more = round_()
            del round_  # a client that nobody holds any more ends this thread
            with self._lock:
                if not more and not self._again:
                    self._runs = False
                    return
                self._again = False

    def stop(self) -> None:
        """No more."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._end.release()


def _start(run: Callable[[], None]) -> None:
    """In a real thread, also where gevent has patched: a greenlet would run a hub in whatever thread this is."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        monkey.get_original("_thread", "start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name="weego-heartbeat", daemon=True).start()


def _lock() -> Any:
    """A real one, for the same reason."""
    monkey = sys.modules.get("gevent.monkey")
    return (allocate_lock if monkey is None else monkey.get_original("_thread", "allocate_lock"))()

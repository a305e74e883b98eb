"""At most so many connections to an address in use at one time; who comes then waits in a row, not too long and not with too many others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from codec.errors import DeadlineExceeded, ResourceExhausted
from poller.clock import monotonic

__all__ = ["DEFAULT_MAX_WAITING", "Slots"]

# Enough for a burst; a row that is longer does not get shorter by waiting.
DEFAULT_MAX_WAITING: Final = 1024


class Slots:
    """`enter` before a connection to an address is taken or made, and `leave` afterwards.

    `most` bounds each address, `most_waiting` who waits for one of them, `patience` how long (seconds; 0: until the call's deadline). `make_event` makes
    what one waits with, `lock` guards the counts: both as the program does several things at a time.
    """

    def __init__(
        self,
        most: int,
        most_waiting: int,
        patience: float,
        make_event: Callable[[], Any],
        lock: AbstractContextManager[Any],
    ) -> None:
        self.most = most
        self.most_waiting = most_waiting
        self.patience = patience
        self.refused = 0
        self._make_event = make_event
        self._lock = lock
        self._used: dict[str, int] = {}
        self._waiting: dict[str, deque[Any]] = {}

    def enter(self, address: str, deadline: float) -> None:
        """Have a slot, at once or when one who has it leaves. ResourceExhausted names the limit; DeadlineExceeded when the call's time is over first."""
        with self._lock:
            used = self._used.get(address, 0)
            if used < self.most:
                self._used[address] = used + 1
                return
            row = self._waiting.setdefault(address, deque())
            if len(row) >= self.most_waiting:
                self.refused += 1
                raise ResourceExhausted(
                    f"limit max_active, {self.most} connections to {address} are in use and {len(row)} calls wait for one (max_waiting)",
                    instance=address,
                )
            event = self._make_event()
            row.append(event)
        self._wait(address, row, event, deadline)

    def _wait(self, address: str, row: deque[Any], event: Any, deadline: float) -> None:
        began = monotonic()
        until = began + self.patience if self.patience else 0.0
        if deadline and (not until or deadline < until):
            until = deadline
        try:
            if event.wait(max(0.0, until - monotonic()) if until else None):
                return
        except BaseException:
            if self._give_up(address, row, event):
                self.leave(address)
            raise
        if self._give_up(address, row, event):
            return
        waited = f"limit max_active, all {self.most} connections to {address} were in use for {monotonic() - began:.3g} s"
        if until == deadline:
            # The limit as the cause: who judges the instance by its calls must see that it never had this one.
            raise DeadlineExceeded(
                f"all {self.most} connections to {address} (max_active) were in use until the deadline", instance=address
            ) from ResourceExhausted(waited, instance=address)
        with self._lock:
            self.refused += 1
        raise ResourceExhausted(f"{waited} (wait_timeout)", instance=address)

    def _give_up(self, address: str, row: deque[Any], event: Any) -> bool:
        """Wait no longer. True: a slot came just now, and is ours."""
        with self._lock:
            if event not in row:
                return True
            row.remove(event)
            return False

    def leave(self, address: str) -> None:
        """Let the next one have the slot."""
        with self._lock:
            row = self._waiting.get(address)
            if row:
                row.popleft().set()
                return
            left = self._used[address] - 1
            if left:
                self._used[address] = left
            else:
                del self._used[address]
                self._waiting.pop(address, None)

    @property
    def active(self) -> int:
        """Slots in use."""
        return sum(self._used.values())

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return sum(len(row) for row in self._waiting.values())

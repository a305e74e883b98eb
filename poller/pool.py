"""Idle connections by address: Kitex's long pool, and who may stay in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from poller.clock import monotonic

__all__ = ["DEFAULT_IDLE_TIMEOUT", "DEFAULT_MAX_IDLE", "DEFAULT_MAX_IDLE_TOTAL", "Pool", "PoolStatistics"]

# Kitex's defaults (`pkg/connpool`: MaxIdlePerAddress 10, MaxIdleGlobal 100, MaxIdleTimeout 1 min).
DEFAULT_MAX_IDLE = 10
DEFAULT_MAX_IDLE_TOTAL = 100
DEFAULT_IDLE_TIMEOUT = 60.0
# Forgotten addresses that are remembered; what comes back from others is kept until its idle time is over, and no longer.
MOST_GONE = 1000


class Pooled(Protocol):
    """What a pool keeps."""

    def is_alive(self) -> bool:
        """Could a call go out on it now? Cheap; asked when it is taken."""

    def close(self) -> Any:
        """End it."""


T = TypeVar("T", bound=Pooled)


@dataclass(frozen=True)
class PoolStatistics:
    """Counts since the pool was made, and what there is now.

    `kind` is short, long, shared, grpc or streams. `active` are in use, `waiting` calls wait for one that is, `refused` were not let wait; `made` were made for calls.
    """

    idle: int
    reused: int
    dead: int
    dropped: int
    timed_out: int
    kind: str = "long"
    active: int = 0
    waiting: int = 0
    refused: int = 0
    made: int = 0


class Pool(Generic[T]):
    """Keeps idle connections for the next call; the one used last is taken first.

    `max_idle` bounds one address, `max_idle_total` all; what does not fit is closed. After `idle_timeout` seconds an idle one is closed
    at the next `prune`, `take` or `give`, but `min_idle` of an address stay for as long as they live. Not locked: one thread at a time.
    """

    def __init__(
        self,
        *,
        max_idle: int = DEFAULT_MAX_IDLE,
        max_idle_total: int = DEFAULT_MAX_IDLE_TOTAL,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        min_idle: int = 0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.max_idle = max_idle
        self.max_idle_total = max_idle_total
        self.idle_timeout = idle_timeout
        self.min_idle = min_idle
        self._clock = clock
        # Of each: since when it is idle, itself, and when its peer was last heard of.
        self._idle: dict[str, deque[tuple[float, T, float]]] = {}
        # Addresses that were forgotten: connections in use there are closed when they come back.
        self._gone: set[str] = set()
        self._total = 0
        self._closed = False
        self._reused = self._dead = self._dropped = self._timed_out = 0

    def take(self, address: str) -> T | None:
        """An idle connection to `address` that is alive, or None. It is the caller's until `give`."""
        if self._gone:
            self._gone.discard(address)  # somebody calls it again
        idle = self._idle.get(address)
        now = self._clock()
        while idle:
            since, item, _ = idle.pop()
            self._total -= 1
            if now - since > self.idle_timeout and len(idle) >= self.min_idle:
                self._timed_out += 1
            elif item.is_alive():
                self._reused += 1
                return item
            else:
                self._dead += 1
            item.close()
        return None

    def give(self, address: str, item: T) -> None:
        """Put a connection back after its call; it is closed when there is no room."""
        if address in self._gone:
            self._dropped += 1
            item.close()
            return
        idle = self._idle.get(address)
        if idle is None:
            idle = self._idle[address] = deque()
        if self._total >= self.max_idle_total:
            self.prune()  # the room may be taken by connections that nobody wants any more
            idle = self._idle.setdefault(address, deque())
        if self._closed or len(idle) >= self.max_idle or self._total >= self.max_idle_total:
            self._dropped += 1
            item.close()
            return
        now = self._clock()
        idle.append((now, item, now))
        self._total += 1
        self._expire(idle)

    def discard(self, address: str, item: T) -> None:
        """Forget an idle connection that ended by itself."""
        idle = self._idle.get(address, ())
        for entry in idle:
            if entry[1] is item:
                self._idle[address].remove(entry)
                self._total -= 1
                self._dead += 1
                return

    def due(self, age: float, wanted: Callable[[str], bool]) -> tuple[str, float, T] | None:
        """Take out a connection whose peer was not heard of for `age` seconds, to a wanted address: its address, since when it is idle, itself."""
        latest = self._clock() - age
        for address, idle in self._idle.items():
            if idle and wanted(address):
                for entry in idle:
                    if entry[2] <= latest:
                        idle.remove(entry)
                        self._total -= 1
                        return address, entry[0], entry[1]
        return None

    def give_back(self, address: str, since: float, item: T) -> None:
        """Put back what `due` took out: its peer is there. It has not become younger by that."""
        if address in self._gone:
            self._dropped += 1
            item.close()
            return
        idle = self._idle.setdefault(address, deque())
        if self._closed or len(idle) >= self.max_idle or self._total >= self.max_idle_total:
            self._dropped += 1
            item.close()
            return
        place = sum(entry[0] <= since for entry in idle)
        idle.insert(place, (since, item, self._clock()))
        self._total += 1

    def lost(self, address: str, item: T, *, all_of_it: bool) -> None:
        """Close what `due` took out, and all that is idle to that address if its peer is not there at all."""
        gone = [item]
        if all_of_it:
            idle = self._idle.pop(address, ())
            self._total -= len(idle)
            gone += [entry[1] for entry in idle]
        self._dead += len(gone)
        for each in gone:
            each.close()

    def prune(self) -> None:
        """Close what has been idle for too long."""
        for idle in self._idle.values():
            self._expire(idle)
        for address in [address for address, idle in self._idle.items() if not idle]:
            del self._idle[address]

    def forget(self, address: str) -> None:
        """Nobody will call that address any more: close what is idle there, and what is in use when it comes back."""
        if len(self._gone) >= MOST_GONE:
            self._gone.clear()
        self._gone.add(address)
        idle = self._idle.pop(address, None)
        while idle:
            _, item, _ = idle.popleft()
            self._total -= 1
            self._dropped += 1
            item.close()

    def idle_to(self, address: str) -> int:
        """How many are idle there."""
        return len(self._idle.get(address, ()))

    def _expire(self, idle: deque[tuple[float, T, float]]) -> None:
        oldest = self._clock() - self.idle_timeout
        while len(idle) > self.min_idle and idle[0][0] < oldest:
            _, item, _ = idle.popleft()
            self._total -= 1
            self._timed_out += 1
            item.close()

    def close(self) -> None:
        """Close all idle connections; what is given back later is closed too."""
        self._closed = True
        while self._idle:
            _, idle = self._idle.popitem()
            for _, item, _ in idle:
                item.close()
        self._total = 0

    def statistics(self) -> PoolStatistics:
        """What happened so far."""
        return PoolStatistics(self._total, self._reused, self._dead, self._dropped, self._timed_out)

    def __len__(self) -> int:
        return self._total

    def __repr__(self) -> str:
        return f"<Pool {self._total} idle to {len(self._idle)} addresses, {self._reused} reused, {self._dead} died idle>"

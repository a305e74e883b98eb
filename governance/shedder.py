"""Refuse early when the queue does not empty: adaptive shedding by queue delay, after CoDel.

A burst makes some calls wait; in overload all of them do. Overload is when, for a whole `interval`, the worker never ran out of work – it went straight from
one turn of its loop to the next – or even the luckiest call waited longer than `target`. Then whoever waited longer than that is refused, so that those who are served
are served in time, and a turn stays short enough for refusals to be quick.
(K. Nichols, V. Jacobson, "Controlling Queue Delay", ACM Queue 2012. What a call waited before the worker saw it, in the kernel, nobody tells; that
the worker is never idle stands for it.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from poller.clock import monotonic

__all__ = ["Shedder"]

DEFAULT_TARGET: Final = 0.005  # CoDel's 5 ms
DEFAULT_INTERVAL: Final = 0.1  # and its 100 ms


class Shedder:
    """Says which calls to refuse, by how long each has waited. Seconds. For one process: the queue is its own.

    Whoever runs the loop calls `idle` when it found nothing to do; until the first time, only the calls' own waiting counts.
    """

    def __init__(
        self, target: float = DEFAULT_TARGET, interval: float = DEFAULT_INTERVAL, clock: Callable[[], float] = monotonic
    ) -> None:
        if not 0 < target <= interval:
            raise ValueError(f"shedding needs 0 < target <= interval, got {target:g} and {interval:g}")
        self.target = target
        self.interval = interval
        self.refused = 0
        self._clock = clock
        self._all_waited = False
        self._shortest = float("inf")
        self._ends = 0.0
        self._idle_at = float("inf")

    def idle(self) -> None:
        """There was nothing to do for a moment."""
        self._idle_at = self._clock()

    @property
    def overloaded(self) -> bool:
        """Is there more to do than can be done?"""
        return self._all_waited or self._clock() - self._idle_at > self.interval

    def admit(self, waited: float) -> bool:
        """May a call that has waited so long be served?"""
        now = self._clock()
        if now >= self._ends:
            # An interval without calls says nothing of overload.
            self._all_waited = self.target < self._shortest < float("inf") and now < self._ends + self.interval
            self._shortest = waited
            self._ends = now + self.interval
        elif waited < self._shortest:
            self._shortest = waited
        if waited <= (self.target if self._all_waited or now - self._idle_at > self.interval else self.interval):
            return True
        self.refused += 1
        return False

    def __repr__(self) -> str:
        return f"<Shedder {self.target * 1000:g} ms{', overloaded' if self.overloaded else ''}>"

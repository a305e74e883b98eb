"""Refuse early when the queue does not empty: adaptive shedding by queue delay, after CoDel.

What counts is the shortest wait of an interval. A burst makes some calls wait; in overload all of them do. While even the luckiest call of the last
interval waited longer than `target`, whoever waited longer than that is refused, so that those who are served are served in time.
(K. Nichols, V. Jacobson, "Controlling Queue Delay", ACM Queue 2012; the form for request queues that drop from the front.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from poller.clock import monotonic

__all__ = ["Shedder"]

DEFAULT_TARGET: Final = 0.005  # CoDel's 5 ms
DEFAULT_INTERVAL: Final = 0.1  # and its 100 ms


class Shedder:
    """Says which calls to refuse, by how long each has waited. Seconds. For one process: the queue is its own."""

    def __init__(
        self, target: float = DEFAULT_TARGET, interval: float = DEFAULT_INTERVAL, clock: Callable[[], float] = monotonic
    ) -> None:
        if not 0 < target <= interval:
            raise ValueError(f"shedding needs 0 < target <= interval, got {target:g} and {interval:g}")
        self.target = target
        self.interval = interval
        self.overloaded = False
        self.refused = 0
        self._clock = clock
        self._shortest = float("inf")
        self._ends = 0.0

    def admit(self, waited: float) -> bool:
        """May a call that has waited so long be served?"""
        now = self._clock()
        if now >= self._ends:
            # An interval without calls says nothing of overload.
            self.overloaded = self.target < self._shortest < float("inf") and now < self._ends + self.interval
            self._shortest = waited
            self._ends = now + self.interval
        elif waited < self._shortest:
            self._shortest = waited
        if waited <= (self.target if self.overloaded else self.interval):
            return True
        self.refused += 1
        return False

    def __repr__(self) -> str:
        return f"<Shedder {self.target * 1000:g} ms{', overloaded' if self.overloaded else ''}>"

"""How many retries the calls of a client may cost: so that a service in trouble gets a fraction more load, and not a multiple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from poller.clock import monotonic

__all__ = ["Budget"]

# Of Finagle's RetryBudget: a fifth more than the calls, ten a second for clients that call rarely, saved up for ten seconds.
DEFAULT_RATIO: Final = 0.2
DEFAULT_PER_SECOND: Final = 10.0
DEFAULT_SAVED: Final = 10.0


class Budget:
    """A purse: each call puts in `ratio`, each second `per_second`, each retry takes 1 out. What is in it fades over `saved` seconds."""

    def __init__(
        self,
        ratio: float = DEFAULT_RATIO,
        per_second: float = DEFAULT_PER_SECOND,
        saved: float = DEFAULT_SAVED,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if ratio < 0 or per_second < 0 or saved <= 0:
            raise ValueError(f"a retry budget cannot be negative: {ratio:g} a call, {per_second:g} a second, for {saved:g} s")
        self.ratio = ratio
        self.per_second = per_second
        self.saved = saved
        self.refused = 0
        self._clock = clock
        self._calls = 0.0
        self._purse = 0.0
        self._reserve = per_second * saved
        self._at = clock()

    def call(self) -> None:
        """A call was made."""
        self._calls += self.ratio

    def take(self) -> bool:
        """Pay for a retry; False when there is nothing left."""
        now = self._clock()
        passed = max(0.0, now - self._at)
        self._at = now
        # What was saved fades, or an hour of good weather would pay for a storm.
        self._purse = self._purse * max(0.0, 1.0 - passed / self.saved) + self._calls
        self._calls = 0.0
        self._reserve = min(self.per_second * self.saved, self._reserve + passed * self.per_second)
        if self._purse >= 1.0:
            self._purse -= 1.0
        elif self._reserve >= 1.0:
            self._reserve -= 1.0
        else:
            self.refused += 1
            return False
        return True

    @property
    def left(self) -> float:
        """Retries that could be paid for now."""
        return self._purse + self._calls + self._reserve

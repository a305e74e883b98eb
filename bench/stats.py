"""Medians, and how far the rounds lie apart."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over several rounds: its median, and its smallest and largest value as the noise around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value. An even number of values has the mean of the middle two as median."""
        found = sorted(values)
        if not found:
            raise ValueError("no rounds to take a median of")
        return cls(float(statistics.median(found)), float(found[0]), float(found[-1]))

    def as_dict(self) -> dict[str, float]:
        """For the JSON result."""
        return {"median": self.median, "min": self.low, "max": self.high}


def ratio(value: Spread | None, base: Spread | None) -> float | None:
    """The quotient of two medians; None when one was not measured or the base is nothing."""
    if value is None or base is None or base.median == 0:
        return None
    return value.median / base.median

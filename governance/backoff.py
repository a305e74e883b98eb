"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

__all__ = ["Backoff", "Exponential", "Fixed", "Uniform", "none"]


class Backoff(Protocol):
    """Seconds to wait before retry number `number`, 1 for the first."""

    def __call__(self, number: int) -> float:
        """Seconds."""


def none(number: int) -> float:
    """At once."""
    return 0.0


class Fixed:
    """Always the same."""

    def __init__(self, delay: float) -> None:
        self.delay = _checked(delay)

    def __call__(self, number: int) -> float:
        """Seconds."""
        return self.delay


class Uniform:
    """Anything from `least` to `most`."""

    def __init__(self, least: float, most: float, rand: Callable[[], float] = random.random) -> None:
        self.least = _checked(least)
        self.most = _checked(most)
        if most < least:
            raise ValueError(f"a back-off from {least:g} to {most:g} s goes backwards")
        self._random = rand

    def __call__(self, number: int) -> float:
        """Seconds."""
        return self.least + (self.most - self.least) * self._random()


class Exponential:
    """Anything up to `base` × 2ⁿ⁻¹, at most `most`: with full jitter, so that those who failed together do not return together."""

    def __init__(self, base: float, most: float, rand: Callable[[], float] = random.random) -> None:
        self.base = _checked(base)
        self.most = _checked(most)
        self._random = rand

    def __call__(self, number: int) -> float:
        """Seconds."""
        return min(self.most, self.base * 2.0 ** min(number - 1, 60)) * self._random()


def _checked(seconds: float) -> float:
    if not 0 <= seconds < 3600:
        raise ValueError(f"a back-off is 0 to 3600 s, got {seconds:g}")
    return seconds

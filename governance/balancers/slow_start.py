"""A fresh instance gets its share bit by bit: caches fill, connections are made, code is warm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from governance.call import Call
from governance.instance import NOBODY, Balancer, Instance, Observing, give_up

__all__ = ["SlowStart"]

# Parts of the full weight that an instance goes through while it warms up, and the weight that all are multiplied by so that a part is whole.
STEPS: Final = 10


class SlowStart:
    """`inner`, with weights that grow over `window` seconds from a tenth to the whole, counted from when an instance started.

    An instance that does not say when counts from when it was first seen, unless it was there from the beginning. `clock` is seconds since 1970.
    """

    def __init__(self, inner: Balancer, window: float, clock: Callable[[], float] = time.time) -> None:
        if window <= 0:
            raise ValueError(f"an instance warms up in more than 0 s, got {window:g}")
        self.inner = inner
        self.window = window
        self._clock = clock
        self._instances: tuple[Instance, ...] = ()
        self._seen: dict[str, float] = {}
        self._next = float("inf")
        self._observing = inner if isinstance(inner, Observing) else None

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on."""
        now = self._clock()
        first = now if self._instances else 0.0
        self._seen = {each.address: each.started or self._seen.get(each.address, first) for each in instances}
        self._instances = tuple(instances)
        self._arrange(now)

    def _arrange(self, now: float) -> None:
        ages = [now - self._seen[each.address] for each in self._instances]
        warming = any(age < self.window for age in ages)
        self._next = now + self.window / STEPS if warming else float("inf")
        if not warming or all(age < self.window for age in ages):  # all new: nobody else could take the calls
            self.inner.update(self._instances)
            return
        self.inner.update(
            [replace(each, weight=each.weight * self._step(age)) for each, age in zip(self._instances, ages, strict=True)]
        )

    def _step(self, age: float) -> int:
        return max(1, min(STEPS, 1 + int(age / self.window * STEPS)))

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """What the inner one says."""
        if self._next != float("inf") and (now := self._clock()) >= self._next:
            self._arrange(now)
        return self.inner.pick(call, avoid)

    def begin(self, instance: Instance) -> None:
        """An attempt begins."""
        if self._observing is not None:
            self._observing.begin(instance)

    def end(self, instance: Instance, seconds: float, failed: bool) -> None:
        """It is over."""
        if self._observing is not None:
            self._observing.end(instance, seconds, failed)

    def abandon(self, instance: Instance, seconds: float) -> None:
        """It was given up."""
        give_up(self.inner, instance, seconds)

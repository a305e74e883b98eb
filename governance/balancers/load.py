"""By load: the better of two at random, by latency and calls under way; and the least busy of all."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from governance.call import Call
from governance.instance import DEFAULT_WEIGHT, NOBODY, Instance
from poller.clock import monotonic

__all__ = ["LeastLoaded", "PowerOfTwo"]

# Of the moving average (seconds): what was seen so long ago counts 1/e. Finagle's default for its peak EWMA.
DECAY: Final = 10.0
# What a failure counts as (seconds): an instance that fails fast must not look like a fast one.
PENALTY: Final = 1.0
# An instance that nobody has called yet is taken for this quick (seconds), so that it is tried soon. Nobody is taken for quicker: below a
# millisecond a difference is noise, and who happened to be the quicker once would get all calls.
UNKNOWN: Final = 0.001


class _Load:
    """What is known of one instance."""

    __slots__ = ("at", "average", "busy", "instance", "share")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.share = max(instance.weight, 0) / DEFAULT_WEIGHT or 1e-9
        self.busy = 0
        self.average = UNKNOWN
        self.at = 0.0


class _ByLoad:
    """Keeps count of what is under way and how long it takes."""

    def __init__(
        self,
        instances: Sequence[Instance] = (),
        rand: Callable[[], float] = random.random,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._random = rand
        self._clock = clock
        self._loads: dict[str, _Load] = {}
        self._all: list[_Load] = []
        self.update(instances)

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on; what is known of those that stay is kept."""
        fresh: dict[str, _Load] = {}
        for instance in instances:
            load = fresh[instance.address] = _Load(instance)
            if (known := self._loads.get(instance.address)) is not None:
                load.busy, load.average, load.at = known.busy, known.average, known.at
        self._loads = fresh
        self._all = list(fresh.values())

    def begin(self, instance: Instance) -> None:
        """An attempt begins."""
        load = self._loads.get(instance.address)
        if load is not None:
            load.busy += 1

    def end(self, instance: Instance, seconds: float, failed: bool) -> None:
        """It is over."""
        load = self._loads.get(instance.address)
        if load is None:
            return
        if load.busy > 0:
            load.busy -= 1
        if failed and seconds < PENALTY:
            seconds = PENALTY
        now = self._clock()
        if seconds > load.average:
            # A peak counts at once: who just took long must not get the next call too.
            load.average = seconds
        else:
            share = math.exp((load.at - now) / DECAY)
            load.average = load.average * share + seconds * (1.0 - share)
        load.at = now

    def cost(self, load: _Load, now: float) -> float:
        """What one more call is likely to take."""
        average = load.average
        if average > UNKNOWN:
            # Nobody calls an instance that looks slow, so nobody learns when it is well again: what is known fades.
            average *= math.exp((load.at - now) / DECAY)
        return max(UNKNOWN, average) * (load.busy + 1) / load.share

    def snapshot(self) -> list[dict[str, object]]:
        """Calls under way and average time by instance."""
        return [{"address": each.instance.address, "busy": each.busy, "average": each.average} for each in self._all]


class PowerOfTwo(_ByLoad):
    """Two at random, of which the one likely to be sooner through: by moving average of latency, calls under way and weight.

    (M. Mitzenmacher, "The Power of Two Choices"; the average as in Finagle's peak EWMA.) A failed attempt counts as one of a second.
    """

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """The better of two."""
        every = self._all
        if avoid:
            every = [load for load in every if load.instance.address not in avoid]
        size = len(every)
        if size < 2:
            return every[0].instance if every else None
        first = int(self._random() * size)
        second = int(self._random() * (size - 1))
        if second >= first:
            second += 1
        one, other = every[first], every[second]
        now = self._clock()
        return (one if self.cost(one, now) <= self.cost(other, now) else other).instance


class LeastLoaded(_ByLoad):
    """The one with the fewest calls under way, by weight; at random among equals."""

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """The least busy."""
        best: _Load | None = None
        least = math.inf
        equals = 1
        for load in self._all:
            if avoid and load.instance.address in avoid:
                continue
            busy = (load.busy + 1) / load.share
            if busy < least:
                best, least, equals = load, busy, 1
            elif busy == least:
                equals += 1
                if self._random() * equals < 1:
                    best = load
        return best.instance if best is not None else None

"""At random by weight: by bisection, and in constant time with Vose's alias table."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate

from governance.call import Call
from governance.instance import NOBODY, Instance

__all__ = ["Alias", "WeightedRandom"]


class WeightedRandom:
    """Each with the chance its weight gives it."""

    def __init__(self, instances: Sequence[Instance] = (), rand: Callable[[], float] = random.random) -> None:
        self._random = rand
        self._state: tuple[tuple[Instance, ...], list[int]] = ((), [])
        self.update(instances)

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on."""
        self._state = tuple(instances), list(accumulate(_weights(instances)))

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """One of them."""
        instances, sums = self._state
        if avoid:
            instances = tuple(each for each in instances if each.address not in avoid)
            sums = list(accumulate(_weights(instances)))
        if not instances:
            return None
        return instances[bisect_right(sums, self._random() * sums[-1], 0, len(sums) - 1)]


class Alias:
    """The same chances from a table made beforehand (M. Vose, 1991): one random number for a pick, however many instances there are."""

    def __init__(self, instances: Sequence[Instance] = (), rand: Callable[[], float] = random.random) -> None:
        self._random = rand
        self._state: tuple[tuple[Instance, ...], list[float], list[int]] = ((), [], [])
        self.update(instances)

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on."""
        weights = _weights(instances)
        size, total = len(weights), sum(weights)
        chances = [weight * size / total for weight in weights]
        alias = list(range(size))
        small = [index for index, chance in enumerate(chances) if chance < 1]
        large = [index for index, chance in enumerate(chances) if chance >= 1]
        while small and large:
            less, more = small.pop(), large.pop()
            alias[less] = more
            chances[more] -= 1 - chances[less]
            (small if chances[more] < 1 else large).append(more)
        for index in (*small, *large):  # what rounding left over
            chances[index] = 1.0
        self._state = tuple(instances), chances, alias

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """One of them."""
        instances, chances, alias = self._state
        if not instances:
            return None
        number = self._random() * len(instances)
        index = int(number)
        found = instances[index if number - index < chances[index] else alias[index]]
        if not avoid or found.address not in avoid:
            return found
        return WeightedRandom(instances, self._random).pick(call, avoid)


def _weights(instances: Sequence[Instance]) -> list[int]:
    """All zero is all equal: there is nobody better."""
    weights = [instance.weight for instance in instances]
    return weights if any(weights) else [1] * len(weights)

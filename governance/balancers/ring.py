"""The same key to the same instance: consistent hashing on a ring that is the same in every process."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from governance.call import Call
from governance.instance import DEFAULT_WEIGHT, NOBODY, Instance

__all__ = ["ConsistentHash"]

# Points on the ring of an instance of the default weight; Kitex has 100 (`consist.go`: VirtualFactor).
POINTS: Final = 100
MOST_POINTS: Final = 5000


class ConsistentHash:
    """The instance whose point on the ring comes first after the key's; a change of instances moves few keys.

    `key` makes a call's key from the Call, whose `args` it may look at. Points and keys are hashed with BLAKE2b without a seed: any process, anywhere,
    has the same ring (Kitex seeds it anew in each). With `weighted` an instance has points by its weight; all of weight 0
    count as equal.
    """

    def __init__(
        self, key: Callable[[Call], str | bytes], instances: Sequence[Instance] = (), *, weighted: bool = True
    ) -> None:
        self._key = key
        self._weighted = weighted
        self._state: tuple[list[int], list[Instance]] = ([], [])
        self.update(instances)

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on."""
        by_weight = self._weighted and any(instance.weight for instance in instances)
        points = []
        for instance in instances:
            number = POINTS * instance.weight // DEFAULT_WEIGHT if by_weight else POINTS
            if by_weight and instance.weight:
                number = max(1, number)
            points += [
                (place(f"{instance.address}#{index}".encode()), instance.address, instance)
                for index in range(min(number, MOST_POINTS))
            ]
        points.sort(key=lambda point: point[:2])
        self._state = [point[0] for point in points], [point[2] for point in points]

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """The one the key belongs to; the next on the ring when that one is to be avoided."""
        places, owners = self._state
        if not owners:
            return None
        key = self._key(call)
        start = bisect_left(places, place(key.encode() if isinstance(key, str) else key))
        for step in range(len(owners)):
            owner = owners[(start + step) % len(owners)]
            if not avoid or owner.address not in avoid:
                return owner
        return None


def place(data: bytes) -> int:
    """Where on the ring: 64 bits."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")

"""One after the other: plain, weighted and smooth, weighted and interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import count
from math import gcd
from typing import Final

from governance.call import Call
from governance.instance import NOBODY, Instance

__all__ = ["Interleaved", "RoundRobin", "WeightedRoundRobin"]

# The order of a whole round is worked out beforehand, so that a pick is one look into a list. A round is at most so long; weights that would need
# more are made coarser, by less than one part in a hundred for up to 100 instances.
LONGEST_ROUND: Final = 10_000


class _Rotation:
    """Goes through a list that holds each instance as often as its weight says."""

    def __init__(self, instances: Sequence[Instance] = ()) -> None:
        self._round: tuple[Instance, ...] = ()
        self._turn = count()
        self.update(instances)

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on."""
        self._round = tuple(self.arrange(instances)) if instances else ()

    def arrange(self, instances: Sequence[Instance]) -> list[Instance]:
        """The order of one round."""
        raise NotImplementedError

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """The next one."""
        turns = self._round
        if not turns:
            return None
        turn = next(self._turn)
        found = turns[turn % len(turns)]
        if not avoid or found.address not in avoid:
            return found
        for step in range(1, len(turns)):
            found = turns[(turn + step) % len(turns)]
            if found.address not in avoid:
                return found
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {len(set(self._round))} instances>"


class RoundRobin(_Rotation):
    """All get the same share, whatever their weights."""

    def arrange(self, instances: Sequence[Instance]) -> list[Instance]:
        """As they come."""
        return list(instances)


class WeightedRoundRobin(_Rotation):
    """Shares by weight, spread as evenly as can be (nginx's smooth weighted round robin): a, b, a for 2:1, and not a, a, b."""

    def arrange(self, instances: Sequence[Instance]) -> list[Instance]:
        """Each step everyone gains its weight; who has most goes and pays the sum."""
        shares = reduced([instance.weight for instance in instances])
        credit = [0] * len(shares)
        total = sum(shares)
        order = []
        for _ in range(total):
            best = 0
            for index, share in enumerate(shares):
                credit[index] += share
                if credit[index] > credit[best]:
                    best = index
            credit[best] -= total
            order.append(instances[best])
        return order


class Interleaved(_Rotation):
    """Shares by weight in rounds: all of them in the first, then those that have turns left. Cheaper to arrange, less even."""

    def arrange(self, instances: Sequence[Instance]) -> list[Instance]:
        """Round after round."""
        shares = reduced([instance.weight for instance in instances])
        return [
            instance for turn in range(max(shares)) for instance, share in zip(instances, shares, strict=True) if share > turn
        ]


def reduced(weights: Sequence[int]) -> list[int]:
    """The smallest whole numbers with these proportions, or nearly these where a round would get too long. All zero: all equal."""
    if not any(weights):
        return [1] * len(weights)
    divisor = gcd(*weights)
    shares = [weight // divisor for weight in weights]
    # What working out a round costs is its length times the instances, each time an instance changes.
    longest = max(len(shares), min(LONGEST_ROUND, LONGEST_ROUND * 100 // len(shares)))
    total = sum(shares)
    if total > longest:
        shares = [max(1, round(share * longest / total)) if share else 0 for share in shares]
        divisor = gcd(*shares)
        shares = [share // divisor for share in shares]
    return shares

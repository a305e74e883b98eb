"""One address of a service, and who says which is next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, Self, runtime_checkable

from governance.call import Call

__all__ = ["DEFAULT_WEIGHT", "NOBODY", "Balancer", "Instance", "Observing", "give_up"]

# Kitex's (`pkg/registry`: DefaultWeight).
DEFAULT_WEIGHT: Final = 10
MOST_WEIGHT: Final = 1_000_000

NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Instance:
    """One address of a service: ``tcp://host:port`` or ``unix:///path``.

    An instance of weight 20 gets twice the calls of one of 10, one of weight 0 none while others have more. `zone` and `tags` are for
    balancers that look at them; `started` is when it began to serve (seconds since 1970, 0 unknown), for those that let it warm up.
    """

    address: str
    weight: int = DEFAULT_WEIGHT
    zone: str = ""
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    started: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """As a registry writes it down."""
        return {
            "address": self.address,
            "weight": self.weight,
            "zone": self.zone,
            "tags": dict(self.tags),
            "started": self.started,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Self:
        """What `to_plain` made, or something like it that another program wrote. Raises ValueError that says what is wrong."""
        if not isinstance(plain, dict) or not isinstance(plain.get("address"), str) or not plain["address"]:
            raise ValueError("an instance is a table with an address")
        weight = plain.get("weight", DEFAULT_WEIGHT)
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= MOST_WEIGHT:
            raise ValueError(f"a weight is a whole number from 0 to {MOST_WEIGHT}, not {weight!r}")
        tags = plain.get("tags") or {}
        if not isinstance(tags, dict) or not all(isinstance(part, str) for pair in tags.items() for part in pair):
            raise ValueError("tags are texts by name")
        zone = plain.get("zone") or ""
        started = plain.get("started") or 0.0
        if not isinstance(zone, str) or isinstance(started, bool) or not isinstance(started, int | float):
            raise ValueError("zone is a text and started a number of seconds")  # noqa: TRY004 -- one error for what others wrote
        return cls(plain["address"], weight, zone, MappingProxyType(dict(tags)), float(started))


class Balancer(Protocol):
    """Chooses an instance for each attempt. May be called from several threads at one time."""

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on. Called before the first `pick`, and at each change."""

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """The instance for this attempt, none of the addresses in `avoid`; None when there is no other."""


@runtime_checkable
class Observing(Protocol):
    """A balancer that wants to know how attempts went.

    It may also have ``abandon(instance, seconds)``: the attempt was given up after so long, which is neither of what `end` tells.
    """

    def begin(self, instance: Instance) -> None:
        """An attempt at `instance` begins."""

    def end(self, instance: Instance, seconds: float, failed: bool) -> None:
        """It took so long, and went well or not."""


def give_up(balancer: Any, instance: Instance, seconds: float) -> None:
    """Tell `balancer` that an attempt was given up, in the way it understands."""
    tell = getattr(balancer, "abandon", None)
    if tell is not None:
        tell(instance, seconds)
    elif isinstance(balancer, Observing):
        balancer.end(instance, seconds, False)

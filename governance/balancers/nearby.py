"""Those of the same zone, or of the same tags, first: which instances another balancer may choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from governance.call import Call
from governance.instance import NOBODY, Balancer, Instance, Observing, give_up

__all__ = ["Tagged", "Zoned"]

MakeBalancer = Callable[[Sequence[Instance]], Balancer]


class _Parts:
    """Balancers over parts of the instances, and over all of them; each is told of the attempts at its own."""

    def __init__(self, make: MakeBalancer) -> None:
        self._make = make
        self._all = make(())
        self._parts: dict[object, Balancer] = {}

    def split(self, instances: Sequence[Instance], parts: Mapping[object, Sequence[Instance]]) -> None:
        self._all.update(instances)
        fresh = {}
        for name, part in parts.items():
            fresh[name] = self._parts.get(name) or self._make(())
            fresh[name].update(part)
        self._parts = fresh

    def begin(self, instance: Instance) -> None:
        """An attempt begins."""
        for balancer in (self._all, *self._parts.values()):
            if isinstance(balancer, Observing):
                balancer.begin(instance)

    def end(self, instance: Instance, seconds: float, failed: bool) -> None:
        """It is over."""
        for balancer in (self._all, *self._parts.values()):
            if isinstance(balancer, Observing):
                balancer.end(instance, seconds, failed)

    def abandon(self, instance: Instance, seconds: float) -> None:
        """It was given up."""
        for balancer in (self._all, *self._parts.values()):
            give_up(balancer, instance, seconds)


class Zoned(_Parts):
    """Those of `zone` while at least `least` of them can be called; then all. `make` makes the balancer that chooses among them."""

    def __init__(self, make: MakeBalancer, zone: str, *, least: int = 1, instances: Sequence[Instance] = ()) -> None:
        super().__init__(make)
        self.zone = zone
        self.least = least
        self._here: tuple[Instance, ...] = ()
        self.update(instances)

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on."""
        self._here = tuple(each for each in instances if each.zone == self.zone)
        self.split(instances, {self.zone: self._here})

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """One of the zone, or of all."""
        here = len(self._here) if not avoid else sum(each.address not in avoid for each in self._here)
        found = self._parts[self.zone].pick(call, avoid) if here >= self.least and here else None
        return found or self._all.pick(call, avoid)


class Tagged(_Parts):
    """Those whose tag `key` has the value the call asks for; those without that tag when there are none, or when it asks for nothing.

    `wanted(call)` gives the value, or an empty string. So a change can be tried out: one instance tagged ``lane = "blue"`` gets the calls that
    carry that tag, and no others.
    """

    def __init__(
        self, make: MakeBalancer, key: str, wanted: Callable[[Call], str], instances: Sequence[Instance] = ()
    ) -> None:
        super().__init__(make)
        self.key = key
        self._wanted = wanted
        self.update(instances)

    def update(self, instances: Sequence[Instance]) -> None:
        """These are the instances from now on."""
        parts: dict[object, list[Instance]] = {}
        for instance in instances:
            parts.setdefault(instance.tags.get(self.key, ""), []).append(instance)
        self.split(instances, parts)

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """One with the tag, or one without."""
        for value in dict.fromkeys((self._wanted(call), "")):
            part = self._parts.get(value)
            found = part.pick(call, avoid) if part is not None else None
            if found is not None:
                return found
        return None

"""One address of a service, and who is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from governance.call import Call

__all__ = ["Balancer", "Instance", "RoundRobin"]


@dataclass(frozen=True)
class Instance:
    """One address of a service: ``tcp://host:port`` or ``unix:///path``."""

    address: str


class Balancer(Protocol):
    """Chooses an instance for each attempt."""

    def pick(self, call: Call) -> Instance:
        """The instance for this attempt."""


class RoundRobin:
    """One after the other, beginning anywhere would do as well: all instances get the same share."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        if not instances:
            raise ValueError("there is no instance to choose from")
        self.instances = tuple(instances)
        self._next = count()

    def pick(self, call: Call) -> Instance:
        """The next one."""
        return self.instances[next(self._next) % len(self.instances)]

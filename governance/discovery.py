"""Where the instances of a service are: who knows, who is told, and what is done while nobody knows.

A **Resolver** finds the instances of one service; a **Registry** is told of one instance. A user's own is one small class. A **Directory**
keeps what a resolver found, tells the balancer of each change, and goes on with what it knows while the resolver fails: a registry that is down
must cost no call.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from governance.errors import NoInstance
from governance.instance import Balancer, Instance
from poller.clock import monotonic

__all__ = ["Change", "Directory", "DiscoveryError", "Registration", "Registry", "Resolver", "Static", "Watching"]

log = logging.getLogger("weego.governance")

# Kitex's (`lbcache`: refresh 5 s; its event queue holds 200).
DEFAULT_INTERVAL: Final = 5.0
KEPT_CHANGES: Final = 200


class DiscoveryError(Exception):
    """A resolver or a registry could not do what it was asked; the text says where and why."""


class Resolver(Protocol):
    """Finds the instances of one service."""

    def resolve(self) -> Sequence[Instance]:
        """All of them, now. May wait. Raises DiscoveryError, or any other error, when it cannot say.

        It may also have ``interval``: seconds until it should be asked again; ``source``: where it looks, for people; and ``close()``, which its client
        calls when it is done.
        """


@runtime_checkable
class Watching(Protocol):
    """A resolver that hears of changes by itself."""

    def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
        """Wait for changes for as long as it works, and `publish` all instances at each. Returns or raises when it cannot go on:
        it is called again, after a pause. ``close()`` of such a resolver, which any thread may call, has it return.
        """


@dataclass(frozen=True, slots=True)
class Registration:
    """One instance to announce. Whoever announced it and is not heard of for `ttl` seconds is taken for gone."""

    service: str
    instance: Instance
    ttl: float = 10.0


class Registry(Protocol):
    """Is told which instances there are."""

    def register(self, registration: Registration) -> None:
        """Announce the instance, or say that it is still there: called again every third of its ttl. May wait; errors are told and tried again."""

    def withdraw(self, registration: Registration) -> None:
        """It takes no more calls. May be called for one that is not there.

        It may also have ``close()``, which whoever made it calls when it is done.
        """


class Static:
    """Instances that never change."""

    interval = float("inf")
    source = "addresses of the client's own"

    def __init__(self, instances: Sequence[Instance]) -> None:
        self.instances = tuple(instances)

    def resolve(self) -> Sequence[Instance]:
        """They."""
        return self.instances


@dataclass(frozen=True, slots=True)
class Change:
    """What a resolver said that was new. `at` is monotonic seconds; the rest are addresses."""

    service: str
    at: float
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    problem: str = ""


class Directory:
    """The instances of `service`, as `resolver` finds them and `balancer` chooses from them.

    `on_change(change)` is called after each change; what it raises is logged. A resolver that says there are none, after there were some, is not
    believed: registries that restart forget, and a call to somebody who is gone costs no more than a call to nobody.
    """

    def __init__(
        self,
        service: str,
        resolver: Resolver,
        balancer: Balancer,
        *,
        clock: Callable[[], float] = monotonic,
        on_change: Callable[[Change], object] | None = None,
    ) -> None:
        self.service = service
        self.resolver = resolver
        self.balancer = balancer
        self.interval = float(getattr(resolver, "interval", DEFAULT_INTERVAL))
        self.instances: tuple[Instance, ...] = ()
        self.problem = ""
        """Why the resolver said nothing the last time it was asked; empty: it did."""
        self.due = 0.0
        """When it should be asked next: monotonic seconds."""
        self.heard = 0.0
        """When the resolver last said who is there: monotonic seconds, 0: never."""
        self.changes: deque[Change] = deque(maxlen=KEPT_CHANGES)
        self._clock = clock
        self._on_change = on_change

    def refresh(self) -> bool:
        """Ask the resolver. False, and `problem` says why, when it does not know."""
        self.due = self._clock() + self.interval
        try:
            found = self.resolver.resolve()
        except Exception as error:
            self.failed(str(error) or type(error).__name__)
            return False
        self.publish(found)
        return True

    def publish(self, found: Sequence[Instance]) -> None:
        """These are the instances now: called by `refresh`, and by a resolver that watches."""
        fresh = {each.address: each for each in found}
        if not fresh:
            self.failed("it knows no instance")
            return
        self.heard = self._clock()
        known = {each.address: each for each in self.instances}
        self.problem = ""
        if fresh == known:
            return
        self.instances = tuple(fresh.values())
        self.balancer.update(self.instances)
        self._tell(
            Change(
                self.service,
                self._clock(),
                added=tuple(fresh.keys() - known.keys()),
                removed=tuple(known.keys() - fresh.keys()),
                changed=tuple(address for address in fresh.keys() & known.keys() if fresh[address] != known[address]),
            )
        )

    def require(self) -> None:
        """Have instances, asking the resolver if there are none yet. Raises NoInstance."""
        if not self.instances and (not self.refresh() or not self.instances):
            raise NoInstance(f"no instance of {self.service} is known: {self.problem}")

    def failed(self, problem: str) -> None:
        """The resolver, or its watch, does not know; what is known stays."""
        if problem != self.problem:
            is_news = bool(self.instances) and not self.problem
            self.problem = problem
            (log.warning if is_news else log.debug)(
                "discovery of %s: %s; going on with %d known instances", self.service, problem, len(self.instances)
            )
            self._tell(Change(self.service, self._clock(), problem=problem))

    def _tell(self, change: Change) -> None:
        self.changes.append(change)
        if self._on_change is not None:
            try:
                self._on_change(change)
            except Exception:
                log.exception("discovery of %s: who listens to changes failed", self.service)

    def snapshot(self) -> dict[str, Any]:
        """Who is there, who says so, how many seconds ago, and what is wrong if something is; as plain values."""
        return {
            "service": self.service,
            "source": str(getattr(self.resolver, "source", None) or repr(self.resolver)),
            "age": round(self._clock() - self.heard, 3) if self.heard else None,
            "problem": self.problem,
            "instances": [each.to_plain() for each in self.instances],
            "changes": [
                {"at": each.at, "added": each.added, "removed": each.removed, "changed": each.changed, "problem": each.problem}
                for each in self.changes
            ],
        }

    def __repr__(self) -> str:
        return f"<Directory {self.service}: {len(self.instances)} instances>"

"""The assembly of a client's governance: a directory, a balancer, and for each method the stack of its policies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from codec.errors import UsageError
from codec.spec import MethodSpec
from governance.balancers.chance import Alias, WeightedRandom
from governance.balancers.ejection import Ejection
from governance.balancers.load import LeastLoaded, PowerOfTwo
from governance.balancers.nearby import Tagged, Zoned
from governance.balancers.ring import ConsistentHash
from governance.balancers.rotation import Interleaved, RoundRobin, WeightedRoundRobin
from governance.balancers.slow_start import SlowStart
from governance.breaker import Breaker
from governance.budget import Budget
from governance.call import Call
from governance.chain import Handler, Middleware
from governance.discovery import Change, Directory, Resolver
from governance.instance import Balancer, Instance
from governance.limiter import Limits
from governance.memory import Memory
from governance.meter import Meter
from governance.policy import BALANCERS, BreakerPolicy, ClientPolicy
from governance.stack import Attempts, Carry, client_handler
from governance.traffic import tag_of
from poller.clock import monotonic
from weego import keeper
from weego.tasks import tasks

__all__ = ["Governed", "make_balancer"]

log = logging.getLogger("weego.governance")

_MAKERS: dict[str, Callable[[], Balancer]] = {
    "p2c": PowerOfTwo,
    "least_loaded": LeastLoaded,
    "round_robin": RoundRobin,
    "weight_round_robin": WeightedRoundRobin,
    "interleaved_weight_round_robin": Interleaved,
    "weight_random": WeightedRandom,
    "weight_random_alias": Alias,
    "consistent_hash": lambda: ConsistentHash(lambda call: call.key or ""),
}
assert tuple(_MAKERS) == BALANCERS
# Changes of instances that a snapshot tells of, the newest: it is sent around.
_TOLD_CHANGES = 5
# What of a policy the balancer is made of.
_OF_BALANCER = ("balancer", "hash_key", "ejection", "zone", "tag", "slow_start")


def make_balancer(policy: ClientPolicy, on_change: Callable[[Instance, str], object] | None = None) -> Balancer:
    """The balancer that a policy describes. UsageError when it names none that there is."""
    make = policy.balancer
    if isinstance(make, str):
        if make not in _MAKERS:
            raise UsageError(f"unknown balancer {make!r}; choose one of {', '.join(BALANCERS)}")
        if make == "consistent_hash" and policy.hash_key is None:
            raise UsageError("consistent_hash needs hash_key, which makes a call's key")
        make = _MAKERS[make]
    chosen: Callable[[], Balancer] = make

    def fresh() -> Balancer:
        inner = chosen()
        return SlowStart(inner, policy.slow_start) if policy.slow_start else inner

    def zoned() -> Balancer:
        return Zoned(lambda _: fresh(), policy.zone) if policy.zone else fresh()

    found = Tagged(lambda _: zoned(), policy.tag, lambda call: tag_of(call, policy.tag)) if policy.tag else zoned()
    if policy.ejection is not None:
        found = Ejection(found, **asdict(policy.ejection), on_change=on_change)
    return found


class Governed:
    """What stands between a client and its transports.

    `carry(call, address, args)` is one attempt. `memory` is where breakers and meters count; that of the process where none is given. `handle`
    is the Handler of every method. `on_gone(addresses)` is told of instances that are no more.
    """

    def __init__(
        self,
        service: str,
        resolver: Resolver,
        policy: ClientPolicy,
        carry: Carry,
        *,
        middleware: Sequence[Middleware] = (),
        memory: Memory | None = None,
        on_gone: Callable[[Sequence[str]], object] = lambda addresses: None,
    ) -> None:
        self.service = service
        self._on_gone = on_gone
        self.policy = policy
        self.memory = memory or Memory()
        self.balancer = make_balancer(policy, self._ejection_changed)
        self.directory = Directory(service, resolver, self.balancer, on_change=self._instances_changed)
        self._carry = carry
        self.attempts = self._make_attempts()
        self.budget = Budget(policy.budget.ratio, policy.budget.per_second, cells=self.memory.find("budget", service))
        self.breakers: dict[str, Breaker] = {}
        self.meters: dict[str, Meter] = {}
        self.limits: dict[str, Limits] = {}
        self._middleware = tuple(middleware)
        self._handlers: dict[MethodSpec, Handler] = {}

    def _make_attempts(self) -> Attempts:
        wanted = self.policy.instance_breaker
        return Attempts(
            self.directory,
            self.balancer,
            self._carry,
            breaker_of=None if wanted is None else lambda address: self._breaker(f"{self.service} {address}", wanted),
        )

    def follow(self, policy: ClientPolicy) -> None:
        """Go by another policy from the next call on; calls under way keep theirs. Counts go on: they lie in the memory under their names."""
        before, self.policy = self.policy, policy
        if policy == before:
            return
        if any(getattr(policy, name) != getattr(before, name) for name in _OF_BALANCER):
            fresh = make_balancer(policy, self._ejection_changed)
            fresh.update(self.directory.instances)
            self.balancer = self.directory.balancer = fresh
        if policy.budget != before.budget:
            cells = self.memory.find("budget", self.service)
            self.budget = Budget(policy.budget.ratio, policy.budget.per_second, cells=cells)
        self.attempts = self._make_attempts()
        for each in (self.breakers, self.limits):
            each.clear()
        self._handlers = {}

    def handle(self, call: Call, args: tuple[Any, ...]) -> Any:
        """Make the call, with everything its method's policy has."""
        directory = self.directory
        if directory.due < monotonic() and (not directory.instances or keeper.is_overdue(directory)):
            if not directory.instances:
                directory.require()
            keeper.keep(directory)
        handler = self._handlers.get(call.spec)
        if handler is None:
            handler = self._handlers.setdefault(call.spec, self._compose(call.spec))
        return handler(call, args)

    def _compose(self, spec: MethodSpec) -> Handler:
        policy = self.policy.of(spec.name)
        name = f"{self.service}.{spec.name}"
        breaker = meter = limits = None
        if policy.breaker is not None:
            breaker = self.breakers[spec.name] = self._breaker(name, policy.breaker)
        if policy.metrics:
            meter = self.meters[spec.name] = Meter(self.service, spec.name, self.memory.find("counter", f"client {name}"), self.memory.tally_of(self.service, spec.name))
        if policy.limits:
            limits = self.limits[spec.name] = Limits(policy.limits, self.memory)
        idempotent = policy.idempotent if policy.idempotent is not None else bool(getattr(spec, "idempotent", False))
        return client_handler(
            self.attempts.handler(policy.attempt_timeout, policy.recv_timeout, policy.send_timeout),
            policy,
            idempotent=idempotent,
            budget=self.budget,
            tasks=tasks,
            meter=meter,
            breaker=breaker,
            limits=limits,
            middleware=self._middleware,
            hash_key=self.policy.hash_key,
            service=self.service,
            method=spec.name,
        )

    def timeout_of(self, spec: MethodSpec) -> float | None:
        """What the policy gives a call of this method that names no timeout."""
        return self.policy.of(spec.name).timeout

    def _breaker(self, name: str, wanted: BreakerPolicy) -> Breaker:
        cells = self.memory.find("breaker", name)
        return Breaker(name, cells=cells, **asdict(wanted), on_change=self._breaker_changed)

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _breaker_changed(self, breaker: Breaker, before: str, after: str) -> None:
        (log.warning if after == "open" else log.info)("breaker of %s: %s, was %s", breaker.name, after, before)

    def _ejection_changed(self, instance: Instance, what: str) -> None:
        (log.warning if what == "ejected" else log.info)("instance %s of %s: %s", instance.address, self.service, what)

    def _instances_changed(self, change: Change) -> None:
        self.attempts.keep([each.address for each in self.directory.instances])
        if change.removed:
            self._on_gone(change.removed)
        if change.added or change.removed or change.changed:
            log.info(
                "instances of %s: %d, added %s, removed %s, changed %s",
                change.service, len(self.directory.instances), list(change.added), list(change.removed), list(change.changed),
            )  # fmt: skip

    # ---- its end, and what there is to see ---------------------------------------------------------------------------

    def close(self) -> None:
        """The directory is kept no longer."""
        keeper.forget(self.directory)
        self.directory.due = float("inf")

    def snapshot(self) -> dict[str, Any]:
        """Instances and how they changed of late, breakers, limits, meters and the retry budget, as plain values."""
        ejected = set(self.balancer.ejected) if isinstance(self.balancer, Ejection) else set()
        found = self.directory.snapshot()
        return {
            "service": self.service,
            "source": found["source"],
            "age": found["age"],
            "problem": found["problem"],
            "changes": [
                {"ago": round(monotonic() - each["at"], 3), **{name: each[name] for name in ("added", "removed", "changed", "problem")}}
                for each in found["changes"][-_TOLD_CHANGES:]
            ],
            "instances": [
                {**instance.to_plain(), "ejected": instance.address in ejected, **self._breaker_state(instance.address)}
                for instance in self.directory.instances
            ],
            "breakers": [breaker.snapshot() for breaker in self.breakers.values()],
            "limits": [entry for limits in self.limits.values() for entry in limits.snapshot()],
            "calls": [meter.snapshot() for meter in self.meters.values()],
            "retry_budget": {"left": round(self.budget.left, 1), "refused": self.budget.refused},
        }

    def _breaker_state(self, address: str) -> dict[str, str]:
        breaker = self.attempts.breakers.get(address)
        return {"breaker": breaker.state} if breaker is not None else {}

"""What a server takes on, by service, method and caller; the rest is refused at once, with an error that names the limit.

A refusal is ResourceExhausted: the caller can tell it from a failure, and knows that nothing was done, so that it may go elsewhere. Limits count in the
cells they are given: over all workers where those are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from codec.errors import ResourceExhausted
from governance.acl import names_of
from governance.call import Call
from governance.chain import Handler, Middleware
from governance.limits import Concurrency, Rate
from governance.memory import Memory
from poller.clock import monotonic

__all__ = ["LimitRule", "limiter"]

# Callers that have limits of their own under one rule; those that come later share one. A name is whatever a peer says.
MOST_CALLERS: Final = 256


@dataclass(frozen=True)
class LimitRule:
    """At most `concurrency` calls at one time and `rate` a second (0: no such limit), of the methods and callers that the patterns name.

    With `each_caller` every caller has that much for itself, else all that fit share it. A caller's name is what it says; with a `certificate` the pattern must fit a
    name in the certificate that it proved to be its own, and that name is the caller's. `name` is what a refusal says.
    """

    name: str
    rate: float = 0.0
    burst: float = 0.0
    concurrency: int = 0
    method: str = "*"
    caller: str = "*"
    each_caller: bool = False
    certificate: str = "*"

    def __post_init__(self) -> None:
        if self.rate < 0 or self.burst < 0 or self.concurrency < 0 or not (self.rate or self.concurrency):
            raise ValueError(f"limit {self.name!r}: give it a rate, a concurrency or both, more than 0")

    def concerns(self, service: str, method: str) -> bool:
        """May this rule speak of that method?"""
        return fnmatchcase(method, self.method) or fnmatchcase(f"{service}.{method}", self.method)


class _Limit:
    """The counters of one rule for one caller, or for all."""

    def __init__(self, rule: LimitRule, name: str, memory: Memory, clock: Callable[[], float] | None) -> None:
        self.rule = rule
        self.name = name
        self.refused = 0
        self.rate = Rate(rule.rate, rule.burst, cells=memory.find("rate", name), clock=clock) if rule.rate else None
        self.concurrency = (
            Concurrency(rule.concurrency, seats=memory.seats, cells=memory.find("concurrency", name))
            if rule.concurrency
            else None
        )

    def refusal(self, call: Call, what: str) -> ResourceExhausted:
        self.refused += 1
        return ResourceExhausted(f"{call.service}.{call.method}: limit {self.name}, {what}; try another instance or later")


class Limits:
    """All limits of one server: which apply to a call, and their state."""

    def __init__(self, rules: Sequence[LimitRule], memory: Memory | None = None, clock: Callable[[], float] | None = None) -> None:
        self.rules = tuple(rules)
        self.memory = memory or Memory()
        self._clock = clock
        self._limits: dict[str, _Limit] = {}
        self._callers: dict[str, int] = {}
        self._next_sweep = 0.0

    def middleware(self, service: str, method: str) -> Middleware | None:
        """The limiter of one method; None when no rule concerns it."""
        rules = [rule for rule in self.rules if rule.concerns(service, method)]
        if not rules:
            return None
        if all(rule.caller == rule.certificate == "*" and not rule.each_caller for rule in rules):
            fixed = tuple(self._limit(rule, rule.name) for rule in rules)
            return self._wrap(lambda call: fixed)
        return self._wrap(lambda call: self._for(rules, call))

    def _for(self, rules: Sequence[LimitRule], call: Call) -> tuple[_Limit, ...]:
        found = []
        for rule in rules:
            caller = call.caller
            if not fnmatchcase(caller, rule.caller):
                continue
            if rule.certificate != "*":
                proved = [name for name in names_of(call) if name and fnmatchcase(name, rule.certificate)]
                if not proved:
                    continue
                caller = proved[0]
            found.append(self._limit(rule, self._name(rule, caller) if rule.each_caller else rule.name))
        return tuple(found)

    def _name(self, rule: LimitRule, caller: str) -> str:
        name = f"{rule.name} for {caller or '(no name)'}"
        if name not in self._limits:
            if self._callers.get(rule.name, 0) >= MOST_CALLERS:
                return f"{rule.name} for others"
            self._callers[rule.name] = self._callers.get(rule.name, 0) + 1
        return name

    def _limit(self, rule: LimitRule, name: str) -> _Limit:
        limit = self._limits.get(name)
        if limit is None:
            limit = self._limits[name] = _Limit(rule, name, self.memory, self._clock)
        return limit

    def _wrap(self, limits_of: Callable[[Call], tuple[_Limit, ...]]) -> Middleware:
        def wrap(handler: Handler) -> Handler:
            def handle(call: Call, args: tuple[Any, ...]) -> Any:
                entered: list[Concurrency] = []
                held = False
                try:
                    for limit in limits_of(call):
                        if limit.concurrency is not None:
                            if not limit.concurrency.enter() and not self._after_sweep(limit.concurrency):
                                raise limit.refusal(call, f"{limit.rule.concurrency} calls at one time")
                            entered.append(limit.concurrency)
                        if limit.rate is not None and not limit.rate.take():
                            raise limit.refusal(call, f"{limit.rule.rate:g} calls a second")
                    value = handler(call, args)
                    if entered and call.is_server and call.spec.server_streaming:
                        held = True
                        return _Held(value, entered)
                    if entered and call.ending is not None:  # a client's stream
                        held = True
                        call.ending.watch(lambda error, heard: [concurrency.leave() for concurrency in entered])
                    return value
                finally:
                    if not held:
                        for concurrency in entered:
                            concurrency.leave()

            return handle

        return wrap

    def _after_sweep(self, concurrency: Concurrency) -> bool:
        """A full limit may be full of the calls of a worker that was killed: look, at most once a second, and try again."""
        now = monotonic()
        if now < self._next_sweep:
            return False
        self._next_sweep = now + 1.0
        self.memory.seats.sweep()
        return concurrency.enter()

    @property
    def refused(self) -> int:
        """How many calls this process refused."""
        return sum(limit.refused for limit in list(self._limits.values()))

    def snapshot(self) -> list[dict[str, Any]]:
        """Each limit: what it allows, what there is, how many this process refused."""
        return [
            {
                "name": limit.name,
                "rate": limit.rule.rate,
                "concurrency": limit.rule.concurrency,
                "current": limit.concurrency.current if limit.concurrency else 0,
                "refused": limit.refused,
            }
            for limit in self._limits.values()
        ]


class _Held:
    """What a streaming handler answers with, message by message: the call is under way until whoever sends them closes this."""

    def __init__(self, values: Any, entered: list[Concurrency]) -> None:
        self._values = values
        self._entered = entered

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def close(self) -> None:
        """The stream is over, or is not wanted any more."""
        entered, self._entered = self._entered, []
        try:
            close = getattr(self._values, "close", None)
            if close is not None:
                close()
        finally:
            for concurrency in entered:
                concurrency.leave()


def limiter(rules: Sequence[LimitRule], service: str, method: str, memory: Memory | None = None) -> Middleware | None:
    """The limiter of one method by itself; see Limits."""
    return Limits(rules, memory).middleware(service, method)

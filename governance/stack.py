"""The order of a client's and a server's policies, in one place, each line with its reason. What is off is not in the chain.

Client, from the outside in
    metrics           above all that can refuse or answer, so that what the caller saw is what is counted
    deadline          (in the Call, set before the chain) above all attempts: it bounds the call, and an attempt gets what is left of it
    user middleware   sees one call, however many attempts it takes, and the answer the caller gets
    tags, key         once: every attempt carries the same
    access rules      before anything is counted against a service that this caller may not call
    faults            as if the service had failed: the policies below do not know the difference, and are not troubled by it
    fallback          above the breaker: a refusal by it is one of the things it is for
    service breaker   above the retries: what counts is whether the call worked in the end, and an open breaker must not be tried again
    limits            what this side lets out: above the retries, which have a budget of their own
    retry or hedge    above the choice of an instance: another attempt is another instance
    per attempt
      pick            before the instance's breaker, which says no by having another one picked
      instance breaker
      attempt timeout the deadline of this attempt: a part of what is left of the call's
      observation     what the balancer, ejection and the breaker learn: around the connection, for making one counts too
      connection      the transport's: pool, connect, send, wait

Server, from the outside in
    counters, access log   (the dispatcher) above all that can refuse a call, so that refusals are seen
    shedding          (the dispatcher's queue) first: in overload the earliest and cheapest refusal is the best, and who is refused must not wait for it
    limits            before the deadline: a call that is refused needs none
    deadline          (the dispatcher) above the user's middleware, whose time counts too
    access rules      after the limits: a caller who may not call must not be able to make us evaluate rules without bound
    faults            where the handler would be
    user middleware   in the order of the list, the first outermost
    handler
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from governance.acl import acl
from governance.breaker import Breaker
from governance.budget import Budget
from governance.call import Call
from governance.chain import Handler, Middleware, compose
from governance.discovery import Directory
from governance.fallback import fallback
from governance.faults import faults
from governance.instance import Balancer
from governance.limiter import Limits
from governance.meter import Meter
from governance.path import Attempt, Breaking, Metering, Tagging
from governance.policy import Policy
from governance.retry import Tasks, hedging, make_decision, retrying

__all__ = ["Attempts", "client_handler", "server_middleware"]

Carry = Callable[[Call, str, tuple[Any, ...]], Any]
"""``carry(call, address, args)``: one attempt at that address; the transport behind it is not governance's affair."""


class Attempts:
    """One attempt of any method: pick, instance breaker, attempt timeout, observation, connection.

    `breaker_of(address)` makes the breaker of an instance; None leaves them out.
    """

    def __init__(
        self,
        directory: Directory,
        balancer: Balancer,
        carry: Carry,
        *,
        breaker_of: Callable[[str], Breaker] | None = None,
    ) -> None:
        self.directory = directory
        self.balancer = balancer
        self.carry = carry
        self.breakers: dict[str, Breaker] = {}
        self._breaker_of = breaker_of

    def keep(self, addresses: Sequence[str]) -> None:
        """Forget the breakers of instances that are gone."""
        for address in self.breakers.keys() - set(addresses):
            del self.breakers[address]

    def handler(self, attempt_timeout: float, recv_timeout: float = 0.0, send_timeout: float = 0.0) -> Handler:
        """The Handler of one attempt; see `Policy` for the times."""
        return Attempt(
            self.directory, self.balancer, self.carry, self.breakers, self._breaker_of, attempt_timeout, recv_timeout, send_timeout
        )


def client_handler(
    attempt: Handler,
    policy: Policy,
    *,
    idempotent: bool,
    budget: Budget,
    tasks: Callable[[], Tasks],
    meter: Meter | None = None,
    breaker: Breaker | None = None,
    limits: Limits | None = None,
    middleware: Sequence[Middleware] = (),
    hash_key: Callable[[Call, tuple[Any, ...]], str] | None = None,
    service: str = "",
    method: str = "",
) -> Handler:
    """The Handler of one method of a client. Every policy that `policy` leaves out is absent."""
    handler = attempt
    on_retry: Callable[[Call], Any] = (lambda _: meter.retried()) if meter is not None else (lambda _: None)
    on_hedge: Callable[[Call], Any] = (lambda _: meter.hedged()) if meter is not None else (lambda _: None)
    if policy.retry is not None:
        decision = make_decision(policy.retry, idempotent=idempotent, budget=budget)
        if policy.retry.hedges and idempotent:
            handler = hedging(handler, decision, tasks, on_hedge, on_retry)
        else:
            handler = retrying(handler, decision, tasks, on_retry)
    limiting = limits.middleware(service, method) if limits is not None else None
    if limiting is not None:
        handler = limiting(handler)
    if breaker is not None:
        handler = Breaking(handler, breaker, policy.breaker_counts)
    if policy.fallback is not None:
        handler = fallback(policy.fallback, policy.fallback_when)(handler)
    if policy.faults:
        handler = faults(policy.faults, lambda seconds: tasks().sleep(seconds))(handler)
    if policy.acl:
        handler = acl(policy.acl, allow=policy.acl_default)(handler)
    handler = Tagging(handler, hash_key)
    handler = compose(handler, middleware)
    if meter is not None:
        handler = Metering(handler, meter)
    return handler


def server_middleware(
    service: str,
    method: str,
    *,
    limits: Limits | None = None,
    policy: Policy | None = None,
    sleep: Callable[[float], Any] = lambda _: None,
) -> list[Middleware]:
    """What stands above the user's middleware on the server, outermost first."""
    found: list[Middleware] = []
    limiting = limits.middleware(service, method) if limits is not None else None
    if limiting is not None:
        found.append(limiting)
    if policy is not None:
        if policy.acl or not policy.acl_default:
            found.append(acl(policy.acl, allow=policy.acl_default))
        if policy.faults:
            found.append(faults(policy.faults, sleep))
    return found

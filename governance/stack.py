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
    shedding          first: in overload the cheapest refusal is the best, and what it looks at is the wait, which is over now
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

from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    Code,
    DeadlineExceeded,
    EncodeError,
    Origin,
    ProtocolError,
    ResourceExhausted,
    RpcError,
    Unavailable,
    UsageError,
)
from governance.acl import acl
from governance.breaker import Breaker
from governance.budget import Budget
from governance.call import Call
from governance.chain import Handler, Middleware, compose
from governance.discovery import Directory
from governance.errors import BreakerOpen, NoInstance
from governance.fallback import fallback
from governance.faults import faults
from governance.instance import NOBODY, Balancer, Observing
from governance.limiter import Limits, shedding
from governance.meter import Meter
from governance.policy import Policy
from governance.retry import Tasks, hedging, make_decision, retrying
from governance.shedder import Shedder
from governance.traffic import inherit
from poller.clock import monotonic

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

    def breaker(self, address: str) -> Breaker:
        """Of one instance."""
        assert self._breaker_of is not None
        return self.breakers.setdefault(address, self._breaker_of(address))

    def keep(self, addresses: Sequence[str]) -> None:
        """Forget the breakers of instances that are gone."""
        for address in self.breakers.keys() - set(addresses):
            del self.breakers[address]

    def handler(self, attempt_timeout: float) -> Handler:
        """The Handler of one attempt."""
        directory, pick, carry = self.directory, self.balancer.pick, self.carry
        breakers, has_breakers = self.breakers, self._breaker_of is not None
        observer = self.balancer if isinstance(self.balancer, Observing) else None
        begin = observer.begin if observer is not None else None
        end = observer.end if observer is not None else None
        clock = monotonic

        def attempt(call: Call, args: tuple[Any, ...]) -> Any:
            if not directory.instances:
                directory.require()
            tried = call.tried
            instance = pick(call, tried) if tried else pick(call)
            if instance is None and tried:
                instance = pick(call)  # all have been tried: any of them, once more
            breaker = None
            if has_breakers and instance is not None:
                breaker = breakers.get(instance.address) or self.breaker(instance.address)
                if not breaker.allow():
                    instance, breaker = self._next(call, instance.address)
            if instance is None:
                raise NoInstance(f"no instance of {call.service} can be called")
            address = call.instance = instance.address
            started = clock()
            limit = call.deadline_at
            if limit and started >= limit:
                raise DeadlineExceeded(f"{call.service}.{call.method}: the deadline passed before the call was sent")
            if attempt_timeout and (not limit or started + attempt_timeout < limit):
                call.deadline_at = started + attempt_timeout
            failed = True
            if begin is not None:
                begin(instance)
            try:
                result = carry(call, address, args)
                failed = False
            except Exception as error:
                failed = is_trouble(error)
                if breaker is not None:
                    if is_unreachable(error):
                        breaker.fail()
                    elif not isinstance(error, UsageError):
                        breaker.succeed()
                raise
            except BaseException:
                failed = False  # somebody gave the call up: that says nothing of the instance
                raise
            else:
                if breaker is not None:
                    breaker.succeed()
                return result
            finally:
                call.deadline_at = limit
                if end is not None:
                    end(instance, clock() - started, failed)

        return attempt

    def _next(self, call: Call, address: str) -> tuple[Any, Breaker | None]:
        """Another instance, whose breaker lets the call through; raises BreakerOpen when there is none."""
        closed = {address}
        while (instance := self.balancer.pick(call, closed | (call.tried or NOBODY))) is not None:
            breaker = self.breaker(instance.address)
            if breaker.allow():
                return instance, breaker
            closed.add(instance.address)
        raise BreakerOpen(
            f"no instance of {call.service} can be called: the breakers of {', '.join(sorted(closed))} are open", breaker=address
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
            handler = hedging(handler, decision, tasks, on_hedge)
        else:
            handler = retrying(handler, decision, tasks, on_retry)
    limiting = limits.middleware(service, method) if limits is not None else None
    if limiting is not None:
        handler = limiting(handler)
    if breaker is not None:
        handler = breaking(breaker)(handler)
    if policy.fallback is not None:
        handler = fallback(policy.fallback, policy.fallback_when)(handler)
    if policy.faults:
        handler = faults(policy.faults, lambda seconds: tasks().sleep(seconds))(handler)
    if policy.acl:
        handler = acl(policy.acl, allow=policy.acl_default)(handler)
    handler = tagging(handler, hash_key)
    handler = compose(handler, middleware)
    if meter is not None:
        handler = metering(meter)(handler)
    return handler


def server_middleware(
    service: str,
    method: str,
    *,
    shedder: Shedder | None = None,
    limits: Limits | None = None,
    policy: Policy | None = None,
    sleep: Callable[[float], Any] = lambda _: None,
) -> list[Middleware]:
    """What stands above the user's middleware on the server, outermost first."""
    found: list[Middleware] = []
    if shedder is not None:
        found.append(shedding(shedder))
    limiting = limits.middleware(service, method) if limits is not None else None
    if limiting is not None:
        found.append(limiting)
    if policy is not None:
        if policy.acl or not policy.acl_default:
            found.append(acl(policy.acl, allow=policy.acl_default))
        if policy.faults:
            found.append(faults(policy.faults, sleep))
    return found


def tagging(handler: Handler, hash_key: Callable[[Call, tuple[Any, ...]], str] | None) -> Handler:
    """Tags and hash key are worked out once for a call."""

    def handle(call: Call, args: tuple[Any, ...]) -> Any:
        inherit(call)
        if hash_key is not None:
            call.key = hash_key(call, args)
        return handler(call, args)

    return handle


def metering(meter: Meter) -> Middleware:
    """Counts how calls end."""
    record, clock = meter.record, monotonic

    def wrap(handler: Handler) -> Handler:
        def handle(call: Call, args: tuple[Any, ...]) -> Any:
            try:
                result = handler(call, args)
            except BaseException as error:
                record(clock() - call.started, code_of(error))
                raise
            record(clock() - call.started, 0)
            return result

        return handle

    return wrap


def breaking(breaker: Breaker) -> Middleware:
    """The breaker of a service's method."""
    allow, succeed, fail = breaker.allow, breaker.succeed, breaker.fail

    def wrap(handler: Handler) -> Handler:
        def handle(call: Call, args: tuple[Any, ...]) -> Any:
            if not allow():
                raise BreakerOpen(
                    f"{call.service}.{call.method}: the breaker is open, too many calls failed of late", breaker=breaker.name
                )
            try:
                result = handler(call, args)
            except Exception as error:
                if is_trouble(error):
                    if not is_refusal(error):
                        fail()
                elif not isinstance(error, UsageError):
                    succeed()
                raise
            succeed()
            return result

        return handle

    return wrap


# ---- what an error says ----------------------------------------------------------------------------------------------


def code_of(error: BaseException) -> int:
    """The Code a call ended with. What the IDL declares is an answer like any other."""
    if isinstance(error, RpcError):
        return int(error.code)
    if isinstance(error, EncodeError):
        return int(Code.INVALID_ARGUMENT)
    if isinstance(error, UsageError):
        return int(Code.FAILED_PRECONDITION)
    return int(Code.UNKNOWN) if isinstance(error, Exception) else int(Code.CANCELLED)


def is_unreachable(error: Exception) -> bool:
    """Did the instance not answer at all? Connections that fail or break, and timeouts."""
    if isinstance(error, Unavailable):
        return error.origin is not Origin.PEER
    return isinstance(error, DeadlineExceeded) and error.origin is not Origin.PEER


def is_refusal(error: Exception) -> bool:
    """Was the call not sent, or not served, for a reason that says nothing of the service's health?

    A refusal by a limit must not open the breaker: a service that sheds a third of its calls serves two thirds.
    """
    return isinstance(error, ResourceExhausted | BreakerOpen | NoInstance)


def is_trouble(error: Exception) -> bool:
    """Did the service fail? Not: what the IDL declares, a business status, an unknown method, a mistake of ours."""
    if isinstance(error, Unavailable | DeadlineExceeded | ProtocolError | ResourceExhausted):
        return True
    if isinstance(error, BusinessError):
        return False
    return isinstance(error, ApplicationError) and error.type == ApplicationErrorType.INTERNAL_ERROR

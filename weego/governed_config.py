"""From the configuration's tables to policies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from codec.errors import Code, UsageError
from governance.acl import Rule
from governance.backoff import Exponential, none
from governance.chain import Middleware
from governance.faults import Fault
from governance.limiter import LimitRule, Limits
from governance.memory import Memory
from governance.policy import BreakerPolicy, BudgetPolicy, ClientPolicy, EjectionPolicy, Policy
from governance.retry import RetryPolicy
from governance.shedder import Shedder
from governance.stack import server_middleware
from weego import config as configuration
from weego.center import Center, source_of
from weego.client import follow
from weego.named import function, hash_key
from weego.settings import ClientSettings, Known, remember
from weego.tasks import sleep

__all__ = ["ServerGovernance", "configure", "known_of"]

# A pause is at most so many times the first one.
MOST_BACKOFF = 32

# What the last `configure` made of [config_center].
_center: Center[configuration.Program] | None = None


def configure(path: str) -> None:
    """Clients of ``service://name`` that are made from now on go by the TOML file at `path`: its [client.…] tables and [registry].

    With a [config_center], what that says of [client.…] is in force as long as the program runs, for clients that were made before too.
    For programs that are no servers of `weego-master`, whose workers have done it already. Raises `weego.config.ConfigError`.
    """
    global _center
    program = configuration.load_program(path)
    memory = Memory()
    remember(known_of(program, memory))
    before, _center = _center, None
    if before is not None:
        before.stop()
    if program.config_center is not None:
        source = source_of(program.config_center.url, program.name)
        _center = Center(source, program, lambda fresh: follow(known_of(fresh, memory)), cache=program.config_center.cache)
        _center.start(float(program.config_center.wait))


def known_of(config: configuration.Config | configuration.Program, memory: Memory) -> Known:
    """What a configuration says of the services it calls."""
    name = config.server.name if isinstance(config, configuration.Config) else config.name
    return Known(
        clients={service: client_settings(service, table, name) for service, table in config.client.items()},
        registry=config.registry.url if config.registry is not None else "",
        caller=name,
        memory=memory,
    )


def client_settings(service: str, table: configuration.Client, caller: str) -> ClientSettings:
    """One [client.…] table. UsageError for what names nothing."""
    if table.balancer == "consistent_hash" and table.hash_key is None:
        raise UsageError('balancer = "consistent_hash" needs a hash_key')
    default = Policy(
        timeout=None if table.timeout is None else float(table.timeout),
        attempt_timeout=float(table.attempt_timeout),
        recv_timeout=float(table.recv_timeout),
        send_timeout=float(table.send_timeout),
        breaker=_breaker(table) if table.breaker else None,
        retry=_retry(table.retries, table.hedges, float(table.hedge_after), table),
        limits=_limits(f"client {service}", table.rate, table.concurrency),
        fallback=None if table.fallback is None else function(table.fallback),
        faults=(Fault(table.drop, 0.0, Code.RESOURCE_EXHAUSTED),) if table.drop else (),
        metrics=table.metrics,
    )
    policy = ClientPolicy(
        default=default,
        methods={name: _method(service, name, method, default, table) for name, method in table.method.items()},
        balancer=table.balancer,
        hash_key=None if table.hash_key is None else hash_key(table.hash_key),
        instance_breaker=_breaker(table) if table.instance_breaker else None,
        ejection=EjectionPolicy(table.ejection_failures, float(table.ejection_time)) if table.ejection else None,
        budget=BudgetPolicy(table.retry_budget),
        zone=table.zone,
        tag=table.tag,
        slow_start=float(table.slow_start),
    )
    return ClientSettings(
        target=table.target or "",
        policy=policy,
        framing=table.framing,
        caller=caller,
        connect_timeout=float(table.connect_timeout),
        max_idle=table.max_idle,
        max_idle_total=table.max_idle_total,
        idle_timeout=float(table.idle_timeout),
        heartbeat=float(table.heartbeat) or None,
        min_idle=table.min_idle,
        max_active=table.max_active,
        max_waiting=table.max_waiting,
        wait_timeout=float(table.wait_timeout),
        warm_up=table.warm_up,
        pool=table.pool if table.pool != "exclusive" else None,
    )


_PACE = ("retry_backoff", "retry_duration", "retry_error_rate")


def _retry(retries: int, hedges: int, hedge_after: float, table: configuration.Client | configuration.Method) -> RetryPolicy | None:
    if not retries and not hedges:
        return None
    base = float(table.retry_backoff or 0)
    return RetryPolicy(
        retries=retries,
        hedges=hedges,
        hedge_after=hedge_after,
        backoff=Exponential(base, base * MOST_BACKOFF) if base else none,
        duration=float(table.retry_duration or 0),
        error_rate=table.retry_error_rate or 0.0,
    )


def _breaker(client: configuration.Client, error_rate: float | None = None, min_sample: int | None = None) -> BreakerPolicy:
    return BreakerPolicy(
        client.breaker_error_rate if error_rate is None else error_rate,
        client.breaker_min_sample if min_sample is None else min_sample,
        cooling=float(client.breaker_cooling),
    )


def _limits(name: str, rate: float, concurrency: int) -> tuple[LimitRule, ...]:
    return (LimitRule(name, rate=rate, concurrency=concurrency),) if rate or concurrency else ()


def _method(service: str, name: str, table: configuration.Method, default: Policy, client: configuration.Client) -> Policy:
    def given(value: Any, otherwise: Any) -> Any:
        return otherwise if value is None else value

    changes: dict[str, Any] = {
        "timeout": default.timeout if table.timeout is None else float(table.timeout),
        "attempt_timeout": float(given(table.attempt_timeout, default.attempt_timeout)),
        "recv_timeout": float(given(table.recv_timeout, default.recv_timeout)),
        "send_timeout": float(given(table.send_timeout, default.send_timeout)),
        "idempotent": table.idempotent,
        "retry": _retry(
            given(table.retries, client.retries),
            given(table.hedges, client.hedges),
            float(given(table.hedge_after, client.hedge_after)),
            msgspec.structs.replace(table, **{each: given(getattr(table, each), getattr(client, each)) for each in _PACE}),
        ),
    }
    if table.fallback is not None:
        changes["fallback"] = function(table.fallback)
    if table.breaker is not None:
        changes["breaker"] = _breaker(client) if table.breaker else None
    if changes.get("breaker", default.breaker) is not None:
        changes["breaker"] = _breaker(client, table.breaker_error_rate, table.breaker_min_sample)
    if table.rate is not None or table.concurrency is not None:
        changes["limits"] = _limits(
            f"client {service}.{name}", given(table.rate, client.rate), given(table.concurrency, client.concurrency)
        )
    return replace(default, **changes)


class ServerGovernance:
    """What a server's configuration refuses: makes the middleware of each method, and shows its state.

    `before` is the one that this one takes over from, after a reload: its counts go on.
    """

    def __init__(
        self,
        table: configuration.Governance,
        memory: Memory,
        wait: Callable[[float], Any] = sleep,
        *,
        before: ServerGovernance | None = None,
    ) -> None:
        self.shedder = Shedder(float(table.shed_target), float(table.shed_interval)) if table.shed else None
        self._refused_before = before.refused() if before is not None else 0
        rules = tuple(
            LimitRule(each.name, each.rate, each.burst, each.concurrency, each.method, each.caller, each.each_caller, each.certificate)
            for each in table.limit
        )
        self.limits = Limits(rules, memory) if rules else None
        self.policy = Policy(
            acl=tuple(Rule(each.allow, each.callers, each.methods, each.certificates) for each in table.rule),
            acl_default=table.default == "allow",
            faults=tuple(
                Fault(each.share, float(each.delay), Code[each.code] if each.code else None, each.method, each.caller)
                for each in table.fault
            ),
        )
        self._wait = wait

    def middleware(self, service: str, method: str) -> list[Middleware]:
        """Of one method, outermost first."""
        return server_middleware(service, method, limits=self.limits, policy=self.policy, sleep=self._wait)

    def refused(self) -> int:
        """How many calls this process refused, by limits and by shedding."""
        return (
            self._refused_before
            + (self.limits.refused if self.limits else 0)
            + (self.shedder.refused if self.shedder else 0)
        )

    def snapshot(self) -> dict[str, Any]:
        """Limits and shedding, as plain values."""
        return {
            "limits": self.limits.snapshot() if self.limits else [],
            "shedding": None
            if self.shedder is None
            else {"overloaded": self.shedder.overloaded, "refused": self.shedder.refused},
        }

"""What one client does for its calls: the settings of every policy, with their defaults, per method where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from governance.acl import Rule
from governance.balancers import ejection
from governance.call import Call
from governance.fallback import Fallback, on_rpc_error
from governance.faults import Fault
from governance.instance import Balancer
from governance.limiter import LimitRule
from governance.retry import RetryPolicy

__all__ = ["BALANCERS", "BreakerPolicy", "BudgetPolicy", "ClientPolicy", "EjectionPolicy", "Policy"]

# The names that a configuration may give. `weight_…` is how Kitex calls some of them.
BALANCERS = (
    "p2c",
    "least_loaded",
    "round_robin",
    "weight_round_robin",
    "interleaved_weight_round_robin",
    "weight_random",
    "weight_random_alias",
    "consistent_hash",
)


@dataclass(frozen=True)
class BreakerPolicy:
    """See `governance.breaker`; Kitex's defaults."""

    error_rate: float = 0.5
    min_sample: int = 200
    consecutive: int = 0
    cooling: float = 5.0
    probe_every: float = 0.2
    successes_to_close: int = 2


@dataclass(frozen=True)
class EjectionPolicy:
    """See `governance.balancers.ejection`."""

    failures: int = ejection.DEFAULT_FAILURES
    seconds: float = ejection.DEFAULT_SECONDS
    most_seconds: float = ejection.DEFAULT_MOST_SECONDS
    most_share: float = ejection.DEFAULT_MOST_SHARE


@dataclass(frozen=True)
class BudgetPolicy:
    """See `governance.budget`."""

    ratio: float = 0.2
    per_second: float = 10.0


@dataclass(frozen=True)
class Policy:
    """For the calls of a method. None or 0: the policy is off, and nothing of it is in the way of a call."""

    timeout: float | None = None
    """Of a call with all its attempts, where it names none itself."""
    attempt_timeout: float = 0.0
    recv_timeout: float = 0.0
    """Of a stream: how long to wait for one message. Then the stream is given up with DeadlineExceeded."""
    send_timeout: float = 0.0
    """… and until there is room to send one."""
    idempotent: bool | None = None
    """May a call run twice? None: as the IDL says."""
    breaker: BreakerPolicy | None = field(default_factory=BreakerPolicy)
    """Of the method, over all instances."""
    breaker_counts: Callable[[BaseException], bool | None] | None = None
    """What an error is to that breaker: True a failure, False a success, None nothing. Without it: timeouts, broken connections and unexpected errors are failures."""
    retry: RetryPolicy | None = field(default_factory=RetryPolicy)
    fallback: Fallback | None = None
    fallback_when: Callable[[BaseException], bool] = on_rpc_error
    limits: tuple[LimitRule, ...] = ()
    """What this side lets out."""
    acl: tuple[Rule, ...] = ()
    acl_default: bool = True
    faults: tuple[Fault, ...] = ()
    metrics: bool = True


@dataclass(frozen=True)
class ClientPolicy:
    """For a client: the policy of its methods, and what concerns all of them."""

    default: Policy = field(default_factory=Policy)
    methods: Mapping[str, Policy] = field(default_factory=dict)
    """By the IDL's name, where it differs from `default`."""
    balancer: str | Callable[[], Balancer] = "p2c"
    hash_key: Callable[[Call, tuple[Any, ...]], str] | None = None
    """For consistent_hash: the key of a call."""
    instance_breaker: BreakerPolicy | None = field(default_factory=BreakerPolicy)
    """Of each instance: connections that fail or break, and timeouts."""
    ejection: EjectionPolicy | None = field(default_factory=EjectionPolicy)
    budget: BudgetPolicy = field(default_factory=BudgetPolicy)
    zone: str = ""
    """Prefer instances of this zone."""
    tag: str = ""
    """Prefer instances whose tag of this name has the value the call carries."""
    slow_start: float = 0.0
    """Seconds over which a fresh instance gets its full share."""

    def of(self, method: str) -> Policy:
        """The policy of a method."""
        return self.methods.get(method, self.default)

    def with_method(self, method: str, **changes: Any) -> ClientPolicy:
        """The same, but for one method."""
        return replace(self, methods={**self.methods, method: replace(self.of(method), **changes)})


OFF = ClientPolicy(
    Policy(breaker=None, retry=None, metrics=False), instance_breaker=None, ejection=None, balancer="round_robin"
)
"""Nothing but round robin."""

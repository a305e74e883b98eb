"""Again, when that can help and does no harm; or at the same time, when the first is slow.

A call is repeated when
    nothing of it was sent (no connection)           always, elsewhere; costs the budget nothing
    the peer refused it before it ran (a limit)      always, elsewhere
    the connection broke, or the attempt timed out   only when the method may run twice: `idempotent` in the IDL or the configuration
    it answered with an unexpected error             likewise
    `errors` or `result` of the policy say so        likewise
and never when
    the attempts or `duration` are used up, the deadline has passed or would pass during the back-off
    the call that is being served is itself a retry  (Kitex's chain stop, read from and sent as its persistent key RetryReq)
    more than `error_rate` of the calls fail, or the budget is empty

A hedge (Kitex: backup request) goes out when the first attempt has not answered for `hedge_after` seconds; the first answer wins and the other attempt is
given up. Both together are Kitex's mixed retry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    Cancelled,
    DeadlineExceeded,
    Origin,
    ProtocolError,
    ResourceExhausted,
    Unavailable,
)
from governance.backoff import Backoff, none
from governance.breaker import Breaker
from governance.budget import Budget
from governance.call import Call, current
from governance.chain import Handler
from governance.errors import BreakerOpen, NoInstance
from governance.path import Trying
from poller.clock import monotonic

__all__ = ["MOST_HEDGES", "MOST_RETRIES", "RETRY_KEY", "RetryPolicy", "Tasks", "hedging", "retrying"]

# Kitex's caps (`pkg/retry`: maxFailureRetryTimes 5, maxBackupRetryTimes 2).
MOST_RETRIES: Final = 5
MOST_HEDGES: Final = 2
# metainfo's prefix of persistent keys in a TTHeader, and Kitex's key (`pkg/retry/util.go`).
RETRY_KEY: Final = "RPC_PERSIST_RetryReq"
# Attempts of which nothing was sent have tries of their own: each instance once, but no more than this.
MOST_UNSENT: Final = 3

ErrorPredicate = Callable[[BaseException], bool]
ResultPredicate = Callable[[Any], bool]


@dataclass(frozen=True)
class RetryPolicy:
    """When and how often to try again. Times in seconds."""

    retries: int = 2
    """After the first attempt; Kitex's default."""
    hedges: int = 0
    """Further attempts while the first is under way."""
    hedge_after: float = 0.0
    backoff: Backoff = none
    duration: float = 0.0
    """No further attempt after so long; 0: only the deadline counts."""
    same_instance: bool = False
    """May the next attempt go to the same instance?"""
    stop_chain: bool = True
    error_rate: float = 0.0
    """No retries while more of the calls fail than this; 0: the budget alone decides. Kitex's default is 0.1."""
    errors: ErrorPredicate | None = None
    """Also retry an idempotent call that raised this."""
    result: ResultPredicate | None = None
    """Also retry an idempotent call that returned this."""

    def __post_init__(self) -> None:
        if not 0 <= self.retries <= MOST_RETRIES:
            raise ValueError(f"retries: 0 to {MOST_RETRIES}, got {self.retries}")
        if not 0 <= self.hedges <= MOST_HEDGES:
            raise ValueError(f"hedges: 0 to {MOST_HEDGES}, got {self.hedges}")
        if self.hedges and not self.hedge_after > 0:
            raise ValueError("hedges need hedge_after, the seconds after which the first attempt counts as slow")
        if self.duration < 0 or not 0 <= self.error_rate <= 1:
            raise ValueError("duration is 0 or more, error_rate from 0 to 1")


class Task(Protocol):
    """Something that was started."""

    @property
    def done(self) -> bool:
        """Is it over?"""

    def result(self) -> Any:
        """What it returned, or raises what it raised. Only when it is over."""

    def cancel(self) -> None:
        """Its outcome is no longer wanted."""


class Tasks(Protocol):
    """How this program does several things at a time: greenlets or threads. The assembly hands it in."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def start(self, run: Callable[[], Any]) -> Task:
        """Run it beside this."""

    def wait(self, tasks: list[Task], seconds: float | None) -> Task | None:
        """The first of them to be over; None when none is within so many seconds."""


class Decision:
    """Says whether a call may be tried again; one for each method of a client."""

    def __init__(self, policy: RetryPolicy, *, idempotent: bool, budget: Budget, errors: Breaker | None = None) -> None:
        self.policy = policy
        self.idempotent = idempotent
        self.budget = budget
        self.errors = errors

    def wants(self, error: BaseException) -> bool:
        """Would another attempt be right for a call that failed so?"""
        if isinstance(error, BreakerOpen | NoInstance):
            return False  # all instances were looked at already
        if isinstance(error, Unavailable) and not error.sent:
            return True
        if isinstance(error, ResourceExhausted) and error.origin is Origin.PEER:
            return True
        if not self.idempotent or isinstance(error, Cancelled):
            return False
        if isinstance(error, Unavailable | DeadlineExceeded | ProtocolError):
            return True
        if isinstance(error, ApplicationError) and error.type == ApplicationErrorType.INTERNAL_ERROR:
            return True
        return self.policy.errors is not None and bool(self.policy.errors(error))

    def may(self, call: Call, error: BaseException | None, delay: float, used: int, most: int) -> bool:
        """May there be another attempt, of `most` of which `used` were? Pays for it if so; if not, why is noted at the error."""
        policy = self.policy
        unsent = isinstance(error, Unavailable) and not error.sent
        if used >= (max(most, MOST_UNSENT - 1) if unsent else most):
            return False
        left = call.remaining
        if left is not None and left <= delay:
            return _no(error, "the deadline comes first") if delay else False
        if policy.duration and call.elapsed + delay >= policy.duration:
            return _no(error, f"{policy.duration:g} s of attempts are over")
        if unsent:
            return True
        if policy.stop_chain and _serves_a_retry():
            return _no(error, "the call being served is a retry itself")
        if self.errors is not None and not self.errors.allow():
            return _no(error, f"more than {policy.error_rate:.0%} of the calls fail")
        if not self.budget.take():
            return _no(error, "the retry budget is empty")
        return True


def _no(error: BaseException | None, why: str) -> bool:
    if error is not None:
        error.add_note(f"not tried again: {why}")
    return False


def _serves_a_retry() -> bool:
    serving = current()
    return serving is not None and RETRY_KEY in serving.carried


def retrying(attempt: Handler, decision: Decision, tasks: Callable[[], Tasks], on_retry: Callable[[Call], Any]) -> Handler:
    """`attempt`, again and again as `decision` lets it. `on_retry(call)` is told before each further attempt."""
    policy = decision.policy
    wants_result = policy.result if decision.idempotent else None

    def again(call: Call, error: BaseException | None) -> bool:
        if error is not None and not decision.wants(error):
            return False
        delay = policy.backoff(call.attempt)
        if not decision.may(call, error, delay, call.attempt - 1, policy.retries):
            return False
        if delay:
            tasks().sleep(delay)
        _prepare(call, policy)
        on_retry(call)
        return True

    repeatable = decision.idempotent and policy.retries > 0
    return Trying(attempt, decision.budget, again, _judge, repeatable=repeatable, errors=decision.errors, wants_result=wants_result)


def _judge(call: Call, error: Exception) -> None:
    """A connection that could not be made because the time was over is a deadline that passed: raises that instead."""
    if isinstance(error, Unavailable) and not error.sent and call.expired and not isinstance(error, NoInstance):
        raise DeadlineExceeded(f"{error.message}; the deadline has passed", instance=error.instance) from error


def _prepare(call: Call, policy: RetryPolicy) -> None:
    """Make the call ready for its next attempt: elsewhere, and marked for whom it reaches."""
    if call.instance and not policy.same_instance:
        call.avoid(call.instance)
    call.send_metadata[RETRY_KEY] = str(call.attempt)
    call.attempt += 1


def hedging(
    attempt: Handler, decision: Decision, tasks: Callable[[], Tasks], on_hedge: Callable[[Call], Any], on_retry: Callable[[Call], Any]
) -> Handler:
    """`attempt`, and another one beside it when it is slow, or after it when it failed. Only for idempotent methods: both may run."""
    policy = decision.policy
    budget = decision.budget

    def handle(call: Call, args: tuple[Any, ...]) -> Any:
        budget.call()
        crew = tasks()
        running: dict[Task, Call] = {}
        hedges = retries = 0

        def launch() -> None:
            branch = call.branch()
            branch.repeatable = True
            # Attempts that are still under way have taken their instances.
            for other in running.values():
                if other.instance and not policy.same_instance:
                    branch.avoid(other.instance)
            running[crew.start(lambda: attempt(branch, args))] = branch

        def again(told: Callable[[Call], Any]) -> None:
            _prepare(call, policy)
            told(call)
            launch()

        launch()
        patience: float | None = policy.hedge_after
        try:
            while True:
                done = crew.wait(list(running), patience)
                if done is None:
                    if decision.may(call, None, 0.0, hedges, policy.hedges):
                        again(on_hedge)
                    hedges += 1
                    if hedges >= policy.hedges:
                        patience = None
                    continue
                call.adopt(running.pop(done))
                try:
                    return done.result()
                except Exception as error:
                    delay = policy.backoff(retries + 1)
                    if decision.wants(error) and decision.may(call, error, delay, retries, policy.retries):
                        retries += 1
                        if delay:
                            crew.sleep(delay)
                        again(on_retry)
                    elif not running:
                        _judge(call, error)
                        raise
        finally:
            for task in running:
                task.cancel()

    return handle


def make_decision(
    policy: RetryPolicy, *, idempotent: bool, budget: Budget, clock: Callable[[], float] = monotonic
) -> Decision:
    """A Decision with the error-rate breaker that the policy asks for (Kitex: at least 10 samples)."""
    errors = Breaker("retry", error_rate=policy.error_rate, min_sample=10, clock=clock) if policy.error_rate else None
    return Decision(policy, idempotent=idempotent, budget=budget, errors=errors)

"""Again, and beside: what is tried again, how often, and what forbids it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    DeadlineExceeded,
    EncodeError,
    Origin,
    ResourceExhausted,
    Unavailable,
    UnknownMethod,
)
from governance.backoff import Exponential, Fixed, Uniform
from governance.budget import Budget
from governance.call import Call
from governance.errors import BreakerOpen, NoInstance
from governance.memory import Memory
from governance.retry import RETRY_KEY, Decision, RetryPolicy, hedging, make_decision, retrying
from tests.governance.clock import Clock, a_call


class Script:
    """An attempt that does one thing after the other; each at an instance of its own."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[tuple[int, str | None]] = []

    def __call__(self, call: Call, args: tuple[Any, ...]) -> Any:
        self.calls.append((call.attempt, call.send_metadata.get(RETRY_KEY)))
        call.instance = f"i{len(self.calls)}"
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Line:
    """Tasks of a test: each runs when it is waited for, in the order of `delays`."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def run(script: Script, policy: RetryPolicy, *, idempotent: bool = True, call: Call | None = None, budget: Budget | None = None) -> Any:
    decision = make_decision(policy, idempotent=idempotent, budget=budget or Budget())
    line = Line()
    handler = retrying(script, decision, lambda: line, lambda call: None)  # type: ignore[arg-type, return-value]
    return handler(call or a_call(), ())


UNSENT = Unavailable("no connection", sent=False)
BROKEN = Unavailable("broken")
REFUSED = ResourceExhausted("limit", origin=Origin.PEER)
LATE = DeadlineExceeded("late")
CRASHED = ApplicationError("biz error", ApplicationErrorType.INTERNAL_ERROR)


@pytest.mark.parametrize("error", [UNSENT, REFUSED])
def test_what_did_not_run_is_always_tried_again(error: Exception) -> None:
    script = Script(error, error, "done")
    assert run(script, RetryPolicy(), idempotent=False) == "done"
    assert script.calls == [(1, None), (2, "1"), (3, "2")]


@pytest.mark.parametrize("error", [BROKEN, LATE, CRASHED])
def test_what_may_have_run_only_where_that_is_no_harm(error: Exception) -> None:
    assert run(Script(error, "done"), RetryPolicy()) == "done"
    script = Script(error, "done")
    with pytest.raises(type(error)):
        run(script, RetryPolicy(), idempotent=False)
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        BusinessError(3),
        UnknownMethod("x"),
        EncodeError("x"),
        KeyError("declared"),
        BreakerOpen("x"),
        NoInstance("x"),
        ResourceExhausted("ours"),
    ],
)
def test_answers_and_mistakes_are_final(error: Exception) -> None:
    script = Script(error, "done")
    with pytest.raises(type(error)):
        run(script, RetryPolicy())
    assert len(script.calls) == 1


def test_no_more_than_allowed() -> None:
    script = Script(*[CRASHED] * 9)
    with pytest.raises(ApplicationError):
        run(script, RetryPolicy(retries=2))
    assert len(script.calls) == 3
    script = Script(*[UNSENT] * 9)
    with pytest.raises(Unavailable):
        run(script, RetryPolicy(retries=0))
    assert len(script.calls) == 3  # connecting elsewhere is no retry, but it has an end too


def test_elsewhere() -> None:
    call = a_call()
    run(Script(CRASHED, CRASHED, "done"), RetryPolicy(), call=call)
    assert call.tried == {"i1", "i2"}
    call = a_call()
    run(Script(CRASHED, "done"), RetryPolicy(same_instance=True), call=call)
    assert call.tried is None


def test_predicates() -> None:
    policy = RetryPolicy(errors=lambda error: isinstance(error, BusinessError) and error.status == 7, result=lambda value: value == "")
    assert run(Script(BusinessError(7), "", "done"), policy) == "done"
    assert run(Script(""), policy, idempotent=False) == ""
    assert run(Script("", "", "", "x"), policy) == ""  # out of retries: the result is what it is


def test_the_deadline_comes_first() -> None:
    call = a_call(deadline=a_call().started + 1)
    script = Script(CRASHED, "done")
    with pytest.raises(ApplicationError) as caught:
        run(script, RetryPolicy(backoff=Fixed(5)), call=call)
    assert len(script.calls) == 1
    assert caught.value.__notes__[-1:] == ["not tried again: the deadline comes first"]
    call = a_call(deadline=a_call().started - 1)
    with pytest.raises(DeadlineExceeded, match="no connection; the deadline has passed"):
        run(Script(UNSENT), RetryPolicy(), call=call)


def test_what_an_error_knows_of_its_cause_stays() -> None:
    def attempt(call: Call, args: tuple[Any, ...]) -> Any:
        try:
            raise KeyError("why")
        except KeyError as error:
            raise ApplicationError("what", ApplicationErrorType.UNKNOWN) from error

    decision = make_decision(RetryPolicy(), idempotent=True, budget=Budget())
    with pytest.raises(ApplicationError) as caught:
        retrying(attempt, decision, Line, lambda call: None)(a_call(), ())  # type: ignore[arg-type, return-value]
    assert isinstance(caught.value.__cause__, KeyError)


def test_no_longer_than_duration() -> None:
    call = a_call(started=a_call().started - 3)
    with pytest.raises(ApplicationError) as caught:
        run(Script(CRASHED, "done"), RetryPolicy(duration=2), call=call)
    assert caught.value.__notes__[-1:] == ["not tried again: 2 s of attempts are over"]


def test_no_retries_of_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = SimpleNamespace(carried={RETRY_KEY: "1"})
    monkeypatch.setattr("governance.retry.current", lambda: serving)
    with pytest.raises(ApplicationError) as caught:
        run(Script(CRASHED, "done"), RetryPolicy())
    assert caught.value.__notes__[-1:] == ["not tried again: the call being served is a retry itself"]
    assert run(Script(UNSENT, "done"), RetryPolicy()) == "done"
    assert run(Script(CRASHED, "done"), RetryPolicy(stop_chain=False)) == "done"


def test_the_budget_bounds_the_load() -> None:
    clock = Clock()
    budget = Budget(0.2, 0, 10, clock)
    attempts = 0
    for _ in range(1000):
        script = Script(CRASHED, CRASHED, CRASHED)
        with pytest.raises(ApplicationError):
            run(script, RetryPolicy(), budget=budget)
        attempts += len(script.calls)
        clock.pass_(0.001)
    assert 1150 < attempts <= 1200
    assert budget.refused > 0


def test_the_budget_of_a_rare_caller() -> None:
    clock = Clock()
    budget = Budget(0, 2, 5, clock)
    assert sum(budget.take() for _ in range(100)) == 10
    clock.pass_(1)
    assert sum(budget.take() for _ in range(100)) == 2


def test_what_was_saved_fades() -> None:
    clock = Clock()
    budget = Budget(1, 0, 10, clock)
    for _ in range(1000):
        budget.call()
    assert budget.take()
    clock.pass_(5)
    assert 490 < sum(budget.take() for _ in range(2000)) < 510
    clock.pass_(100)
    assert not budget.take()
    with pytest.raises(ValueError, match="negative"):
        Budget(-1)


def test_all_who_have_the_cells_have_one_budget() -> None:
    clock = Clock()
    memory = Memory.shared()
    four = [Budget(0, 1, 10, clock, cells=memory.find("budget", "item")) for _ in range(4)]
    assert [sum(each.take() for _ in range(3)) for each in four] == [3, 3, 3, 1]
    clock.pass_(2)
    assert [each.take() for each in four] == [True, True, False, False]
    assert Budget(0, 1, 10, clock, cells=memory.find("budget", "stock")).left == 10


def test_no_retries_while_too_many_fail() -> None:
    decision = make_decision(RetryPolicy(error_rate=0.1), idempotent=True, budget=Budget(100))
    line = Line()
    attempts = 0
    for _ in range(50):
        script = Script(CRASHED, CRASHED, CRASHED)
        with pytest.raises(ApplicationError):
            retrying(script, decision, lambda: line, lambda call: None)(a_call(), ())  # type: ignore[arg-type, return-value]
        attempts += len(script.calls)
    assert attempts < 70


def test_backoffs() -> None:
    assert [Fixed(0.5)(n) for n in (1, 2)] == [0.5, 0.5]
    assert Uniform(1, 3, lambda: 0.5)(1) == 2
    assert [Exponential(0.1, 1, lambda: 1.0)(n) for n in (1, 2, 3, 4, 5, 500)] == [0.1, 0.2, 0.4, 0.8, 1, 1]
    for wrong in (lambda: Fixed(-1), lambda: Uniform(3, 1), lambda: Exponential(1, float("inf"))):
        with pytest.raises(ValueError, match="back-off"):
            wrong()
    line_slept: list[float] = []
    decision = Decision(RetryPolicy(backoff=Fixed(0.25)), idempotent=True, budget=Budget())
    line = Line()
    retrying(Script(CRASHED, CRASHED, "x"), decision, lambda: line, lambda call: None)(a_call(), ())  # type: ignore[arg-type, return-value]
    assert line.slept == [0.25, 0.25]
    assert not line_slept


@pytest.mark.parametrize(
    "wrong", [{"retries": 6}, {"retries": -1}, {"hedges": 3, "hedge_after": 1}, {"hedges": 1}, {"duration": -1}, {"error_rate": 2}]
)
def test_wrong_policies(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"retries|hedge|duration"):
        RetryPolicy(**wrong)


# ---- hedges --------------------------------------------------------------------------------------------------------------


class Race:
    """Tasks whose end a test decides: each attempt takes so long by a clock that only moves while somebody waits."""

    def __init__(self, *attempts: tuple[float, Any]) -> None:
        self.attempts = list(attempts)
        self.now = 0.0
        self.tasks: list[Entrant] = []
        self.branches: list[Call] = []

    def attempt(self, call: Call, args: tuple[Any, ...]) -> Any:
        call.instance = f"i{len(self.branches) + 1}"
        self.branches.append(call)
        return None

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def start(self, run: Callable[[], Any]) -> Any:
        run()
        seconds, outcome = self.attempts[len(self.tasks)]
        self.tasks.append(Entrant(self, self.now + seconds, outcome))
        return self.tasks[-1]

    def wait(self, tasks: list[Any], seconds: float | None) -> Any:
        first = min(tasks, key=lambda task: task.at)
        if seconds is not None and first.at > self.now + seconds:
            self.now += seconds
            return None
        self.now = max(self.now, first.at)
        return first


class Entrant:
    def __init__(self, race: Race, at: float, outcome: Any) -> None:
        self.race, self.at, self.outcome = race, at, outcome
        self.cancelled = False

    @property
    def done(self) -> bool:
        return self.at <= self.race.now

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


def hedge(race: Race, retries_seen: list[int] | None = None, **policy: Any) -> tuple[Any, Call, int]:
    call, hedges, again = a_call(), [], [] if retries_seen is None else retries_seen
    decision = make_decision(RetryPolicy(**{"retries": 0, "hedges": 1, "hedge_after": 0.1, **policy}), idempotent=True, budget=Budget())
    handler = hedging(race.attempt, decision, lambda: race, lambda call: hedges.append(call.attempt), lambda call: again.append(call.attempt))  # type: ignore[arg-type, return-value]
    return handler(call, ()), call, len(hedges)


def test_a_quick_answer_needs_no_hedge() -> None:
    race = Race((0.05, "one"))
    value, call, hedges = hedge(race)
    assert (value, call.instance, hedges) == ("one", "i1", 0)


def test_the_first_answer_wins_and_the_other_is_given_up() -> None:
    race = Race((5, "slow"), (0.02, "quick"))
    value, call, hedges = hedge(race)
    assert (value, call.instance, hedges) == ("quick", "i2", 1)
    assert race.tasks[0].cancelled
    assert race.branches[1].tried == {"i1"}
    assert race.branches[1].send_metadata[RETRY_KEY] == "1"
    assert race.now == pytest.approx(0.12)


def test_a_slow_first_may_still_win() -> None:
    race = Race((0.15, "one"), (5, "other"))
    assert hedge(race)[0] == "one"
    assert race.tasks[1].cancelled


def test_two_hedges() -> None:
    race = Race((9, "a"), (9, "b"), (0.01, "c"))
    value, _, hedges = hedge(race, hedges=2)
    assert (value, hedges) == ("c", 2)
    assert race.now == pytest.approx(0.21)


def test_a_failure_is_not_the_answer_while_another_attempt_runs() -> None:
    race = Race((0.2, BROKEN), (0.3, "other"))
    assert hedge(race)[0] == "other"
    race = Race((0.2, BROKEN), (0.3, CRASHED))
    with pytest.raises(ApplicationError):
        hedge(race)


def test_mixed_is_both() -> None:
    race = Race((0.05, CRASHED), (9, "slow"), (0.01, "third"))
    retries: list[int] = []
    value, call, hedges = hedge(race, retries, retries=1)
    assert (value, hedges, retries) == ("third", 1, [2])  # each is counted as what it is
    assert call.instance == "i3"

"""The Handlers that every call goes through, with a directory and connections of a test."""

from __future__ import annotations

from typing import Any

import pytest

from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    Code,
    DeadlineExceeded,
    Origin,
    ProtocolError,
    ResourceExhausted,
    Unavailable,
    UsageError,
)
from governance.balancers.rotation import RoundRobin
from governance.breaker import Breaker
from governance.call import Call
from governance.discovery import Directory, Static
from governance.errors import BreakerOpen, NoInstance, PermissionDenied
from governance.instance import Instance
from governance.meter import Meter
from governance.path import Attempt, Breaking, Metering, Step
from tests.governance.clock import a_call


class Seeing(RoundRobin):
    """Notes what it is told of attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []

    def begin(self, instance: Instance) -> None:
        self.told.append(("begin", instance.address))

    def end(self, instance: Instance, seconds: float, failed: bool) -> None:
        assert seconds >= 0
        self.told.append(("failed" if failed else "ok", instance.address))

    def abandon(self, instance: Instance, seconds: float) -> None:
        self.told.append(("abandoned", instance.address))


class Carrier:
    """An attempt that returns or raises what it is told to."""

    def __init__(self) -> None:
        self.outcome: Any = "done"
        self.deadlines: list[float | None] = []

    def __call__(self, call: Call, address: str, args: tuple[Any, ...]) -> Any:
        self.deadlines.append(call.deadline)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def made(*addresses: str, timeout: float = 0.0, breakers: dict[str, Breaker] | None = None) -> tuple[Attempt, Seeing, Carrier]:
    balancer, carrier = Seeing(), Carrier()
    directory = Directory("Echo", Static([Instance(each) for each in addresses]), balancer)
    make = None if breakers is None else lambda address: Breaker(address, consecutive=1, cooling=60)
    return Attempt(directory, balancer, carrier, {} if breakers is None else breakers, make, timeout), balancer, carrier


def test_an_attempt_is_told_of_and_leaves_the_deadline_as_it_was() -> None:
    attempt, balancer, carrier = made("a", timeout=0.5)
    call = a_call(deadline=1e12)
    assert attempt(call, ()) == "done"
    assert (call.instance, call.deadline) == ("a", 1e12)
    assert carrier.deadlines[0] is not None
    assert carrier.deadlines[0] < 1e12
    assert balancer.told == [("begin", "a"), ("ok", "a")]


@pytest.mark.parametrize(
    ("error", "word"),
    [(Unavailable("x"), "failed"), (ProtocolError("x"), "failed"), (UsageError("x"), "ok"), (KeyError("declared"), "ok"), (KeyboardInterrupt(), "abandoned")],
)
def test_what_a_balancer_hears_of_a_failure(error: BaseException, word: str) -> None:
    attempt, balancer, carrier = made("a", timeout=0.5)
    carrier.outcome = error
    call = a_call()
    with pytest.raises(type(error)):
        attempt(call, ())
    assert balancer.told[-1] == (word, "a")
    assert call.deadline is None


def too_late_for_a_slot() -> DeadlineExceeded:
    error = DeadlineExceeded("the pool was full until the deadline")
    error.__cause__ = ResourceExhausted("limit max_active")
    return error


@pytest.mark.parametrize(
    ("error", "word", "opens"),
    [
        (ResourceExhausted("limit max_active"), "abandoned", False),
        (too_late_for_a_slot(), "abandoned", False),
        (ResourceExhausted("limit rate", origin=Origin.PEER), "failed", False),
        (DeadlineExceeded("no answer"), "failed", True),
        (DeadlineExceeded("it says so", origin=Origin.PEER), "failed", False),
    ],
)
def test_a_limit_of_ours_says_nothing_of_the_instance(error: Exception, word: str, opens: bool) -> None:
    breakers: dict[str, Breaker] = {}
    attempt, balancer, carrier = made("a", breakers=breakers)
    carrier.outcome = error
    with pytest.raises(type(error)):
        attempt(a_call(), ())
    assert balancer.told == [("begin", "a"), (word, "a")]
    assert breakers["a"].state == ("open" if opens else "closed")
    assert breakers["a"].snapshot()["successes"] == (0 if opens or word == "abandoned" else 1)


@pytest.mark.parametrize(("error", "counts"), [(ResourceExhausted("limit max_active"), 0), (too_late_for_a_slot(), 0), (DeadlineExceeded("no answer"), 1)])
def test_a_limit_of_ours_says_nothing_of_the_service(error: Exception, counts: int) -> None:
    def refuse(call: Call, args: tuple[Any, ...]) -> Any:
        raise error

    breaker = Breaker("echo")
    with pytest.raises(type(error)):
        Breaking(refuse, breaker)(a_call(), ())
    assert (breaker.snapshot()["successes"], breaker.snapshot()["failures"]) == (0, counts)


@pytest.mark.parametrize(
    ("error", "successes", "failures"),
    [
        (DeadlineExceeded("no answer"), 0, 1),
        (Unavailable("broke"), 0, 1),
        (ProtocolError("nonsense"), 0, 1),
        (ApplicationError("a bug", ApplicationErrorType.INTERNAL_ERROR), 0, 1),
        (BusinessError(503, "not now"), 1, 0),
        (PermissionDenied("not you"), 1, 0),
        (ApplicationError("no such method", ApplicationErrorType.UNKNOWN_METHOD), 1, 0),
        (ResourceExhausted("limit", origin=Origin.PEER), 0, 0),
        (BreakerOpen("of the instance"), 0, 0),
        (NoInstance("nobody"), 0, 0),
        (UsageError("a mistake here"), 0, 0),
    ],
)
def test_what_counts_for_the_breaker_of_a_method(error: Exception, successes: int, failures: int) -> None:
    def refuse(call: Call, args: tuple[Any, ...]) -> Any:
        raise error

    breaker = Breaker("echo")
    with pytest.raises(type(error)):
        Breaking(refuse, breaker)(a_call(), ())
    assert (breaker.snapshot()["successes"], breaker.snapshot()["failures"]) == (successes, failures)


@pytest.mark.parametrize(("word", "successes", "failures"), [(True, 0, 1), (False, 1, 0), (None, 0, 0)])
@pytest.mark.parametrize("error", [ResourceExhausted("limit"), DeadlineExceeded("no answer"), BusinessError(503, "not now"), KeyError("x")])
def test_what_a_user_counts_as_a_failure(error: Exception, word: bool | None, successes: int, failures: int) -> None:
    def refuse(call: Call, args: tuple[Any, ...]) -> Any:
        raise error

    breaker, asked = Breaker("echo"), []

    def counts(raised: BaseException) -> bool | None:
        asked.append(raised)
        return word

    with pytest.raises(type(error)):
        Breaking(refuse, breaker, counts)(a_call(), ())
    assert asked == [error]
    assert (breaker.snapshot()["successes"], breaker.snapshot()["failures"]) == (successes, failures)


def test_who_was_tried_is_left_out_until_all_were() -> None:
    attempt, _, _ = made("a", "b")
    call = a_call()
    call.avoid("a")
    for _ in range(3):
        attempt(call, ())
        assert call.instance == "b"
    call.avoid("b")
    attempt(call, ())
    assert call.instance in ("a", "b")


def test_an_instance_whose_breaker_is_open_is_passed_by() -> None:
    breakers: dict[str, Breaker] = {}
    attempt, _, carrier = made("a", "b", breakers=breakers)
    carrier.outcome = Unavailable("x")
    for _ in range(2):
        with pytest.raises(Unavailable):
            attempt(a_call(), ())
    with pytest.raises(BreakerOpen, match="the breakers of a, b are open"):
        attempt(a_call(), ())
    breakers["b"].clear()
    del breakers["b"]
    carrier.outcome = "done"
    call = a_call()
    assert attempt(call, ()) == "done"
    assert call.instance == "b"


def test_nobody_and_too_late() -> None:
    attempt, _, _ = made()
    with pytest.raises(NoInstance, match="no instance of Echo is known"):
        attempt(a_call(), ())
    attempt, balancer, _ = made("a")
    with pytest.raises(DeadlineExceeded, match="before the call was sent"):
        attempt(a_call(deadline=1.0), ())
    assert balancer.told == []


def test_a_meter_counts_what_the_caller_saw() -> None:
    meter = Meter("Echo", "echo")
    outcomes: list[Any] = ["fine", Unavailable("x"), KeyError("x"), KeyboardInterrupt()]

    def inner(call: Call, args: tuple[Any, ...]) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    step = Metering(inner, meter)
    assert step(a_call(), ()) == "fine"
    for error in (Unavailable, KeyError, KeyboardInterrupt):
        with pytest.raises(error):
            step(a_call(), ())
    assert meter.snapshot()["codes"] == {Code.OK: 1, Code.CANCELLED: 1, Code.UNKNOWN: 1, Code.UNAVAILABLE: 1}


def test_steps_and_plain_handlers_mix() -> None:
    breaker = Breaker("echo")
    seen: list[str] = []

    def plain(call: Call, args: tuple[Any, ...]) -> Any:
        seen.append(call.method)
        return args

    outer = Metering(Breaking(plain, breaker), Meter("Echo", "echo"))
    assert isinstance(outer, Step)
    assert outer(a_call(), (1, 2)) == (1, 2)
    assert seen == ["echo"]
    assert breaker.snapshot()["successes"] == 1
    with pytest.raises(TypeError):
        outer(None, ())  # type: ignore[arg-type]

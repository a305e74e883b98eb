"""Which limits a call meets, what a refusal says, and when a worker sheds."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from codec.errors import ResourceExhausted
from governance.call import Call
from governance.chain import Handler
from governance.limiter import MOST_CALLERS, LimitRule, Limits
from governance.memory import Memory
from governance.shedder import Shedder
from tests.governance.clock import Clock, a_call


def served(call: Call, args: tuple[Any, ...]) -> str:
    return "served"


def limited(limits: Limits, method: str = "echo") -> Handler:
    middleware = limits.middleware("Echo", method)
    assert middleware is not None
    return middleware(served)


def call_of(caller: str) -> Call:
    return a_call(is_server=True, source=SimpleNamespace(header=SimpleNamespace(ints={3: caller}, strings={})))


def count(handler: Handler, caller: str, tries: int = 100) -> int:
    served = 0
    for _ in range(tries):
        try:
            handler(call_of(caller), ())
        except ResourceExhausted:
            continue
        served += 1
    return served


def test_a_rule_of_another_method_is_absent() -> None:
    limits = Limits([LimitRule("r", rate=1, method="Get*")])
    assert limits.middleware("Echo", "echo") is None
    assert limits.middleware("Echo", "GetItem") is not None
    assert Limits([LimitRule("r", rate=1, method="Echo.*")]).middleware("Echo", "echo") is not None


def test_methods_of_one_rule_share_it() -> None:
    limits = Limits([LimitRule("both", rate=0.001, burst=3)])
    assert count(limited(limits, "echo"), "x") + count(limited(limits, "boom"), "x") == 3


def test_callers_by_pattern_and_each_for_itself() -> None:
    rule = LimitRule("tests", rate=0.001, burst=2, caller="test-*", each_caller=True)
    handler = limited(Limits([rule], clock=Clock()))
    assert count(handler, "test-1") == 2
    assert count(handler, "test-2") == 2
    assert count(handler, "friend") == 100


def test_names_that_peers_make_up_cost_no_memory() -> None:
    limits = Limits([LimitRule("each", rate=0.001, burst=1, each_caller=True)], clock=Clock())
    handler = limited(limits)
    served = sum(count(handler, f"caller-{number}", 1) for number in range(MOST_CALLERS + 100))
    assert served == MOST_CALLERS + 1
    assert len(limits.snapshot()) == MOST_CALLERS + 1


def test_a_refusal_names_the_limit_and_holds_nothing() -> None:
    limits = Limits([LimitRule("wide", concurrency=1), LimitRule("narrow", rate=0.001, burst=1)], clock=Clock())
    handler = limited(limits)
    handler(call_of("x"), ())
    for _ in range(3):
        with pytest.raises(ResourceExhausted, match=r"limit narrow, 0\.001 calls a second; try another instance or later"):
            handler(call_of("x"), ())
    assert [(each["name"], each["current"], each["refused"]) for each in limits.snapshot()] == [("wide", 0, 0), ("narrow", 0, 3)]


def test_a_handler_that_fails_frees_its_place() -> None:
    limits = Limits([LimitRule("one", concurrency=1)])
    middleware = limits.middleware("Echo", "echo")
    assert middleware is not None

    def fail(call: Call, args: tuple[Any, ...]) -> None:
        raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            middleware(fail)(call_of("x"), ())


def test_four_workers_count_together() -> None:
    """Each of four processes asks a hundred times for a limit of 60 at once: 60 are served, as one process would."""
    memory = Memory.shared()
    reading, writing = os.pipe()
    for _ in range(4):
        if not os.fork():
            try:
                limits = Limits([LimitRule("shared", rate=0.001, burst=60)], memory)
                os.write(writing, bytes([count(limited(limits), "x")]))
            finally:
                os._exit(0)
    for _ in range(4):
        os.wait()
    served = os.read(reading, 10)
    os.close(reading)
    os.close(writing)
    assert len(served) == 4
    assert sum(served) == 60


def test_a_rule_must_limit_something() -> None:
    with pytest.raises(ValueError, match="a rate, a concurrency or both"):
        LimitRule("nothing")


def test_callers_are_told_apart_by_their_certificates() -> None:
    def proved(name: str) -> Call:
        identity = SimpleNamespace(name=name, subject=f"CN={name}", dns=(f"{name}.example",), uris=(), emails=())
        return a_call(is_server=True, connection=SimpleNamespace(identity=identity))

    handler = limited(Limits([LimitRule("partners", rate=0.001, burst=2, certificate="partner-*", each_caller=True)]))
    for name, most in (("partner-a", 2), ("partner-b", 2), ("own", 5)):
        served = 0
        for _ in range(5):
            try:
                handler(proved(name), ())
            except ResourceExhausted as error:
                assert f"limit partners for {name}" in str(error)
            else:
                served += 1
        assert served == most
    # Who only says that it is a partner is none.
    assert count(handler, "partner-a", 5) == 5


# ---- shedding ------------------------------------------------------------------------------------------------------------


def test_a_burst_is_no_overload() -> None:
    clock = Clock()
    shedder = Shedder(clock=clock)
    for waited in (0.05, 0.03, 0.0, 0.09):
        assert shedder.admit(waited)
        clock.pass_(0.05)
    assert not shedder.overloaded


def test_overload_is_when_even_the_luckiest_waits() -> None:
    clock = Clock()
    shedder = Shedder(clock=clock)
    admitted = []
    while not shedder.overloaded:
        admitted.append(shedder.admit(0.02))
        clock.pass_(0.005)
    assert admitted.count(False) == 1  # the one at which it was noticed
    assert 20 <= len(admitted) <= 22
    assert not shedder.admit(0.02)
    assert shedder.admit(0.004)
    # Once somebody did not wait, it is over.
    clock.pass_(0.1)
    shedder.admit(0.004)
    assert not shedder.overloaded
    # A burst right behind it is still refused, a second later it is a burst like any other.
    assert not shedder.admit(0.02)
    clock.pass_(1)
    assert shedder.admit(0.02)


def test_a_worker_that_is_never_idle_is_overloaded() -> None:
    clock = Clock()
    shedder = Shedder(clock=clock)
    shedder.idle()
    clock.pass_(0.09)
    assert shedder.admit(0.02)
    clock.pass_(0.02)
    assert shedder.overloaded
    assert not shedder.admit(0.006)
    assert shedder.admit(0.004)
    shedder.idle()
    assert not shedder.overloaded
    assert not shedder.admit(0.006)
    clock.pass_(1)
    shedder.idle()
    assert shedder.admit(0.006)


def test_whoever_waited_very_long_is_refused_anyway() -> None:
    assert not Shedder(clock=Clock()).admit(0.2)


def test_an_hour_without_calls_is_no_overload() -> None:
    clock = Clock()
    shedder = Shedder(clock=clock)
    shedder.admit(0.02)
    clock.pass_(3600)
    assert shedder.admit(0.02)
    with pytest.raises(ValueError, match="0 < target <= interval"):
        Shedder(2, 1)


def test_in_overload_a_call_may_wait_behind_one_other() -> None:
    clock = Clock()
    shedder = Shedder(clock=clock)
    shedder.idle()
    clock.pass_(0.2)
    assert shedder.overloaded
    assert shedder.bound == 0.005  # nobody knows how long calls take
    shedder.took(0.002)
    assert shedder.bound == 0.002
    assert shedder.admit(0.002)
    assert not shedder.admit(0.0021)
    for _ in range(100):
        shedder.took(0.00001)
    assert shedder.bound == 0.001  # short calls: so long
    for _ in range(100):
        shedder.took(1.0)
    assert shedder.bound == 0.005  # long ones: as the configuration says
    assert shedder.refused == 1


def test_more_than_can_be_done_is_overload_however_often_the_worker_is_idle() -> None:
    clock = Clock()
    shedder = Shedder(clock=clock)
    shedder.took(0.002)
    for _ in range(60):  # 600 a second, where 500 can be done
        shedder.idle()
        shedder.admit(0.0)
        clock.pass_(0.1 / 60)
    clock.pass_(0.001)
    shedder.idle()
    assert shedder.admit(0.001)
    assert not shedder.admit(0.02)
    clock.pass_(2)
    shedder.idle()
    assert shedder.admit(0.02)


def test_many_calls_weigh_as_much_as_each_of_them_would() -> None:
    one, many = Shedder(clock=Clock()), Shedder(clock=Clock())
    for shedder in (one, many):
        shedder.took(0.004)
    for _ in range(7):
        one.took(0.001)
    many.took(0.001, 7)
    assert many.service == pytest.approx(one.service)

"""Timers by the thousand, through the loop that owns them."""

from __future__ import annotations

import random
import sys

import pytest

from poller.clock import monotonic
from poller.loop import Loop
from poller.timers import Timers
from tests.support.net import records, wait_until, with_hub


def drive(loop: Loop, until: list[object], count: int) -> None:
    wait_until(lambda: loop.run_once(0) is None and len(until) >= count)  # type: ignore[func-returns-value]


def test_they_fire_in_the_order_of_their_deadlines() -> None:
    loop, fired = Loop(), []
    now = monotonic()
    delays = [random.Random(1).random() * 0.01 for _ in range(2000)]
    for delay in delays:
        loop.call_at(now + delay, lambda delay=delay: fired.append(delay))
    assert len(loop.timers) == 2000
    drive(loop, fired, 2000)
    assert fired == sorted(delays)
    assert len(loop.timers) == 0
    loop.close()


def test_equal_deadlines_fire_in_the_order_they_were_made() -> None:
    loop, fired = Loop(), []
    now = monotonic()
    for number in range(100):
        loop.call_at(now, lambda number=number: fired.append(number))
    loop.run_once()
    assert fired == list(range(100))
    loop.close()


def test_a_cancelled_timer_never_fires_and_is_soon_forgotten() -> None:
    loop, fired = Loop(), []
    before = sys.getsizeof(loop)
    for _ in range(100_000):
        timer = loop.call_later(1000, fired.append)
        assert timer.active
        timer.cancel()
        timer.cancel()
        assert not timer.active
    assert len(loop.timers) == 0
    assert sys.getsizeof(loop) == before
    kept = [loop.call_later(1000, fired.append) for _ in range(1000)]
    for timer in kept[::2]:
        timer.cancel()
    assert len(loop.timers) == 500
    loop.run_once()
    assert fired == []
    loop.close()


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 200])
def test_whatever_is_cancelled_the_others_fire_in_order(count: int) -> None:
    loop, fired, now, chance = Loop(), [], monotonic(), random.Random(count)
    live = []

    def add() -> None:
        delay = chance.random() * 0.001
        live.append((delay, loop.call_at(now + delay, lambda: fired.append(delay))))

    for _ in range(count):
        add()
    for _ in range(count * 3):
        if live and chance.random() < 0.6:
            live.pop(chance.randrange(len(live)))[1].cancel()
        else:
            add()
        assert len(loop.timers) == len(live)
    drive(loop, fired, len(live))
    assert fired == sorted(delay for delay, _ in live)
    assert len(loop.timers) == 0
    loop.close()


def test_what_is_let_go_of_by_a_cancelled_timer_may_cancel_others() -> None:
    loop, fired = Loop(), []

    class Guard:
        def __del__(self) -> None:
            other.cancel()

        def __call__(self) -> None:
            raise AssertionError

    other = loop.call_later(2, lambda: fired.append("other"))
    last = loop.call_later(3, lambda: fired.append("last"))
    loop.call_later(1, Guard()).cancel()
    assert (other.active, last.active, len(loop.timers)) == (False, True, 1)
    loop.close()


def test_a_callback_that_raises_stops_nobody() -> None:
    loop, fired = Loop(), []
    now = monotonic()
    loop.call_at(now - 2, lambda: 1 / 0)
    loop.call_at(now - 1, lambda: fired.append("next"))
    with records() as log:
        loop.run_once()
    assert fired == ["next"]
    assert "a timer callback failed" in log[0].getMessage()
    loop.close()


def test_what_a_callback_adds_waits_for_the_next_time() -> None:
    loop, fired = Loop(), []

    def again() -> None:
        fired.append(len(fired))
        loop.call_at(0, again)

    loop.call_at(0, again)
    for number in range(1, 4):
        loop.run_once()
        assert len(fired) == number
    loop.close()


def test_a_timer_may_cancel_another_that_is_due() -> None:
    loop, fired = Loop(), []
    second = loop.call_at(2, lambda: fired.append("second"))
    loop.call_at(1, second.cancel)
    loop.run_once()
    assert fired == []
    assert len(loop.timers) == 0
    loop.close()


@with_hub
def test_a_hub_fires_them_whatever_the_order_they_are_made_in() -> None:
    import gevent

    from poller.loop import loop_of

    loop, fired = loop_of(gevent.get_hub()), []
    for delay in (0.03, 0.01, 0.02, 5.0, 0.0):
        timer = loop.call_later(delay, lambda delay=delay: fired.append(delay))
    loop.call_later(0.005, lambda: 1 / 0)
    with records() as log:
        wait_until(lambda: len(fired) == 4)
    assert fired == [0.0, 0.01, 0.02, 0.03]
    assert len(log) == 1
    assert not timer.active


def test_about() -> None:
    loop = Loop()
    timer = loop.call_later(10, print)
    assert "active" in repr(timer)
    timer.cancel()
    assert "done" in repr(timer)
    assert len(Timers()) == 0
    loop.close()

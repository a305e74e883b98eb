"""A bound on connections in use: who waits, for how long, and who is not let wait – with threads and with greenlets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import gevent
import gevent.event
import pytest

from codec.errors import DeadlineExceeded, ResourceExhausted
from poller.clock import monotonic
from poller.slots import Slots
from tests.support.net import wait_until, with_hub, without_hub

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])


def made(decorate: Any, most: int = 2, most_waiting: int = 10, patience: float = 0.0) -> Slots:
    if decorate is with_hub:
        return Slots(most, most_waiting, patience, gevent.event.Event, nullcontext())
    return Slots(most, most_waiting, patience, threading.Event, threading.Lock())


def start(decorate: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    """Run it beside this; returns what waits for its end."""
    if decorate is with_hub:
        return gevent.spawn(run).join  # type: ignore[no-any-return]
    thread = threading.Thread(target=run)
    thread.start()
    return thread.join


@BOTH
def test_who_comes_first_is_first(decorate: Any) -> None:
    @decorate
    def run() -> None:
        slots, order = made(decorate, most=1), []
        slots.enter("a", 0)
        slots.enter("b", 0)  # another address is another matter
        ends = []
        for number in range(3):

            def wait(number: int = number) -> None:
                slots.enter("a", 0)
                order.append(number)
                slots.leave("a")

            ends.append(start(decorate, wait))
            wait_until(lambda number=number: slots.waiting == number + 1)  # type: ignore[misc]
        assert slots.active == 2
        slots.leave("a")
        for end in ends:
            end()
        slots.leave("b")
        assert order == [0, 1, 2]
        assert (slots.active, slots.waiting, slots.refused) == (0, 0, 0)
        assert not slots._used
        assert not slots._waiting.get("a")

    run()


@BOTH
def test_the_row_has_an_end(decorate: Any) -> None:
    @decorate
    def run() -> None:
        slots = made(decorate, most=1, most_waiting=0)
        slots.enter("tcp://a:1", 0)
        with pytest.raises(ResourceExhausted, match=r"limit max_active, 1 connections to tcp://a:1 are in use and 0 calls wait") as caught:
            slots.enter("tcp://a:1", 0)
        assert caught.value.instance == "tcp://a:1"
        slots.leave("tcp://a:1")
        slots.enter("tcp://a:1", 0)
        assert slots.refused == 1

    run()


@BOTH
def test_waiting_has_an_end(decorate: Any) -> None:
    @decorate
    def run() -> None:
        slots = made(decorate, most=1, patience=0.01)
        slots.enter("a", 0)
        with pytest.raises(ResourceExhausted, match=r"limit max_active, all 1 connections to a were in use for .* s \(wait_timeout\)"):
            slots.enter("a", monotonic() + 60)
        with pytest.raises(DeadlineExceeded, match=r"all 1 connections to a \(max_active\) were in use until the deadline") as caught:
            slots.enter("a", monotonic() + 0.001)
        assert isinstance(caught.value.__cause__, ResourceExhausted)  # by which governance.errors tells it from an instance that is slow
        assert (slots.waiting, slots.refused) == (0, 1)
        slots.leave("a")
        slots.enter("a", 0)

    run()


@with_hub
def test_who_is_killed_while_waiting_loses_no_slot() -> None:
    slots = made(with_hub, most=1)

    def use() -> None:
        slots.enter("a", 0)
        try:
            gevent.sleep(60)
        finally:
            slots.leave("a")

    slots.enter("a", 0)
    waiter = gevent.spawn(use)
    wait_until(lambda: slots.waiting == 1)
    waiter.kill()
    assert slots.waiting == 0
    late = gevent.spawn(use)
    wait_until(lambda: slots.waiting == 1)
    slots.leave("a")  # it has the slot, and does not know it yet
    late.kill()
    slots.enter("a", monotonic() + 1)


@without_hub
def test_many_threads_never_have_more_than_there_are() -> None:
    slots, now, most = made(without_hub, most=3, most_waiting=1000), 0, 0
    lock = threading.Lock()

    def use() -> None:
        nonlocal now, most
        for _ in range(50):
            slots.enter("a", 0)
            with lock:
                now += 1
                most = max(most, now)
            with lock:
                now -= 1
            slots.leave("a")

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3
    assert (slots.active, slots.waiting) == (0, 0)

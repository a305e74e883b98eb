"""Stop calling what fails: states, window, sharing."""

from __future__ import annotations

import os

import pytest

from governance.breaker import BREAKER_CELLS, Breaker
from governance.cells import Cells
from governance.memory import Memory
from tests.governance.clock import Clock


def feed(breaker: Breaker, good: int, bad: int) -> None:
    for _ in range(good):
        breaker.succeed()
    for _ in range(bad):
        breaker.fail()


def test_it_opens_when_enough_of_enough_calls_fail() -> None:
    breaker = Breaker("b", clock=Clock())
    feed(breaker, 100, 99)
    assert breaker.state == "closed"
    assert breaker.allow()
    breaker.fail()
    assert breaker.state == "open"
    assert not breaker.allow()


def test_a_lower_share_never_opens_it() -> None:
    breaker = Breaker("b", clock=Clock())
    feed(breaker, 1000, 900)
    assert breaker.state == "closed"


def test_few_calls_say_nothing() -> None:
    breaker = Breaker("b", clock=Clock())
    feed(breaker, 0, 199)
    assert breaker.state == "closed"


def test_what_is_older_than_ten_seconds_does_not_count() -> None:
    clock = Clock()
    breaker = Breaker("b", clock=clock)
    feed(breaker, 0, 199)
    clock.pass_(10.0)
    breaker.fail()
    assert breaker.state == "closed"
    assert breaker.counts_at(int(clock.now * 1e9)) == (0, 1)


def test_the_window_slides_bucket_by_bucket() -> None:
    clock = Clock()
    breaker = Breaker("b", clock=clock)
    for _ in range(150):
        breaker.succeed()
        clock.pass_(0.1)
    good, bad = breaker.counts_at(int(clock.now * 1e9))
    assert bad == 0
    assert 98 <= good <= 100


def test_from_open_to_closed_by_two_successes() -> None:
    clock = Clock()
    breaker = Breaker("b", clock=clock)
    feed(breaker, 0, 200)
    clock.pass_(4.9)
    assert not breaker.allow()
    clock.pass_(0.1)
    assert breaker.allow()
    assert breaker.state == "half-open"
    assert not breaker.allow()
    breaker.succeed()
    assert breaker.state == "half-open"
    clock.pass_(0.2)
    assert breaker.allow()
    breaker.succeed()
    assert breaker.state == "closed"
    # The window is empty: an old failure must not open it again.
    breaker.fail()
    assert breaker.state == "closed"


def test_a_failure_while_half_open_opens_it_for_another_while() -> None:
    clock = Clock()
    breaker = Breaker("b", clock=clock)
    feed(breaker, 0, 200)
    clock.pass_(5)
    assert breaker.allow()
    breaker.fail()
    assert breaker.state == "open"
    clock.pass_(4.9)
    assert not breaker.allow()
    assert breaker.snapshot()["trips"] == 2


def test_a_probe_that_tells_nothing_does_not_block_the_next() -> None:
    clock = Clock()
    breaker = Breaker("b", clock=clock)
    feed(breaker, 0, 200)
    clock.pass_(5)
    allowed = 0
    for _ in range(100):
        allowed += breaker.allow()
        clock.pass_(0.01)
    assert allowed == 5  # one each 200 ms


def test_failures_in_a_row() -> None:
    breaker = Breaker("b", error_rate=0, consecutive=3, clock=Clock())
    feed(breaker, 0, 2)
    breaker.succeed()
    feed(breaker, 0, 2)
    assert breaker.state == "closed"
    breaker.fail()
    assert breaker.state == "open"


def test_changes_are_told() -> None:
    clock, told = Clock(), []
    breaker = Breaker("b", clock=clock, on_change=lambda who, before, after: told.append((who.name, before, after)))
    feed(breaker, 0, 200)
    clock.pass_(5)
    breaker.allow()
    breaker.succeed()
    breaker.succeed()
    assert told == [("b", "closed", "open"), ("b", "open", "half-open"), ("b", "half-open", "closed")]


def test_two_on_the_same_cells_are_one() -> None:
    clock, told = Clock(), []
    cells = Cells(count=BREAKER_CELLS)
    one = Breaker("b", cells=cells, clock=clock)
    other = Breaker("b", cells=cells, clock=clock, on_change=lambda *change: told.append(change[1:]))
    feed(one, 0, 100)
    feed(other, 0, 100)
    assert one.state == other.state == "open"
    one.clear()
    cells.store(0, 0)
    assert other.allow()
    assert told == [("closed", "open"), ("open", "closed")]


def test_all_workers_of_a_host_share_one() -> None:
    """Four processes with a quarter of the failures each: it opens in all of them."""
    memory = Memory.shared()
    children = []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            try:
                breaker = Breaker("shared", cells=memory.find("breaker", "shared"))
                feed(breaker, 0, 50)
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    breaker = Breaker("shared", cells=memory.find("breaker", "shared"))
    assert breaker.state == "open"
    assert breaker.snapshot()["failures"] == 200
    assert breaker.snapshot()["trips"] == 1


def test_a_share_is_a_share() -> None:
    with pytest.raises(ValueError, match="a share, 0 to 1"):
        Breaker(error_rate=50)
    with pytest.raises(IndexError):
        Breaker(cells=Cells(count=3))

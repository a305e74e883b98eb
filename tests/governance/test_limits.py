"""Exactly so many a second, exactly so many at one time, over all processes."""

from __future__ import annotations

import os
import signal

import pytest

from governance.cells import Cells
from governance.limits import Concurrency, Rate, Seats
from governance.memory import Memory
from tests.governance.clock import Clock


@pytest.mark.parametrize("rate", [1, 3, 9, 10, 100, 12345])
def test_a_rate_is_kept_exactly(rate: int) -> None:
    """Kitex's limiter lets nothing through below 10 and twice the limit in the first second: ours must do neither."""
    clock = Clock()
    limit = Rate(rate, 1, clock=clock)
    let = 0
    for _ in range(100_000):
        let += limit.take()
        clock.pass_(1e-4)  # 10 s in all
    assert abs(let - min(rate * 10, 100_000)) <= 2


def test_a_burst_and_no_more() -> None:
    clock = Clock()
    limit = Rate(100, 20, clock=clock)
    assert sum(limit.take() for _ in range(100)) == 20
    clock.pass_(0.05)
    assert sum(limit.take() for _ in range(100)) == 5
    clock.pass_(3600)
    assert sum(limit.take() for _ in range(100)) == 20


def test_the_usual_burst_is_a_tenth_of_a_second() -> None:
    assert Rate(1000).burst == 100
    assert Rate(1).burst == 1
    assert not Rate(0).take()
    with pytest.raises(ValueError, match="0 or more"):
        Rate(-1)


def test_a_higher_rate_need_not_wait_for_what_the_lower_one_has_promised() -> None:
    cells, clock = Cells(count=1), Clock()
    slow = Rate(0.001, 3, cells=cells, clock=clock)
    assert [slow.take() for _ in range(4)] == [True] * 3 + [False]
    fast = Rate(100, 2, cells=cells, clock=clock)
    assert not fast.take()
    clock.pass_(0.01)
    assert [fast.take() for _ in range(2)] == [True, False]


def test_processes_share_a_rate() -> None:
    memory = Memory.shared()
    reading, writing = os.pipe()
    for _ in range(4):
        if not os.fork():
            try:
                limit = Rate(0.001, 50, cells=memory.find("rate", "r"))
                os.write(writing, bytes([sum(limit.take() for _ in range(100))]))
            finally:
                os._exit(0)
    for _ in range(4):
        os.wait()
    let = os.read(reading, 10)
    os.close(reading)
    os.close(writing)
    assert sum(let) == 50


def test_so_many_at_one_time() -> None:
    limit = Concurrency(2)
    assert limit.enter()
    assert limit.enter()
    assert not limit.enter()
    assert limit.current == 2
    limit.leave()
    assert limit.enter()


def test_processes_count_together_and_the_dead_do_not_count() -> None:
    memory = Memory.shared()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            limit = Concurrency(3, seats=memory.seats, cells=memory.find("concurrency", "c"))
            os.write(writing, bytes([limit.enter(), limit.enter()]))
            signal.pause()
        finally:
            os._exit(0)
    assert os.read(reading, 2) == b"\1\1"
    limit = Concurrency(3, seats=memory.seats, cells=memory.find("concurrency", "c"))
    assert limit.current == 2
    assert limit.enter()
    assert not limit.enter()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not limit.enter()
    memory.seats.sweep()
    assert limit.current == 1
    assert limit.enter()
    os.close(reading)
    os.close(writing)


def test_a_seat_of_the_dead_is_taken_over_empty() -> None:
    alive = {1: True, os.getpid(): True}
    memory = Memory.shared()
    seats = Seats(memory.seats_cells, alive=lambda pid: alive.get(pid, False))
    seats.take_seat()
    limit = Concurrency(5, seats=seats, cells=memory.find("concurrency", "c"))
    limit.enter()
    memory.seats_cells.store(0, 999)  # somebody who is gone
    memory.find("concurrency", "c").store(0, 4)
    seats.forget()
    assert seats.take_seat() == 0
    assert limit.current == 0


def test_only_seats_that_were_taken_are_looked_at() -> None:
    memory = Memory.shared()
    taken = memory.find("concurrency", "c")
    limit = Concurrency(5, seats=memory.seats, cells=taken)
    taken.store(7, 3)  # a seat that nobody ever took
    assert limit.enter()
    assert limit.current == 1


def test_more_processes_than_seats() -> None:
    seats = Seats(alive=lambda pid: True)
    other = Seats(seats_of_another(), alive=lambda pid: True)
    seats.take_seat()
    with pytest.raises(RuntimeError, match="all 1 seats"):
        other.take_seat()


def seats_of_another() -> object:
    from governance.cells import Cells

    cells = Cells(count=1)
    cells.store(0, 1)
    return cells

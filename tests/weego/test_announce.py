"""Who speaks for a service, what is said, and what happens when the registry does not listen."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import time
from collections.abc import Iterator

import gevent
import pytest

from governance.cells import Cells
from governance.discovery import DiscoveryError, Registration
from governance.instance import Instance
from prefork import scoreboard
from prefork.scoreboard import Scoreboard
from tests.support.net import wait_until, with_hub
from weego import announce
from weego.announce import Announcer, Word, address_of

ROUNDS = 50
IT = Registration("echo", Instance("tcp://127.0.0.1:1"), 0.3)


class Listening:
    """A registry that may be down."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.is_down = False
        self.hangs = False

    def register(self, registration: Registration) -> None:
        if self.is_down:
            raise DiscoveryError("the registry is down")
        self.heard.append("register")

    def withdraw(self, registration: Registration) -> None:
        if self.hangs:
            gevent.sleep(60)
        if self.is_down:
            raise DiscoveryError("the registry is down")
        self.heard.append("withdraw")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "LOOK", 0.01)
    monkeypatch.setattr(announce, "WITHDRAWAL", 0.05)


@with_hub
def test_announced_renewed_withdrawn() -> None:
    registry = Listening()
    announcer = Announcer(registry, IT)
    announcer.start()
    wait_until(lambda: len(registry.heard) >= 3)
    announcer.withdraw()
    assert registry.heard[-1] == "withdraw"
    count = len(registry.heard)
    announcer.withdraw()
    gevent.sleep(0.2)
    assert len(registry.heard) == count


@with_hub
def test_who_does_not_speak_says_nothing_and_takes_nothing_back() -> None:
    registry, speaks = Listening(), False
    announcer = Announcer(registry, IT, lambda: speaks)
    announcer.start()
    gevent.sleep(0.1)
    announcer.withdraw()
    assert registry.heard == []
    announcer.start()
    speaks = True
    wait_until(lambda: registry.heard != [])
    announcer.leave()
    gevent.sleep(0)
    announcer.withdraw()
    assert "withdraw" not in registry.heard


@with_hub
def test_what_another_worker_has_taken_over_is_taken_back_by_that_one() -> None:
    registry, told = Listening(), list[bool]()
    speaks, others = True, False
    announcer = Announcer(registry, IT, lambda: speaks, told.append, lambda: others)
    announcer.start()
    wait_until(lambda: registry.heard != [])
    speaks = False  # an earlier worker is ready now, and has not said a word yet
    gevent.sleep(0.1)
    assert told == [True]
    others = True
    wait_until(lambda: told == [True, False])
    announcer.withdraw()
    assert "withdraw" not in registry.heard


@with_hub
def test_a_registry_that_is_down_is_tried_again() -> None:
    registry = Listening()
    registry.is_down = True
    announcer = Announcer(registry, IT)
    announcer.start()
    gevent.sleep(0.1)
    assert registry.heard == []
    registry.is_down = False
    wait_until(lambda: registry.heard != [])
    registry.hangs = True
    started = time.monotonic()
    announcer.withdraw()
    assert time.monotonic() - started < 30  # it is given up, and the lease ends by itself


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard.create(8)
    board.publish(2, 1)
    yield board
    board.close()


def a_worker(board: Scoreboard, generation: int, pid: int) -> int:
    """The row of one that boots."""
    index = board.allot(0, generation)
    row = board.row(index)
    row[scoreboard.PID], row[scoreboard.STATE], row[scoreboard.BEAT_NS] = pid, scoreboard.BOOTING, time.monotonic_ns()
    return index


def test_one_worker_speaks_until_it_is_gone(board: Scoreboard) -> None:
    rows = [a_worker(board, generation, pid) for pid, generation in enumerate((1, 2, 2, 2), 100)]
    words = [Word(board, row) for row in rows]

    def who() -> list[bool]:
        return [word.is_ours() for word in words]

    def state(worker: int, value: int) -> None:
        board.row(rows[worker])[scoreboard.STATE] = value

    assert who() == [False] * 4  # none is ready
    state(0, scoreboard.READY)
    state(2, scoreboard.READY)
    assert who() == [False, False, True, False]  # 0 is of a generation that does not serve
    board.row(rows[2])[scoreboard.SPEAKS] = 1
    state(1, scoreboard.READY)
    state(3, scoreboard.READY)
    assert who() == [False, False, True, False]  # it has begun, whoever is ready now
    assert [word.is_theirs() for word in words] == [True, True, False, True]
    state(2, scoreboard.DRAINING)
    assert who() == [False] * 4  # it has not taken back what it said
    board.row(rows[2])[scoreboard.SPEAKS] = 0
    assert who() == [False, True, False, False]
    board.row(rows[1])[scoreboard.SPEAKS] = 1
    board.row(rows[1])[scoreboard.BEAT_NS] -= 60 * 10**9  # it hangs
    assert who() == [False, False, False, True]
    board.row(rows[1])[scoreboard.BEAT_NS] = time.monotonic_ns()
    assert who() == [False, False, False, True]  # it goes on, too late
    board.retire(rows[3])
    assert a_worker(board, 2, 104) == rows[3]  # dead, and its row is another's
    state(3, scoreboard.READY)
    assert who() == [False, True, False, False]


def test_a_reload_passes_the_word_on(board: Scoreboard) -> None:
    old, new = a_worker(board, 2, 100), a_worker(board, 3, 101)
    for index in old, new:
        board.row(index)[scoreboard.STATE] = scoreboard.READY
    assert Word(board, old).is_ours()
    board.row(old)[scoreboard.SPEAKS] = 1
    board.publish(3, 1)
    assert not Word(board, old).is_ours()
    assert not Word(board, new).is_ours()  # the old one has not been told to drain yet
    board.row(old)[scoreboard.SPEAKS] = 0
    assert Word(board, new).is_ours()


def test_workers_that_are_ready_at_the_same_moment(board: Scoreboard) -> None:
    """Whoever sees all of them first, one has the word: processes that ask at once, again and again."""
    rows = [a_worker(board, 2, pid) for pid in range(100, 104)]
    go, done, won = (memoryview(mmap.mmap(-1, 8 * ROUNDS)).cast("q") for _ in range(3))
    for index in rows:
        board.row(index)[scoreboard.STATE] = scoreboard.READY
    children = []
    for index in rows:
        pid = os.fork()
        if pid == 0:
            try:
                word, count = Word(board, index), Cells(done)
                for number in range(ROUNDS):
                    while not go[number]:
                        pass
                    if word.is_ours():
                        Cells(won).add(number, 1)
                    count.add(number, 1)
            finally:
                os._exit(0)
        children.append(pid)
    try:
        for number in range(ROUNDS):
            board.cells[scoreboard.H_SPEAKER] = 0
            for index in rows:
                board.row(index)[scoreboard.BEAT_NS] = time.monotonic_ns()
            go[number] = 1
            wait_until(lambda number=number: done[number] == len(rows))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert list(won) == [1] * ROUNDS


def test_what_others_should_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        assert address_of(one) == f"tcp://127.0.0.1:{one.getsockname()[1]}"
    with socket.create_server(("0.0.0.0", 0)) as every:
        address = address_of(every)
        assert "0.0.0.0" not in address
        assert address.endswith(f":{every.getsockname()[1]}")

"""Who speaks for a service, what is said, and what happens when the registry does not listen."""

from __future__ import annotations

import socket
import time

import gevent
import pytest

from governance.discovery import DiscoveryError, Registration
from governance.instance import Instance
from prefork import scoreboard
from prefork.scoreboard import Scoreboard
from tests.support.net import wait_until, with_hub
from weego import announce
from weego.announce import Announcer, address_of, do_others_speak, is_speaker

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


def test_the_first_ready_worker_speaks() -> None:
    board = Scoreboard.create(8)
    try:
        board.publish(2, 1)
        rows = [board.allot(slot, generation) for slot, generation in ((0, 1), (0, 2), (1, 2), (2, 2))]
        for row in rows:
            board.row(row)[scoreboard.BEAT_NS] = time.monotonic_ns()
        assert not any(is_speaker(board, row) for row in rows)
        for row in rows:
            board.row(row)[scoreboard.STATE] = scoreboard.READY
        assert [is_speaker(board, row) for row in rows] == [False, True, False, False]
        board.row(rows[1])[scoreboard.STATE] = scoreboard.DRAINING
        assert [is_speaker(board, row) for row in rows] == [False, False, True, False]
        board.row(rows[2])[scoreboard.BEAT_NS] -= 60 * 10**9  # it hangs
        assert [is_speaker(board, row) for row in rows] == [False, False, False, True]
        board.row(rows[2])[scoreboard.SPEAKS] = 1
        assert [do_others_speak(board, row) for row in rows] == [True, True, False, True]
    finally:
        board.close()


def test_what_others_should_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        assert address_of(one) == f"tcp://127.0.0.1:{one.getsockname()[1]}"
    with socket.create_server(("0.0.0.0", 0)) as every:
        address = address_of(every)
        assert "0.0.0.0" not in address
        assert address.endswith(f":{every.getsockname()[1]}")

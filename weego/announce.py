"""Tells the registry that this service is there: once for all workers, when it is ready, and takes it back first when it stops.

Which worker speaks is not decided by anybody: it is the ready one with the lowest row of the scoreboard. When it leaves or dies the next one goes on
within a second, and the registry, which hears the same words, sees no change. A reload is no change either.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import gevent

from governance.discovery import Registration, Registry
from poller.clock import monotonic
from prefork import scoreboard
from prefork.scoreboard import STALE_BEAT_NS, Scoreboard

__all__ = ["Announcer", "address_of", "do_others_speak", "is_speaker", "wait_for_silence"]

log = logging.getLogger("weego.governance")

# How often a worker looks whether it is the one that speaks (seconds).
LOOK: Final = 0.5
# Renewals in the time of a lease: two may fail.
RENEWALS: Final = 3
# Pauses after a registry that did not answer (seconds): twice as long each time, up to the time between two renewals, and then at random between half
# of that and all, so that services do not come to a registry that restarts all at one moment.
FIRST_PAUSE: Final = 0.5
# How long stopping waits for the registry to take the withdrawal (seconds).
WITHDRAWAL: Final = 2.0
GRACE: Final = 0.5
# A stale beat is many times longer for this than for the gate: a long garbage collection must not move the word.
PATIENCE: Final = 20


class Announcer:
    """Keeps `registration` in `registry` while `speaks()` says that this process is the one to do it.

    `told(on)` hears when it has said that the instance is there, or begun to, and when that is taken back or left to another; `others()` says whether
    another process has.
    """

    def __init__(
        self,
        registry: Registry,
        registration: Registration,
        speaks: Callable[[], bool] = lambda: True,
        told: Callable[[bool], object] = bool,
        others: Callable[[], bool] = lambda: False,
    ) -> None:
        self.registration = registration
        self._told = told
        self._others = others
        self._registry = registry
        self._speaks = speaks
        self._is_announced = False
        """Has this process said that the instance is there, or begun to?"""
        self._due = 0.0
        self._pause = 0.0
        self._problem = ""
        self._greenlet: Any = None

    def start(self) -> None:
        """From now on."""
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            if not self._speaks():
                self._due = 0.0
                if self._is_announced and self._others():
                    self._note(False)  # theirs to take back; until they have begun, a stop would leave what this one said
            elif monotonic() >= self._due:
                self._register()
            gevent.sleep(LOOK)

    def _register(self) -> None:
        pause = self.registration.ttl / RENEWALS
        was_announced = self._is_announced
        self._note(True)  # it may be killed in the middle of that
        try:
            self._registry.register(self.registration)
        except Exception as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("%s is not announced: %s; trying again", self.registration.service, error)
            self._pause = min(pause, self._pause * 2 or FIRST_PAUSE)
            self._due = monotonic() + self._pause * random.uniform(0.5, 1.0)
            return
        if not was_announced or self._problem:
            log.info("announced %s at %s", self.registration.service, self.registration.instance.address)
        self._pause, self._problem = 0.0, ""
        self._due = monotonic() + pause

    def leave(self) -> None:
        """Say no more, but take nothing back: another worker goes on. Never waits: it may be called in the loop itself."""
        self._note(False)  # whoever goes on with it may take it back, and nobody else
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None

    def withdraw(self) -> None:
        """Say no more, and take back what this process said. Waits for the registry, a little."""
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.kill()
        if not self._is_announced:
            return
        try:
            with gevent.Timeout(WITHDRAWAL):
                self._registry.withdraw(self.registration)
        except (Exception, gevent.Timeout) as error:
            log.warning("%s is not withdrawn: %s; its lease ends in %g s", self.registration.service, error, self.registration.ttl)
        else:
            log.info("withdrew %s at %s", self.registration.service, self.registration.instance.address)
        finally:
            self._note(False)

    def _note(self, on: bool) -> None:
        if on != self._is_announced:
            self._is_announced = on
            self._told(on)


def is_speaker(board: Scoreboard, index: int) -> bool:
    """Is the worker of that row the first of those that are ready?"""
    cells = board.cells
    generation = board.generation
    now = time.monotonic_ns()
    for row in board.rows():
        start = (scoreboard.FIRST_ROW + row) * scoreboard.ROW_CELLS
        if (
            cells[start + scoreboard.STATE] == scoreboard.READY
            and cells[start + scoreboard.GENERATION] == generation
            and now - cells[start + scoreboard.BEAT_NS] < STALE_BEAT_NS * PATIENCE
        ):
            return row == index
    return False


def do_others_speak(board: Scoreboard, index: int) -> bool:
    """Has a worker of another row the service announced, or begun to?"""
    cells = board.cells
    return any(row != index and cells[(scoreboard.FIRST_ROW + row) * scoreboard.ROW_CELLS + scoreboard.SPEAKS] for row in board.rows())


def wait_for_silence(board: Scoreboard) -> None:
    """Until no worker has the service announced: only then may the listeners that all share be closed. Waits a little longer than a withdrawal may take,
    for who has it announced may hang.
    """
    cells = board.cells
    deadline = monotonic() + WITHDRAWAL + GRACE
    while monotonic() < deadline and any(cells[(scoreboard.FIRST_ROW + row) * scoreboard.ROW_CELLS + scoreboard.SPEAKS] for row in board.rows()):
        gevent.sleep(0.01)


def address_of(listening: Any) -> str:
    """What others should call to reach a listening socket: its address, or this machine's where it listens on all of them."""
    name = listening.getsockname()
    if isinstance(name, str):
        return f"unix://{name}"
    host, port = name[0], name[1]
    if host in ("0.0.0.0", "::"):
        host = _own_address(socket.AF_INET if host == "0.0.0.0" else socket.AF_INET6) or "127.0.0.1"
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _own_address(family: int) -> str:
    """The address this machine would speak from to the world. Nothing is sent: connecting a datagram socket only looks at the routes."""
    # Documentation addresses (RFC 5737, RFC 3849): routed like any other that is far away.
    far = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((far, 9))
        return str(probe.getsockname()[0])
    return ""

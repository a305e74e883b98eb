"""Tells the registry that this service is there: once for all workers, when it is ready, and takes it back first when it stops.

Which worker speaks is not decided by anybody: a ready one takes the word, a cell of the scoreboard that only one of them can have, and keeps it. When
it leaves, hangs or dies the next one goes on within a second, and the registry, which hears the same words, sees no change. A reload is no change either.
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

from governance.cells import Cells
from governance.discovery import Registration, Registry
from poller.clock import monotonic
from prefork import scoreboard
from prefork.scoreboard import STALE_BEAT_NS, Scoreboard

__all__ = ["Announcer", "Word", "address_of", "wait_for_silence"]

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
# Of the cell that says who speaks: the row is below, the pid above. Boards have fewer rows than that.
ROW_BITS: Final = 20


class Announcer:
    """Keeps `registration` in `registry` while `speaks()` says that this process is the one to do it.

    `told(on)` hears when it has said that the instance is there, or begun to, and when that is taken back or left to another; `others()` says whether
    another process goes on with it.
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
                    self._note(False)  # theirs to take back; as long as nobody has it, a stop would leave what this one said
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


class Word:
    """Who speaks for the service: one of the workers on `board`, of which this process is that of row `index`.

    It is a cell that names its owner. It changes hands by compare-and-swap, and only from nobody or from a worker that has no more to say, so two workers
    that are ready at the same moment do not both have it, and whoever comes later, in whatever row, finds it taken.
    """

    def __init__(self, board: Scoreboard, index: int) -> None:
        self._board = board
        self._index = index
        self._own = self._name(index)
        self._cell = Cells(board.cells, scoreboard.H_SPEAKER, 1)

    def is_ours(self) -> bool:
        """May this process speak? It takes the word if nobody has it."""
        if not self._may_speak(self._index):
            return False
        owner = self._cell.load(0)
        return bool(owner == self._own or (not self._is_held_by(owner) and self._cell.swap(0, owner, self._own)))

    def is_theirs(self) -> bool:
        """Has another process taken it?"""
        return bool(self._cell.load(0) != self._own)

    def _is_held_by(self, owner: int) -> bool:
        """Is the owner there, and either one that may speak or one that has not taken back or left to others what it said?"""
        row = (owner & (1 << ROW_BITS) - 1) - 1
        if row < 0 or self._name(row) != owner:
            return False
        return self._is_alive(row) and (self._may_speak(row) or bool(self._board.row(row)[scoreboard.SPEAKS]))

    def _may_speak(self, row: int) -> bool:
        cells = self._board.row(row)
        return bool(cells[scoreboard.STATE] == scoreboard.READY and cells[scoreboard.GENERATION] == self._board.generation and self._is_alive(row))

    def _is_alive(self, row: int) -> bool:
        return bool(time.monotonic_ns() - self._board.row(row)[scoreboard.BEAT_NS] < STALE_BEAT_NS * PATIENCE)

    def _name(self, row: int) -> int:
        """What the cell holds while the worker of that row has the word: its pid as well, for rows are used again."""
        return int(self._board.row(row)[scoreboard.PID]) << ROW_BITS | row + 1


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

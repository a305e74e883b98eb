"""The body of a worker: the serving of one process, under the orders of the master."""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.util import format_run_info

from governance.meter import totals
from poller.connection import Connection
from prefork import (
    Adopt,
    Adopted,
    Drain,
    Hot,
    Lame,
    LogLevel,
    MasterGone,
    Refused,
    Reopen,
    Serve,
    Settings,
    Share,
    Stacks,
    Stop,
    View,
    Worker,
    scoreboard,
)  # fmt: skip
from prefork.closing import turn_away
from prefork.handover import MAX_HANDOVER_BYTES
from prefork.status import ABUSES
from weego import log as log_files
from weego.announce import Announcer, wait_for_silence
from weego.selfcall import call_self
from weego.serving import Serving

if TYPE_CHECKING:
    from poller.tls import ServerTLS

__all__ = ["Body"]

log = logging.getLogger("weego.worker")

READ: Final = 1
# How often the worker says that its loop turns (seconds); the gate passes a worker by that was silent for 250 ms.
BEAT: Final = 0.1


class Body:
    """Runs `serving` for `worker` until the master lets it go; `tls` is that of each listener, in the worker's order.

    `announcer` tells the registry that the service is there, from the order to serve on; it takes that back before a stop, and while the
    worker is to seem ill. `refused()` is how many calls limits and shedding refused, `view()` what
    there is to tell of this worker, `at_end(deadline)` what is to be done when it has no calls any more.
    """

    def __init__(
        self,
        worker: Worker,
        serving: Serving,
        tls: Sequence[ServerTLS | None] = (),
        *,
        follow: Callable[[Settings], None] | None = None,
        announcer: Announcer | None = None,
        refused: Callable[[], int] = int,
        view: Callable[[], str] = str,
        at_end: Callable[[float], object] = float,
    ) -> None:
        self._worker = worker
        self._follow = follow
        self._serving = serving
        self._tls = tls
        self._announcer = announcer
        self._refused = refused
        self._view = view
        self._at_end = at_end
        self._is_lame = self._is_serving = False
        self._hub = get_hub()
        self._left = Event()
        self._deadline = 0.0
        self._is_leaving = False
        self._given: dict[int, tuple[int, bytes]] = {}
        serving.dispatcher.count_in(
            worker.row,
            inflight=scoreboard.INFLIGHT,
            requests=scoreboard.REQUESTS,
            errors=scoreboard.ERRORS,
            connections=scoreboard.CONNECTIONS,
        )
        serving.count_all(lambda: worker.board.total(scoreboard.CONNECTIONS))

    def run(self) -> None:
        """Serve; returns when the last connection is gone, or at the deadline of the order to leave."""
        orders = self._hub.loop.io(self._worker.fileno(), READ)
        orders.start(self._receive)
        beat = self._hub.loop.timer(BEAT, BEAT)
        beat.start(self._beat)
        try:
            call_self(self._serving, self._worker.settings.boot_timeout / 2)
            self._worker.ready()
            self._left.wait()
            if not self._serving.wait_drained(self._deadline):
                log.warning(
                    "worker %d: %d connections and %d calls are cut off at the deadline",
                    self._worker.slot, self._serving.connections, self._serving.dispatcher.inflight,
                )  # fmt: skip
            while self._worker.pending and time.monotonic() < self._deadline:
                self._left.clear()
                self._left.wait(BEAT)
            if self._serving.connections:  # a hand-over was refused at the very end
                self._serving.wait_drained(self._deadline)
        finally:
            self._serving.close()
            try:
                self._at_end(self._deadline)  # with the beat going on: it may take as long as calls may
            finally:
                for watcher in (orders, beat):
                    watcher.stop()
                    watcher.close()

    # ---- what the master says ----------------------------------------------------------------------------------------

    def _receive(self) -> None:
        for order in self._worker.receive():
            try:
                self._obey(order)
            except Exception:
                log.exception("worker %d: the order %r failed", self._worker.slot, order)

    def _obey(self, order: Any) -> None:
        match order:
            case Serve():
                self._serving.listen([listener.fileno() for listener in self._worker.listeners], self._tls)
                self._is_serving = True
                if self._announcer is not None and not self._is_lame:
                    self._announcer.start()
            case Adopt(fd, data):
                os.set_blocking(fd, False)
                self._serving.take(fd, data)
            case Adopted(token):
                fd, _ = self._given.pop(token)
                os.close(fd)
                self._serving.dispatcher.given()
                self._serving.check_done()
            case Refused(token):
                self._serving.take(*self._given.pop(token))
                self._serving.dispatcher.given()
            case Drain(deadline, closing):
                self._leave(deadline)
                if self._announcer is not None:  # the service stays: another worker goes on announcing it
                    self._announcer.leave()
                self._turn_away(closing)
                self._serving.stop_accepting(drain_queue=closing)
                self._close_listeners()
                self._serving.drain(self._give)
                self._left.set()
            case Stop(deadline, fast) if self._announcer is not None and not fast:
                gevent.spawn(self._withdraw_and_stop, self._announcer, deadline)
            case Stop(deadline, fast):
                self._stop(deadline, fast=fast)
            case MasterGone(deadline):
                self._obey(Stop(deadline))
            case Reopen():
                log_files.reopen()
            case Hot(settings):
                self._take(settings)
            case LogLevel(level):
                log_files.set_level(level)
            case Lame(on):
                self._is_lame = on
                self._serving.announce_leaving(on=on)
                if self._announcer is not None and self._is_serving:
                    gevent.spawn(self._announcer.withdraw) if on else self._announcer.start()
            case Stacks():
                self._worker.tell_stacks("\n".join(format_run_info()))
            case View(number):
                self._worker.tell_view(number, self._view())
            case Share(row, count):
                self._worker.shared(row, self._serving.give_some(count, lambda connection: self._give(connection, row)))

    def _take(self, settings: Settings) -> None:
        """Follow new settings, and say whether that worked."""
        try:
            if self._follow is not None:
                self._follow(settings)
        except Exception as error:
            log.exception("worker %d cannot follow the new settings", self._worker.slot)
            self._worker.followed(f"{type(error).__name__}: {error}")
        else:
            self._worker.followed()

    def _withdraw_and_stop(self, announcer: Announcer, deadline: float) -> None:
        """First nobody new comes, then nobody new is let in."""
        self._announcer = None
        announcer.withdraw()
        wait_for_silence(self._worker.board)  # another worker may be the one that takes it back
        self._stop(deadline, fast=False)

    def _stop(self, deadline: float, *, fast: bool) -> None:
        self._leave(time.monotonic() if fast else deadline)
        closing = () if fast else tuple(range(len(self._worker.listeners)))
        self._turn_away(closing)
        self._serving.stop_accepting(drain_queue=closing)
        self._close_listeners()
        self._serving.drain()
        self._left.set()

    def _leave(self, deadline: float) -> None:
        self._deadline = min(self._deadline, deadline) if self._is_leaving else deadline
        self._is_leaving = True

    def _turn_away(self, closing: tuple[int, ...]) -> None:
        """These listeners are about to close for good: what is queued there is served, and nobody may get in behind it."""
        for index in closing:
            if index in self._worker.held:
                continue
            if index < len(self._worker.listeners) and self._worker.listeners[index].fileno() >= 0:
                turn_away(self._worker.listeners[index])

    def _close_listeners(self) -> None:
        for listener in self._worker.listeners:
            listener.close()

    # ---- what the master reads ---------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._worker.beat()
        self._count()

    def _count(self) -> None:
        self._worker.row[scoreboard.ACCEPTED] = self._serving.accepted
        self._worker.row[scoreboard.LOG_DROPPED] = log_files.dropped()
        self._worker.row[scoreboard.REFUSED_CALLS] = self._refused()
        self._worker.row[scoreboard.CLIENT_CALLS : scoreboard.CLIENT_HEDGES + 1] = memoryview(array("q", totals()))
        for kind, count in self._serving.abuse.items():
            if kind in ABUSES:
                self._worker.row[scoreboard.FIRST_ABUSE + ABUSES.index(kind)] = count

    def may_accept(self) -> bool:
        """The gate: does this worker have its share of the connections?"""
        return self._worker.may_accept()

    # ---- giving connections away -------------------------------------------------------------------------------------

    def _give(self, connection: Connection, row: int | None = None) -> bool:
        """Hand `connection`, which stands between two messages, to a worker that stays, or to that of `row`."""
        if connection.unread > MAX_HANDOVER_BYTES:
            return False
        fd, data = connection.detach()
        token = self._worker.hand_over(fd, data, row=row)
        self._serving.dispatcher.forget(connection)
        if token is None:
            self._serving.take(fd, data)
            self._serving.dispatcher.given()
            return False
        self._given[token] = (fd, data)
        return True

"""A worker process, as its body sees it: who it is, what it shares, what it is told.

The body, ``Application.run(worker)``, runs any loop it likes. It watches ``worker.fileno()`` for reading and calls
``worker.receive()`` then; nothing here ever blocks or starts a thread.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from prefork import scoreboard
from prefork.application import LoadError, Settings
from prefork.channel import Channel, Closed
from prefork.handover import MAX_HANDOVER_BYTES, Handovers
from prefork.orders import Drain, Hot, Lame, LogLevel, MasterGone, Order, Reopen, Serve, Share, Stacks, Stop, View
from prefork.primitives import (
    EPOLL_CLOEXEC,
    EPOLLIN,
    EPOLLOUT,
    STACKS_SIGNAL,
    TELL_SIGNAL,
    RawSocket,
    _exit,
    close_quietly,
    epoll,
    eventfd,
    eventfd_read,
    eventfd_write,
    getpid,
    memfd_create,
    monotonic,
    monotonic_ns,
    reset_signals,
    set_signal,
    set_title,
    unblock_signals,
)
from prefork.report import describe, exit_code
from prefork.scoreboard import Scoreboard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from prefork.application import Application
    from prefork.channel import Message

__all__ = ("MAX_HANDOVER_BYTES", "Worker")

log = logging.getLogger("weego.worker")

#: Bytes of a worker's stacks that are kept. A frame takes a hundred, and a worker may have thousands of greenlets.
MAX_STACKS_BYTES = 1 << 20

# The class as it was before a monkey patch: a worker's listeners are plain sockets.
_Socket = socket.socket


class Worker:
    """What ``Application.run`` is given."""

    def __init__(
        self,
        *,
        slot: int,
        generation: int,
        index: int,
        settings: Settings,
        channel: Channel,
        board: Scoreboard,
        listeners: list[socket.socket],
        activated: Sequence[int] = (),
        is_kept: bool = False,
    ) -> None:
        self._activated, self._is_kept = tuple(activated), is_kept
        self._is_orphan = False
        self.slot = slot
        self.generation = generation
        self.pid = getpid()
        self.name = settings.name
        self.settings = settings
        self.listeners = listeners
        """In the order of ``settings.listen``; non-blocking, shared with the siblings. Close them, never ``shutdown()``."""
        self.board = board
        self.index = index
        """This worker's row in the board."""
        self.row = board.row(index)
        """The cells of that row. The columns of the body are its to write."""
        self._channel = channel
        self._poll = epoll(flags=EPOLL_CLOEXEC)
        self._poll.register(channel.fileno(), EPOLLIN)
        self._wake = eventfd(0)  # close-on-exec and read until empty
        self._poll.register(self._wake, EPOLLIN)
        self._handovers = Handovers(self._poll, board, self.row)
        self._has_served = False
        self._is_leaving = False
        self._term_received = False
        self._said_leave = False
        self.row[scoreboard.PID] = self.pid
        self.row[scoreboard.STATE] = scoreboard.BOOTING
        self.beat()
        # Where the C handler of STACKS_SIGNAL writes, whatever the loop does; the master has the other copy.
        self._stacks = memfd_create("weego-stacks", os.MFD_CLOEXEC)
        channel.send({"is": "born"}, [self._stacks])

    def watch_stacks(self) -> None:
        """Take up the signals that make this process say where it is: to the master, and on standard error."""
        faulthandler.register(STACKS_SIGNAL, file=self._stacks, all_threads=True)
        faulthandler.register(TELL_SIGNAL, all_threads=True)

    def __repr__(self) -> str:
        state = scoreboard.STATE_NAMES[self.row[scoreboard.STATE]]
        return f"<Worker {self.slot} gen {self.generation} pid {self.pid} {state}>"

    # -- what the body says -------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Say, once, that this worker is able to serve. The order ``Serve`` tells when to accept."""
        self.row[scoreboard.STATE] = scoreboard.DRAINING if self._is_leaving else scoreboard.READY
        self.beat()
        self._tell({"is": "ready", "pid": self.pid})

    def beat(self) -> None:
        """Say that the loop turns; at least every 100 ms, or the gate and the hand-over pass this worker by."""
        self.row[scoreboard.BEAT_NS] = monotonic_ns()
        if self._handovers.pending:
            self._handovers.give_up_on_stuck()
            if self._handovers.has_verdicts:
                eventfd_write(self._wake, 1)

    def leave(self, reason: str) -> None:
        """Ask to be replaced: the master starts a replacement and, when it is ready, sends ``Drain``."""
        if not self._said_leave:
            self._said_leave = True
            self._tell({"is": "leaving", "reason": reason})

    def followed(self, error: str | None = None) -> None:
        """The order ``Hot`` is carried out; or it cannot be, for the reason ``error``, and the master starts new workers."""
        self._tell({"is": "followed", "error": error})

    def tell_stacks(self, text: str) -> None:
        """The answer to ``Stacks``."""
        self._tell_text({"is": "stacks"}, text.encode(errors="replace")[:MAX_STACKS_BYTES])

    def tell_view(self, number: int, text: str) -> None:
        """The answer to ``View``, whose ``number`` it has."""
        self._tell_text({"is": "view", "number": number}, text.encode(errors="replace"))

    def _tell_text(self, message: dict[str, Any], text: bytes) -> None:
        """However long it is, the channel's messages stay short: it goes in memory of its own."""
        fd = memfd_create("weego-text", os.MFD_CLOEXEC)
        os.pwrite(fd, text, 0)
        self._channel.send(message, [fd])
        self._watch_channel()
        close_quietly(fd)

    @property
    def held(self) -> tuple[int, ...]:
        """Listeners, by index, that do not end with this server: systemd has them too, and who connects waits there for the next one. Those that
        it opened for us, and once the master is dead all that it may have been given to keep.
        """
        return tuple(range(len(self.listeners))) if self._is_orphan and self._is_kept else self._activated

    def may_accept(self) -> bool:
        """Whether to have the listeners registered now. A cheap look at shared memory; ask after each accept and each
        close, and every 5 to 10 ms while the answer is no.
        """
        return self._has_served and not self._is_leaving and scoreboard.may_accept(self.board, self.index)

    # -- what the body hears --------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """One descriptor for all that this object waits for, the same for life. Readable: call ``receive``."""
        return self._poll.fileno()

    def receive(self) -> list[Order]:
        """The orders that have arrived. Never blocks."""
        orders: list[Order] = []
        handover_fds: list[int] = []
        for fd, _ in self._poll.poll(0):
            if fd == self._wake:
                eventfd_read(self._wake)
                if self._term_received:
                    self.leave("SIGTERM")
            elif self._handovers.owns(fd):
                handover_fds.append(fd)
            else:
                self._read_channel(orders)
        orders.extend(self._handovers.receive(handover_fds))
        return orders

    def _read_channel(self, orders: list[Order]) -> None:
        self._channel.flush()
        try:
            while (received := self._channel.receive()) is not None:
                self._take(received[0], received[1], orders)
        except Closed:
            self._poll.unregister(self._channel.fileno())
            self._channel.close()
            log.warning("worker %d: the master is gone, draining", self.slot)
            self._is_orphan = True
            self._begin_to_leave()
            orders.append(MasterGone(monotonic() + self.settings.graceful_timeout))
            return
        self._watch_channel()

    def _take(self, message: Message, fds: list[int], orders: list[Order]) -> None:
        match message["is"]:
            case "serve":
                self._has_served = True
                orders.append(Serve())
            case "drain":
                self._begin_to_leave()
                orders.append(Drain(message["deadline"], tuple(message["closing"])))
            case "stop":
                self._begin_to_leave()
                orders.append(Stop(message["deadline"], message["fast"]))
            case "target":  # a worker that can take connections of ours
                self._handovers.add_target(RawSocket(fileno=fds[0]), message["row"], message["generation"])
            case "source":  # a worker that may give us some
                self._handovers.add_source(RawSocket(fileno=fds[0]))
            case "reopen":
                orders.append(Reopen())
            case "hot":
                self.settings = _read_settings(fds[0])
                orders.append(Hot(self.settings))
            case "log_level":
                orders.append(LogLevel(message["level"]))
            case "lame":
                orders.append(Lame(message["on"]))
            case "share":
                orders.append(Share(message["row"], message["count"]))
            case "stacks":
                orders.append(Stacks())
            case "view":
                orders.append(View(message["number"]))
            case kind:
                log.error("worker %d: unknown order %r ignored", self.slot, kind)
                for fd in fds:
                    close_quietly(fd)

    def _begin_to_leave(self) -> None:
        if not self._is_leaving:
            self._is_leaving = self._handovers.is_leaving = True
            self.row[scoreboard.STATE] = scoreboard.DRAINING
            set_title(f"weego: worker {self.slot} gen {self.generation} [{self.name}] (draining)")

    # -- handing connections over ------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Hand-overs that have not been answered."""
        return self._handovers.pending

    def hand_over(self, fd: int, data: bytes, *, row: int | None = None) -> int | None:
        """Give a connection and the bytes already read from it to a worker that stays, to that of ``row`` if one is named. Never blocks.

        Returns a token, which an order ``Adopted`` or ``Refused`` will name; until then keep ``fd`` open and do not
        touch it (take it out of your own epoll before). None: there is nobody to take it, go on serving it.
        Raises ValueError if ``data`` is longer than MAX_HANDOVER_BYTES.
        """
        token = self._handovers.offer(fd, data, row)
        if self._handovers.has_verdicts:
            eventfd_write(self._wake, 1)
        return token

    def shared(self, row: int, given: int) -> None:
        """The order ``Share`` is carried out, as far as it can be: ``given`` connections are on their way."""
        self._handovers.retire(row)
        self._tell({"is": "shared", "given": given})

    def close(self) -> None:
        """Let go of every descriptor; for a process that goes on without being a worker, such as a test."""
        self._handovers.close()
        self._channel.close()
        self._poll.close()
        close_quietly(self._wake)
        close_quietly(self._stacks)
        for listener in self.listeners:
            listener.close()

    # -- inside ---------------------------------------------------------------------------------------------------------

    def on_term(self, _signum: int, _frame: FrameType | None) -> None:
        """The handler of SIGTERM: only makes ``fileno()`` readable, for it may run anywhere, in a hub as well."""
        self._term_received = True
        eventfd_write(self._wake, 1)

    def report_failure(self, line: str, code: int, trace: str | None) -> None:
        """Tell the master why this worker is about to exit."""
        self._tell({"is": "failed", "line": line, "code": code, "trace": trace})

    def _tell(self, message: Message) -> None:
        self._channel.send(message)
        self._watch_channel()

    def _watch_channel(self) -> None:
        if not self._channel.is_closed:
            events = EPOLLIN | EPOLLOUT if self._channel.is_congested else EPOLLIN
            self._poll.modify(self._channel.fileno(), events)


def work(
    app: Application,
    settings: Settings,
    *,
    slot: int,
    generation: int,
    index: int,
    channel_fd: int,
    board_fd: int,
    listener_fds: list[int],
    activated: Sequence[int],
    is_kept: bool,
) -> None:
    """The life of a worker process, from the fork (signals blocked) to its exit. Does not return."""
    code = 70
    try:
        set_title(f"weego: worker {slot} gen {generation} [{settings.name}]")
        worker = Worker(
            slot=slot,
            generation=generation,
            index=index,
            settings=settings,
            channel=Channel(RawSocket(fileno=channel_fd)),
            board=Scoreboard.attach(board_fd),
            listeners=[_Socket(fileno=fd) for fd in listener_fds],
            activated=activated,
            is_kept=is_kept,
        )
        for listener in worker.listeners:
            listener.setblocking(False)
        reset_signals()  # whatever the user's imports did to them
        set_signal(signal.SIGTERM, worker.on_term)
        unblock_signals()
        worker.watch_stacks()
        faulthandler.enable()  # SIGABRT, SIGSEGV …: stacks on standard error, then the default action
        code = _run(app, worker)
    finally:
        try:
            atexit._run_exitfuncs()
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            _exit(code)  # frames of loader and master are below: they must not unwind


def _read_settings(fd: int) -> Settings:
    try:
        return Settings.decode(os.pread(fd, os.fstat(fd).st_size, 0))
    finally:
        close_quietly(fd)


def _run(app: Application, worker: Worker) -> int:
    try:
        after_fork = getattr(app, "after_fork", None)
        if after_fork is not None:
            after_fork()
        app.run(worker)
    except BaseException as error:
        code = exit_code(error)
        if code == 0:
            return 0
        line, trace = describe(error)
        worker.report_failure(line, code, trace)
        if not isinstance(error, LoadError):
            log.error("worker %d: %s", worker.slot, line, exc_info=error)
        return code
    return 0

"""The master: binds, has children forked, watches them, replaces them. It never reads a config, never imports user code,
never waits.

Here are its life, its signals and its end; the rest is in its parts: ``reloads`` (one generation after another), ``loaders``,
``crew`` (the workers), ``family`` (all children as processes), ``watch``, ``recycle``.

States: STARTING (nothing serves yet) → RUNNING → STOPPING. A reload is no state but a second, *incoming* generation beside
the *current* one.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from prefork.activation import Inherited
from prefork.application import LoadError
from prefork.balance import Balance
from prefork.bases import Bases
from prefork.crew import Crew
from prefork.family import KILL_DELAY, Family
from prefork.generation import BaseProcess, Generation, LoaderProcess, Process, WorkerProcess
from prefork.legacy import read, take_over
from prefork.listeners import close_all
from prefork.loaders import Loaders
from prefork.loop import Loop
from prefork.memory import Memory
from prefork.primitives import (
    become_subreaper,
    close_quietly,
    getpid,
    give_memory_back,
    memfd_create,
    monotonic,
    raise_file_limit,
    set_title,
    unblock_signals,
)
from prefork.recycle import Recycling
from prefork.reloads import Reloads
from prefork.scoreboard import Scoreboard
from prefork.stacks import StackRequests
from prefork.status import History
from prefork.systemd import Notifier
from prefork.tally import Reader
from prefork.upgrade import Upgrade, examine, inherited
from prefork.views import Views
from prefork.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prefork.application import Application
    from prefork.door import Door
    from prefork.pidfile import Pidfile

log = logging.getLogger("weego.master")


class Ready(NamedTuple):
    """What ``on_ready`` is told when every worker of the first generation is ready."""

    name: str
    version: str
    pid: int
    generation: int
    workers: int
    listen: tuple[tuple[str, str], ...]
    """Each address as configured and as bound: they differ for port 0."""
    seconds: float
    """Since ``run`` was called."""
    extra: Mapping[str, Any]
    admin: str | None = None
    """As bound, where the master answers probes; and where it takes orders."""
    control: str | None = None


class Master:
    """The supervisor of one application.

    ``on_ready`` is called in the master once, ``on_change`` with the settings' ``extra`` after each reload and after an upgrade,
    ``on_reopen`` on each SIGUSR1; none may block. ``version`` is for them and for the log.
    """

    def __init__(
        self,
        app: Application,
        *,
        version: str,
        on_ready: Callable[[Ready], None] | None = None,
        on_change: Callable[[Mapping[str, Any]], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
    ) -> None:
        self.app = app
        self.version = version
        self.history = History()
        self._on_ready = on_ready
        self._on_change = on_change
        self._on_reopen = on_reopen
        self.exit_code = 0
        self.is_stopping = False
        self._is_fast = False
        self.is_checking = False
        self.is_announced = False
        self.has_served = False
        self.current: Generation | None = None
        self.incoming: Generation | None = None
        self.pidfile: Pidfile | None = None
        self.doors: dict[str, Door] = {}
        self.started = monotonic()
        self.crew = Crew(self)
        self.loaders = Loaders(self)
        self.bases = Bases(self)
        self.reloads = Reloads(self)
        self.upgrade = Upgrade(self)
        self.stacks = StackRequests(self)
        self.views = Views(self)
        self.balance = Balance(self)
        self.memory = Memory()
        self.loop: Loop
        self.inherited: Inherited
        self.systemd: Notifier
        self.umask = 0
        """As it was started with."""
        self.shared_fd = -1
        """Memory of the application's that outlives its generations (``Application``); of what is in there only ``tally`` is read here."""
        self.tally: Reader
        self.family: Family
        self.watch: Watch
        self.board: Scoreboard

    # -- life -------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until stopped; the exit code of the process: 0, 70, 71 or 78. Only in the main thread."""
        left = inherited()
        if left is not None and left[0] == "examine":
            return examine(left[1])
        self._open()
        legacy = read(left[1]) if left is not None else None
        self.inherited = Inherited()
        self.systemd = Notifier(legacy["systemd"] if legacy else None)
        self.umask = os.umask(0)
        os.umask(self.umask)
        raise_file_limit()
        set_title("weego: master")
        self.board = Scoreboard.attach(legacy["board"]) if legacy else Scoreboard.create()
        self.shared_fd = legacy["shared"] if legacy and "shared" in legacy else memfd_create("weego-shared", os.MFD_CLOEXEC)
        os.set_inheritable(self.shared_fd, False)
        self.tally = Reader(self.shared_fd)
        try:
            self.loop.on_signals(
                {
                    signal.SIGHUP: self._on_hup,
                    signal.SIGTERM: self._on_term,
                    signal.SIGINT: self._on_int,
                    signal.SIGQUIT: self._on_quit,
                    signal.SIGTTIN: lambda: self.resize(1, "SIGTTIN"),
                    signal.SIGTTOU: lambda: self.resize(-1, "SIGTTOU"),
                    signal.SIGUSR1: lambda: self.reopen("SIGUSR1"),
                    signal.SIGUSR2: lambda: self.upgrade.ask("SIGUSR2"),
                    signal.SIGWINCH: lambda: None,  # any terminal that changes its size sends it
                    signal.SIGCHLD: self.family.reap,
                }
            )
            become_subreaper()
            if legacy is None:
                log.info("weego %s starts, pid %d", self.version, getpid())
                self.reloads.begin()
            else:
                self._take_over(legacy)
            self.systemd.watch(self.loop)
            self.watch.start()
            Recycling(self.loop, self).start()
            self.balance.start(self.loop)
            self.loop.run()
        finally:
            for door in self.doors.values():
                door.close()
            self.loop.close()
            if self.pidfile is not None:
                self.pidfile.close()
            self.board.close()
            close_quietly(self.shared_fd)
        log.info("weego has stopped, exit code %d", self.exit_code)
        return self.exit_code

    def _take_over(self, legacy: dict[str, Any]) -> None:
        os.set_inheritable(self.board.fd, False)
        take_over(self, legacy)
        self.changed()
        if self.crew.log_level is not None:
            logging.getLogger("weego").setLevel(self.crew.log_level.upper())
        log.info("upgraded from weego %s to %s, pid %d: %s", legacy["version"], self.version, getpid(), self.summary())
        unblock_signals()
        self.family.reap()
        self.systemd.ready(self.summary())
        give_memory_back()
        self.bases.want()
        self.upgrade.finish()

    def check(self) -> int:
        """Load in a child, bind nothing, fork no worker; 0, or the code ``run`` would end with. Logs one line."""
        self.is_checking = True
        self._open()
        try:
            self.loop.on_signals(
                {signal.SIGTERM: self._on_quit, signal.SIGINT: self._on_quit, signal.SIGCHLD: lambda: None}
            )
            self.reloads.begin()
            self.loop.run()
        finally:
            self.loop.close()
        return self.exit_code

    def _open(self) -> None:
        self.started = monotonic()
        self.loop = Loop()
        self.watch = Watch(self.loop, self)
        self.family = Family(self.loop, self._on_exit, self.watch.on_stop)

    def fail(self, line: str, code: int) -> None:
        """The server cannot start: say so in one line and leave with ``code``."""
        log.error("cannot start: %s", line)
        self.exit_code = code
        self.stop(fast=True)

    def _on_exit(self, process: Process, how: str) -> None:
        """A child has been waited for."""
        if isinstance(process, WorkerProcess):
            self.crew.read(process)  # its last words
            self.crew.on_gone(process, how)
        elif isinstance(process, LoaderProcess):
            self.loaders.read(process)
            self.loaders.on_gone(process, how)
        elif isinstance(process, BaseProcess):
            self.bases.read(process)
            self.bases.on_gone(process, how)

    def end_if_alone(self) -> None:
        """Leave the loop when the last child has left."""
        if self.is_stopping and not self.family:
            self.loop.stop()

    # -- signals ----------------------------------------------------------------------------------------------------------

    def _on_hup(self) -> None:
        self.reloads.ask("SIGHUP")

    def _on_term(self) -> None:
        if self.is_stopping:
            log.info("SIGTERM ignored: the server is stopping; SIGINT or SIGQUIT stops it faster")
        else:
            self.ask_stop("SIGTERM", fast=False)

    def _on_int(self) -> None:
        if self.is_stopping:
            log.warning("SIGINT: stopping fast")
            self.stop(fast=True)
        else:
            log.info("SIGINT: stopping; once more to stop fast")
            self.stop(fast=False)

    def _on_quit(self) -> None:
        log.warning("stopping fast")
        self.stop(fast=True)

    def resize(self, by: int, who: str) -> None:
        """More workers or fewer, until the next reload."""
        if self.is_stopping or self.current is None:
            log.info(
                "change of the number of workers ignored: the server is %s",
                "stopping" if self.is_stopping else "starting",
            )
        elif self.incoming is not None:
            self.reloads.size_change += by
            log.info("%s: %+d worker after the reload under way", who, by)
        else:
            self.crew.resize(self.current, by, who)

    def reopen(self, who: str) -> None:
        """Log files have been moved away: every process opens its own anew."""
        log.info("%s: reopening log files", who)
        if self._on_reopen is not None:
            try:
                self._on_reopen()
            except Exception:
                log.exception("on_reopen failed")
        for worker in self.family.workers.values():
            self.family.tell(worker, {"is": "reopen"})

    # -- orders -----------------------------------------------------------------------------------------------------------

    def ask_stop(self, who: str, *, fast: bool) -> None:
        """Stop; again, with ``fast``, to hurry."""
        log.info("%s: stopping%s", who, " fast" if fast else "")
        self.stop(fast=fast)

    def address_of(self, purpose: str) -> str | None:
        """Where the master's own listener is bound: ``admin`` or ``control``."""
        door = self.doors.get(purpose)
        return door.listener.actual if door is not None and door.listener is not None else None

    def announce(self, generation: Generation) -> None:
        """Every worker of the first generation is ready."""
        self.is_announced = True
        give_memory_back()
        self.bases.want()
        seconds = monotonic() - self.started
        log.info("ready in %.2f s: %d workers", seconds, len(generation.ready))
        self.systemd.ready(self.summary())
        if self._on_ready is not None:
            settings = generation.settings
            ready = Ready(
                name=settings.name,
                version=self.version,
                pid=getpid(),
                generation=generation.number,
                workers=generation.size,
                listen=tuple((each.listen.address, each.actual) for each in generation.listeners),
                seconds=seconds,
                extra=settings.extra,
                admin=self.address_of("admin"),
                control=self.address_of("control"),
            )
            try:
                self._on_ready(ready)
            except Exception:
                log.exception("on_ready failed; the server serves all the same")

    def changed(self) -> None:
        """The settings in force are others than before."""
        if self._on_change is not None and self.current is not None:
            try:
                self._on_change(self.current.settings.extra)
            except Exception:
                log.exception("on_change failed; the server serves all the same")

    def summary(self) -> str:
        """What systemd shows."""
        return (
            f"generation {self.current.number} serves with {self.current.size} workers" if self.current else "starting"
        )

    def own_fds(self) -> Iterable[int]:
        """All that no child may inherit: an end of file must mean that the master is gone, a lock that it is not."""
        yield from self.loop.fds()
        yield from self.family.fds()
        for generation in (self.current, self.incoming):
            if generation is not None:
                for listener in generation.all_listeners:
                    yield listener.fileno()
        for door in self.doors.values():
            yield from door.fds()
        yield from self.upgrade.fds()
        if not self.is_checking:
            yield from self.inherited.fds()
        if self.pidfile is not None:
            yield self.pidfile.fd
        if not self.is_checking:
            yield self.board.fd

    def stop(self, *, fast: bool) -> None:
        """Stop the server; again, with ``fast``, to hurry."""
        if self.is_stopping and (self._is_fast or not fast):
            return
        if not self.is_stopping and not self.is_checking:
            self.systemd.stopping()
            self.systemd.forget_kept()  # or who connects waits for a server that does not come back
        self.is_stopping, self._is_fast = True, fast
        self.upgrade.abandon("the server is stopping")
        self.reloads.is_wanted = False
        self.reloads.tell(self.reloads.waiting, "the server is stopping")
        if self.incoming is not None:
            if self.current is not None:
                log.info("the reload under way is dropped")
            self.reloads.tell(self.incoming.waiting, "the server is stopping")
            self.reloads.discard(self.incoming)
        current = self.current
        graceful_timeout = 0.0
        if current is not None:
            graceful_timeout = current.settings.graceful_timeout
            for timer in current.respawns.values():
                timer.cancel()
            self.loaders.release(current)
            # The workers hold the last copies now: they take what is queued, then the port is free.
            close_all(current.listeners)
            current.listeners = []
        for loader in list(self.family.loaders):
            loader.is_released = True
            self.loaders.let_go(loader)
            self.loop.after(KILL_DELAY, loader.kill)
        self.bases.let_go()
        deadline = monotonic() + (KILL_DELAY if fast else graceful_timeout)
        for worker in list(self.family.workers.values()):
            self.crew.order_stop(worker, deadline, fast=fast or not worker.is_ready)
        self.end_if_alone()


__all__ = ("LoadError", "Master", "Ready")

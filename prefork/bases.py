"""The master's side of the base (``base``): started when all is quiet, asked for loaders, replaced when it is gone.

Whatever happens to it, a loader that was asked for comes: if the base ends, or does not answer in time, the master forks that loader itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from prefork.backoff import Backoff
from prefork.channel import Channel, pair
from prefork.generation import BaseProcess
from prefork.primitives import _exit, close_quietly, fork_blocked, getpid, monotonic
from prefork.priority import Priority

if TYPE_CHECKING:
    from prefork.application import Warm
    from prefork.generation import LoaderProcess
    from prefork.loop import Timer
    from prefork.master import Master
    from prefork.primitives import RawSocket

log = logging.getLogger("weego.master")

#: For the answer to an order: a look at some hundred files and two forks. One that is stopped, or whose memory is swapped out, is not waited for.
ANSWER_SECONDS = 2.0

#: For its imports.
WARM_SECONDS = 60.0

#: Between the death of one that did not live long and the next: it only makes reloads cheaper.
FIRST_DELAY = 1.0
MAX_DELAY = 60.0


class Bases:
    """At most one base at a time."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._priority = Priority()
        self._backoff = Backoff(first_delay=FIRST_DELAY, max_delay=MAX_DELAY)
        self._may_start_at = 0.0
        self._timer: Timer | None = None
        self._last_order = 0
        self._is_useless = not hasattr(master.app, "warm_up")
        self.current: BaseProcess | None = None

    def want(self) -> None:
        """There should be one, now or as soon as nothing more urgent is under way: to be called whenever that may be."""
        master = self._master
        if self._is_useless or self.current is not None or master.is_stopping or master.is_checking or master.current is None:
            return
        if master.incoming is not None or not master.is_announced:
            return
        wait = self._may_start_at - monotonic()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait > 0:
            self._timer = master.loop.after(wait, self.want)
            return
        try:
            self._start()
        except OSError as error:
            log.debug("no process for a base: %s", error.strerror)
            self._may_start_at = monotonic() + MAX_DELAY

    def _start(self) -> None:
        ours, theirs = pair()
        master, master_pid = self._master, getpid()
        try:
            pid = fork_blocked()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            self._become(theirs, ours, master_pid)
        theirs.close()
        base = self.current = BaseProcess(Channel(ours))
        master.family.bases.add(base)
        master.family.listen(base, lambda: self.read(base))
        master.family.born(base, pid)
        self._priority.give_way(pid)
        base.boot_timer = master.loop.after(WARM_SECONDS, base.kill)

    def _become(self, theirs: RawSocket, ours: RawSocket, master_pid: int) -> None:
        """In the child. Does not return."""
        try:
            master = self._master
            master.loaders.become_child(ours)
            close_quietly(master.shared_fd)
            from prefork.base import be_base

            assert master.current is not None
            be_base(cast("Warm", master.app), master.current.settings, theirs.fileno(), master_pid, master.upgrade.program.folder)
        finally:
            _exit(0)

    def fork(self, loader: LoaderProcess) -> bool:
        """Have a loader forked from the base. False: there is none that is warm."""
        base = self.current
        if base is None or not base.is_warm or base.is_doomed:
            return False
        try:
            ours, theirs = pair()
        except OSError:
            return False
        self._last_order += 1
        order = self._last_order
        loader.channel = Channel(ours)
        self._master.family.listen(loader, lambda: self._master.loaders.read(loader))
        self._master.family.tell(
            base, {"is": "fork", "order": order, "generation": loader.generation.number}, [theirs.fileno(), self._master.shared_fd]
        )
        theirs.close()
        base.forking[order] = loader, self._master.loop.after(ANSWER_SECONDS, lambda: self._too_slow(base))
        return True

    def _too_slow(self, base: BaseProcess) -> None:
        log.info("%r does not answer: SIGKILL", base)
        base.kill()

    def read(self, base: BaseProcess) -> None:
        """What it says."""
        while (received := self._master.family.hear(base)) is not None:
            message, _ = received
            match message["is"]:
                case "warm":
                    base.is_warm = True
                    if base.boot_timer is not None:
                        base.boot_timer.cancel()
                    if base.pid is not None:
                        self._priority.take_back(base.pid)
                    log.debug("%r is warm", base)
                case "useless":
                    log.info("reloads import everything anew: %s", message["why"])
                    self._is_useless = True
                case "stale":
                    log.info("what is installed has changed on disk: this loader imports everything anew")
                    self.let_go()
                case "forked":
                    loader, timer = base.forking.pop(message["order"])
                    timer.cancel()
                    self._master.loaders.on_forked(loader, message["pid"])
                    self._master.family.reap()
                case "not_forked":
                    loader, timer = base.forking.pop(message["order"])
                    timer.cancel()
                    self._master.family.reap()
                    self._master.loaders.start_here(loader)

    def let_go(self) -> None:
        """Of no use any more, it ends at once, for nobody would miss it."""
        if self.current is not None:
            self.current.is_released = True
            self.current.kill()
            self.current = None

    def on_gone(self, base: BaseProcess, how: str) -> None:
        """It has been waited for."""
        self._master.family.forget(base)
        if self.current is base:
            self.current = None
        if not base.is_released and not self._is_useless and not self._master.is_stopping:
            delay = self._backoff.died(base.uptime)
            log.info("%r %s, a new one in %.1f s", base, how, delay)
            self._may_start_at = monotonic() + delay
        waiting, base.forking = list(base.forking.values()), {}
        for loader, timer in waiting:
            timer.cancel()
            self._master.loaders.start_here(loader)
        self._master.family.reap()
        self.want()
        self._master.end_if_alone()

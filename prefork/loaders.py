"""The loaders of a master: forked from it, told to fork workers, replaced when they die, let go when nobody needs them."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

from prefork.application import EX_OSERR, EX_SOFTWARE, Settings
from prefork.backoff import MAX_DELAY
from prefork.channel import Channel, pair
from prefork.family import KILL_DELAY
from prefork.generation import LoaderProcess
from prefork.primitives import _exit, close_quietly, fork_blocked, getpid
from prefork.priority import Priority

if TYPE_CHECKING:
    from prefork.generation import Generation, WorkerProcess
    from prefork.master import Master
    from prefork.primitives import RawSocket

log = logging.getLogger("weego.master")

#: For loading the first generation, whose own boot_timeout is not known before.
FIRST_LOAD_TIMEOUT = 60.0


class Loaders:
    """All loaders there are."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._priority = Priority()

    def start(self, generation: Generation) -> LoaderProcess:
        """Have a loader forked, from the base if there is one. Raises OSError."""
        loader = LoaderProcess(Channel.closed(), generation)
        if not self._master.bases.fork(loader):
            self._fork(loader)
        self._master.family.loaders.add(loader)
        self._limit_boot(loader)
        return loader

    def _limit_boot(self, loader: LoaderProcess) -> None:
        timeout = self._master.current.settings.boot_timeout if self._master.current is not None else FIRST_LOAD_TIMEOUT
        loader.boot_timer = self._master.loop.after(
            timeout, lambda: self._master.family.kill_late(loader, f"not loaded within {timeout:g} s", EX_SOFTWARE)
        )

    def start_here(self, loader: LoaderProcess) -> None:
        """The base was to fork this one and cannot say that it has: fork it from the master, if it is wanted still."""
        self._master.family.hang_up(loader)  # what may have been born all the same finds nobody to speak to, and ends
        if loader.is_doomed:
            self.on_gone(loader, "was not born")
            return
        try:
            self._fork(loader)
        except OSError as error:
            loader.failure = f"no process for the loader: {error.strerror}", EX_OSERR
            self.on_gone(loader, "was not born")

    def _fork(self, loader: LoaderProcess) -> None:
        """Fork it from this process. Raises OSError."""
        ours, theirs = pair()
        master_pid = getpid()
        try:
            pid = fork_blocked()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            self._become(loader.generation.number, theirs, ours, master_pid)
        theirs.close()
        loader.channel = Channel(ours)
        self._master.family.listen(loader, lambda: self.read(loader))
        self.on_forked(loader, pid)

    def on_forked(self, loader: LoaderProcess, pid: int) -> None:
        """There it is."""
        self._master.family.born(loader, pid)
        if loader.channel.is_closed:  # it has ended already
            loader.kill()
        if self._master.current is not None and loader.generation is not self._master.current and not loader.is_loaded:
            self._priority.give_way(pid)  # one that replaces a dead loader is waited for

    def become_child(self, ours: RawSocket) -> None:
        """In a child: let go of what is the master's."""
        for fd in (*self._master.own_fds(), ours.fileno()):
            close_quietly(fd)
        os.umask(self._master.umask)  # not the current generation's

    def _become(self, number: int, theirs: RawSocket, ours: RawSocket, master_pid: int) -> None:
        """In the child: let go of what is the master's, and load. Does not return."""
        try:
            self.become_child(ours)
            try:
                os.chdir(self._master.upgrade.program.folder)  # a link to a release may lead to another by now
            except OSError:
                pass
            from prefork.loader import load_and_fork

            load_and_fork(self._master.app, number, theirs.fileno(), master_pid, self._master.shared_fd)
        finally:
            _exit(EX_SOFTWARE)

    def read(self, loader: LoaderProcess) -> None:
        """What it says."""
        while (received := self._master.family.hear(loader)) is not None:
            message, fds = received
            match message["is"]:
                case "settings":
                    self._take_settings(loader, fds[0])
                case "not_warm":
                    loader.is_not_warm = True
                case "failed":
                    loader.failure = message["line"], message["code"]
                    if message["trace"]:
                        log.error("traceback of the failed load:\n%s", message["trace"].rstrip())
                case "spawned":
                    self._master.crew.on_spawned(loader, loader.forking.pop(message["index"]), message["pid"])
                case "not_spawned":
                    worker = loader.forking.pop(message["index"])
                    worker.failure = (f"cannot be forked: {message['error']}", EX_OSERR)
                    self._master.crew.on_gone(worker, "was not born")
                    self.let_go(loader)
                    self._master.family.reap()

    def _take_settings(self, loader: LoaderProcess, fd: int) -> None:
        generation = loader.generation
        try:
            document = os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            close_quietly(fd)
        places, _, encoded = document.partition(b"\n")
        settings = Settings.decode(encoded)
        loader.is_loaded = True
        loader.settings = settings
        if loader.pid is not None:
            self._priority.take_back(loader.pid)  # before anybody is forked from it
        if loader.boot_timer is not None:
            loader.boot_timer.cancel()
        if self._master.is_checking:
            log.info(
                "the configuration is good: %d workers, %s",
                settings.workers,
                ", ".join(x.address for x in settings.listen),
            )
            self._master.stop(fast=True)
        elif generation is self._master.incoming:
            self._master.reloads.on_settings(generation, settings, json.loads(places))
        elif generation is self._master.current and loader is generation.reviving:
            generation.reviving = None
            if settings._replace(code="") == generation.settings._replace(code=""):
                if (
                    settings.code != generation.settings.code
                ):  # code of two ages from here on, and no reload may take it for one
                    generation.settings = generation.settings._replace(code="")
                loader.settings = generation.settings  # the very same, in the eyes of who compares
                log.info("%r takes over, generation %d", loader, generation.number)
                generation.loader = loader
                self._master.crew.fill(generation)
            else:
                # Workers of another config must not join this generation.
                loader.is_released = True
                self.let_go(loader)
                if self._master.incoming is None:
                    self._master.reloads._start("the loader died and the configuration has changed since")
        else:
            self.let_go(loader)

    def release(self, generation: Generation) -> None:
        """A generation's loaders are no longer needed."""
        for loader in (generation.loader, generation.reviving):
            if loader is not None:
                loader.is_released = True
                self.let_go(loader)
        generation.loader = generation.reviving = None

    def let_go(self, loader: LoaderProcess) -> None:
        """End a released loader: at once while it loads, else when it has reported the forks under way."""
        if not loader.is_released:
            return
        if not loader.is_loaded:
            loader.kill()
        elif not loader.forking:
            self._master.family.hang_up(loader)
            self._master.loop.after(KILL_DELAY, loader.kill)  # it exits by itself, unless it was stopped

    def on_gone(self, loader: LoaderProcess, how: str) -> None:
        """It has been waited for."""
        self._master.family.forget(loader)
        generation = loader.generation
        # From here on nobody orders a worker from it: losing one below may mean to replace it.
        if loader.is_not_warm and not loader.is_released and loader.failure is None and not self._master.is_stopping:
            self._master.bases.let_go()
            self._again(loader)
            return
        if generation.loader is loader:
            generation.loader = None
        if generation.reviving is loader:
            generation.reviving = None
        for worker in list(loader.forking.values()):
            if self._lives_all_the_same(worker):
                continue
            # It may live, unknown to us: it finds its channel closed and leaves. Its row is not used again.
            self._master.crew.on_gone(worker, "was lost with its loader", keep_row=True)
        loader.forking.clear()
        line, code = loader.failure or (f"the loader {how}", EX_SOFTWARE)
        if self._master.is_checking:
            if not loader.is_loaded and not self._master.is_stopping:
                log.error("%s", line)
                self._master.exit_code = code
            self._master.is_stopping = True
        elif loader.is_released or self._master.is_stopping:
            pass
        elif generation is self._master.incoming:
            self._master.reloads.give_up(generation, line, code)
        elif generation is self._master.current:
            delay = self._plan_revival(generation, loader.uptime)
            log.warning("generation %d: %s; a new one in %.1f s, workers go on", generation.number, line, delay)
        self._master.end_if_alone()

    def _again(self, loader: LoaderProcess) -> None:
        """In its place, one that does not come from the base."""
        generation = loader.generation
        fresh = LoaderProcess(Channel.closed(), generation)
        self._master.family.loaders.add(fresh)
        if generation.loader is loader:
            generation.loader = fresh
        if generation.reviving is loader:
            generation.reviving = fresh
        self._limit_boot(fresh)
        self.start_here(fresh)

    def _lives_all_the_same(self, worker: WorkerProcess) -> bool:
        """Its loader died before it could report the fork; did the worker tell of itself?"""
        self._master.crew.read(worker)
        if worker.told_pid is None or worker.channel.is_closed:
            return False
        try:
            self._master.family.born(worker, worker.told_pid)
        except OSError:  # and died as well
            worker.pid = None
            return False
        return True

    def replace_lost(self) -> None:
        """See to it that the current generation, whose loader died and could not be replaced, does not stay without one: nobody would replace its workers."""
        generation = self._master.current
        if generation is None or generation.loader or generation.reviving or generation.revival is not None:
            return
        delay = self._plan_revival(generation, 0.0)
        log.warning("generation %d has no loader; a new one in %.1f s, workers go on", generation.number, delay)

    def _plan_revival(self, generation: Generation, uptime: float) -> float:
        """A loader in a while, for the last one was there for ``uptime`` seconds; the seconds until then."""
        delay = generation.loader_backoff.died(uptime)
        if generation.revival is not None:
            generation.revival.cancel()
        generation.revival = self._master.loop.after(delay, lambda: self.revive(generation))
        return delay

    def revive(self, generation: Generation) -> None:
        """The current generation has no loader."""
        generation.revival = None
        if (
            generation is not self._master.current
            or self._master.is_stopping
            or generation.loader
            or generation.reviving
        ):
            return
        try:
            generation.reviving = self.start(generation)
        except OSError as error:
            log.warning("no process for a loader: %s", error.strerror)
            generation.revival = self._master.loop.after(MAX_DELAY, lambda: self.revive(generation))

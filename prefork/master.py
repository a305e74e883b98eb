"""The master: binds, has children forked, watches them, replaces them. It never reads a config, never imports user code,
never waits.

States: STARTING (nothing serves yet) → RUNNING → STOPPING. A reload is no state but a second, *incoming* generation beside
the *current* one: supervision, signals and timers work throughout.

A reload, step by step
 1. A new loader loads config and code. 2. Addresses that are new are bound; kept ones keep their socket. 3. One worker is
 forked and must become ready, then the others. 4. Now, and only now, the new generation is published: its workers
 accept, the old ones get the order to drain and a way to hand their connections over. 5. Addresses nobody wants are closed.
 Whatever fails before 4 ends the incoming generation, says why in one line, and leaves the current one untouched.

Rules
 1. Orders go over channels, never by signals: no handler window, no pid that has become somebody else's.
 2. Every change of state is logged with its reason.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from prefork.application import MAX_WORKERS, Listen, LoadError, Settings
from prefork.backoff import MAX_DELAY, START_UP_FAILURES, Backoff
from prefork.channel import Channel, pair
from prefork.family import KILL_DELAY, Family
from prefork.generation import Generation, LoaderProcess, Process, WorkerProcess
from prefork.listeners import BindError, Listener, bind, close_all
from prefork.loop import Loop
from prefork.pidfile import Pidfile, PidfileError
from prefork.primitives import (
    RawSocket,
    _exit,
    become_subreaper,
    close_quietly,
    fork_blocked,
    getpid,
    give_memory_back,
    monotonic,
    raise_file_limit,
    set_title,
)
from prefork.recycle import Recycling
from prefork.scoreboard import Scoreboard
from prefork.status import History
from prefork.systemd import Notifier
from prefork.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prefork.application import Application
    from prefork.door import Door

log = logging.getLogger("weego.master")

EX_SOFTWARE, EX_OSERR, EX_CONFIG = 70, 71, 78  # sysexits.h; the same as in prefork.report, which only children import

#: For loading the first generation, whose own boot_timeout is not known before.
FIRST_LOAD_TIMEOUT = 60.0

#: Generations that may drain beside the current one. With clients that never leave and reloads that never end, old
#: workers would pile up; the oldest are told to finish.
MAX_DRAINING = 2

#: Workers that a leaving one is connected to, one socket pair each. Enough to spread its connections, and few enough that a
#: reload of 100 workers does not make 10 000 pairs.
MAX_TAKERS = 8


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

    ``on_ready`` is called in the master once, ``on_reopen`` on each SIGUSR1; neither may block. ``version`` is for them
    and for the log.
    """

    def __init__(
        self,
        app: Application,
        *,
        version: str,
        on_ready: Callable[[Ready], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
    ) -> None:
        self._app = app
        self.version = version
        self.history = History()
        self._on_ready = on_ready
        self._on_reopen = on_reopen
        self._exit_code = 0
        self.is_stopping = False
        self._is_fast = False
        self._is_checking = False
        self._is_announced = False
        self.has_served = False
        self._boot_failures = 0
        self._last_number = 0
        self.current: Generation | None = None
        self.incoming: Generation | None = None
        self._reload_wanted = False
        self._size_change = 0
        # Slot of the current generation → the worker that leaves once the slot is filled again.
        self._replaces: dict[int, WorkerProcess] = {}
        self._pidfile: Pidfile | None = None
        self._doors: dict[str, Door] = {}
        self._waiting: list[Callable[[str | None], None]] = []
        self.started = monotonic()
        self._loop: Loop
        self._systemd: Notifier
        self._umask = 0
        """As it was started with."""
        self.family: Family
        self.watch: Watch
        self.board: Scoreboard

    # -- life -------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until stopped; the exit code of the process: 0, 70, 71 or 78. Only in the main thread."""
        self._open()
        self._systemd = Notifier()
        self._umask = os.umask(0)
        os.umask(self._umask)
        raise_file_limit()
        set_title("weego: master")
        self.board = Scoreboard.create()
        try:
            self._loop.on_signals(
                {
                    signal.SIGHUP: self._on_hup,
                    signal.SIGTERM: self._on_term,
                    signal.SIGINT: self._on_int,
                    signal.SIGQUIT: self._on_quit,
                    signal.SIGTTIN: lambda: self._on_resize(1),
                    signal.SIGTTOU: lambda: self._on_resize(-1),
                    signal.SIGUSR1: self._on_usr1,
                    signal.SIGUSR2: lambda: log.warning(
                        "SIGUSR2 ignored: there is no upgrade in place yet; restart the server"
                    ),
                    signal.SIGWINCH: lambda: None,  # any terminal that changes its size sends it
                    signal.SIGCHLD: self.family.reap,
                }
            )
            become_subreaper()
            log.info("weego %s starts, pid %d", self.version, getpid())
            self._begin_generation()
            self._systemd.watch(self._loop)
            self.watch.start()
            Recycling(self._loop, self).start()
            self._loop.run()
        finally:
            for door in self._doors.values():
                door.close()
            self._loop.close()
            if self._pidfile is not None:
                self._pidfile.close()
            self.board.close()
        log.info("weego has stopped, exit code %d", self._exit_code)
        return self._exit_code

    def check(self) -> int:
        """Load in a child, bind nothing, fork no worker; 0, or the code ``run`` would end with. Logs one line."""
        self._is_checking = True
        self._open()
        try:
            self._loop.on_signals(
                {signal.SIGTERM: self._on_quit, signal.SIGINT: self._on_quit, signal.SIGCHLD: lambda: None}
            )
            self._begin_generation()
            self._loop.run()
        finally:
            self._loop.close()
        return self._exit_code

    def _open(self) -> None:
        self.started = monotonic()
        self._loop = Loop()
        self.watch = Watch(self._loop, self)
        self.family = Family(self._loop, self._on_exit, self.watch.on_stop)

    def _fail(self, line: str, code: int) -> None:
        """The server cannot start: say so in one line and leave with ``code``."""
        log.error("cannot start: %s", line)
        self._exit_code = code
        self._stop(fast=True)

    def _on_exit(self, process: Process, how: str) -> None:
        """A child has been waited for."""
        if isinstance(process, WorkerProcess):
            self._read_worker(process)  # its last words
            self._on_worker_gone(process, how)
        elif isinstance(process, LoaderProcess):
            self._read_loader(process)
            self._on_loader_gone(process, how)

    def _end_if_alone(self) -> None:
        if self.is_stopping and not self.family:
            self._loop.stop()

    # -- signals ----------------------------------------------------------------------------------------------------------

    def _on_hup(self) -> None:
        self.ask_reload("SIGHUP")

    def _on_term(self) -> None:
        if self.is_stopping:
            log.info("SIGTERM ignored: the server is stopping; SIGINT or SIGQUIT stops it faster")
        else:
            self.ask_stop("SIGTERM", fast=False)

    def _on_int(self) -> None:
        if self.is_stopping:
            log.warning("SIGINT: stopping fast")
            self._stop(fast=True)
        else:
            log.info("SIGINT: stopping; once more to stop fast")
            self._stop(fast=False)

    def _on_quit(self) -> None:
        log.warning("stopping fast")
        self._stop(fast=True)

    def _on_resize(self, by: int) -> None:
        if self.is_stopping or self.current is None:
            log.info(
                "change of the number of workers ignored: the server is %s",
                "stopping" if self.is_stopping else "starting",
            )
        elif self.incoming is not None:
            self._size_change += by
            log.info("%+d worker: after the reload under way", by)
        else:
            self._resize(self.current, by)

    def _on_usr1(self) -> None:
        log.info("SIGUSR1: passed on; lines go to standard error, so weego itself has no log file to reopen")
        if self._on_reopen is not None:
            try:
                self._on_reopen()
            except Exception:
                log.exception("on_reopen failed")
        for worker in self.family.workers.values():
            self.family.tell(worker, {"is": "reopen"})

    # -- orders -----------------------------------------------------------------------------------------------------------

    def ask_reload(self, who: str, done: Callable[[str | None], None] | None = None) -> None:
        """Reload, after the one under way if there is one: that may have read the config before it was changed.

        ``done`` is told how it ended: None, or a line that says why it failed.
        """
        if self.is_stopping:
            log.info("%s ignored: the server is stopping", who)
            return
        if done is not None:
            self._waiting.append(done)
        if self.incoming is None:
            self._reload(who)
        elif not self._reload_wanted:
            log.info("%s: one more reload follows the one under way", who)
            self._reload_wanted = True

    def ask_stop(self, who: str, *, fast: bool) -> None:
        """Stop; again, with ``fast``, to hurry."""
        log.info("%s: stopping%s", who, " fast" if fast else "")
        self._stop(fast=fast)

    def address_of(self, purpose: str) -> str | None:
        """Where the master's own listener is bound: ``admin`` or ``control``."""
        door = self._doors.get(purpose)
        return door.listener.actual if door is not None and door.listener is not None else None

    # -- generations ------------------------------------------------------------------------------------------------------

    def _begin_generation(self, waiting: Iterable[Callable[[str | None], None]] = ()) -> None:
        self._last_number += 1
        generation = self.incoming = Generation(self._last_number)
        generation.waiting.extend(waiting)
        try:
            generation.loader = self._start_loader(generation)
        except OSError as error:
            self._give_up(generation, f"no process for the loader: {error.strerror}", EX_OSERR)

    def _reload(self, reason: str) -> None:
        log.info("%s: reloading, generation %d loads", reason, self._last_number + 1)
        self._reload_wanted = False
        if self._is_announced:
            self._systemd.reloading()
        waiting, self._waiting = self._waiting, []
        self._begin_generation(waiting)

    def _give_up(self, generation: Generation, line: str, code: int) -> None:
        """The incoming generation has failed."""
        if generation is not self.incoming:
            return
        if self.current is None:
            self._discard(generation)
            self._fail(line, code)
            return
        self._discard(generation)  # first: whoever reads the line finds all as it was
        log.error("reload failed, generation %d goes on: %s", self.current.number, line)
        self._end_reload(generation, line)

    def _discard(self, generation: Generation) -> None:
        """End an incoming generation, of which nobody outside has seen anything."""
        self.incoming = None
        self._release_loader(generation)
        for timer in generation.respawns.values():
            timer.cancel()
        for worker in generation.workers.values():
            worker.is_draining = True
            worker.kill()
        generation.workers.clear()
        kept = self.current.all_listeners if self.current is not None else []
        close_all(listener for listener in generation.all_listeners if listener not in kept)
        generation.listeners, generation.doors = [], {}

    def _end_reload(self, generation: Generation, error: str | None) -> None:
        """Tell who wants to know; then do what had to wait for it."""
        self.history.reloaded(error)
        if self._is_announced and not self.is_stopping:
            self._systemd.ready(f"reload failed: {error}" if error else self._summary())
        self._tell_waiting(generation.waiting, error)
        self._after_reload()

    def _tell_waiting(self, waiting: list[Callable[[str | None], None]], error: str | None) -> None:
        told, waiting[:] = list(waiting), []
        for done in told:
            try:
                done(error)
            except Exception:
                log.exception("a mistake in the master; it goes on")

    def _after_reload(self) -> None:
        if self.is_stopping:
            return
        if self._size_change and self.current is not None:
            by, self._size_change = self._size_change, 0
            self._resize(self.current, by)
        if self._reload_wanted:
            self._reload("asked for during the last reload")

    def _on_settings(self, generation: Generation, settings: Settings, places: list[Any]) -> None:
        """The incoming generation's loader is done: bind, and have workers forked."""
        generation.settings = settings
        generation.size = settings.workers
        first = self.current is None
        os.umask(self._umask if settings.umask is None else settings.umask)
        try:
            if first:
                set_title(f"weego: master [{settings.name}]")
                if settings.pidfile is not None:
                    self._pidfile = Pidfile(settings.pidfile)
            elif settings.pidfile != (self._pidfile.path if self._pidfile else None):
                log.warning(
                    "pidfile: a change takes a restart; %s stays", self._pidfile.path if self._pidfile else "none"
                )
            self._bind(generation, places)
        except (BindError, PidfileError) as error:
            self._give_up(generation, str(error), EX_OSERR)
            return
        where = [listener.actual for listener in generation.listeners]
        where += [f"{purpose} on {listener.actual}" for purpose, listener in generation.doors.items()]
        log.info(
            "generation %d loaded in %.2f s: %d workers, %s",
            generation.number,
            monotonic() - generation.started,
            settings.workers,
            ", ".join(where),
        )
        if first:
            # Nothing serves yet, so nothing need be protected: workers accept as they become ready.
            self.current, self.incoming = generation, None
            self.board.publish(generation.number, getpid())
            self._open_doors(generation)
            self._fill(generation)
            self._after_reload()
        else:
            self._spawn(generation, 0)  # one to try; the others when it is ready

    def _bind(self, generation: Generation, places: list[Any]) -> None:
        """Keep the current listeners of the same addresses, bind the others. Raises BindError, leaving nothing new."""
        settings, old = generation.settings, self.current
        kept = list(old.listeners) if old is not None else []
        kept_doors = old.doors if old is not None else {}
        of_workers, of_doors = places[: len(settings.listen)], places[len(settings.listen) :]
        try:
            for listen, place in zip(settings.listen, of_workers, strict=True):
                listener = next((each for each in kept if each.listen.address == listen.address), None)
                if listener is not None:
                    kept.remove(listener)  # "port 0" may be listed twice
                generation.listeners.append(listener or bind(listen, (place[0], place[1]), settings.owner))
            for (purpose, listen), place in zip(settings.doors.items(), of_doors, strict=True):
                listener = kept_doors.get(purpose)
                if listener is None or listener.listen.address != listen.address:
                    listener = bind(listen, (place[0], place[1]))
                generation.doors[purpose] = listener
        except BindError:
            before = old.all_listeners if old is not None else []
            close_all(listener for listener in generation.all_listeners if listener not in before)
            generation.listeners, generation.doors = [], {}
            raise

    def _open_doors(self, generation: Generation) -> None:
        """From now on the master answers where this generation's config says, and nowhere else."""
        for purpose in {*self._doors, *generation.doors}:
            if purpose not in self._doors:
                self._doors[purpose] = self._make_door(purpose)
            self._doors[purpose].open(generation.doors.get(purpose))

    def _make_door(self, purpose: str) -> Door:
        """A master without such an address does without the code too."""
        if purpose == "admin":
            from prefork.admin import Admin

            return Admin(self._loop, self)
        from prefork.control import Control

        return Control(self._loop, self)

    def _promote(self, generation: Generation) -> None:
        """Every worker of the incoming generation is ready: it serves from here on, the old one drains."""
        old = self.current
        assert old is not None
        self.current, self.incoming = generation, None
        self.board.publish(generation.number, getpid())
        set_title(f"weego: master [{generation.settings.name}]")
        for worker in generation.workers.values():
            self.family.tell(worker, {"is": "serve"})
        for listener, listen in zip(generation.listeners, generation.settings.listen, strict=True):
            self._adjust(listener, listen)
        closing = [i for i, listener in enumerate(old.listeners) if listener not in generation.listeners]
        close_all(old.listeners[i] for i in closing)  # the old workers hold the last copies now
        self._open_doors(generation)
        old.listeners, old.doors = [], {}
        self._release_loader(old)
        for timer in old.respawns.values():
            timer.cancel()
        self._replaces.clear()
        leaving = [
            worker for worker in self.family.workers.values() if worker.generation is old and not worker.is_draining
        ]
        old.workers.clear()
        log.info(
            "reload done in %.2f s: generation %d serves with %d workers, %d of generation %d drain",
            monotonic() - generation.started,
            generation.number,
            len(generation.workers),
            len(leaving),
            old.number,
        )
        for worker in list(self.family.workers.values()):
            if worker.is_draining and worker.generation is not generation:
                # It drains since an earlier reload, and those it could give its connections to are leaving now themselves.
                self._show_takers(worker)
        for worker in leaving:
            self._drain(worker, closing)
        self._cut_oldest()
        if not self._is_announced:
            self._announce(generation)
        self._end_reload(generation, None)

    def _adjust(self, listener: Listener, listen: Listen) -> None:
        try:
            listener.adjust(listen)
        except OSError as error:
            log.warning("%s: backlog or mode not changed: %s", listen.address, error.strerror)

    def _cut_oldest(self) -> None:
        """Tell the oldest draining generation to finish if there are too many."""
        numbers = sorted({worker.generation.number for worker in self.family.workers.values() if worker.is_draining})
        for number in numbers[:-MAX_DRAINING]:
            log.warning("generation %d still drains after %d more reloads: it must finish now", number, MAX_DRAINING)
            for worker in self.family.workers.values():
                if worker.generation.number == number:
                    self._order_stop(worker, monotonic() + KILL_DELAY, fast=True)

    def _announce(self, generation: Generation) -> None:
        self._is_announced = True
        give_memory_back()
        seconds = monotonic() - self.started
        log.info("ready in %.2f s: %d workers", seconds, len(generation.ready))
        self._systemd.ready(self._summary())
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

    def _summary(self) -> str:
        return f"generation {self.current.number} serves with {self.current.size} workers" if self.current else "starting"

    def _resize(self, generation: Generation, by: int) -> None:
        """TTIN and TTOU, until the next reload."""
        for _ in range(abs(by)):
            if by > 0:
                if generation.size >= MAX_WORKERS:
                    log.info("SIGTTIN ignored: %d workers are the most", MAX_WORKERS)
                    return
                generation.size += 1
                log.info("SIGTTIN: one more worker, %d in all", generation.size)
                self._fill(generation)
            elif generation.size <= 1:
                log.info("SIGTTOU ignored: the last worker stays")
            else:
                generation.size -= 1
                taken = {*generation.workers, *generation.respawns}
                if len(taken) <= generation.size:
                    continue  # the loader is being replaced, and a slot is empty
                slot = max(taken)
                log.info("SIGTTOU: worker %d leaves, %d remain", slot, generation.size)
                leaver = self._replaces.pop(slot, None)
                if leaver is not None:
                    self._drain(leaver, ())
                timer = generation.respawns.pop(slot, None)
                if timer is not None:
                    timer.cancel()
                worker = generation.workers.pop(slot, None)
                if worker is not None:
                    self._drain(worker, ())

    def _fill(self, generation: Generation) -> None:
        """Order a worker for each empty slot, the lowest first."""
        for slot in range(MAX_WORKERS):
            if len(generation.workers) + len(generation.respawns) >= generation.size or generation.loader is None:
                return
            if slot not in generation.workers and slot not in generation.respawns:
                self._spawn(generation, slot)

    # -- loaders ----------------------------------------------------------------------------------------------------------

    def _start_loader(self, generation: Generation) -> LoaderProcess:
        """Fork a loader from this process. Raises OSError."""
        ours, theirs = pair()
        master_pid = getpid()
        try:
            pid = fork_blocked()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            self._become_loader(generation.number, theirs, ours, master_pid)
        theirs.close()
        loader = LoaderProcess(Channel(ours), generation)
        self.family.loaders.add(loader)
        self.family.listen(loader, lambda: self._read_loader(loader))
        self.family.born(loader, pid)
        timeout = self.current.settings.boot_timeout if self.current is not None else FIRST_LOAD_TIMEOUT
        loader.boot_timer = self._loop.after(
            timeout, lambda: self.family.kill_late(loader, f"not loaded within {timeout:g} s", EX_SOFTWARE)
        )
        return loader

    def _become_loader(self, number: int, theirs: RawSocket, ours: RawSocket, master_pid: int) -> None:
        """In the child: let go of what is the master's, and load. Does not return."""
        try:
            for fd in (*self._own_fds(), ours.fileno()):
                close_quietly(fd)
            os.umask(self._umask)  # not the current generation's
            from prefork.loader import load_and_fork

            load_and_fork(self._app, number, theirs.fileno(), master_pid)
        finally:
            _exit(EX_SOFTWARE)

    def _own_fds(self) -> Iterable[int]:
        """All that no child may inherit: an end of file must mean that the master is gone, a lock that it is not."""
        yield from self._loop.fds()
        yield from self.family.fds()
        for generation in (self.current, self.incoming):
            if generation is not None:
                for listener in generation.all_listeners:
                    yield listener.fileno()
        for door in self._doors.values():
            yield from door.fds()
        if self._pidfile is not None:
            yield self._pidfile.fd
        if not self._is_checking:
            yield self.board.fd

    def _read_loader(self, loader: LoaderProcess) -> None:
        while (received := self.family.hear(loader)) is not None:
            message, fds = received
            match message["is"]:
                case "settings":
                    self._take_settings(loader, fds[0])
                case "failed":
                    loader.failure = message["line"], message["code"]
                    if message["trace"]:
                        log.error("traceback of the failed load:\n%s", message["trace"].rstrip())
                case "spawned":
                    self._on_spawned(loader, loader.forking.pop(message["index"]), message["pid"])
                case "not_spawned":
                    worker = loader.forking.pop(message["index"])
                    worker.failure = (f"cannot be forked: {message['error']}", EX_OSERR)
                    self._on_worker_gone(worker, "was not born")
                    self._let_loader_go(loader)
                    self.family.reap()

    def _take_settings(self, loader: LoaderProcess, fd: int) -> None:
        generation = loader.generation
        try:
            document = os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            close_quietly(fd)
        places, _, encoded = document.partition(b"\n")
        settings = Settings.decode(encoded)
        loader.is_loaded = True
        if loader.boot_timer is not None:
            loader.boot_timer.cancel()
        if self._is_checking:
            log.info(
                "the configuration is good: %d workers, %s",
                settings.workers,
                ", ".join(x.address for x in settings.listen),
            )
            self._stop(fast=True)
        elif generation is self.incoming:
            self._on_settings(generation, settings, _decode_places(places))
        elif generation is self.current and loader is generation.reviving:
            generation.reviving = None
            if settings == generation.settings:
                log.info("%r takes over, generation %d", loader, generation.number)
                generation.loader = loader
                self._fill(generation)
            else:
                # Workers of another config must not join this generation.
                loader.is_released = True
                self._let_loader_go(loader)
                if self.incoming is None:
                    self._reload("the loader died and the configuration has changed since")
        else:
            self._let_loader_go(loader)

    def _release_loader(self, generation: Generation) -> None:
        """A generation's loaders are no longer needed."""
        for loader in (generation.loader, generation.reviving):
            if loader is not None:
                loader.is_released = True
                self._let_loader_go(loader)
        generation.loader = generation.reviving = None

    def _let_loader_go(self, loader: LoaderProcess) -> None:
        """End a released loader: at once while it loads, else when it has reported the forks under way."""
        if not loader.is_released:
            return
        if not loader.is_loaded:
            loader.kill()
        elif not loader.forking:
            self.family.hang_up(loader)
            self._loop.after(KILL_DELAY, loader.kill)  # it exits by itself, unless it was stopped

    def _on_loader_gone(self, loader: LoaderProcess, how: str) -> None:
        self.family.forget(loader)
        generation = loader.generation
        # From here on nobody orders a worker from it: losing one below may mean to replace it.
        if generation.loader is loader:
            generation.loader = None
        if generation.reviving is loader:
            generation.reviving = None
        for worker in list(loader.forking.values()):
            if self._lives_all_the_same(worker):
                continue
            # It may live, unknown to us: it finds its channel closed and leaves. Its row is not used again.
            self._on_worker_gone(worker, "was lost with its loader", keep_row=True)
        loader.forking.clear()
        line, code = loader.failure or (f"the loader {how}", EX_SOFTWARE)
        if self._is_checking:
            if not loader.is_loaded and not self.is_stopping:
                log.error("%s", line)
                self._exit_code = code
            self.is_stopping = True
        elif loader.is_released or self.is_stopping:
            pass
        elif generation is self.incoming:
            self._give_up(generation, line, code)
        elif generation is self.current:
            delay = generation.loader_backoff.died(loader.uptime)
            log.warning("generation %d: %s; a new one in %.1f s, workers go on", generation.number, line, delay)
            self._loop.after(delay, lambda: self._revive_loader(generation))
        self._end_if_alone()

    def _lives_all_the_same(self, worker: WorkerProcess) -> bool:
        """Its loader died before it could report the fork; did the worker tell of itself?"""
        self._read_worker(worker)
        if worker.told_pid is None or worker.channel.is_closed:
            return False
        try:
            self.family.born(worker, worker.told_pid)
        except OSError:  # and died as well
            worker.pid = None
            return False
        return True

    def _revive_loader(self, generation: Generation) -> None:
        if generation is not self.current or self.is_stopping or generation.loader or generation.reviving:
            return
        try:
            generation.reviving = self._start_loader(generation)
        except OSError as error:
            log.warning("no process for a loader: %s", error.strerror)
            self._loop.after(MAX_DELAY, lambda: self._revive_loader(generation))

    # -- workers ----------------------------------------------------------------------------------------------------------

    def _spawn(self, generation: Generation, slot: int) -> None:
        """Order a worker for a slot."""
        generation.respawns.pop(slot, None)
        loader = generation.loader
        if self.is_stopping or loader is None:
            return  # a revived loader fills empty slots
        try:
            ours, theirs = pair()
        except OSError as error:
            log.error("no channel for worker %d: %s", slot, error.strerror)
            self._plan_respawn(generation, slot, MAX_DELAY)
            return
        worker = WorkerProcess(Channel(ours), generation, slot, self.board.allot(slot, generation.number))
        self.family.workers[worker.index] = generation.workers[slot] = worker
        loader.forking[worker.index] = worker
        order = {"is": "spawn", "slot": slot, "generation": generation.number, "index": worker.index}
        listeners = [listener.fileno() for listener in generation.listeners]
        self.family.tell(loader, order, [theirs.fileno(), self.board.fd, *listeners])
        theirs.close()
        self.family.listen(worker, lambda: self._read_worker(worker))
        timeout = generation.settings.boot_timeout
        worker.boot_timer = self._loop.after(
            timeout, lambda: self.family.kill_late(worker, f"not ready within {timeout:g} s", EX_SOFTWARE)
        )

    def _plan_respawn(self, generation: Generation, slot: int, delay: float) -> None:
        if delay <= 0:
            self._spawn(generation, slot)
        else:
            generation.respawns[slot] = self._loop.after(delay, lambda: self._spawn(generation, slot))

    def _on_spawned(self, loader: LoaderProcess, worker: WorkerProcess, pid: int) -> None:
        self.family.born(worker, pid)
        log.debug("%r forked after %.4f s", worker, worker.uptime)
        self._let_loader_go(loader)
        self.family.reap()

    def _read_worker(self, worker: WorkerProcess) -> None:
        while (received := self.family.hear(worker)) is not None:
            message, fds = received
            for fd in fds:  # none is expected
                close_quietly(fd)
            match message["is"]:
                case "ready":
                    worker.told_pid = message["pid"]
                    self._on_worker_ready(worker)
                case "failed":
                    worker.failure = message["line"], message["code"]
                case "leaving":
                    self._on_worker_leaving(worker, message["reason"])

    def _on_worker_ready(self, worker: WorkerProcess) -> None:
        if worker.is_ready:
            return
        worker.is_ready = True
        if worker.boot_timer is not None:
            worker.boot_timer.cancel()
        log.info("%r is ready after %.3f s", worker, worker.uptime)
        generation = worker.generation
        if worker.is_draining or self.is_stopping:
            return
        if generation is self.current:
            self._boot_failures = 0
            self.family.tell(worker, {"is": "serve"})
            self.has_served = True
            leaver = self._replaces.pop(worker.slot, None)
            if leaver is not None and not leaver.is_draining:
                self._drain(leaver, ())
            for other in list(self.family.workers.values()):
                if other.is_draining and other is not leaver:
                    self._connect(other, worker)
            if not self._is_announced and generation.is_complete:
                self._announce(generation)
        elif generation is self.incoming:
            self._fill(generation)
            if generation.is_complete:
                self._promote(generation)

    def _on_worker_leaving(self, worker: WorkerProcess, reason: str) -> None:
        """It wants to go (SIGTERM, a limit reached): replacement first."""
        generation = worker.generation
        if worker.is_draining or worker.is_leaving or self.is_stopping:
            return
        if generation is not self.current or not worker.is_ready:
            worker.is_leaving = True
            log.info("%r leaves: %s", worker, reason)
            self._order_stop(worker, monotonic() + generation.settings.graceful_timeout, fast=not worker.is_ready)
            return
        self.replace_first(worker, f"wants to leave: {reason}", "leave")

    def replace_first(self, worker: WorkerProcess, why: str, reason: str) -> None:
        """Start a replacement of a worker that serves; it is told to leave when that is ready. ``reason``: of RESTART_REASONS."""
        generation = worker.generation
        worker.is_leaving = True
        log.info("%r %s; its replacement starts", worker, why)
        self.history.restarts[reason] += 1
        if generation.workers.get(worker.slot) is worker:
            del generation.workers[worker.slot]
            self._replaces[worker.slot] = worker
            self._spawn(generation, worker.slot)

    def _on_worker_gone(self, worker: WorkerProcess, how: str, *, keep_row: bool = False) -> None:
        """It has been waited for."""
        generation, slot = worker.generation, worker.slot
        if not keep_row:
            self.board.retire(worker.index)
        who, uptime = f"{worker!r}", worker.uptime
        self.family.forget(worker)
        held_slot = generation.workers.get(slot) is worker
        if held_slot:
            del generation.workers[slot]
        if self._replaces.get(slot) is worker:
            del self._replaces[slot]
        line = f"{who} {how}" + (f": {worker.failure[0]}" if worker.failure else "")
        if worker.is_draining or worker.is_leaving or self.is_stopping:
            log.info("%s", line)
        elif generation is self.incoming:
            log.info("%s", line)  # the error is that the reload fails
        else:
            log.warning("%s", line)
        if self.is_stopping:
            self._end_if_alone()
        elif generation is self.incoming:
            text, code = worker.failure or (f"it {how}", EX_SOFTWARE)
            self._give_up(generation, f"worker {slot} {'died' if worker.is_ready else 'did not boot'}: {text}", code)
        elif generation is self.current and held_slot:
            self._replace(worker, uptime, how)

    def _replace(self, worker: WorkerProcess, uptime: float, how: str) -> None:
        """A worker of the current generation died, or left without waiting for its replacement."""
        generation, slot = worker.generation, worker.slot
        self.history.restarts[_reason(worker, how)] += 1
        if not worker.is_ready and not worker.is_leaving:
            self._boot_failures += 1
            if not self.has_served and self._boot_failures >= START_UP_FAILURES:
                text, code = worker.failure or (f"it {how}", EX_SOFTWARE)
                self._fail(f"{self._boot_failures} workers in a row did not boot, the last: {text}", code)
                return
        delay = generation.backoffs.setdefault(slot, Backoff()).died(uptime)
        if delay > 0:
            log.warning("worker %d: the next one in %.1f s, for it dies young", slot, delay)
        if not generation.ready and self.has_served:
            log.error("no worker is ready")
        self._plan_respawn(generation, slot, delay)

    # -- leaving ----------------------------------------------------------------------------------------------------------

    def _drain(self, worker: WorkerProcess, closing: Iterable[int]) -> None:
        """Tell a worker to leave, and whom it may give its connections."""
        if worker.is_draining:
            return
        worker.is_draining = True
        if not worker.is_ready:  # it serves nobody
            worker.kill()
            return
        if self.watch.end_if_hung(worker):
            return
        deadline = monotonic() + worker.generation.settings.graceful_timeout + self.watch.patience(worker)
        self._show_takers(worker)
        self.family.tell(worker, {"is": "drain", "deadline": deadline, "closing": list(closing)})
        self.family.kill_after(worker, deadline)

    def _show_takers(self, worker: WorkerProcess) -> None:
        """Open ways from a worker that leaves to some of those that stay."""
        takers = sorted(
            (
                w
                for w in self.family.workers.values()
                if w.generation is self.current and w.is_ready and not w.is_draining
            ),
            key=lambda taker: taker.slot,
        )
        first = worker.slot % len(takers) if takers else 0
        for taker in (takers[first:] + takers[:first])[:MAX_TAKERS]:
            if taker is not worker and not taker.is_leaving:
                self._connect(worker, taker)

    def _connect(self, giver: WorkerProcess, taker: WorkerProcess) -> None:
        """Open a way for hand-overs."""
        try:
            from_giver, from_taker = pair()
        except OSError as error:
            log.warning("%r cannot hand over to %r: %s", giver, taker, error.strerror)
            return
        target = {"is": "target", "row": taker.index, "generation": taker.generation.number}
        self.family.tell(giver, target, [from_giver.fileno()])
        self.family.tell(taker, {"is": "source"}, [from_taker.fileno()])
        from_giver.close()
        from_taker.close()

    def _order_stop(self, worker: WorkerProcess, deadline: float, *, fast: bool) -> None:
        self.family.tell(worker, {"is": "stop", "deadline": deadline, "fast": fast})
        worker.is_draining = True
        self.family.kill_after(worker, deadline if not fast else monotonic())

    def _stop(self, *, fast: bool) -> None:
        """Stop the server; again, with ``fast``, to hurry."""
        if self.is_stopping and (self._is_fast or not fast):
            return
        if not self.is_stopping and not self._is_checking:
            self._systemd.stopping()
        self.is_stopping, self._is_fast = True, fast
        self._reload_wanted = False
        self._tell_waiting(self._waiting, "the server is stopping")
        if self.incoming is not None:
            if self.current is not None:
                log.info("the reload under way is dropped")
            self._tell_waiting(self.incoming.waiting, "the server is stopping")
            self._discard(self.incoming)
        current = self.current
        graceful_timeout = 0.0
        if current is not None:
            graceful_timeout = current.settings.graceful_timeout
            for timer in current.respawns.values():
                timer.cancel()
            self._release_loader(current)
            # The workers hold the last copies now: they take what is queued, then the port is free.
            close_all(current.listeners)
            current.listeners = []
        for loader in list(self.family.loaders):
            loader.is_released = True
            self._let_loader_go(loader)
            self._loop.after(KILL_DELAY, loader.kill)
        deadline = monotonic() + (KILL_DELAY if fast else graceful_timeout)
        for worker in list(self.family.workers.values()):
            self._order_stop(worker, deadline, fast=fast or not worker.is_ready)
        self._end_if_alone()


def _reason(worker: WorkerProcess, how: str) -> str:
    """Why it is replaced, one of RESTART_REASONS."""
    if worker.is_leaving:
        return "leave"
    if not worker.is_ready:
        return "boot"
    return "signal" if how.startswith("was killed") else "exit"


def _decode_places(encoded: bytes) -> list[Any]:
    import json

    places: list[Any] = json.loads(encoded)
    return places


__all__ = ("LoadError", "Master", "Ready")

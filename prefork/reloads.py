"""One generation after another: the start, and each reload.

A reload is no state of the master's but a second, *incoming* generation beside the *current* one: supervision, signals and timers
work throughout. Step by step
 1. A new loader loads config and code. 2. Addresses that are new are bound; kept ones keep their socket. 3. One worker is
 forked and must become ready, then the others. 4. Now, and only now, the new generation is published: its workers
 accept, the old ones get the order to drain and a way to hand their connections over. 5. Addresses nobody wants are closed.
 Whatever fails before 4 ends the incoming generation, says why in one line, and leaves the current one untouched.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from prefork.application import EX_CONFIG, EX_OSERR
from prefork.changes import Change, between, is_hot
from prefork.family import KILL_DELAY
from prefork.following import Following, commit
from prefork.generation import Generation
from prefork.listeners import BindError, bind, close_all, take
from prefork.pidfile import Pidfile, PidfileError
from prefork.primitives import getpid, monotonic, set_title
from prefork.status import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prefork.application import Listen, Settings
    from prefork.door import Door
    from prefork.generation import WorkerProcess
    from prefork.listeners import Listener, Place
    from prefork.loop import Timer
    from prefork.master import Master

    Asked = Callable[[list[Change], str | None], None]

log = logging.getLogger("weego.master")

#: The first worker of a generation must have been ready for so long before the others serve: what falls over at once does so now.
CANARY_SECONDS = 0.2

#: From the end of a reload to the beginning of the next. At the end every connection moves and processes come and go; back to back, that would be how calls are
#: answered (docs/reliability.md, "Storms").
SETTLE_SECONDS = 0.5
#: … if the next was asked for during the last: a hundred HUPs in a second are two reloads.
FOLLOW_SECONDS = 1.0

#: Generations that may drain beside the current one. With clients that never leave and reloads that never end, old
#: workers would pile up; the oldest are told to finish.
MAX_DRAINING = 2


class Reloads:
    """The succession of a master's generations."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self.last_number = 0
        self.is_wanted = False
        """One more is to follow the one under way."""
        self.size_change = 0
        """Workers more or fewer, asked for while a reload runs."""
        self.is_full_wanted = False
        """… with new workers, whatever changes."""
        self.waiting: list[Callable[[str | None], None]] = []
        self._follow_up: Timer | None = None
        self._reason = ""
        self._settled = 0.0
        """When the workers of the last reload have had time to serve."""
        self._following: Following | None = None
        self._asking: list[Asked] = []

    def ask(self, who: str, done: Callable[[str | None], None] | None = None, *, full: bool = False) -> None:
        """Reload, after the one under way if there is one: that may have read the config before it was changed.

        ``done`` is told how it ended: None, or a line that says why it failed. ``full``: with new workers, even if the old ones could
        follow the change.
        """
        if self._master.is_stopping:
            log.info("%s ignored: the server is stopping", who)
            return
        if done is not None:
            self.waiting.append(done)
        self.is_full_wanted |= full
        wait = self._settled - monotonic()
        if self._master.incoming is None and self._follow_up is None and wait <= 0:
            self._start(who)
        elif self._master.incoming is None and self._follow_up is None:
            log.info("%s: reloading in %.1f s, for the last one has just ended", who, wait)
            self._start_later(wait, who)
        elif not self.is_wanted:
            log.info("%s: one more reload follows the one under way", who)
            self.is_wanted = True

    def ask_changes(self, told: Asked) -> None:
        """What would a reload change? ``told`` gets the changes, or a line that says why it would fail. Only while no reload is under way."""
        self._asking.append(told)
        self._begin_trial()

    def _begin_trial(self) -> None:
        self.last_number += 1
        generation = self._master.incoming = Generation(self.last_number)
        generation.is_trial = True
        self._load(generation)

    def _load(self, generation: Generation) -> None:
        obstacle = getattr(self._master.app, "obstacle", None)
        why = obstacle() if obstacle is not None and self._master.current is not None else None
        if why is not None:
            self.give_up(generation, why, EX_CONFIG)
            return
        try:
            generation.loader = self._master.loaders.start(generation)
        except OSError as error:
            self.give_up(generation, f"no process for the loader: {error.strerror}", EX_OSERR)

    def _end_trial(self, generation: Generation, changes: list[Change], error: str | None) -> None:
        told, self._asking = self._asking, []
        if self._master.incoming is generation:
            self.discard(generation)
        for each in told:
            each(changes, error)
        self.after()

    def begin(self, waiting: Iterable[Callable[[str | None], None]] = ()) -> None:
        """Load the next generation; ``waiting`` is told how it went."""
        self.last_number += 1
        generation = self._master.incoming = Generation(self.last_number)
        generation.waiting.extend(waiting)
        generation.is_full, self.is_full_wanted = self.is_full_wanted, False
        self._load(generation)

    def _start(self, reason: str) -> None:
        log.info("%s: reloading, generation %d loads", reason, self.last_number + 1)
        self.is_wanted = False
        if self._master.is_announced:
            self._master.systemd.reloading()
        waiting, self.waiting = self.waiting, []
        self.begin(waiting)

    def give_up(self, generation: Generation, line: str, code: int) -> None:
        """The incoming generation has failed."""
        if generation is not self._master.incoming:
            return
        if self._master.current is None:
            self.discard(generation)
            self._master.fail(line, code)
            return
        if generation.is_trial:
            self._end_trial(generation, [], line)
            return
        self.discard(generation)  # first: whoever reads the line finds all as it was
        log.error("reload failed, generation %d goes on: %s", self._master.current.number, line)
        self._end(generation, line)

    def discard(self, generation: Generation) -> None:
        """End an incoming generation, of which nobody outside has seen anything."""
        self._master.incoming = None
        if self._following is not None:
            self._following.cancel()
            self._following = None
        self._master.loaders.release(generation)
        for timer in generation.respawns.values():
            timer.cancel()
        for worker in generation.workers.values():
            worker.is_draining = True
            worker.kill()
        generation.workers.clear()
        kept = self._master.current.all_listeners if self._master.current is not None else []
        close_all(listener for listener in generation.all_listeners if listener not in kept)
        generation.listeners, generation.doors = [], {}
        told, self._asking = self._asking, []
        for each in told:
            each([], "the server is stopping")

    def _end(self, generation: Generation, error: str | None) -> None:
        """Tell who wants to know; then do what had to wait for it."""
        self._master.history.reloaded(error)
        if self._master.is_announced and not self._master.is_stopping:
            self._master.systemd.ready(f"reload failed: {error}" if error else self._master.summary())
        self.tell(generation.waiting, error)
        self.after()

    def tell(self, waiting: list[Callable[[str | None], None]], error: str | None) -> None:
        """How it ended, to everybody who waits for that."""
        told, waiting[:] = list(waiting), []
        for done in told:
            try:
                done(error)
            except Exception:
                log.exception("a mistake in the master; it goes on")

    def after(self) -> None:
        """What had to wait for the end of a reload."""
        if self._master.is_stopping:
            return
        if self.size_change and self._master.current is not None:
            by, self.size_change = self.size_change, 0
            self._master.crew.resize(self._master.current, by, "asked for during the last reload")
        if not self.is_wanted:
            self._master.bases.want()
        elif self._follow_up is None:
            self._start_later(FOLLOW_SECONDS, "asked for during the last reload")
        self._master.loaders.replace_lost()  # its successor may have waited for this reload, for the config had changed

    def _start_later(self, seconds: float, reason: str) -> None:
        self.is_wanted, self._reason = True, reason
        self._follow_up = self._master.loop.after(seconds, self._start_follow_up)

    def _start_follow_up(self) -> None:
        self._follow_up = None
        if self.is_wanted and self._master.incoming is None and not self._master.is_stopping:
            self._start(self._reason)

    def on_settings(self, generation: Generation, settings: Settings, places: list[Any]) -> None:
        """The incoming generation's loader is done: bind, and have workers forked."""
        generation.settings = settings
        generation.size = settings.workers
        current = self._master.current
        first = current is None
        changes = between(current.settings, settings) if current is not None else []
        if generation.is_trial:
            self._end_trial(generation, changes, None)
            return
        os.umask(self._master.umask if settings.umask is None else settings.umask)
        try:
            if first:
                set_title(f"weego: master [{settings.name}]")
                if settings.pidfile is not None:
                    self._master.pidfile = Pidfile(settings.pidfile)
            elif settings.pidfile != (self._master.pidfile.path if self._master.pidfile else None):
                log.warning(
                    "pidfile: a change takes a restart; %s stays",
                    self._master.pidfile.path if self._master.pidfile else "none",
                )
            self._bind(generation, places)
        except (BindError, PidfileError) as error:
            self.give_up(generation, str(error), EX_OSERR)
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
            self._master.current, self._master.incoming = generation, None
            self._master.inherited.close_rest()
            self.keep_listeners(generation)
            self._master.board.publish(generation.number, getpid())
            self.open_doors(generation)
            self._master.crew.fill(generation)
            self.after()
        elif current is not None and is_hot(current.settings, settings, changes) and not generation.is_full:
            self._follow(generation, current, changes)
        else:
            self._start_workers(generation)

    def _follow(self, generation: Generation, current: Generation, changes: list[Change]) -> None:
        """The workers that run can do as the new settings say."""

        def done(error: str | None) -> None:
            self._following = None
            if error is not None:
                log.warning("generation %d: %s; new workers instead", current.number, error)
                self._start_workers(generation)
                return
            commit(self._master, generation, changes)
            self._master.crew.log_level = None
            self._master.changed()
            self._end(generation, None)

        self._following = Following(self._master, generation, done)
        self._following.start([worker for worker in current.ready if not worker.is_draining])

    def on_followed(self, worker: WorkerProcess, error: str | None) -> None:
        """A worker has taken new settings, or cannot."""
        if self._following is not None:
            self._following.answered(worker, error)
        elif error is not None:  # it came late, when the others had followed
            log.warning("%r cannot follow the last reload: %s; it is replaced", worker, error)
            if worker.generation is self._master.current and not worker.is_leaving and not worker.is_draining:
                self._master.crew.replace_first(worker, "cannot follow the last reload", "leave")

    def on_lost(self, worker: WorkerProcess) -> None:
        """It has died."""
        if self._following is not None:
            self._following.lost(worker)

    def _start_workers(self, generation: Generation) -> None:
        self._warn_of_memory(generation)
        self._master.crew.spawn(generation, 0)  # one to try; the others when it is ready

    def _warn_of_memory(self, generation: Generation) -> None:
        """For a while there are twice as many workers, and a container may not have room for them."""
        left, current = self._master.memory.left(), self._master.current
        if left is None or current is None or current.loader is None:
            return
        born_with = resident_bytes(current.loader.pid)
        grown = [max(0, resident_bytes(worker.pid) - born_with) for worker in current.ready]
        need = generation.size * (sum(grown) // len(grown) if grown else 0)
        if need > left:
            log.warning(
                "the container has %.1f MiB of memory left, and the new workers may take %.1f MiB until the old ones have gone: "
                "the kernel may kill one; raise the limit, or restart instead of reloading",
                left / 2**20,
                need / 2**20,
            )

    def on_ready(self, generation: Generation) -> None:
        """A worker of the incoming generation is ready: the first must live for a moment, while the others start."""
        if generation.canary_until is None:
            generation.canary_until = monotonic() + CANARY_SECONDS
        self._master.crew.fill(generation)
        if generation.is_complete:
            left = generation.canary_until - monotonic()
            if left <= 0:
                self.promote(generation)
            else:
                self._master.loop.after(left, lambda: self._promote_later(generation))

    def _promote_later(self, generation: Generation) -> None:
        if generation is self._master.incoming and generation.is_complete:
            self.promote(generation)

    def _bind(self, generation: Generation, places: list[Any]) -> None:
        """Keep the current listeners of the same addresses, bind the others. Raises BindError, leaving nothing new."""
        settings, old = generation.settings, self._master.current
        kept = list(old.listeners) if old is not None else []
        kept_doors = old.doors if old is not None else {}
        of_workers, of_doors = places[: len(settings.listen)], places[len(settings.listen) :]
        try:
            for listen, place in zip(settings.listen, of_workers, strict=True):
                listener = next((each for each in kept if each.listen.address == listen.address), None)
                if listener is not None:
                    kept.remove(listener)  # "port 0" may be listed twice
                generation.listeners.append(listener or self._open(listen, (place[0], place[1]), settings.owner))
            for (purpose, listen), place in zip(settings.doors.items(), of_doors, strict=True):
                listener = kept_doors.get(purpose)
                if listener is None or listener.listen.address != listen.address:
                    listener = self._open(listen, (place[0], place[1]), None)
                generation.doors[purpose] = listener
        except BindError:
            before = old.all_listeners if old is not None else []
            close_all(listener for listener in generation.all_listeners if listener not in before)
            generation.listeners, generation.doors = [], {}
            raise

    def _open(self, listen: Listen, place: Place, owner: tuple[int, int] | None) -> Listener:
        """Take what systemd has opened for us, or bind. Raises BindError."""
        found = self._master.inherited.take(place)
        if found is not None:
            log.info("%s: the socket is there already, from systemd", listen.address)
            return take(listen, found[0], is_stored=found[1])
        return bind(listen, place, owner)

    def open_doors(self, generation: Generation) -> None:
        """From now on the master answers where this generation's config says, and nowhere else."""
        for purpose in {*self._master.doors, *generation.doors}:
            if purpose not in self._master.doors:
                self._master.doors[purpose] = self._make_door(purpose)
            self._master.doors[purpose].open(generation.doors.get(purpose))

    def keep_listeners(self, generation: Generation) -> None:
        """Let systemd hold them too, and no others."""
        self._master.systemd.forget_kept()
        for listener in generation.listeners:
            self._master.systemd.keep(listener.fileno())

    def _make_door(self, purpose: str) -> Door:
        """A master without such an address does without the code too."""
        if purpose == "admin":
            from prefork.admin import Admin

            return Admin(self._master.loop, self._master)
        from prefork.control import Control

        return Control(self._master.loop, self._master)

    def promote(self, generation: Generation) -> None:
        """Every worker of the incoming generation is ready: it serves from here on, the old one drains."""
        old = self._master.current
        assert old is not None
        self._master.current, self._master.incoming = generation, None
        self._master.board.publish(generation.number, getpid())
        set_title(f"weego: master [{generation.settings.name}]")
        self._master.crew.log_level = None
        for worker in generation.workers.values():
            self._master.crew.inform(worker)
            self._master.family.tell(worker, {"is": "serve"})
        for listener, listen in zip(generation.listeners, generation.settings.listen, strict=True):
            self._adjust(listener, listen)
        closing = [i for i, listener in enumerate(old.listeners) if listener not in generation.listeners]
        close_all(old.listeners[i] for i in closing)  # the old workers hold the last copies now
        self.open_doors(generation)
        if {*generation.listeners} != {*old.listeners}:
            self.keep_listeners(generation)
        old.listeners, old.doors = [], {}
        self._master.loaders.release(old)
        for timer in old.respawns.values():
            timer.cancel()
        self._master.crew.replaces.clear()
        self._settled = monotonic() + SETTLE_SECONDS
        leaving = [
            worker
            for worker in self._master.family.workers.values()
            if worker.generation is old and not worker.is_draining
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
        for worker in list(self._master.family.workers.values()):
            if worker.is_draining and worker.generation is not generation:
                # It drains since an earlier reload, and those it could give its connections to are leaving now themselves.
                self._master.crew.show_takers(worker)
        for worker in leaving:
            self._master.crew.drain(worker, closing)
        self._cut_oldest()
        if not self._master.is_announced:
            self._master.announce(generation)
        self._master.changed()
        self._end(generation, None)

    def _adjust(self, listener: Listener, listen: Listen) -> None:
        try:
            listener.adjust(listen)
        except OSError as error:
            log.warning("%s: backlog or mode not changed: %s", listen.address, error.strerror)

    def _cut_oldest(self) -> None:
        """Tell the oldest draining generation to finish if there are too many."""
        numbers = sorted(
            {worker.generation.number for worker in self._master.family.workers.values() if worker.is_draining}
        )
        for number in numbers[:-MAX_DRAINING]:
            log.warning("generation %d still drains after %d more reloads: it must finish now", number, MAX_DRAINING)
            for worker in self._master.family.workers.values():
                if worker.generation.number == number:
                    self._master.crew.order_stop(worker, monotonic() + KILL_DELAY, fast=True)

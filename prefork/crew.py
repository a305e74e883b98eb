"""The workers of a master: ordered, ready, replaced, told to leave.

Rules
 1. Orders go over channels, never by signals: no handler window, no pid that has become somebody else's.
 2. Replacement first: a worker that serves is told to leave when its successor is ready.
 3. Every change of state is logged with its reason.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prefork.application import EX_SOFTWARE, MAX_WORKERS
from prefork.backoff import MAX_DELAY, START_UP_FAILURES
from prefork.channel import Channel, pair
from prefork.following import send
from prefork.generation import WorkerProcess
from prefork.primitives import close_quietly, monotonic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefork.generation import Generation, LoaderProcess
    from prefork.master import Master

log = logging.getLogger("weego.master")

#: How a child ended, in the words of ``family``, by a SIGKILL that may be the kernel's.
KILLED = "was killed by SIGKILL"
OUT_OF_MEMORY = f"{KILLED}, out of memory"

#: Signals that one process sends another to end it. Those that a process earns by what it does (SEGV, ABRT, XCPU, SYS, ALRM …) are not here.
SENT_BY_OTHERS = tuple(f"was killed by {name}" for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"))

#: Workers that a leaving one is connected to, one socket pair each. Enough to spread its connections, and few enough that a
#: reload of 100 workers does not make 10 000 pairs.
MAX_TAKERS = 8


class Crew:
    """The workers of all generations."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._boot_failures = 0
        self.is_lame = False
        """Workers ask their clients to go elsewhere, and the probe for new connections says no."""
        self.log_level: str | None = None
        """That workers were told, until the next reload."""
        self.replaces: dict[int, WorkerProcess] = {}
        """Slot of the current generation → the worker that leaves once the slot is filled again."""

    def spawn(self, generation: Generation, slot: int) -> None:
        """Order a worker for a slot."""
        generation.respawns.pop(slot, None)
        loader = generation.loader
        if self._master.is_stopping or loader is None:
            return  # a revived loader fills empty slots
        try:
            ours, theirs = pair()
        except OSError as error:
            log.error("no channel for worker %d: %s", slot, error.strerror)
            self.plan_respawn(generation, slot, MAX_DELAY)
            return
        worker = WorkerProcess(Channel(ours), generation, slot, self._master.board.allot(slot, generation.number))
        worker.settings = loader.settings or generation.settings
        self._master.family.workers[worker.index] = generation.workers[slot] = worker
        loader.forking[worker.index] = worker
        order = {"is": "spawn", "slot": slot, "generation": generation.number, "index": worker.index}
        order["activated"] = [index for index, each in enumerate(generation.listeners) if each.is_activated]
        order["is_kept"] = self._master.systemd.keeps_sockets
        listeners = [listener.fileno() for listener in generation.listeners]
        self._master.family.tell(loader, order, [theirs.fileno(), self._master.board.fd, *listeners])
        theirs.close()
        self._master.family.listen(worker, lambda: self.read(worker))
        self.limit_boot(worker)

    def limit_boot(self, worker: WorkerProcess) -> None:
        """It has so long to become ready."""
        timeout = worker.generation.settings.boot_timeout
        worker.boot_timer = self._master.loop.after(
            max(0.0, timeout - worker.uptime),
            lambda: self._master.family.kill_late(worker, f"not ready within {timeout:g} s", EX_SOFTWARE),
        )

    def plan_respawn(self, generation: Generation, slot: int, delay: float) -> None:
        """Order a worker for a slot in a while."""
        if delay <= 0:
            self.spawn(generation, slot)
        else:
            generation.respawns[slot] = self._master.loop.after(delay, lambda: self.spawn(generation, slot))

    def fill(self, generation: Generation) -> None:
        """Order a worker for each empty slot: first for those whose last worker waits for it to leave, then the lowest."""
        waiting = sorted(self.replaces) if generation is self._master.current else []
        for slot in (*waiting, *range(MAX_WORKERS)):
            if len(generation.workers) + len(generation.respawns) >= generation.size or generation.loader is None:
                return
            if slot not in generation.workers and slot not in generation.respawns:
                self.spawn(generation, slot)

    def resize(self, generation: Generation, by: int, who: str) -> None:
        """More workers or fewer, until the next reload; at least 1."""
        size = min(max(1, generation.size + by), MAX_WORKERS)
        if size == generation.size:
            if by:
                log.info(
                    "%s ignored: %s", who, "the last worker stays" if by < 0 else f"{MAX_WORKERS} workers are the most"
                )
            return
        log.info("%s: %d workers instead of %d", who, size, generation.size)
        before, generation.size = generation.size, size
        if size > before:
            self.fill(generation)
            return
        taken = {*generation.workers, *generation.respawns, *self.replaces}
        for slot in sorted(taken, reverse=True)[
            : max(0, len(taken) - size)
        ]:  # fewer where the loader is being replaced
            log.info("worker %d leaves", slot)
            leaver = self.replaces.pop(slot, None)
            if leaver is not None:
                self.drain(leaver, ())
            timer = generation.respawns.pop(slot, None)
            if timer is not None:
                timer.cancel()
            worker = generation.workers.pop(slot, None)
            if worker is not None:
                self.drain(worker, ())

    def on_spawned(self, loader: LoaderProcess, worker: WorkerProcess, pid: int) -> None:
        """The loader has forked it."""
        self._master.family.born(worker, pid)
        log.debug("%r forked after %.4f s", worker, worker.uptime)
        self._master.loaders.let_go(loader)
        self._master.family.reap()

    def read(self, worker: WorkerProcess) -> None:
        """What it says."""
        while (received := self._master.family.hear(worker)) is not None:
            message, fds = received
            match message["is"]:
                case "born" if fds:
                    worker.stacks_fd = fds.pop()
                case "stacks" if fds:
                    self._master.stacks.arrived(worker, fds.pop())
                case "view" if fds:
                    self._master.views.arrived(worker, message["number"], fds.pop())
                case "followed":
                    self._master.reloads.on_followed(worker, message["error"])
                case "shared":
                    self._master.balance.shared(worker, message["given"])
                case "ready":
                    worker.told_pid = message["pid"]
                    self._on_ready(worker)
                case "failed":
                    worker.failure = message["line"], message["code"]
                case "leaving":
                    self._on_leaving(worker, message["reason"])
            for fd in fds:  # none is expected
                close_quietly(fd)

    def _on_ready(self, worker: WorkerProcess) -> None:
        if worker.is_ready:
            return
        worker.is_ready = True
        if worker.boot_timer is not None:
            worker.boot_timer.cancel()
        log.info("%r is ready after %.3f s", worker, worker.uptime)
        generation = worker.generation
        if worker.is_draining or self._master.is_stopping:
            return
        if generation is self._master.current:
            self._boot_failures = 0
            self.inform(worker)
            self._master.family.tell(worker, {"is": "serve"})
            self._master.has_served = True
            leaver = self.replaces.pop(worker.slot, None)
            if leaver is not None and not leaver.is_draining:
                self.drain(leaver, ())
            for other in list(self._master.family.workers.values()):
                if other.is_draining and other is not leaver:
                    self.connect(other, worker)
            if not self._master.is_announced and generation.is_complete:
                self._master.announce(generation)
        elif generation is self._master.incoming:
            self._master.reloads.on_ready(generation)

    def inform(self, worker: WorkerProcess) -> None:
        """What a worker must know that its loader did not."""
        if worker.settings is not worker.generation.settings:
            send(self._master, worker, worker.generation.settings)
        if self.log_level is not None:
            self._master.family.tell(worker, {"is": "log_level", "level": self.log_level})
        if self.is_lame:
            self._master.family.tell(worker, {"is": "lame", "on": True})

    def set_log_level(self, level: str) -> None:
        """For all weego's processes, until the next reload."""
        self.log_level = level
        logging.getLogger("weego").setLevel(level.upper())
        for worker in self._master.family.workers.values():
            self._master.family.tell(worker, {"is": "log_level", "level": level})

    def set_lame(self, who: str, *, on: bool) -> None:
        """The server is about to leave, or is not after all."""
        if self.is_lame != on:
            log.info(
                "%s: %s", who, "draining: clients are asked to go, new ones are served" if on else "serving as ever"
            )
        self.is_lame = on
        for worker in self._master.family.workers.values():
            if worker.is_ready and not worker.is_draining:
                self._master.family.tell(worker, {"is": "lame", "on": on})

    def _on_leaving(self, worker: WorkerProcess, reason: str) -> None:
        """It wants to go (SIGTERM, a limit reached): replacement first."""
        generation = worker.generation
        if worker.is_draining or worker.is_leaving or self._master.is_stopping:
            return
        if generation is not self._master.current or not worker.is_ready:
            worker.is_leaving = True
            log.info("%r leaves: %s", worker, reason)
            self.order_stop(worker, monotonic() + generation.settings.graceful_timeout, fast=not worker.is_ready)
            return
        self.replace_first(worker, f"wants to leave: {reason}", "leave")

    def replace_first(self, worker: WorkerProcess, why: str, reason: str) -> None:
        """Start a replacement of a worker that serves; it is told to leave when that is ready. ``reason``: of RESTART_REASONS."""
        generation = worker.generation
        worker.is_leaving = True
        log.info("%r %s; its replacement starts", worker, why)
        self._master.history.restarts[reason] += 1
        if generation.workers.get(worker.slot) is worker:
            del generation.workers[worker.slot]
            self.replaces[worker.slot] = worker
            self.spawn(generation, worker.slot)

    def on_gone(self, worker: WorkerProcess, how: str, *, keep_row: bool = False) -> None:
        """It has been waited for."""
        generation, slot = worker.generation, worker.slot
        if not keep_row:
            self._master.board.retire(worker.index)
        who, uptime = f"{worker!r}", worker.uptime
        if how == KILLED and not worker.is_doomed and self._master.memory.look():
            how = f"{OUT_OF_MEMORY}: {self._master.memory.shortage()}"
        self._master.stacks.lost(worker)
        self._master.views.lost(worker)
        self._master.family.forget(worker)
        self._master.reloads.on_lost(worker)
        held_slot = generation.workers.get(slot) is worker
        if held_slot:
            del generation.workers[slot]
        if self.replaces.get(slot) is worker:
            del self.replaces[slot]
        line = f"{who} {how}" + (f": {worker.failure[0]}" if worker.failure else "")
        if worker.is_draining or worker.is_leaving or self._master.is_stopping:
            log.info("%s", line)
        elif generation is self._master.incoming:
            log.info("%s", line)  # the error is that the reload fails
        else:
            log.warning("%s", line)
        if self._master.is_stopping:
            self._master.end_if_alone()
        elif generation is self._master.incoming:
            text, code = worker.failure or (f"it {how}", EX_SOFTWARE)
            self._master.reloads.give_up(
                generation, f"worker {slot} {'died' if worker.is_ready else 'did not boot'}: {text}", code
            )
        elif generation is self._master.current and held_slot:
            self._replace(worker, uptime, how)

    def _replace(self, worker: WorkerProcess, uptime: float, how: str) -> None:
        """A worker of the current generation died, or left without waiting for its replacement."""
        generation, slot = worker.generation, worker.slot
        self._master.history.restarts[_reason(worker, how)] += 1
        if not worker.is_ready and not worker.is_leaving:
            self._boot_failures += 1
            if not self._master.has_served and self._boot_failures >= START_UP_FAILURES:
                text, code = worker.failure or (f"it {how}", EX_SOFTWARE)
                self._master.fail(f"{self._boot_failures} workers in a row did not boot, the last: {text}", code)
                return
        backoff = generation.backoff(slot)
        delay = 0.0
        if not _is_not_to_blame(worker, how):
            delay = backoff.died(uptime)
        elif not backoff.forgives():
            delay = backoff.died(uptime)
            log.warning(
                "worker %d: somebody kills its workers again and again; find out who: an OOM killer outside of the container, a watchdog",
                slot,
            )
        generation.last_failures[slot] = worker.failure[0] if worker.failure else how
        if delay > 0:
            log.warning("worker %d: the next one in %.1f s, for it dies young", slot, delay)
        if not generation.ready and self._master.has_served:
            log.error("no worker is ready")
        self.plan_respawn(generation, slot, delay)

    def drain(self, worker: WorkerProcess, closing: Iterable[int]) -> None:
        """Tell a worker to leave, and whom it may give its connections."""
        if worker.is_draining:
            return
        worker.is_draining = True
        if not worker.is_ready:  # it serves nobody
            worker.kill()
            return
        if self._master.watch.end_if_hung(worker):
            return
        if worker.is_oversize:
            log.warning("%r is replaced: SIGKILL", worker)
            worker.kill()
            return
        deadline = monotonic() + worker.generation.settings.graceful_timeout + self._master.watch.patience(worker)
        self.show_takers(worker)
        self._master.family.tell(worker, {"is": "drain", "deadline": deadline, "closing": list(closing)})
        self._master.family.kill_after(worker, deadline)

    def show_takers(self, worker: WorkerProcess) -> None:
        """Open ways from a worker that leaves to some of those that stay."""
        takers = sorted(
            (
                w
                for w in self._master.family.workers.values()
                if w.generation is self._master.current and w.is_ready and not w.is_draining
            ),
            key=lambda taker: taker.slot,
        )
        first = worker.slot % len(takers) if takers else 0
        for taker in (takers[first:] + takers[:first])[:MAX_TAKERS]:
            if taker is not worker and not taker.is_leaving:
                self.connect(worker, taker)

    def connect(self, giver: WorkerProcess, taker: WorkerProcess) -> None:
        """Open a way for hand-overs."""
        try:
            from_giver, from_taker = pair()
        except OSError as error:
            log.warning("%r cannot hand over to %r: %s", giver, taker, error.strerror)
            return
        target = {"is": "target", "row": taker.index, "generation": taker.generation.number}
        self._master.family.tell(giver, target, [from_giver.fileno()])
        self._master.family.tell(taker, {"is": "source"}, [from_taker.fileno()])
        from_giver.close()
        from_taker.close()

    def order_stop(self, worker: WorkerProcess, deadline: float, *, fast: bool) -> None:
        """Tell it to finish by itself; nobody takes its connections over."""
        self._master.family.tell(worker, {"is": "stop", "deadline": deadline, "fast": fast})
        worker.is_draining = True
        self._master.family.kill_after(worker, deadline if not fast else monotonic())


def _is_not_to_blame(worker: WorkerProcess, how: str) -> bool:
    """Whether it served, and somebody who is neither the master nor, for want of memory, the kernel has ended it."""
    return worker.is_ready and not worker.is_leaving and not worker.is_doomed and how in SENT_BY_OTHERS


def _reason(worker: WorkerProcess, how: str) -> str:
    """Why it is replaced, one of RESTART_REASONS."""
    if worker.is_leaving:
        return "leave"
    if how.startswith(OUT_OF_MEMORY):
        return "oom"
    if worker.is_oversize:
        return "oversize"
    if not worker.is_ready:
        return "boot"
    return "signal" if how.startswith("was killed") else "exit"

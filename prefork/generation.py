"""The master's records: a generation, its loader, its workers. Facts only; what follows from them is in ``master``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from prefork.backoff import Backoff
from prefork.primitives import close_quietly, monotonic, pidfd_open

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefork.application import Settings
    from prefork.channel import Channel
    from prefork.listeners import Listener
    from prefork.loop import Timer


class Process:
    """A child of the master: worker or loader. ``pid`` is None while a worker's fork is under way."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.pid: int | None = None
        self.pidfd = -1
        self.started = monotonic()
        self.failure: tuple[str, int] | None = None
        """Why it is about to exit, by its own words or by the master's: a line, an exit code."""
        self.kill_timer: Timer | None = None
        self.boot_timer: Timer | None = None
        self.is_doomed = False
        """KILL was sent, or is as soon as the pid is known."""

    def born(self, pid: int) -> None:
        """Its pid is known. It is an unreaped child, so the number is certainly its own."""
        self.pid = pid
        self.pidfd = pidfd_open(pid)

    def kill(self) -> None:
        """SIGKILL, now or at birth."""
        self.is_doomed = True
        self.send(signal.SIGKILL)

    def send(self, signum: signal.Signals) -> None:
        """A signal to this very process, or to nobody."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signum)
            except ProcessLookupError:
                pass  # it has been waited for

    def forget(self) -> None:
        """It is gone: timers and descriptors too."""
        self.pid = None
        for timer in self.kill_timer, self.boot_timer:
            if timer is not None:
                timer.cancel()
        self.channel.close()
        if self.pidfd >= 0:
            close_quietly(self.pidfd)
            self.pidfd = -1

    @property
    def uptime(self) -> float:
        """Seconds since it was ordered."""
        return monotonic() - self.started


class LoaderProcess(Process):
    """A loader."""

    def __init__(self, channel: Channel, generation: Generation) -> None:
        super().__init__(channel)
        self.generation = generation
        self.is_loaded = False
        self.settings: Settings | None = None
        """Those it has read, and that workers are born with."""
        self.is_released = False
        """No longer needed: it exits when the forks under way are done."""
        self.is_not_warm = False
        """It came from a base that does not suit its config, and ends; another is to be forked from the master."""
        self.forking: dict[int, WorkerProcess] = {}
        """Workers it was told to fork and has not reported, by row."""

    def __repr__(self) -> str:
        return f"loader (pid {self.pid})"


class BaseProcess(Process):
    """What loaders are forked from."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.is_warm = False
        self.is_released = False
        """No longer needed."""
        self.forking: dict[int, tuple[LoaderProcess, Timer]] = {}
        """Loaders it was told to fork and has not reported, by number of the order, and until when it must have."""

    def forget(self) -> None:
        """It is gone."""
        super().forget()
        for _, timer in self.forking.values():
            timer.cancel()

    def __repr__(self) -> str:
        return f"base (pid {self.pid or 'unknown'})"


class WorkerProcess(Process):
    """A worker."""

    def __init__(self, channel: Channel, generation: Generation, slot: int, index: int) -> None:
        super().__init__(channel)
        self.generation = generation
        self.slot = slot
        self.index = index
        self.is_ready = False
        self.is_leaving = False
        """It asked to leave, and serves until its replacement is ready."""
        self.is_draining = False
        """It was told to leave."""
        self.is_oversize = False
        """It has more memory than it may have, and is killed instead of drained."""
        self.drain_deadline: float | None = None
        self.settings = generation.settings
        """Those it goes by."""
        self.stacks_fd = -1
        """Memory that it writes its stacks to."""
        self.told_pid: int | None = None
        """By itself, which may be before its loader reports it. For the log only."""

    def forget(self) -> None:
        """It is gone."""
        super().forget()
        if self.stacks_fd >= 0:
            close_quietly(self.stacks_fd)
            self.stacks_fd = -1

    def __repr__(self) -> str:
        return f"worker {self.slot} gen {self.generation.number} (pid {self.pid or self.told_pid or 'unknown'})"


class Generation:
    """Workers of one config and one code, the loader that forks them, the listeners they share."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.started = monotonic()
        self.loader: LoaderProcess | None = None
        self.reviving: LoaderProcess | None = None
        """A second loader, meant to replace one that died."""
        self.revival: Timer | None = None
        """When that one is to start, if it must wait."""
        self.loader_backoff = Backoff()
        self.settings: Settings
        self.listeners: list[Listener] = []
        self.doors: dict[str, Listener] = {}
        """The master's own listeners, as ``Settings.doors``; those of the current generation are open."""
        self.waiting: list[Callable[[str | None], None]] = []
        """To be told how the reload that made this generation ended: None, or a line that says why it failed."""
        self.size = 0
        """Workers wanted: the config's number, or as TTIN and TTOU left it."""
        self.workers: dict[int, WorkerProcess] = {}
        """Who holds each slot; draining and leaving workers hold none."""
        self.respawns: dict[int, Timer] = {}
        """Slots whose next worker must wait."""
        self.backoffs: dict[int, Backoff] = {}
        self.last_failures: dict[int, str] = {}
        """How the last worker of a slot that dies young has ended."""
        self.is_trial = False
        """Nobody wants it to serve, only to know what it would change."""
        self.is_full = False
        """New workers are wanted even if the old ones could follow."""
        self.canary_until: float | None = None
        """Until when the first of its workers must live, to show that it can."""

    def backoff(self, slot: int) -> Backoff:
        """The record of a slot."""
        return self.backoffs.setdefault(slot, Backoff())

    @property
    def all_listeners(self) -> list[Listener]:
        """Those of the workers, and the master's own."""
        return [*self.listeners, *self.doors.values()]

    @property
    def ready(self) -> list[WorkerProcess]:
        """Workers that can serve, in order of slots."""
        return [worker for _, worker in sorted(self.workers.items()) if worker.is_ready]

    @property
    def is_complete(self) -> bool:
        """Every slot has a ready worker."""
        return len(self.ready) >= self.size

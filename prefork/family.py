"""The master's children as processes: their channels, their ends, their zombies. What follows from an end is the master's.

Rules
 1. A child is waited for by its pid, when its pidfd says that it exited; its last words are read first.
 2. Unknown children (orphans that a subreaper inherits) are reaped only while no fork is under way: until a loader has
    reported it, a new worker is unknown too.
 3. SIGKILL goes through the pidfd, so it cannot hit anybody else.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

from prefork.channel import Closed
from prefork.generation import BaseProcess, LoaderProcess, Process, WorkerProcess
from prefork.primitives import EPOLLIN, EPOLLOUT, monotonic, waitid, waitpid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prefork.channel import Message
    from prefork.loop import Loop

log = logging.getLogger("weego.master")

#: Between the deadline a worker was given and SIGKILL: it may be writing its last replies.
KILL_DELAY = 1.0


class Family:
    """All children there are. ``on_exit(process, how)`` is called once a child has been waited for, and
    ``on_stop(worker)`` when somebody has stopped one.
    """

    def __init__(
        self,
        loop: Loop,
        on_exit: Callable[[Process, str], None],
        on_stop: Callable[[WorkerProcess], None] = lambda _: None,
    ) -> None:
        self._loop = loop
        self._on_exit = on_exit
        self._on_stop = on_stop
        self.workers: dict[int, WorkerProcess] = {}
        """By row of the scoreboard."""
        self.loaders: set[LoaderProcess] = set()
        self.bases: set[BaseProcess] = set()
        self.strangers: set[int] = set()
        """Pids of children that somebody else here waits for, and calls ``reap`` when that is done."""

    def __bool__(self) -> bool:
        return bool(self.workers or self.loaders or self.bases)

    @property
    def is_forking(self) -> bool:
        """Whether a worker or loader may exist that has not been reported."""
        return any(loader.forking for loader in self.loaders) or any(base.forking for base in self.bases)

    def fds(self) -> Iterable[int]:
        """Descriptors that no child may inherit: an end of file must mean that the master is gone."""
        for process in (*self.workers.values(), *self.loaders, *self.bases):
            if not process.channel.is_closed:
                yield process.channel.fileno()
            if process.pidfd >= 0:
                yield process.pidfd
            if isinstance(process, WorkerProcess) and process.stacks_fd >= 0:
                yield process.stacks_fd

    def listen(self, process: Process, on_message: Callable[[], None]) -> None:
        """Call back when the child says something, or nothing any more."""
        if not process.channel.is_closed:
            self._loop.watch(process.channel.fileno(), on_message)

    def born(self, process: Process, pid: int) -> None:
        """A child's pid is known."""
        process.born(pid)
        self._loop.watch(process.pidfd, lambda: self._wait_for(process))
        if process.is_doomed:
            process.kill()

    def forget(self, process: Process) -> None:
        """It is gone, or was never born."""
        if process.pidfd >= 0:
            self._loop.unwatch(process.pidfd)
        self.hang_up(process)
        process.forget()
        if isinstance(process, WorkerProcess):
            self.workers.pop(process.index, None)
        elif isinstance(process, LoaderProcess):
            self.loaders.discard(process)
        elif isinstance(process, BaseProcess):
            self.bases.discard(process)

    # -- channels ---------------------------------------------------------------------------------------------------------

    def tell(self, process: Process, message: Message, fds: Iterable[int] = ()) -> None:
        """Send, or queue what its socket does not take now."""
        process.channel.send(message, fds)
        self._watch_room(process)

    def hear(self, process: Process) -> tuple[Message, list[int]] | None:
        """The next message of a child; None when there is none now, or none will ever come."""
        if process.channel.is_closed:
            return None
        try:
            if process.channel.is_congested:
                process.channel.flush()
                self._watch_room(process)
            return process.channel.receive()
        except Closed:
            self.hang_up(process)
            # A process that exits ends its channel a moment before it can be waited for. One that lives on without a
            # channel cannot be told anything any more.
            if isinstance(process, (LoaderProcess, BaseProcess)):
                if process.pid is not None:  # else its base has died with the order, or it is about to be reported
                    process.kill()
            elif isinstance(process, WorkerProcess) and process.pid is not None:
                self.kill_after(process, monotonic())
            return None

    def hang_up(self, process: Process) -> None:
        """Close our end of the channel; a loader or worker that finds it closed leaves."""
        if not process.channel.is_closed:
            self._loop.unwatch(process.channel.fileno())
            process.channel.close()

    def _watch_room(self, process: Process) -> None:
        if not process.channel.is_closed:
            self._loop.change(process.channel.fileno(), EPOLLIN | EPOLLOUT if process.channel.is_congested else EPOLLIN)

    # -- ends -------------------------------------------------------------------------------------------------------------

    def kill_after(self, worker: WorkerProcess, deadline: float) -> None:
        """SIGKILL a little after the deadline; an earlier one than before counts, a later one does not."""
        if worker.drain_deadline is not None and worker.drain_deadline <= deadline:
            return
        worker.drain_deadline = deadline
        if worker.kill_timer is not None:
            worker.kill_timer.cancel()

        def kill() -> None:
            log.warning("%r did not leave in time: SIGKILL", worker)
            worker.kill()

        worker.kill_timer = self._loop.after(max(0.0, deadline - monotonic()) + KILL_DELAY, kill)

    def kill_late(self, process: Process, line: str, code: int) -> None:
        """SIGKILL now, for it did not get as far as it should; ``line`` and ``code`` are the reason to tell."""
        log.warning("%r is %s: SIGKILL", process, line)
        process.failure = line, code
        process.kill()
        for loader in self.loaders:
            if process in loader.forking.values():
                log.warning("%r does not fork: SIGKILL", loader)
                loader.kill()

    def reap(self) -> None:
        """SIGCHLD: wait for whoever exited; of most children the pidfd tells as well. And see who was stopped."""
        self._see_stopped()
        while not self.is_forking:  # rule 2; to be called again when the fork is reported
            try:
                found = waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self.strangers:
                return
            own = next((p for p in (*self.workers.values(), *self.loaders, *self.bases) if p.pid == found.si_pid), None)
            if own is not None:
                self._wait_for(own)
            else:
                log.debug("reaped pid %d, an orphan", found.si_pid)
                waitpid(found.si_pid, os.WNOHANG)

    def _see_stopped(self) -> None:
        while True:
            try:
                found = waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            except ChildProcessError:
                return
            if found is None:
                return
            for worker in list(self.workers.values()):
                if worker.pid == found.si_pid and found.si_code == os.CLD_STOPPED:
                    self._on_stop(worker)

    def _wait_for(self, process: Process) -> None:
        if process.pid is None:
            return
        try:
            pid, status = waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:  # cannot be, unless somebody else waited for it
            pid, status = process.pid, 0
        if pid != 0:
            code = os.waitstatus_to_exitcode(status)
            self._on_exit(
                process, f"exited with status {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"
            )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

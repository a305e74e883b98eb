"""Where a worker is just now: the stacks of its threads and greenlets, for whoever asks.

A worker whose loop turns is asked, for it alone knows its greenlets. One that does not answer is sent a signal, at which the interpreter's C
handler writes the stacks of the threads into memory that the master has a descriptor of; that works while Python code does not run at all. A
stopped process does neither.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from prefork.diagnosis import STOPPED
from prefork.primitives import STACKS_SIGNAL, close_quietly, monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefork.generation import WorkerProcess
    from prefork.loop import Timer
    from prefork.master import Master

    #: Gets the stacks, and why there are none: one of them is empty.
    Told = Callable[[str, str | None], None]

log = logging.getLogger("weego.master")

#: A loop that has not come round by then is asked by signal.
ANSWER_SECONDS = 1.0

#: The C handler is done within milliseconds; a starved machine takes longer. Between two looks, and in all.
SIGNAL_TICK, SIGNAL_SECONDS = 0.05, 3.0


class StackRequests:
    """Who asks for whose stacks."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._asked: dict[WorkerProcess, list[Told]] = {}
        self._timers: dict[WorkerProcess, Timer] = {}

    def ask(self, worker: WorkerProcess, told: Told) -> None:
        """``told`` is called once, at the latest in some seconds."""
        waiting = self._asked.setdefault(worker, [])
        waiting.append(told)
        if len(waiting) > 1:
            return
        if self._master.watch.trouble(worker) == STOPPED:
            self._tell(
                worker,
                "",
                "it is stopped (SIGSTOP, or a debugger), so it cannot say anything; kill -CONT lets it go on",
            )
        elif self._master.watch.trouble(worker) is None and worker.is_ready:
            self._master.family.tell(worker, {"is": "stacks"})
            self._timers[worker] = self._master.loop.after(ANSWER_SECONDS, lambda: self._signal(worker))
        else:
            self._signal(worker)

    def arrived(self, worker: WorkerProcess, fd: int) -> None:
        """Its own answer."""
        try:
            self._tell(worker, os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace"), None)
        finally:
            close_quietly(fd)

    def lost(self, worker: WorkerProcess) -> None:
        """It has died."""
        self._tell(worker, "", "it has died")

    def _signal(self, worker: WorkerProcess) -> None:
        if worker.stacks_fd < 0:
            self._tell(worker, "", "it is only just starting")
            return
        # The offset is one for both copies of the descriptor.
        os.ftruncate(worker.stacks_fd, 0)
        os.lseek(worker.stacks_fd, 0, os.SEEK_SET)
        worker.send(STACKS_SIGNAL)
        self._look(worker, 0, monotonic() + SIGNAL_SECONDS)

    def _look(self, worker: WorkerProcess, size_before: int, deadline: float) -> None:
        size = os.fstat(worker.stacks_fd).st_size
        if size and size == size_before:
            text = os.pread(worker.stacks_fd, size, 0).decode(errors="replace")
            self._tell(worker, f"its loop does not turn; threads only:\n{text}", None)
        elif monotonic() > deadline:
            self._tell(worker, "", f"no answer within {SIGNAL_SECONDS:g} s, not even from its signal handler")
        else:
            self._timers[worker] = self._master.loop.after(SIGNAL_TICK, lambda: self._look(worker, size, deadline))

    def _tell(self, worker: WorkerProcess, text: str, error: str | None) -> None:
        timer = self._timers.pop(worker, None)
        if timer is not None:
            timer.cancel()
        for told in self._asked.pop(worker, ()):
            told(text, error)

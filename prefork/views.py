"""What each worker has to tell of itself, for whoever asks: the master collects the answers, and does not look into them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prefork.primitives import close_quietly

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefork.generation import WorkerProcess
    from prefork.loop import Timer
    from prefork.master import Master

    #: Gets what there is of each worker: ``{"slot", "pid", "view"}``, or ``"error"`` in the place of the view.
    Told = Callable[[list[dict[str, object]]], None]

#: Workers that have not answered by then are left out. Their loops turn every 100 ms.
ANSWER_SECONDS = 2.0


class _Question:
    """One, and the answers so far."""

    def __init__(self, workers: list[WorkerProcess], told: Told) -> None:
        self.open = set(workers)
        self.told = told
        self.found: list[dict[str, object]] = []
        self.timer: Timer | None = None

    def note(self, worker: WorkerProcess, **found: object) -> None:
        self.open.discard(worker)
        self.found.append({"slot": worker.slot, "pid": worker.pid, **found})


class Views:
    """Who asks the workers for what."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._questions: dict[int, _Question] = {}
        self._next = 0

    def ask(self, workers: list[WorkerProcess], told: Told) -> None:
        """``told`` is called once, within ``ANSWER_SECONDS``."""
        self._next += 1
        number = self._next
        question = self._questions[number] = _Question(workers, told)
        for worker in workers:
            self._master.family.tell(worker, {"is": "view", "number": number})
        question.timer = self._master.loop.after(ANSWER_SECONDS, lambda: self._late(number))
        self._finish_if_whole(number)

    def arrived(self, worker: WorkerProcess, number: int, fd: int) -> None:
        """An answer."""
        try:
            question = self._questions.get(number)
            if question is not None and worker in question.open:
                question.note(worker, view=os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace"))
                self._finish_if_whole(number)
        finally:
            close_quietly(fd)

    def lost(self, worker: WorkerProcess) -> None:
        """It has died."""
        for number, question in list(self._questions.items()):
            if worker in question.open:
                question.note(worker, error="it has died")
                self._finish_if_whole(number)

    def _late(self, number: int) -> None:
        question = self._questions[number]
        question.timer = None
        for worker in list(question.open):
            question.note(worker, error=f"no answer within {ANSWER_SECONDS:g} s")
        self._finish_if_whole(number)

    def _finish_if_whole(self, number: int) -> None:
        question = self._questions[number]
        if question.open:
            return
        del self._questions[number]
        if question.timer is not None:
            question.timer.cancel()
        question.told(sorted(question.found, key=lambda each: str(each["slot"]).zfill(6)))

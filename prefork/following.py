"""Changes that workers can follow while they run: a reload without new workers.

The new settings go to every ready worker of the current generation; each says that it follows, or why it cannot. When all have, the loader that
read the settings is let go: workers to come are forked by the one they all come from, whose memory they share, and are told what it does not know before
they serve. If a worker cannot follow, or does not answer, the reload goes on as any other: with new workers.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from prefork.primitives import close_quietly, memfd_create, monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prefork.application import Settings
    from prefork.changes import Change
    from prefork.generation import Generation, WorkerProcess
    from prefork.loop import Timer
    from prefork.master import Master

log = logging.getLogger("weego.master")

#: A worker answers within a turn of its loop. One that is late now has new settings to wait for no longer than new workers would take.
FOLLOW_SECONDS = 5.0


class Following:
    """One change, from the orders to the last answer. ``done`` is told None, or why not all follow."""

    def __init__(self, master: Master, generation: Generation, done: Callable[[str | None], None]) -> None:
        self._master = master
        self._settings = generation.settings
        self._done = done
        self._timer: Timer | None = None
        self._missing: set[WorkerProcess] = set()

    def start(self, workers: Sequence[WorkerProcess]) -> None:
        """Tell them."""
        # Who hangs or is stopped finds the order when it goes on.
        self._missing.update(worker for worker in workers if self._master.watch.trouble(worker) is None)
        self._timer = self._master.loop.after(FOLLOW_SECONDS, self._too_late)
        for worker in workers:
            send(self._master, worker, self._settings)
        self._look()

    def answered(self, worker: WorkerProcess, error: str | None) -> None:
        """A worker has followed, or cannot."""
        if worker in self._missing:
            self._missing.discard(worker)
            if error is not None:
                self._end(f"worker {worker.slot} cannot follow: {error}")
            else:
                self._look()

    def lost(self, worker: WorkerProcess) -> None:
        """It has died: whoever replaces it is told as well."""
        self._missing.discard(worker)
        self._look()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._end(None, tell=False)

    def _look(self) -> None:
        if not self._missing and self._timer is not None:
            self._end(None)

    def _too_late(self) -> None:
        slots = ", ".join(str(worker.slot) for worker in sorted(self._missing, key=lambda worker: worker.slot))
        self._end(f"worker {slots} did not answer within {FOLLOW_SECONDS:g} s")

    def _end(self, error: str | None, *, tell: bool = True) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if tell:
                self._done(error)


def send(master: Master, worker: WorkerProcess, settings: Settings) -> None:
    """New settings for a worker that runs."""
    fd = memfd_create("weego-settings", os.MFD_CLOEXEC)
    os.pwrite(fd, settings.encode(), 0)
    worker.settings = settings
    master.family.tell(worker, {"is": "hot"}, [fd])
    close_quietly(fd)


def commit(master: Master, incoming: Generation, changes: Sequence[Change]) -> None:
    """All follow: the incoming generation's settings and doors are the current one's from here on."""
    current = master.current
    assert current is not None
    master.loaders.release(incoming)
    current.settings = incoming.settings
    current.doors, incoming.doors, incoming.listeners = incoming.doors, {}, []
    master.incoming = None
    for worker in (*current.workers.values(), *master.crew.replaces.values()):
        if worker.is_ready and worker.settings is not current.settings:  # it has become ready meanwhile
            send(master, worker, current.settings)
    master.reloads.open_doors(current)
    log.info(
        "reload done in %.2f s without new workers, generation %d goes on: %s",
        monotonic() - incoming.started,
        current.number,
        ", ".join(f"{change.what} = {change.after}" for change in changes) or "nothing has changed",
    )
    if current.settings.workers != current.size:  # by another config, or by whoever asked for more or fewer until the next reload
        master.crew.resize(current, current.settings.workers - current.size, "reload")

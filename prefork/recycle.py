"""Workers that have served long enough, answered enough or grown enough: replaced one at a time, and without losing a call.

Limits of requests and age are spread over the slots, up to half as much again for the last, or workers that started
together would all be due together. A limit of memory counts when two samples in a row are above it: what a single large call takes
is given back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prefork.scoreboard import REQUESTS
from prefork.status import resident_bytes

if TYPE_CHECKING:
    from prefork.generation import Generation, WorkerProcess
    from prefork.loop import Loop
    from prefork.master import Master

log = logging.getLogger("weego.master")

#: Between two looks.
TICK = 1.0

#: Looks from one sample of memory to the next.
LOOKS_PER_SAMPLE = 5


class Recycling:
    """Looks at the current generation of a master for as long as its loop runs."""

    def __init__(self, loop: Loop, master: Master, *, tick: float = TICK) -> None:
        self._loop = loop
        self._master = master
        self._tick_seconds = tick
        self._looks = 0
        self._samples: dict[WorkerProcess, tuple[int, int]] = {}
        """The last two sizes of each."""
        self._hopeless: Generation | None = None
        """A generation whose workers are over the limit of memory from birth."""

    def start(self) -> None:
        """From now on."""
        self._loop.after(self._tick_seconds, self._tick)

    def _tick(self) -> None:
        master = self._master
        if master.is_stopping:
            return
        self._loop.after(self._tick_seconds, self._tick)
        generation = master.current
        if generation is None:
            return
        if generation.settings.max_memory and self._looks % LOOKS_PER_SAMPLE == 0:
            self._sample(generation)
        self._looks += 1
        everyone = master.family.workers.values()
        if master.incoming is not None or any(worker.is_leaving or not worker.is_ready for worker in everyone):
            return  # one at a time
        for worker in sorted(generation.ready, key=lambda worker: worker.started):  # or a busy slot would keep the turn
            reason = self._why(generation, worker)
            if reason is not None:
                master.replace_first(worker, f"is due: {reason}", "recycled")
                return

    def _sample(self, generation: Generation) -> None:
        before, self._samples = self._samples, {}
        for worker in generation.ready:
            self._samples[worker] = (before[worker][1] if worker in before else 0, resident_bytes(worker.pid))
        limit, least = generation.settings.max_memory, resident_bytes(generation.loader.pid if generation.loader else None)
        if limit < least and self._hopeless is not generation:
            self._hopeless = generation
            log.warning(
                "max_memory: %.1f MiB is less than the %.1f MiB that each worker starts with; nobody is replaced for it",
                limit / 2**20,
                least / 2**20,
            )

    def _why(self, generation: Generation, worker: WorkerProcess) -> str | None:
        settings = generation.settings
        share = 1 + worker.slot / (2 * max(1, generation.size))
        requests = self._master.board.row(worker.index)[REQUESTS]
        if settings.max_requests and requests >= settings.max_requests * share:
            return f"{requests} requests"
        if settings.max_lifetime and worker.uptime >= settings.max_lifetime * share:
            return f"{worker.uptime:.0f} s old"
        if settings.max_memory and self._hopeless is not generation:
            size = min(self._samples.get(worker, (0, 0)))
            if size > settings.max_memory:
                return f"{size / 2**20:.1f} MiB of memory"
        return None

"""Workers that have served long enough, answered enough or grown enough: replaced one at a time, and without losing a call.

Limits of requests and age are spread over the slots, up to half as much again for the last, or workers that started
together would all be due together. A limit of memory counts when two samples in a row are above it: what a single large call takes
is given back.

Two harder limits are for what grows too fast for that. ``kill_memory``: replacement first, then SIGKILL, and at twice as much without a
replacement. The container's own: before the kernel kills somebody of its choice, the worker that has most is recycled.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prefork.application import EX_SOFTWARE
from prefork.primitives import monotonic
from prefork.scoreboard import REQUESTS
from prefork.status import resident_bytes

if TYPE_CHECKING:
    from prefork.generation import Generation, WorkerProcess
    from prefork.loop import Loop
    from prefork.master import Master

log = logging.getLogger("weego.master")

#: Between two looks.
TICK = 1.0

#: Of the container's memory: from here on the kernel may have to kill before long.
SCARCE = 0.9

#: A worker has to have so many times what it was born with to be blamed for that, and the next is not blamed before what this one
#: had is free.
BLAME = 1.5
BLAME_SECONDS = 10.0

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
        self._blamed = -BLAME_SECONDS
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
        master.memory.look()
        if generation.settings.kill_memory:
            self._cut(generation.settings.kill_memory)
        if generation.settings.max_memory and self._looks % LOOKS_PER_SAMPLE == 0:
            self._sample(generation)
        self._looks += 1
        everyone = master.family.workers.values()
        if master.incoming is not None or any(worker.is_leaving or not worker.is_ready for worker in everyone):
            return  # one at a time
        for worker in sorted(generation.ready, key=lambda worker: worker.started):  # or a busy slot would keep the turn
            reason = self._why(generation, worker)
            if reason is not None:
                master.crew.replace_first(worker, f"is due: {reason}", "recycled")
                return
        self._relieve(generation)

    def _cut(self, limit: int) -> None:
        """End workers that have more memory than they may have, whatever else they are doing."""
        for worker in list(self._master.family.workers.values()):
            size = resident_bytes(worker.pid)
            if size <= limit or worker.is_doomed:
                continue
            words = f"has {size / 2**20:.1f} MiB of memory, more than kill_memory"
            if worker.is_draining or not worker.is_ready or size > 2 * limit:
                log.warning("%r %s: SIGKILL", worker, words)
                worker.is_oversize = True
                worker.failure = f"it {words}", EX_SOFTWARE
                worker.kill()
            elif not worker.is_oversize:
                worker.is_oversize = True
                if not worker.is_leaving:
                    self._master.crew.replace_first(worker, words, "oversize")

    def _relieve(self, generation: Generation) -> None:
        """Recycle the worker that has most, if the container's memory is nearly used up and it is to blame."""
        used = self._master.memory.used()
        if used < SCARCE or monotonic() - self._blamed < BLAME_SECONDS:
            return
        born_with = resident_bytes(generation.loader.pid if generation.loader else None)
        sizes = {worker: resident_bytes(worker.pid) for worker in generation.ready}
        largest = max(sizes, key=lambda worker: sizes[worker], default=None)
        if largest is not None and sizes[largest] > BLAME * born_with > 0:
            self._blamed = monotonic()
            self._master.crew.replace_first(
                largest,
                f"is due: {used:.0%} of the container's memory are used, and it has most of it, {sizes[largest] / 2**20:.1f} MiB",
                "recycled",
            )

    def _sample(self, generation: Generation) -> None:
        before, self._samples = self._samples, {}
        for worker in generation.ready:
            self._samples[worker] = (before[worker][1] if worker in before else 0, resident_bytes(worker.pid))
        limit, least = (
            generation.settings.max_memory,
            resident_bytes(generation.loader.pid if generation.loader else None),
        )
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

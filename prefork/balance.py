"""Long-lived connections, spread anew: from a worker that has many to one that has few.

The connection-count gate keeps workers level while connections come and go. Where they stay for days, a worker that replaces a crashed one has
none and gets none. So once a second the fullest is compared with the emptiest, and when the gap stays, a part of it moves, in the way a reload
hands connections over: without the clients' noticing.

Only plain connections between two messages can move. A worker that could give none is left alone for a while.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prefork.primitives import monotonic, monotonic_ns
from prefork.scoreboard import BEAT_NS, CONNECTIONS, STALE_BEAT_NS

if TYPE_CHECKING:
    from prefork.generation import WorkerProcess
    from prefork.loop import Loop
    from prefork.master import Master

log = logging.getLogger("weego.master")

#: Between two looks, and how many in a row must find the same gap: a burst of connections levels itself.
TICK = 1.0
LOOKS = 3

#: A gap is worth it from so many connections, and from this share of the fullest worker's.
LEAST_GAP = 8
LEAST_SHARE = 0.2

#: Moved at one look: at 30 µs each no call waits noticeably longer for it.
MOST_AT_ONCE = 64

#: How long a worker that could give nothing is not asked again, and how long one that was asked may take.
PAUSE_SECONDS = 60.0
ANSWER_SECONDS = 10.0


class Balance:
    """Looks at the current generation of a master for as long as its loop runs."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._pair: tuple[WorkerProcess, WorkerProcess] | None = None
        self._looks = 0
        self._paused: dict[WorkerProcess, float] = {}
        """Until when."""

    def start(self, loop: Loop) -> None:
        """From now on."""
        loop.after(TICK, self._tick)

    def shared(self, worker: WorkerProcess, given: int) -> None:
        """A worker has given what it could."""
        if given:
            self._paused.pop(worker, None)
        else:
            self._paused[worker] = monotonic() + PAUSE_SECONDS

    def _tick(self) -> None:
        master = self._master
        if master.is_stopping:
            return
        master.loop.after(TICK, self._tick)
        now = monotonic()
        self._paused = {
            worker: until for worker, until in self._paused.items() if until > now and worker.pid is not None
        }
        pair = self._uneven()
        self._looks = self._looks + 1 if pair is not None and pair == self._pair else 1
        self._pair = pair
        if pair is not None and self._looks >= LOOKS:
            self._level(*pair)

    def _uneven(self) -> tuple[WorkerProcess, WorkerProcess] | None:
        """Who has too many, who too few."""
        master, current = self._master, self._master.current
        if current is None or master.incoming is not None or not current.settings.rebalance:
            return None
        oldest_beat = monotonic_ns() - STALE_BEAT_NS
        fit = [
            worker
            for worker in current.ready
            if not (worker.is_leaving or worker.is_draining)
            and master.watch.trouble(worker) is None
            and master.board.row(worker.index)[BEAT_NS] >= oldest_beat
        ]
        givers = [worker for worker in fit if worker not in self._paused]
        if len(fit) < 2 or not givers:
            return None
        giver, taker = max(givers, key=self._count), min(fit, key=self._count)
        most, fewest = self._count(giver), self._count(taker)
        return (giver, taker) if most - fewest >= max(LEAST_GAP, LEAST_SHARE * most) else None

    def _count(self, worker: WorkerProcess) -> int:
        return int(self._master.board.row(worker.index)[CONNECTIONS])

    def _level(self, giver: WorkerProcess, taker: WorkerProcess) -> None:
        most, fewest = self._count(giver), self._count(taker)
        count = min((most - fewest) // 2, MOST_AT_ONCE)
        log.info("%r has %d connections and %r %d: it gives up to %d of them", giver, most, taker, fewest, count)
        self._paused[giver] = monotonic() + ANSWER_SECONDS
        self._master.crew.connect(giver, taker)
        self._master.family.tell(giver, {"is": "share", "row": taker.index, "count": count})

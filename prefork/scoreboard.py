"""The scoreboard: what every worker is doing, in memory that all processes share.

It is one memfd of 64-bit cells, 64 to a row, 512 bytes. Row 0 is the header, row 1 sums up the dead, the others are
workers. A worker keeps its row for life; a slot has two rows while an old worker drains and its successor serves.

Rules
 1. A row has one writer at a time: the master while the row is free or its worker is dead, else that worker. Header and
    retired row are the master's, but for H_SPEAKER, the worker that speaks for all, which workers change by
    compare-and-swap. Nobody locks; an aligned 8-byte store is seen whole.
 2. Gauges fall back to zero with their worker. Counters are added to the retired row by the master, once the worker has
    been waited for, so totals never go backwards. A reader that meets this move looks again (SEQ is odd during it).
 3. Times are CLOCK_MONOTONIC nanoseconds, which is one clock for all processes of a machine.

A native reader finds cell c of row i at ``(FIRST_ROW + i) * ROW_CELLS + c``.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from prefork.primitives import memfd_create, monotonic_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW_CELLS = 64
FIRST_ROW = 2

# Header cells.
H_MAGIC, H_LAYOUT, H_CAPACITY, H_HIGH, H_GENERATION, H_SEQ, H_MASTER_PID, H_SPEAKER = range(8)
MAGIC = 0x7765_6567_6F42  # "weegoB"
#: Of all that is above and below. What takes a free cell leaves it as it is, for old code neither writes nor reads there: zero is what it says. Another
#: number means that running servers cannot be upgraded in place.
LAYOUT = 2

# Who: written by the master when it gives the row away, then by the worker.
PID, SLOT, GENERATION, STATE, BEAT_NS, LOOP_SEQ = range(6)
# Gauges.
CONNECTIONS, INFLIGHT, OLDEST_START_NS, METHOD, RSS_KB = range(6, 11)
SPEAKS = 11  # 1: it has told the registry of the service, and has not taken that back
# Counters: from here to the end of the row everything is folded. From 24 on they are the assembly's.
FIRST_COUNTER = 16
REQUESTS, ERRORS, ACCEPTED, BYTES_IN, BYTES_OUT, HANDED_OVER, ADOPTED, REFUSED_CALLS = range(16, 24)
LOG_DROPPED, CLIENT_CALLS, CLIENT_ERRORS, CLIENT_RETRIES, CLIENT_HEDGES = range(24, 29)
FIRST_ABUSE = 32  # one for each of ``status.ABUSES``
FIRST_FREE_COUNTER = 48

# States.
FREE, SPAWNED, BOOTING, READY, DRAINING = range(5)
STATE_NAMES = ("free", "spawned", "booting", "ready", "draining")

#: Rows of a board: four generations of the largest number of workers (256), twice over for workers that leave and wait
#: for their replacement. The file is sparse, untouched rows cost nothing.
CAPACITY = 2048

#: A worker whose beat is older is stopped, stuck or starved: its low connection count must not hold the others back.
#: Beats come every 100 ms at least, so two may be missed.
STALE_BEAT_NS = 250_000_000

#: Up to this many connections the gate allows no slack, so few long-lived connections spread evenly; above it a
#: worker may be 5 % ahead, or workers would take turns at registering the listener for every single connection.
GATE_EXACT = 64
GATE_SLACK_DIVISOR = 20

#: Looks a reader takes at totals while the master folds. A fold takes microseconds; a master that died inside one must
#: not hang its workers.
_TOTAL_TRIES = 100


class Scoreboard:
    """A mapped board. Made by the master with ``create``, by workers with ``attach``."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.cells: memoryview = memoryview(self._map).cast("q")
        if (self.cells[H_MAGIC], self.cells[H_LAYOUT]) != (MAGIC, LAYOUT):
            raise ValueError(
                f"not a scoreboard of this version: it has layout {self.cells[H_LAYOUT]} and this code {LAYOUT}; restart the server instead, its counters begin anew"
            )

    @classmethod
    def create(cls, capacity: int = CAPACITY) -> Scoreboard:
        """A new board with ``capacity`` free rows."""
        fd = memfd_create("weego-scoreboard", os.MFD_CLOEXEC)
        os.ftruncate(fd, (FIRST_ROW + capacity) * ROW_CELLS * 8)
        header = b"".join(value.to_bytes(8, "little") for value in (MAGIC, LAYOUT, capacity))
        os.pwrite(fd, header, 0)
        return cls(fd)

    @classmethod
    def attach(cls, fd: int) -> Scoreboard:
        """The board behind ``fd``. Raises ValueError if it is of another layout."""
        return cls(fd)

    def close(self) -> None:
        """Unmap, unless somebody still holds a view of the cells, and close the descriptor."""
        try:
            self.cells.release()
            self._map.close()
        except BufferError:
            pass
        os.close(self.fd)

    # -- reading --------------------------------------------------------------------------------------------------------

    def row(self, index: int) -> memoryview:
        """The 64 cells of one worker, writable."""
        start = (FIRST_ROW + index) * ROW_CELLS
        return self.cells[start : start + ROW_CELLS]

    def rows(self) -> Iterator[int]:
        """Indexes of the rows that a worker has."""
        cells = self.cells
        for index in range(cells[H_HIGH]):
            if cells[(FIRST_ROW + index) * ROW_CELLS + STATE] != FREE:
                yield index

    @property
    def generation(self) -> int:
        """The generation that serves new connections."""
        return int(self.cells[H_GENERATION])

    def total(self, column: int) -> int:
        """Sum of a counter over all workers that live or ever lived, or of a gauge over those that live."""
        cells = self.cells
        total = 0
        for _ in range(_TOTAL_TRIES):
            seq = cells[H_SEQ]
            total = cells[ROW_CELLS + column]
            for index in range(cells[H_HIGH]):
                total += cells[(FIRST_ROW + index) * ROW_CELLS + column]
            if seq == cells[H_SEQ] and not seq & 1:
                break
        return total

    # -- the master's ---------------------------------------------------------------------------------------------------

    def publish(self, generation: int, master_pid: int) -> None:
        """Make ``generation`` the one whose workers may accept: one store, all see it at once."""
        self.cells[H_MASTER_PID] = master_pid
        self.cells[H_GENERATION] = generation

    def allot(self, slot: int, generation: int) -> int:
        """Give a free row to a worker about to be forked. Raises RuntimeError if there is none."""
        cells = self.cells
        for index in range(cells[H_CAPACITY]):
            row = self.row(index)
            if row[STATE] == FREE:
                row[PID], row[SLOT], row[GENERATION], row[BEAT_NS] = 0, slot, generation, monotonic_ns()
                row[STATE] = SPAWNED
                cells[H_HIGH] = max(cells[H_HIGH], index + 1)
                return index
        raise RuntimeError(f"all {cells[H_CAPACITY]} rows of the scoreboard are taken")

    def retire(self, index: int) -> None:
        """Fold the counters of a dead worker into the retired row and free its row."""
        cells = self.cells
        row = self.row(index)
        cells[H_SEQ] += 1
        for column in range(FIRST_COUNTER, ROW_CELLS):
            cells[ROW_CELLS + column] += row[column]
            row[column] = 0
        for column in range(FIRST_COUNTER):
            row[column] = 0
        high = cells[H_HIGH]
        while high and cells[(FIRST_ROW + high - 1) * ROW_CELLS + STATE] == FREE:
            high -= 1
        cells[H_HIGH] = high
        cells[H_SEQ] += 1


def may_accept(board: Scoreboard, index: int, now_ns: int | None = None) -> bool:
    """Whether the worker of row ``index`` should have the listener registered: the connection-count gate.

    It should while its connections are at most the fewest of any eligible worker, plus a slack. Eligible are ready
    workers of the published generation with a fresh beat; the worker that asks is eligible by asking. Cost: a look
    at one cell of each row, three more for those that count.
    """
    cells = board.cells
    own = (FIRST_ROW + index) * ROW_CELLS
    generation = cells[H_GENERATION]
    if cells[own + STATE] != READY or cells[own + GENERATION] != generation:
        return False
    oldest_beat = (monotonic_ns() if now_ns is None else now_ns) - STALE_BEAT_NS
    count = fewest = cells[own + CONNECTIONS]
    for start in range(FIRST_ROW * ROW_CELLS, (FIRST_ROW + cells[H_HIGH]) * ROW_CELLS, ROW_CELLS):
        if (
            cells[start + CONNECTIONS] < fewest
            and cells[start + STATE] == READY
            and cells[start + GENERATION] == generation
            and cells[start + BEAT_NS] >= oldest_beat
        ):
            fewest = cells[start + CONNECTIONS]
    slack = 0 if fewest <= GATE_EXACT else fewest // GATE_SLACK_DIVISOR
    return bool(count <= fewest + slack)

"""Calls by service and method, with how they ended and how long they took: a table in the application's memory that outlives its generations.

Workers write, the master reads, and nobody locks: a row is claimed by compare-and-swap of its mark, never given back, and from then on only added
to, one atomic addition at a time. So its numbers never go backwards, whoever is killed or replaced. Names come from the services that are
served and called, never from a peer, and there is an end to them: what finds no row counts in that of ``OTHER``.

Layout, in 64-bit cells from ``OFFSET`` on: a head of ``HEAD_CELLS`` whose first one is ``MAGIC``; for each of ``SIDES`` ``MOST_METHODS`` rows, the first
that of ``OTHER``. A row: its mark (0: nobody's, and so are all behind it), the bytes of its name (0: it is being written), the name,
``service``, a zero byte, ``method``; then ``STRIPES`` times ``STRIPE_CELLS``: calls by code, microseconds in all, calls by bucket of ``BOUNDS``.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of "weegoT" and this layout: raise the last digits when it changes. Code of another layout counts nothing here.
MAGIC = 0x7765_6567_6F54_01

#: Where it begins in the file. What is before belongs to the application; the file is sparse, and untouched pages cost nothing.
OFFSET = 1 << 30

SIDES = ("server", "client")

#: Services have tens of methods; each is some twenty time series for Prometheus, so thousands would be its trouble before they are ours.
MOST_METHODS = 256
OTHER = "other"

#: The longest name, in bytes. Longer ones count as ``OTHER``.
NAME_BYTES = 240

#: Workers add to the stripe of their slot: two cores that add to one cell wait for each other's cache.
STRIPES = 4

#: gRPC's and our canonical codes.
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip

#: Upper bounds of the buckets in seconds. Prometheus' own default, 5 ms to 10 s, with the steps below that a call between two machines of one
#: room falls into. They are the same everywhere and for good, since histograms of different buckets cannot be summed up.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, float("inf"))

HEAD_CELLS = 512  # a page
NAME_CELLS = 2 + NAME_BYTES // 8
USED_CELLS = len(CODES) + 1 + len(BOUNDS)
STRIPE_CELLS = 40  # USED_CELLS in whole cache lines
ROW_CELLS = NAME_CELLS + STRIPES * STRIPE_CELLS
CELLS = HEAD_CELLS + len(SIDES) * MOST_METHODS * ROW_CELLS


class Row(NamedTuple):
    """What was counted of one method."""

    service: str
    method: str
    codes: tuple[int, ...]
    """Calls by ``CODES``."""
    microseconds: int
    buckets: tuple[int, ...]
    """Calls by ``BOUNDS``, each call in one of them."""


def row_start(side: int, number: int) -> int:
    """The first cell of a row."""
    return HEAD_CELLS + (side * MOST_METHODS + number) * ROW_CELLS


class Reader:
    """The table in the file ``fd``, once somebody has written one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._cells: memoryview | None = None

    def rows(self, side: str) -> list[Row]:
        """All rows of one of ``SIDES``, sorted by name; none while nobody counts."""
        cells = self._table()
        return [] if cells is None else sorted(_rows(cells, SIDES.index(side)), key=lambda row: (row.service, row.method))

    def _table(self) -> memoryview | None:
        if self._cells is None and self._fd >= 0 and os.fstat(self._fd).st_size >= OFFSET + CELLS * 8:
            self._cells = memoryview(mmap.mmap(self._fd, CELLS * 8, access=mmap.ACCESS_READ, offset=OFFSET)).cast("q")
        return self._cells if self._cells is not None and self._cells[0] == MAGIC else None


def _rows(cells: memoryview, side: int) -> Iterator[Row]:
    for number in range(MOST_METHODS):
        start = row_start(side, number)
        if number and not cells[start]:
            return
        size = cells[start + 1]
        if not size:
            continue
        name = cells[start + 2 : start + NAME_CELLS].tobytes()[:size]
        service, _, method = name.decode(errors="replace").partition("\0")
        sums = [0] * USED_CELLS
        for stripe in range(start + NAME_CELLS, start + ROW_CELLS, STRIPE_CELLS):
            for at, value in enumerate(cells[stripe : stripe + USED_CELLS]):
                sums[at] += value
        codes = len(CODES)
        yield Row(service, method, tuple(sums[:codes]), sums[codes], tuple(sums[codes + 1 :]))

"""The worker's side of `prefork.tally`: finds, or claims, the row where the calls of a method are counted."""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
from typing import Final

from governance.cells import Cells
from governance.meter import TALLY_BOUNDS, TALLY_CELLS, Tally
from prefork.tally import (
    BOUNDS,
    CELLS,
    MAGIC,
    MOST_METHODS,
    NAME_BYTES,
    NAME_CELLS,
    OFFSET,
    OTHER,
    SIDES,
    STRIPE_CELLS,
    STRIPES,
    USED_CELLS,
    row_start,
)

__all__ = ["Tallies", "open_tallies"]

log = logging.getLogger("weego.governance")

# One room writes what the other reads, and neither may import the other.
assert (TALLY_BOUNDS, TALLY_CELLS) == (BOUNDS, USED_CELLS)

_OTHER: Final = (OTHER, OTHER)


def open_tallies(fd: int) -> Tallies | None:
    """The table in the file `fd`, made if there is none yet. None where the system refuses, or where it is of another layout: nothing is counted then."""
    try:
        if os.fstat(fd).st_size < OFFSET + CELLS * 8:
            os.ftruncate(fd, OFFSET + CELLS * 8)  # all do it alike, so it does not matter who comes first
        cells = Cells(mmap.mmap(fd, CELLS * 8, offset=OFFSET))
    except OSError as error:  # a limit of file sizes (ulimit -f), or of memory
        log.warning("no memory for the metrics by method: %s; they are left out", error.strerror)
        return None
    if not cells.swap(0, 0, MAGIC) and cells.load(0) != MAGIC:
        log.warning("the master counts calls by method in another layout: they are left out of the metrics until it is restarted")
        return None
    return Tallies(cells)


class Tallies:
    """`server` and `client` find the Tally of a method. Set `stripe` before, in each worker: its slot."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._found: dict[tuple[str, str, str], Tally] = {}
        self._full: set[str] = set()
        self.stripe = 0

    def server(self, service: str, method: str) -> Tally:
        """Of a method that is served. Without names: of what there is not."""
        return self._find("server", service, method)

    def client(self, service: str, method: str) -> Tally:
        """Of a method that is called."""
        return self._find("client", service, method)

    def _find(self, side: str, service: str, method: str) -> Tally:
        found = self._found.get((side, service, method))
        if found is None:
            start = self._claim(side, f"{service}\0{method}".encode())
            at = start + NAME_CELLS + self.stripe % STRIPES * STRIPE_CELLS
            found = self._found.setdefault((side, service, method), Tally(self._cells.part(at, USED_CELLS)))
        return found

    def _claim(self, side: str, name: bytes) -> int:
        """The first cell of the row of this name, or of the one for all others."""
        cells, number = self._cells, SIDES.index(side)
        if name != b"\0" and len(name) <= NAME_BYTES:
            mark = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1 | 1
            for row in range(1, MOST_METHODS):
                start = row_start(number, row)
                # Rows are taken in turn and never given back, so a name that has one is met before the first free one.
                if cells.load(start) == mark or cells.swap(start, 0, mark) or cells.load(start) == mark:
                    self._write(start, name)
                    return start
            if side not in self._full:
                self._full.add(side)
                log.warning("more than %d methods of the %s side: %s and others count as %r in the metrics", MOST_METHODS - 1, side, name.decode(), OTHER)
        start = row_start(number, 0)
        self._write(start, "\0".join(_OTHER).encode())
        return start

    def _write(self, start: int, name: bytes) -> None:
        """Whoever has the mark writes the name, and all write the same: the one who was first may have died over it."""
        if not self._cells.load(start + 1):
            for at in range(0, len(name), 8):
                self._cells.store(start + 2 + at // 8, int.from_bytes(name[at : at + 8].ljust(8, b"\0"), "little", signed=True))
            self._cells.store(start + 1, len(name))

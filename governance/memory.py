"""One stretch of shared memory, cut by name: all processes that have it find the same cells under the same name.

    memory = Memory.shared()                     # before the fork
    memory.find("breaker", "item/get", 108)      # afterwards, in any process: the same Cells

Names come up while processes run – a service that is called for the first time, an instance that appeared – so a place is claimed in the memory
itself: a slot's first cell holds the name's hash, set by compare-and-swap. A place is never given back while the memory lives; when no slot
of a kind is left, the caller gets cells of its own process and the policy counts there alone.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
from typing import Final

from governance.breaker import BREAKER_CELLS
from governance.budget import BUDGET_CELLS
from governance.cells import Cells
from governance.limits import MOST_SEATS, Seats

__all__ = ["Memory"]

log = logging.getLogger("weego.governance")

# kind: slots, cells of a slot. Pages that nobody touches cost nothing: the mapping is sparse.
KINDS: Final = {
    "breaker": (2048, BREAKER_CELLS),
    "rate": (1024, 1),
    "concurrency": (512, MOST_SEATS),
    "counter": (4096, 32),
    "budget": (256, BUDGET_CELLS),
}


class Memory:
    """Cells by kind and name. Without a buffer: this process's own, made as they are asked for."""

    def __init__(self, buffer: mmap.mmap | None = None) -> None:
        self._cells = None if buffer is None else Cells(buffer)
        self._found: dict[tuple[str, str], Cells] = {}
        self._start: dict[str, int] = {}
        self._full: set[str] = set()
        start = MOST_SEATS
        for kind, (slots, width) in KINDS.items():
            self._start[kind] = start
            start += slots * (width + 1)
        self.seats_cells = Cells(count=1) if self._cells is None else self._cells.part(0, MOST_SEATS)
        self.seats = Seats(self.seats_cells)

    @classmethod
    def shared(cls) -> Memory:
        """Memory that this process's children share with it and with each other."""
        size = MOST_SEATS + sum(slots * (width + 1) for slots, width in KINDS.values())
        return cls(mmap.mmap(-1, size * 8))

    @property
    def is_shared(self) -> bool:
        """Do other processes see it?"""
        return self._cells is not None

    def find(self, kind: str, name: str) -> Cells:
        """The cells of `name`, zero when it is new. `kind` is one of KINDS and fixes how many there are."""
        found = self._found.get((kind, name))
        if found is None:
            found = self._found.setdefault((kind, name), self._claim(kind, name))
        return found

    def _claim(self, kind: str, name: str) -> Cells:
        slots, width = KINDS[kind]
        if self._cells is None:
            return Cells(count=self.seats.count if kind == "concurrency" else width)
        mark = int.from_bytes(hashlib.blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest(), "little") >> 1 | 1
        for probe in range(slots):
            at = self._start[kind] + (mark + probe) % slots * (width + 1)
            if self._cells.load(at) == mark or self._cells.swap(at, 0, mark) or self._cells.load(at) == mark:
                return self._cells.part(at + 1, width)
        if kind not in self._full:
            self._full.add(kind)
            log.warning("all %d shared places for a %s are taken: %s counts in this process alone", slots, kind, name)
        return Cells(count=width)

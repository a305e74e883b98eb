"""One stretch of shared memory, cut by name: all processes that have it find the same cells under the same name.

    memory = Memory.shared()                     # before the fork
    memory.find("breaker", "item/get", 108)      # afterwards, in any process: the same Cells

Names come up while processes run – a service that is called for the first time, an instance that appeared – so a place is claimed in the memory
itself: a slot's first cell holds the name's hash, set by compare-and-swap. A place is never given back while the memory lives; when no slot
of a kind is left, the caller gets cells of its own process and the policy counts there alone.

    memory = Memory.behind(fd)                   # in a file (a memfd) that outlives the process, and whoever finds it next

Such a file may outlive the code as well. It has a region for each layout of the cells, claimed likewise, so code that lays them out otherwise
finds none of these and begins with a region of its own, while the processes of before go on with theirs.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
from collections.abc import Callable
from typing import Final

from governance.breaker import BREAKER_CELLS
from governance.budget import BUDGET_CELLS
from governance.cells import Cells
from governance.limits import MOST_SEATS, Seats
from governance.meter import Tally

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

# Raise it when cells are laid out otherwise than before although their numbers are the same.
LAYOUT_VERSION: Final = 1
# Of a file: its head, which says whose region is whose, and room for so many layouts. Only what is touched takes memory.
HEAD_BYTES: Final = 64 * 1024  # a page of any machine
REGION_BYTES: Final = 64 << 20
MOST_LAYOUTS: Final = 8


class Memory:
    """Cells by kind and name. Without a buffer: this process's own, made as they are asked for."""

    def __init__(self, buffer: mmap.mmap | None = None) -> None:
        self._cells = None if buffer is None else Cells(buffer)
        self._found: dict[tuple[str, str], Cells] = {}
        self._start: dict[str, int] = {}
        self._full: set[str] = set()
        self.tally_of: Callable[[str, str], Tally | None] = lambda service, method: None
        """Where calls to a service's method are counted for whoever supervises this process; None: nowhere."""
        start = MOST_SEATS + 1
        for kind, (slots, width) in KINDS.items():
            self._start[kind] = start
            start += slots * (width + 1)
        self.seats_cells = Cells(count=1) if self._cells is None else self._cells.part(0, MOST_SEATS)
        self.seats = Seats(self.seats_cells, high=None if self._cells is None else self._cells.part(MOST_SEATS, 1))

    @classmethod
    def shared(cls) -> Memory:
        """Memory that this process's children share with it and with each other."""
        return cls(mmap.mmap(-1, _size()))

    @classmethod
    def behind(cls, fd: int) -> Memory:
        """Memory that all who have the file `fd` share, whenever they come; the descriptor may be closed afterwards. Where the system refuses, as `shared`."""
        try:
            region = _claim_region(fd)
        except OSError as error:  # a limit of file sizes (ulimit -f), or of memory
            log.warning("no memory for counts that outlive a reload: %s; they begin anew with each", error.strerror)
            return cls.shared()
        if region is None:
            log.warning("%d layouts of shared counters since the start: counts begin anew with each reload; a restart mends it", MOST_LAYOUTS)
            return cls.shared()
        return cls(region)

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
        mark = _mark(f"{kind}\0{name}")
        for probe in range(slots):
            at = self._start[kind] + (mark + probe) % slots * (width + 1)
            if self._cells.load(at) == mark or self._cells.swap(at, 0, mark) or self._cells.load(at) == mark:
                return self._cells.part(at + 1, width)
        if kind not in self._full:
            self._full.add(kind)
            log.warning("all %d shared places for a %s are taken: %s counts in this process alone", slots, kind, name)
        return Cells(count=width)


def _claim_region(fd: int) -> mmap.mmap | None:
    """That of our layout in a file; None when there is no room for one more. Raises OSError."""
    size = HEAD_BYTES + MOST_LAYOUTS * REGION_BYTES
    if os.fstat(fd).st_size < size:
        os.ftruncate(fd, size)  # all do it alike, so it does not matter who comes first
    head = Cells(mmap.mmap(fd, HEAD_BYTES))
    mark = _mark(repr((LAYOUT_VERSION, MOST_SEATS, KINDS)))
    for number in range(MOST_LAYOUTS):
        if head.load(number) == mark or head.swap(number, 0, mark) or head.load(number) == mark:
            return mmap.mmap(fd, _size(), offset=HEAD_BYTES + number * REGION_BYTES)
    return None


def _mark(name: str) -> int:
    """What stands for a name in a cell; never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1 | 1


def _size() -> int:
    """Bytes of all cells."""
    return 8 * (MOST_SEATS + 1 + sum(slots * (width + 1) for slots, width in KINDS.values()))

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How many calls, how they ended, how long they took: counted in cells that all workers may share."""

import os

from governance.cells cimport add, load

__all__ = ["BOUNDS", "METER_CELLS", "TALLY_BOUNDS", "TALLY_CELLS", "Meter", "Tally", "totals"]

cdef enum:
    CODES = 17            # Code, 0 to 16
    RETRIES = 17
    HEDGES = 18
    MICROSECONDS = 19
    BUCKETS = 20
    COUNT_OF_BUCKETS = 12

METER_CELLS = BUCKETS + COUNT_OF_BUCKETS

# Upper bounds of the latency buckets, seconds; the last is everything.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, float("inf"))

# What a tally has: code cells, microseconds, and more buckets, for it is read where nothing else is known of a method.
TALLY_BOUNDS = (*BOUNDS[:COUNT_OF_BUCKETS - 1], 2.5, 5.0, 10.0, float("inf"))
cdef enum:
    TALLY_MICROSECONDS = CODES
    TALLY_BUCKETS = CODES + 1
    COUNT_OF_TALLY_BUCKETS = 15
TALLY_CELLS = TALLY_BUCKETS + COUNT_OF_TALLY_BUCKETS

cdef double[15] _tally_bounds
cdef int _j
for _j in range(COUNT_OF_TALLY_BUCKETS):
    _tally_bounds[_j] = TALLY_BOUNDS[_j]

cdef double[12] _bounds
cdef int _i
for _i in range(COUNT_OF_BUCKETS):
    _bounds[_i] = BOUNDS[_i]


# Of this process alone, for counters that a supervisor sums up over its processes.
cdef int64_t[4] _totals
_totals[0] = _totals[1] = _totals[2] = _totals[3] = 0


def totals():
    """Calls, failed ones, retries and hedges of this process so far."""
    return _totals[0], _totals[1], _totals[2], _totals[3]


def _forget():
    """In a forked child: what was counted is the parent's."""
    _totals[0] = _totals[1] = _totals[2] = _totals[3] = 0


os.register_at_fork(after_in_child=_forget)


cdef class Tally:
    """The calls of one method, for whoever supervises this process: in cells that it can read, TALLY_CELLS of them."""

    def __init__(self, Cells cells not None):
        self.cells = cells
        self.cell = cells.at(0, TALLY_BUCKETS + COUNT_OF_TALLY_BUCKETS)

    cpdef int record(self, double seconds, int code) except -1:
        """A call took so long and ended with this Code."""
        cdef int bucket = 0
        add(self.cell + (code if 0 <= code < CODES else 2), 1)
        add(self.cell + TALLY_MICROSECONDS, <int64_t>(seconds * 1e6) if seconds > 0 else 0)
        while bucket < COUNT_OF_TALLY_BUCKETS - 1 and seconds > _tally_bounds[bucket]:
            bucket += 1
        add(self.cell + TALLY_BUCKETS + bucket, 1)
        return 0


cdef class Meter:
    """The calls of one method of one service. What it counts is added to `tally` as well, if there is one."""

    def __init__(self, str service, str method, Cells cells=None, Tally tally=None):
        self.tally = tally
        self.service = service
        self.method = method
        self.cells = Cells(None, 0, BUCKETS + COUNT_OF_BUCKETS) if cells is None else cells
        self.cell = self.cells.at(0, BUCKETS + COUNT_OF_BUCKETS)

    cpdef int record(self, double seconds, int code) except -1:
        """A call took so long and ended with this Code."""
        cdef int bucket = 0
        _totals[0] += 1
        if code:
            _totals[1] += 1
        add(self.cell + (code if 0 <= code < CODES else 2), 1)
        add(self.cell + MICROSECONDS, <int64_t>(seconds * 1e6))
        while bucket < COUNT_OF_BUCKETS - 1 and seconds > _bounds[bucket]:
            bucket += 1
        add(self.cell + BUCKETS + bucket, 1)
        if self.tally is not None:
            self.tally.record(seconds, code)
        return 0

    cpdef int retried(self) except -1:
        """A further attempt, after one that failed."""
        _totals[2] += 1
        add(self.cell + RETRIES, 1)
        return 0

    cpdef int hedged(self) except -1:
        """A further attempt, beside one that is slow."""
        _totals[3] += 1
        add(self.cell + HEDGES, 1)
        return 0

    def snapshot(self):
        """Counts by code (those that are not 0), retries, hedges, seconds in all, and counts by bucket of BOUNDS."""
        cdef int i
        return {
            "service": self.service,
            "method": self.method,
            "codes": {i: load(self.cell + i) for i in range(CODES) if load(self.cell + i)},
            "retries": load(self.cell + RETRIES),
            "hedges": load(self.cell + HEDGES),
            "seconds": load(self.cell + MICROSECONDS) / 1e6,
            "buckets": [load(self.cell + BUCKETS + i) for i in range(COUNT_OF_BUCKETS)],
        }

    def __repr__(self):
        return f"<Meter {self.service}.{self.method}>"

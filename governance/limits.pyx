# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How many at one time, how many a second: the counting below the limiter, over one process or all workers of a host.

Both count in cells that are handed in. `Rate` keeps one cell: the instant at which the bucket would be full again, in whole nanoseconds,
moved by compare-and-swap (the generic cell rate algorithm, a token bucket that needs no refill). It is exact at any rate, 1 per second included, and all
who share the cell share the rate.

`Concurrency` has a row of cells, one for each process, so that what a killed process held is known to be nobody's: its seat is taken over, or
emptied, once the process is gone.
"""

import os
import weakref

from governance.cells cimport add, load, store, swap
from poller.clock cimport monotonic

__all__ = ["MOST_SEATS", "Concurrency", "Rate", "Seats"]

# Processes that count together: the workers of four generations (256 each at most) – one that serves, one that boots, two that drain –, and
# those that replace some of them.
MOST_SEATS = 1100

# Part of a second's worth that may come at once where nothing else is said.
cdef double DEFAULT_BURST = 0.1


cdef class Rate:
    """At most `rate` a second, of which `burst` may come at once (default: a tenth of a second's worth, at least 1).

    In any stretch of t seconds at most ``burst + rate * t`` are let through. A rate of 0 lets nothing through.
    """

    def __init__(self, double rate, double burst=0, *, Cells cells=None, clock=None):
        if rate < 0 or burst < 0:
            raise ValueError(f"a rate and its burst are 0 or more, got {rate:g} and {burst:g}")
        self.rate = rate
        self.burst = burst or max(1.0, rate * DEFAULT_BURST)
        self.cells = Cells(None, 0, 1) if cells is None else cells
        self.cell = self.cells.at(0, 1)
        self.clock = clock
        self.every = max(<int64_t>1, <int64_t>(1e9 / rate)) if rate else 0
        self.slack = <int64_t>(max(self.burst, 1.0) * self.every)

    cpdef bint take(self) except -1:
        """Take one; False when there is none now."""
        cdef int64_t now, full, later
        if not self.every:
            return False
        now = <int64_t>((monotonic() if self.clock is None else <double>self.clock()) * 1e9)
        while True:
            full = load(self.cell)
            if full - now > self.slack:  # the rate was lower when that was written: nobody waits longer than by the one of today
                swap(self.cell, full, now + self.slack)
                continue
            later = (full if full > now else now) + self.every
            if later - now > self.slack:
                return False
            if swap(self.cell, full, later):
                return True

    def __repr__(self):
        return f"<Rate {self.rate:g}/s, burst {self.burst:g}>"


cdef class Seats:
    """Who counts: one cell for each process, with its pid. A process takes its seat when it counts first, after a fork anew.

    `alive(pid)` says whether a process still runs; the default asks the kernel. `high`: a cell that all share, for the number of seats that were ever
    taken, the lowest first; those above need not be looked at for a sum.
    """

    def __init__(self, Cells cells=None, *, Cells high=None, alive=None):
        self.cells = Cells(None, 0, 1) if cells is None else cells
        self.high = high
        self.high_cell = NULL if high is None else high.at(0, 1)
        self.count = self.cells.size
        self.mine = -1
        self.owner = 0
        self.rows = []
        self.alive = _is_alive if alive is None else alive
        _seats.add(self)

    def join(self, row):
        """A row of cells, one for each seat, that is to be emptied where a seat changes hands."""
        if not any(known is row for known in self.rows):
            self.rows.append(row)

    cdef Py_ssize_t seat(self) except -1:
        if self.mine < 0:
            self.mine = self.take_seat()
        return self.mine

    def take_seat(self):
        """Take a free seat, or that of a process that is gone. RuntimeError when there is none."""
        cdef Py_ssize_t i
        cdef int64_t holder
        cdef int64_t me = os.getpid()
        for i in range(self.count):
            holder = load(self.cells.at(i, 1))
            if holder and holder != me and self.alive(holder):
                continue
            if swap(self.cells.at(i, 1), holder, me):
                self.empty(i)
                self.raise_high(i + 1)
                return i
        raise RuntimeError(f"all {self.count} seats of the shared limits are taken")

    cdef int raise_high(self, int64_t taken) except -1:
        """Before anything is counted in the seat, or a sum could miss it."""
        cdef int64_t high
        while self.high_cell != NULL:
            high = load(self.high_cell)
            if high >= taken or swap(self.high_cell, high, taken):
                break
        return 0

    cdef Py_ssize_t taken(self) noexcept:
        """Seats from here on were never taken."""
        return self.count if self.high_cell == NULL else min(self.count, load(self.high_cell))

    def sweep(self):
        """Empty the seats of processes that are gone: what they had under way is no more."""
        cdef Py_ssize_t i
        cdef int64_t holder
        for i in range(self.taken()):
            holder = load(self.cells.at(i, 1))
            if holder and i != self.mine and not self.alive(holder) and swap(self.cells.at(i, 1), holder, -holder):
                self.empty(i)
                swap(self.cells.at(i, 1), -holder, 0)

    def empty(self, Py_ssize_t seat):
        """Zero the seat's cell in all rows."""
        cdef Cells row
        for row in self.rows:
            store(row.at(seat, 1), 0)

    def forget(self):
        """In a forked child: the seat is the parent's."""
        self.mine = -1


cdef class Concurrency:
    """At most `limit` at one time, counted over all who share `cells` and `seats`: ``enter`` and, if it said True, ``leave``."""

    def __init__(self, int64_t limit, *, Seats seats=None, Cells cells=None):
        if limit < 0:
            raise ValueError(f"a limit is 0 or more, got {limit}")
        self.limit = limit
        self.seats = Seats() if seats is None else seats
        self.cells = Cells(None, 0, self.seats.count) if cells is None else cells
        self.row = self.cells.at(0, self.seats.count)
        self.seats.join(self.cells)

    cdef int64_t total(self) noexcept:
        cdef int64_t total = 0
        cdef Py_ssize_t i
        for i in range(self.seats.taken()):
            total += load(self.row + i)
        return total

    cpdef bint enter(self) except -1:
        """One more; False, and nothing counted, when that would be too many."""
        cdef int64_t* mine = self.row + self.seats.seat()
        # First count, then look: two processes at the last free place may both be refused, but never both let in.
        add(mine, 1)
        if self.total() <= self.limit:
            return True
        add(mine, -1)
        return False

    cpdef int leave(self) except -1:
        """One is done."""
        add(self.row + self.seats.seat(), -1)
        return 0

    @property
    def current(self):
        """How many there are now, over all processes."""
        return self.total()

    def __repr__(self):
        return f"<Concurrency {self.total()} of {self.limit}>"


cdef object _seats = weakref.WeakSet()


def _forget_seats():
    for seats in list(_seats):
        seats.forget()


def _is_alive(pid):
    if pid < 0:  # somebody is emptying the seat just now
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


os.register_at_fork(after_in_child=_forget_seats)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How many retries the calls of a client may cost: so that a service in trouble gets a fraction more load, and not a multiple.

The purse lies in cells that all workers of a host may share: then they have one budget together, whatever their number. It counts in millionths of a
retry; every change is an addition or a compare-and-swap, so that nothing is lost and no killed worker leaves a lock behind.
"""

from governance.cells cimport add, load, swap
from poller.clock cimport monotonic

__all__ = ["BUDGET_CELLS", "Budget"]

cdef enum:
    CALLS = 0         # put in since somebody took
    PURSE = 1
    RESERVE = 2       # what time has put in
    AT = 3            # when the purse was last looked at (nanoseconds); 0: never
    ONE = 1_000_000   # a retry

# Of Finagle's RetryBudget: a fifth more than the calls, ten a second for clients that call rarely, saved up for ten seconds.
DEFAULT_RATIO = 0.2
DEFAULT_PER_SECOND = 10.0
DEFAULT_SAVED = 10.0
BUDGET_CELLS = 4


cdef class Budget:
    """A purse: each call puts in `ratio`, each second `per_second`, each retry takes 1 out. What is in it fades over `saved` seconds.

    `refused` counts the retries that this process could not pay for.
    """

    def __init__(self, double ratio=DEFAULT_RATIO, double per_second=DEFAULT_PER_SECOND, double saved=DEFAULT_SAVED, clock=None, *, Cells cells=None):
        if ratio < 0 or per_second < 0 or saved <= 0:
            raise ValueError(f"a retry budget cannot be negative: {ratio:g} a call, {per_second:g} a second, for {saved:g} s")
        self.ratio = ratio
        self.per_second = per_second
        self.saved = saved
        self.clock = clock
        self.cells = Cells(None, 0, BUDGET_CELLS) if cells is None else cells
        self.cell = self.cells.at(0, BUDGET_CELLS)
        self.deposit = <int64_t>(ratio * ONE)
        # Whoever comes first fills the reserve.
        if swap(self.cell + AT, 0, max(1, self.now())):
            add(self.cell + RESERVE, <int64_t>(per_second * saved * ONE))

    def now(self):
        return <int64_t>((monotonic() if self.clock is None else <double>self.clock()) * 1e9)

    cpdef int call(self) except -1:
        """A call was made."""
        add(self.cell + CALLS, self.deposit)
        return 0

    cpdef bint take(self) except -1:
        """Pay for a retry; False when there is nothing left."""
        self.catch_up()
        if self.spend(self.cell + PURSE) or self.spend(self.cell + RESERVE):
            return True
        self.refused += 1
        return False

    cdef int catch_up(self) except -1:
        """What has come in since, and what has faded: an hour of good weather must not pay for a storm."""
        cdef int64_t now = self.now()
        cdef int64_t before = load(self.cell + AT)
        cdef int64_t calls, purse, room
        cdef double passed
        if now > before and swap(self.cell + AT, before, now):  # who loses has the same time counted by another
            passed = (now - before) / 1e9
            purse = load(self.cell + PURSE)
            add(self.cell + PURSE, -<int64_t>(purse * min(1.0, passed / self.saved)))
            room = <int64_t>(self.per_second * self.saved * ONE) - load(self.cell + RESERVE)
            add(self.cell + RESERVE, max(0, min(room, <int64_t>(passed * self.per_second * ONE))))
        calls = load(self.cell + CALLS)
        if calls and swap(self.cell + CALLS, calls, 0):
            add(self.cell + PURSE, calls)
        return 0

    cdef bint spend(self, int64_t* cell) noexcept:
        cdef int64_t there = load(cell)
        while there >= ONE:
            if swap(cell, there, there - ONE):
                return True
            there = load(cell)
        return False

    @property
    def left(self):
        """Retries that could be paid for now."""
        return (load(self.cell + PURSE) + load(self.cell + CALLS) + load(self.cell + RESERVE)) / ONE

    def __repr__(self):
        return f"<Budget {self.left:.1f} left>"

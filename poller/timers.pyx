# cython: language_level=3, boundscheck=False, wraparound=False
"""Timers by the thousand: a heap with lazy cancellation.

Nearly every timer guards a call and is cancelled long before it is due. Cancelling only forgets the callback; when more than half of the
heap is forgotten it is rebuilt, so that memory follows the live timers and each operation costs O(log n) amortised.
"""

import logging
from heapq import heapify, heappop, heappush

# Below this size a heap is not worth rebuilding.
cdef Py_ssize_t COMPACT_FROM = 256

log = logging.getLogger("weego.worker")


cdef class Timer:
    """One timer; `cancel` makes it never fire."""

    cpdef void cancel(self) noexcept:
        """Never call back. Harmless when it has fired or was cancelled before."""
        if self.callback is not None:
            self.callback = None
            self.owner.cancelled += 1

    @property
    def active(self):
        """True until it fires or is cancelled."""
        return self.callback is not None

    def __repr__(self):
        return f"<Timer at {self.deadline:.6f} {'active' if self.active else 'done'}>"


cdef class Timers:
    """Callbacks by deadline. Deadlines are seconds of the monotonic clock."""

    def __cinit__(self):
        self.heap = []
        self.serial = 0
        self.cancelled = 0

    cdef Timer add(self, double deadline, object callback):
        cdef Timer t = Timer.__new__(Timer)
        t.deadline = deadline
        t.callback = callback
        t.owner = self
        self.serial += 1
        heappush(self.heap, (deadline, self.serial, t))
        if self.cancelled > COMPACT_FROM and self.cancelled * 2 > len(self.heap):
            self.compact()
        return t

    cdef int compact(self) except -1:
        self.heap = [entry for entry in self.heap if (<Timer>entry[2]).callback is not None]
        heapify(self.heap)
        self.cancelled = 0
        return 0

    cdef double earliest(self) noexcept:
        while self.heap:
            entry = self.heap[0]
            if (<Timer>entry[2]).callback is not None:
                return entry[0]
            heappop(self.heap)
            self.cancelled -= 1
        return -1

    cdef int run(self, double now) except -1:
        """Fire what is due at `now`; what the callbacks add waits for the next time."""
        cdef Timer t
        cdef long last = self.serial
        while self.heap:
            entry = self.heap[0]
            t = entry[2]
            if t.callback is None:
                heappop(self.heap)
                self.cancelled -= 1
                continue
            if entry[0] > now or entry[1] > last:
                break
            heappop(self.heap)
            callback, t.callback = t.callback, None
            try:
                callback()
            except Exception:
                log.exception("a timer callback failed: %r", callback)
        return 0

    def __len__(self):
        return len(self.heap) - self.cancelled

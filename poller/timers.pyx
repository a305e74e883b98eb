# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Timers by the thousand: a heap in which each alarm knows its place.

Nearly every timer guards a call and is unset long before it is due. It leaves the heap at once, so memory follows those that are set, and each
operation costs O(log n): next to nothing where deadlines come in the order of their alarms, as those of calls with one timeout do.
"""

import logging

from cpython.list cimport PyList_GET_ITEM
from libc.stdlib cimport free, realloc

cdef extern from "Python.h":
    # Neither takes nor gives a reference: alarms change places, their owners with them.
    void PyList_SET_ITEM(object list, Py_ssize_t i, PyObject* o)

cdef enum:
    FIRST_ROOM = 16

log = logging.getLogger("weego.worker")


cdef class Timer:
    """One timer with a callback; `cancel` makes it never fire."""

    cpdef void cancel(self) noexcept:
        """Never call back. Harmless when it has fired or was cancelled before."""
        if self.callback is not None:
            self.callback = None
            self.owner.unset(&self.alarm)

    @property
    def deadline(self):
        """When it is due, in seconds of the monotonic clock."""
        return self.alarm.deadline

    @property
    def active(self):
        """True until it fires or is cancelled."""
        return self.callback is not None

    def __repr__(self):
        return f"<Timer at {self.deadline:.6f} {'active' if self.active else 'done'}>"


cdef int call_back(object owner) except -1:
    cdef Timer t = <Timer>owner
    callback, t.callback = t.callback, None
    try:
        callback()
    except Exception:
        log.exception("a timer callback failed: %r", callback)
    return 0


cdef inline bint before(Alarm* a, Alarm* b) noexcept:
    return a.deadline < b.deadline or (a.deadline == b.deadline and a.serial < b.serial)


cdef class Timers:
    """Alarms by deadline. Deadlines are seconds of the monotonic clock."""

    def __cinit__(self):
        self.owners = []
        self.resize(FIRST_ROOM)

    def __dealloc__(self):
        free(self.heap)

    cdef Timer add(self, double deadline, object callback):
        """Call `callback` at `deadline`."""
        cdef Timer t = Timer.__new__(Timer)
        t.callback = callback
        t.owner = self
        t.alarm.ring = call_back
        self.set(&t.alarm, t, deadline)
        return t

    cdef int set(self, Alarm* alarm, object owner, double deadline) except -1:
        if self.count + 1 == self.room:
            self.resize(self.room * 2)
        self.count += 1
        self.serial += 1
        alarm.deadline = deadline
        alarm.serial = self.serial
        self.owners[self.count] = owner
        self.rise(alarm, <PyObject*>owner, self.count)
        return 0

    cdef int unset(self, Alarm* alarm) except -1:
        cdef Py_ssize_t place = alarm.place, last = self.count
        cdef PyObject* owner
        cdef PyObject* other
        cdef Alarm* moved
        if place == 0:
            return 0
        alarm.place = 0
        self.count -= 1
        if place != last:
            moved = self.heap[last]
            owner = PyList_GET_ITEM(self.owners, place)
            other = PyList_GET_ITEM(self.owners, last)
            PyList_SET_ITEM(self.owners, last, owner)
            if place > 1 and before(moved, self.heap[place >> 1]):
                self.rise(moved, other, place)
            else:
                self.sink(moved, other, place)
        if self.room > FIRST_ROOM and self.count * 4 < self.room:
            self.resize(self.room // 2)
        # The last, for what goes with the owner may set and unset others.
        self.owners[last] = None
        return 0

    cdef int resize(self, Py_ssize_t room) except -1:
        cdef Alarm** heap = <Alarm**>realloc(self.heap, room * sizeof(void*))
        if heap == NULL:
            raise MemoryError(f"no memory for {room} timers")
        self.heap = heap
        if room > self.room:
            self.owners.extend([None] * (room - self.room))
        else:
            del self.owners[room:]
        self.room = room
        return 0

    cdef void put(self, Alarm* alarm, PyObject* owner, Py_ssize_t place) noexcept:
        self.heap[place] = alarm
        PyList_SET_ITEM(self.owners, place, owner)
        alarm.place = place

    cdef void rise(self, Alarm* alarm, PyObject* owner, Py_ssize_t place) noexcept:
        """Put it into this place, or where an earlier one is above it."""
        cdef Py_ssize_t above
        while place > 1:
            above = place >> 1
            if not before(alarm, self.heap[above]):
                break
            self.put(self.heap[above], PyList_GET_ITEM(self.owners, above), place)
            place = above
        self.put(alarm, owner, place)

    cdef void sink(self, Alarm* alarm, PyObject* owner, Py_ssize_t place) noexcept:
        """Put it into this place, or where none below it is earlier."""
        cdef Py_ssize_t below
        while True:
            below = place * 2
            if below > self.count:
                break
            if below < self.count and before(self.heap[below + 1], self.heap[below]):
                below += 1
            if not before(self.heap[below], alarm):
                break
            self.put(self.heap[below], PyList_GET_ITEM(self.owners, below), place)
            place = below
        self.put(alarm, owner, place)

    cdef double earliest(self) noexcept:
        return self.heap[1].deadline if self.count else -1

    cdef int run(self, double now) except -1:
        """Ring what is due at `now`; what is set meanwhile waits for the next time."""
        cdef Alarm* alarm
        cdef int64_t last = self.serial
        while self.count:
            alarm = self.heap[1]
            if alarm.deadline > now or alarm.serial > last:
                break
            owner = self.owners[1]
            self.unset(alarm)
            try:
                alarm.ring(owner)
            except Exception:
                log.exception("a timer failed: %r", owner)
        return 0

    def __len__(self):
        return self.count

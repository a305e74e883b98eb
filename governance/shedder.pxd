# cython: language_level=3
"""Refuse early when the queue does not empty."""

from libc.stdint cimport int64_t


cdef class Shedder:
    cdef readonly double target
    cdef readonly double interval
    cdef public int64_t refused
    cdef readonly double service       # what a call keeps the worker busy for (seconds), of late; 0: not known
    cdef object clock
    cdef bint all_waited
    cdef double shortest
    cdef double ends
    cdef double idle_at
    cdef int64_t arrivals            # in this interval
    cdef double careful_until        # until then waiting is bounded as in overload

    cdef double now(self) except? -1
    cdef bint is_overloaded(self, double now) noexcept
    cdef bint is_careful(self) except -1
    cdef double most(self) noexcept
    cpdef bint admit(self, double waits) except -1
    cpdef int took(self, double seconds, int64_t calls=*) except -1

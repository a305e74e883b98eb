# cython: language_level=3
"""How many calls, how they ended, how long they took."""

from libc.stdint cimport int64_t

from governance.cells cimport Cells


cdef class Tally:
    cdef Cells cells
    cdef int64_t* cell

    cpdef int record(self, double seconds, int code) except -1


cdef class Meter:
    cdef readonly str service
    cdef readonly str method
    cdef Cells cells
    cdef int64_t* cell
    cdef Tally tally

    cpdef int record(self, double seconds, int code) except -1
    cpdef int retried(self) except -1
    cpdef int hedged(self) except -1

# cython: language_level=3
"""How many at one time, how many a second."""

from libc.stdint cimport int64_t

from governance.cells cimport Cells


cdef class Rate:
    cdef readonly double rate
    cdef readonly double burst
    cdef Cells cells
    cdef int64_t* cell
    cdef object clock
    cdef int64_t every
    cdef int64_t slack

    cpdef bint take(self) except -1


cdef class Seats:
    cdef object __weakref__
    cdef Cells cells
    cdef Cells high
    cdef int64_t* high_cell
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t mine
    cdef long owner
    cdef list rows
    cdef object alive

    cdef Py_ssize_t seat(self) except -1
    cdef int raise_high(self, int64_t taken) except -1
    cdef Py_ssize_t taken(self) noexcept


cdef class Concurrency:
    cdef readonly int64_t limit
    cdef Seats seats
    cdef Cells cells
    cdef int64_t* row

    cdef int64_t total(self) noexcept
    cpdef bint enter(self) except -1
    cpdef int leave(self) except -1

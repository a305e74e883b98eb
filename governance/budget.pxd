# cython: language_level=3
"""How many retries the calls of a client may cost."""

from libc.stdint cimport int64_t

from governance.cells cimport Cells


cdef class Budget:
    cdef readonly double ratio
    cdef readonly double per_second
    cdef readonly double saved
    cdef readonly int64_t refused
    cdef object clock
    cdef Cells cells
    cdef int64_t* cell
    cdef int64_t deposit             # of a call, in millionths of a retry

    cpdef int call(self) except -1
    cpdef bint take(self) except -1
    cdef int catch_up(self) except -1
    cdef bint spend(self, int64_t* cell) noexcept

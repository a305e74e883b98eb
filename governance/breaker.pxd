# cython: language_level=3
"""Stop calling what fails."""

from libc.stdint cimport int64_t

from governance.cells cimport Cells


cdef class Breaker:
    cdef readonly str name
    cdef Cells cells
    cdef int64_t* head               # the cells' own; they live as long as this object
    cdef int64_t* buckets
    cdef object clock
    cdef double error_rate
    cdef int64_t min_sample
    cdef int64_t consecutive
    cdef int64_t cooling
    cdef int64_t probe_every
    cdef int64_t successes_to_close
    cdef object on_change
    cdef int seen

    cdef int64_t now(self) except -1
    cpdef bint allow(self) except -1
    cpdef int succeed(self) except -1
    cpdef int fail(self) except -1
    cdef bint should_trip(self, int64_t now) except -1
    cdef int count(self, int64_t now, int64_t amount) except -1
    cdef int change(self, int before, int after) except -1

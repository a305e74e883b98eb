# cython: language_level=3
"""Leave out who fails while the others do not."""


cdef class _Record:
    cdef long in_a_row
    cdef long times
    cdef double since                # when it was left out, and until when
    cdef double until
    cdef bint is_out
    cdef bint probe_out


cdef class Ejection:
    cdef readonly object inner
    cdef readonly long failures
    cdef readonly double seconds
    cdef readonly double most_seconds
    cdef readonly double most_share
    cdef object clock
    cdef object on_change
    cdef dict instances
    cdef dict records
    cdef dict out
    cdef object observing

    cdef double now(self) except? -1
    cdef int eject(self, instance, _Record record) except -1
    cdef int restore(self, instance, _Record record) except -1
    cdef int tell(self, instance, str what) except -1

# cython: language_level=3
"""Timers by the thousand."""


cdef class Timer:
    cdef readonly double deadline
    cdef object callback                 # None when cancelled or done
    cdef Timers owner

    cpdef void cancel(self) noexcept


cdef class Timers:
    cdef list heap                       # (deadline, serial, Timer)
    cdef long serial
    cdef Py_ssize_t cancelled

    cdef Timer add(self, double deadline, object callback)
    cdef double earliest(self) noexcept   # -1 when there is none
    cdef int run(self, double now) except -1
    cdef int compact(self) except -1

# cython: language_level=3
"""Timers by the thousand."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t


cdef struct Alarm:
    # When an object wants to be called. It is part of the object, so that setting and unsetting one, which most calls do, makes nothing new.
    double deadline
    int64_t serial                       # of equal deadlines the one that was set first comes first
    Py_ssize_t place                     # in the heap, which begins at 1; 0: not set
    int (*ring)(object owner) except -1


cdef class Timer:
    cdef Alarm alarm
    cdef object callback                 # None when cancelled or done
    cdef Timers owner

    cpdef void cancel(self) noexcept


cdef class Timers:
    cdef list owners                     # of the alarms, each in its place; None where there is none, as in the first place
    cdef Alarm** heap                    # theirs
    cdef Py_ssize_t room                 # of both
    cdef readonly Py_ssize_t count
    cdef int64_t serial

    cdef Timer add(self, double deadline, object callback)
    # `owner`, which `alarm` is part of, lives until the alarm has rung or is unset. An alarm that is set must be unset first.
    cdef int set(self, Alarm* alarm, object owner, double deadline) except -1
    cdef int unset(self, Alarm* alarm) except -1      # harmless when it is not set
    cdef double earliest(self) noexcept               # -1 when there is none
    cdef int run(self, double now) except -1
    cdef int resize(self, Py_ssize_t room) except -1
    cdef void put(self, Alarm* alarm, PyObject* owner, Py_ssize_t place) noexcept
    cdef void rise(self, Alarm* alarm, PyObject* owner, Py_ssize_t place) noexcept
    cdef void sink(self, Alarm* alarm, PyObject* owner, Py_ssize_t place) noexcept

# cython: language_level=3
"""Log lines on their way to a thread that writes them."""

from codec.buffer cimport WriteBuffer


cdef class Spool:
    cdef WriteBuffer lines
    cdef readonly Py_ssize_t limit   # bytes that may wait
    cdef readonly long long put_lines
    cdef readonly long long dropped  # lines that found no room
    cdef public bint asleep          # the thread waits to be woken
    cdef object wake

    cdef int add(self, const void* line, Py_ssize_t size) except -1
    cdef bint refuses(self) noexcept

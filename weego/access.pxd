# cython: language_level=3
"""The access log's lines, made natively."""

from codec.buffer cimport WriteBuffer
from governance.call cimport Call
from libc.stdint cimport int64_t
from weego.spool cimport Spool


cdef class AccessLog:
    cdef Spool spool              # where lines go; None: `write` takes them
    cdef object write
    cdef object clock             # seconds -> (date, zone)
    cdef object told              # error -> one line
    cdef bint as_json
    cdef WriteBuffer line         # the one being made: nobody sees half of it
    cdef bytes before_service     # what stands between time and service
    cdef bytes good, bad, plain   # how a code begins and ends
    cdef bytes head               # how a line begins: dim, in colour
    cdef dict codes
    cdef int64_t second
    cdef bytes date, zone

    cdef int stamp(self, double at) except -1
    cdef int text(self, str value) except -1
    cdef int raw(self, bytes value) except -1
    cdef int literal(self, const char* value) except -1
    cdef int number(self, int64_t value) except -1
    cdef int digits(self, int64_t value, int width) except -1
    cdef int make(self, object call, int64_t bytes_in, int code, int64_t bytes_out, object error) except -1

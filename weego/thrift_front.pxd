# cython: language_level=3
"""Thrift's side of a server."""

from codec.buffer cimport WriteBuffer
from libc.stdint cimport int64_t
from codec.thrift cimport Request, ThriftServerProtocol
from poller.connection cimport Connection
from poller.loop cimport Loop
from weego.dispatch cimport Dispatcher, Front, Job, Target


cdef class ThriftFront(Front):
    cdef readonly dict routes          # method name → Route, over all services
    cdef readonly dict services        # service name → such a dict
    cdef public Py_ssize_t max_message    # of connections to come, as is the next
    cdef public int64_t max_decoded

    cdef int write_last_resort(self, Job job, WriteBuffer out, Py_ssize_t before) except -1
    cdef int write_error(self, Job job, object error, WriteBuffer out, dict strings) except -1
    cdef int refuse(self, Connection c, Request r, object error) except -1


# For other Fronts of Thrift services. The shorter of two timeouts in seconds, 0 being none; `text` is milliseconds in decimal, or None.
cdef double shorter(double timeout, object text) except -1
cdef dict business_strings(object error, dict strings)
cdef str text_of(object error)
cdef str type_name(object error)

# cython: language_level=3
"""From a request to its answer."""

from codec.buffer cimport WriteBuffer
from codec.thrift cimport Request, Route
from governance.call cimport Call
from libc.stdint cimport int64_t
from poller.connection cimport Connection, Receiver
from poller.leader cimport Leaders
from poller.loop cimport Loop
from poller.timers cimport Timer

cdef enum:
    GREENLET = 0     # may block cooperatively; interrupted at the deadline
    INLINE = 1       # never blocks: nothing to interrupt
    THREAD = 2       # in a thread of the pool: may do anything


cdef class Target:
    """Who serves one method, and how."""

    cdef readonly object handler       # the chain: handler(call, args)
    cdef readonly object method        # the bound method, when nothing wraps it; else None
    cdef readonly int mode
    cdef readonly str service
    cdef readonly double timeout       # seconds that a call may take at most; 0: what the caller says


cdef class Job:
    """One call under way."""

    cdef Call call
    cdef Request request
    cdef Connection connection
    cdef Target target
    cdef Timer timer
    cdef object runner                 # the greenlet that may be interrupted, or None
    cdef bint answered
    cdef bint expected                 # the IDL or the application knows this failure: not counted among the errors
    cdef Py_ssize_t answer_size


cdef class Dispatcher(Receiver):
    cdef readonly Loop loop
    cdef readonly dict routes
    cdef readonly dict services
    cdef readonly set connections
    cdef readonly int64_t inflight
    cdef readonly int64_t requests
    cdef readonly int64_t errors
    cdef public bint draining
    cdef public bint leaving           # draining, and nobody takes the connections over: peers are asked to go (TTHeader "crrst")
    cdef public object on_idle         # called when the last connection or call is gone
    cdef public object on_between      # called with a connection between two messages, if it watches for that
    cdef object access                 # called with (call, request, code, answer size, error), or None
    cdef Leaders leaders               # who runs the loop's turns; None without a hub
    cdef object context                # contextvars.Context that every call starts from
    cdef object pool                   # gevent threadpool, made when a thread handler needs it
    cdef int64_t max_concurrency
    cdef Py_ssize_t max_message
    cdef int64_t[::1] row
    cdef bint has_row
    cdef int column_inflight, column_requests, column_errors

    cdef int execute(self, Job job) except -1
    cdef int run_handler(self, Job job) except -1
    cdef int answer(self, Job job, object value, object error) except -1
    cdef int write_last_resort(self, Job job, WriteBuffer out, Py_ssize_t before) except -1
    cdef int write_error(self, Job job, object error, WriteBuffer out, dict strings) except -1
    cdef int finish(self, Job job, int code, object error) except -1
    cdef int refuse(self, Connection c, Request r, object error) except -1

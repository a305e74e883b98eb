# cython: language_level=3
"""From a request to its answer, whatever the protocol."""

from codec.protocol cimport Protocol
from governance.call cimport Call
from governance.meter cimport Tally
from libc.stdint cimport int64_t
from poller.connection cimport Connection, Limits, Receiver
from poller.leader cimport Leaders
from poller.loop cimport Loop, Pollable
from poller.timers cimport Alarm

cdef enum:
    GREENLET = 0     # may block cooperatively; interrupted at the deadline
    INLINE = 1       # never blocks: nothing to interrupt
    THREAD = 2       # in a thread of the pool: may do anything


cdef class Front
cdef class Dispatcher


cdef class Target:
    """Who serves one method, and how."""

    cdef readonly object handler       # the chain: handler(call, args)
    cdef readonly object method        # the bound method, when nothing wraps it; else None
    cdef readonly int mode
    cdef readonly str service
    cdef readonly double timeout       # seconds that a call may take at most; 0: what the caller says
    cdef readonly bint streams         # the handler returns an iterator of answers
    cdef readonly Tally tally          # counts its calls; None: nobody does


cdef class Job:
    """One call under way."""

    cdef Front front
    cdef Call call
    cdef object request                # the protocol's own; has `size` for the access log
    cdef tuple args
    cdef Connection connection
    cdef Target target
    cdef Alarm alarm                   # rings at the deadline
    cdef object runner                 # the greenlet that may be interrupted, or None
    cdef bint cancellable              # may be interrupted before its deadline too
    cdef bint answered
    cdef bint expected                 # the IDL or the application knows this failure: not counted among the errors
    cdef Py_ssize_t answer_size

    # The answer is about to be written: the deadline does not matter any more.
    cdef int disarm(self) except -1
    # The deadline has passed: answer the caller, and interrupt the handler where it waits.
    cdef int interrupt(self) except -1


cdef class Front(Receiver):
    """One protocol's side of a server."""

    cdef readonly Dispatcher dispatcher

    # The Protocol of a new connection.
    cdef Protocol new_protocol(self)
    # `c` has come to this Front: new, or from the one that found out what it speaks.
    cdef int opened(self, Connection c) except -1
    # Write the answer, unless one was written at the deadline. Never raises what the handler raised. Ends with `Dispatcher.finish` and
    # `Connection.done`.
    cdef int answer(self, Job job, object value, object error) except -1
    # Send what a streaming handler returned, one by one; in the handler's greenlet, which may block in it. Raises what the iterator raises.
    cdef int send_all(self, Job job, object values) except -1
    # The handler of a call has returned, or will not be called.
    cdef int over(self, Job job) except -1
    # The server drains: tell the peer that no more calls are wanted on this connection.
    cdef int leave(self, Connection c) except -1
    # A call was refused because the connection is one too many: end it as soon as the answer has left.
    cdef int turn_away(self, Connection c) except -1


cdef class Queue(Pollable):
    """Where calls wait for their turn, when there is more to do than can be done at once."""

    # Serve the job now, later (by `Dispatcher.execute`), or not (by `Dispatcher.drop`).
    cdef int take(self, Job job) except -1


cdef class Dispatcher:
    cdef readonly Loop loop
    cdef public Front entrance         # where new connections come to
    cdef readonly set connections
    cdef readonly Py_ssize_t surplus   # of them, those that are too many: their calls are refused
    cdef readonly Py_ssize_t lent      # given to another process that has not said yet that it has them: they count here
    cdef public object has_room        # has_room() -> bool: is this process to keep the connection that was counted last? None: always
    cdef Limits limits                 # of connections that are not surplus
    cdef public str total              # the limit, as a refusal names it
    cdef public int64_t turned_away    # calls refused on surplus connections
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
    cdef public int64_t max_concurrency
    cdef public object tally_of        # (service, method) -> Tally: where refused calls are counted, unknown ones under ("", ""); or None
    cdef public Queue queue            # None: every call is served when it comes
    cdef int64_t[::1] row
    cdef bint has_row
    cdef int column_inflight, column_requests, column_errors, column_connections

    # Will `c` be closed, and not given to another process, because this server leaves?
    cdef bint leaves(self, Connection c) noexcept
    cdef int count_request(self) except -1
    cdef int count_error(self) except -1
    cdef object full(self, Connection c, Target t, str method)
    cdef int count_connections(self) except -1
    cdef bint takes_in(self, Connection c) except -1
    cdef Call new_call(self, Connection c, object spec, str service, object request)
    cdef int run(self, Job job, double timeout) except -1
    cdef int execute(self, Job job) except -1
    cdef int run_handler(self, Job job) except -1
    cdef int over(self, Job job) except -1
    cdef int drop(self, Job job, object error) except -1
    cdef int finish(self, Job job, int code, object error) except -1
    cdef int refused(self, Connection c, object request, object spec, str service, Py_ssize_t size, object error) except -1
    cdef int tell(self, Call call, object request, int code, Py_ssize_t size, object error) except -1
    cdef int gone(self, Connection c) except -1

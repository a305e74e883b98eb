# cython: language_level=3
"""TTHeaderStreaming's side of a client."""

from codec.buffer cimport WriteBuffer
from codec.ttstream cimport Frame, StreamMethod, StreamProtocol
from governance.call cimport Call, Ending
from libc.stdint cimport int32_t, int64_t
from poller.connection cimport Connection, Receiver
from poller.loop cimport Loop
from poller.timers cimport Timer
from weego.grpc_server cimport Gate


cdef class ThriftStream:
    """One stream on its connection."""

    cdef readonly int32_t sid
    cdef readonly StreamMethod method
    cdef readonly object head            # strings of the peer's Header; None before it came
    cdef readonly object trailer         # … and of its Trailer
    cdef object messages                 # deque of payloads that nobody has taken
    cdef Py_ssize_t queued               # what they count for
    cdef double taken                    # when one was taken last, or the first of those that wait came; monotonic seconds
    cdef object failure                  # what it ended with; None for well
    cdef readonly bint ended
    cdef bint half_closed                # nothing more is sent
    cdef public bint is_late             # the deadline has passed
    cdef bint wants_head                 # who reads waits for the Header alone
    cdef Gate reading                    # where who reads waits (hub) …
    cdef Gate writing                    # … and who writes

    cpdef bint has_news(self) noexcept


cdef class StreamLink(Receiver):
    cdef readonly StreamProtocol protocol
    cdef readonly str address
    cdef public object error             # why the connection ended, once it has
    cdef readonly dict open_streams      # id → ThriftStream
    cdef int32_t last_id
    cdef readonly Py_ssize_t queued      # bytes that wait for who reads, over all streams
    cdef Py_ssize_t max_queued
    cdef public bint is_closed
    cdef readonly bint peer_leaving      # it has asked to make no more streams here

    # Over the ways to wait. Between `writer` and `wrote` the output is the caller's.
    cpdef WriteBuffer writer(self)
    cpdef wrote(self)
    # Have what was written leave.
    cpdef push(self, double deadline)
    # From here to `leave` no other thread touches the link.
    cpdef enter(self)
    cpdef leave(self)
    # Wait until `s.has_news()`, or until most of what was written has left. `s.is_late` is set at the deadline.
    cpdef wait_news(self, ThriftStream s, double deadline)
    cpdef wait_room(self, ThriftStream s, double deadline)
    # Read no more, or go on.
    cpdef pause(self, bint on)
    cpdef tell(self, ThriftStream s)     # it has news
    cpdef changed(self)                  # a stream has ended, or the peer leaves
    cpdef double now(self)

    cpdef take(self, Frame f)
    cdef int finish(self, ThriftStream s, object failure) except -1
    cdef int count_queued(self, ThriftStream s, Py_ssize_t size) except -1
    cdef int reset(self, ThriftStream s, int reason, str text, tuple path) except -1
    cdef object take_message(self, ThriftStream s)


cdef class HubStreamLink(StreamLink):
    cdef Loop loop
    cdef readonly Connection connection
    cdef object on_change
    cdef list writers                    # Gates of who waits for room
    cdef Timer stall
    cdef readonly bint is_paused
    cdef int64_t pushed                  # the loop's turn in which something was sent at once
    cdef double waiting                  # since when something written waits for the turn's end; 0: nothing


cdef class StreamCall:
    """A call that sends or receives more than one message."""

    cdef StreamLink link
    cdef readonly ThriftStream stream
    cdef readonly Call call
    cdef StreamMethod method
    cdef double deadline
    cdef public double recv_timeout      # seconds to wait for one message; 0: until the deadline
    cdef public double send_timeout      # … and for room to send one
    cdef Ending ending                   # told how it went
    cdef str late                        # which of the two it was that passed
    cdef object serving                  # the Call that was served when this one was made, or None
    cdef str caller
    cdef bint is_over                    # the end was told: a value, an exception, or a cancellation
    cdef object outcome                  # the error it ended with, or None
    cdef public object on_end            # called once with the link

    cdef object next_payload(self)
    cdef int wait_news(self) except -1
    cdef double until(self, double patience) except -1
    cdef int tell(self, object error) except -1
    cdef int give_up(self, int reason, str text) except -1

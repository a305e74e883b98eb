# cython: language_level=3
"""TTHeaderStreaming's side of a server."""

from codec.buffer cimport Cursor, WriteBuffer
from codec.ttheader cimport Header
from codec.ttstream cimport Frame, StreamMethod, StreamProtocol
from governance.call cimport Call
from libc.stdint cimport int32_t, int64_t, uint8_t
from poller.connection cimport Connection
from poller.loop cimport Waiter
from weego.detect cimport Detector
from weego.dispatch cimport Dispatcher, Front, Job
from weego.grpc_server cimport Gate


cdef class StreamDetector(Detector):
    pass


cdef class ServerStream:
    """One stream that a client opened."""

    cdef readonly int32_t sid
    cdef readonly Header header            # of the frame that opened it: metadata, caller, log id
    cdef readonly StreamMethod route       # None where there is no such method
    cdef readonly object cancellation      # the Cancelled that ended it, or None
    cdef readonly int64_t size             # bytes of its frames that came …
    cdef readonly int64_t sent             # … and left
    cdef StreamServerProtocol connection
    cdef StreamJob job                     # None before the handler runs
    cdef object messages                   # deque of payloads that the handler has not taken
    cdef Py_ssize_t queued                 # what they count for
    cdef double taken                      # when the handler last took one, or the first of those that wait came
    cdef double arrived
    cdef double timeout                    # seconds the caller gives it; 0: any
    cdef bint half_closed                  # the client sends no more
    cdef object failure                    # what the client said it ended its side with, or None
    cdef bint head_sent
    cdef bint over


cdef class StreamServerProtocol(StreamProtocol):
    cdef StreamFront front
    cdef Connection transport
    cdef readonly dict streams             # id → ServerStream
    cdef readonly Py_ssize_t running       # handlers under way, those of cancelled streams too
    cdef readonly Py_ssize_t waiting       # streams whose one request has not come
    cdef readonly Py_ssize_t queued        # what waits for handlers, over all streams
    cdef list writers                      # Gates of handlers that wait for the peer to take their answers
    cdef bint is_paused                    # not read from, because too much waits for handlers
    cdef bint is_leaving                   # this worker goes, and the peer has been told
    cdef bint is_holding                   # new streams wait for the worker that takes the connection over
    cdef double refuses_at                 # new streams are refused from here on (0: never); monotonic seconds
    cdef WriteBuffer held                  # frames of those streams
    cdef set held_ids

    cdef int put_back(self) except -1


cdef class StreamJob(Job):
    cdef ServerStream stream
    cdef StreamMethod route
    cdef Gate reading                      # where the handler waits for the next request
    cdef Gate writing                      # … and for room to answer


cdef class Interruption(Waiter):
    cdef StreamJob job
    cdef object error


cdef class Requests:
    cdef StreamJob job


cdef class StreamFront(Front):
    cdef readonly dict services            # service name → {method name: StreamMethod}
    cdef readonly dict methods             # the same over all services, for callers that name none
    cdef public Py_ssize_t max_message     # of connections to come
    cdef public Py_ssize_t max_streams
    cdef public Py_ssize_t max_queued

    cdef StreamMethod look_up(self, bytes name, object service)
    cdef int open_stream(self, Connection c, Frame f) except -1
    cdef int take_data(self, Connection c, ServerStream s, Frame f) except -1
    cdef int take_end(self, Connection c, ServerStream s, Frame f) except -1
    cdef int take_reset(self, Connection c, ServerStream s, Frame f) except -1
    cdef int start(self, Connection c, ServerStream s, tuple args) except -1
    cdef int refuse(self, Connection c, ServerStream s, object error) except -1
    cdef int fail(self, Connection c, ServerStream s, object error) except -1
    cdef int cancel(self, StreamJob job, object error) except -1
    cdef int send_value(self, StreamJob j, object value) except -1
    cdef int send_end(self, ServerStream s, Call call, bint head, dict strings, bytes payload) except -1
    cdef int write_answer(self, StreamJob j, object value, object error) except -1
    cdef int forget(self, ServerStream s) except -1
    cdef int count_queued(self, ServerStream s, Py_ssize_t size) except -1

# cython: language_level=3
"""gRPC's side of a server."""

from codec.buffer cimport WriteBuffer
from codec.grpc cimport GrpcStream
from codec.h2.connection cimport Block, H2Connection, Sink, Stream
from codec.protocol cimport Protocol
from governance.call cimport Call
from libc.stdint cimport int64_t
from poller.connection cimport Connection
from poller.loop cimport Loop, Waiter
from weego.dispatch cimport Dispatcher, Front, Job, Target

cdef enum Dialect:
    GRPC = 0
    WEB = 1           # gRPC-Web: trailers are a message
    WEB_TEXT = 2      # … and everything is base64


cdef class GrpcRoute:
    """One method as this Front needs it."""

    cdef readonly object spec
    cdef readonly str name
    cdef readonly Target target
    cdef readonly bytes path
    cdef object decode                     # bytes → the handler's argument
    cdef object encode                     # what it returns → bytes
    cdef bint client_streaming
    cdef bint server_streaming


cdef class ConnectionSink(Sink):
    cdef Connection connection


cdef class Gate(Waiter):
    """One greenlet waits here until the stream has news for it."""

    cdef object greenlet
    cdef Loop loop

    cdef int wait(self) except -1
    cdef int park(self, object me) except -1
    cdef int open(self) except -1


cdef class Interruption(Waiter):
    cdef GrpcJob job
    cdef object error


cdef class Asked:
    """What the headers of a call say. Calls whose headers are the same share one; nothing in it changes."""

    cdef bytes path
    cdef double timeout                    # seconds; -1: none
    cdef str encoding                      # of the requests' messages; None: none
    cdef bytes accepts                     # grpc-accept-encoding
    cdef bytes origin                      # of a browser
    cdef bytes content_type                # of the answer; None: gRPC's own
    cdef int dialect
    cdef int http_error                    # HTTP status to refuse with, or 0
    cdef object refusal                    # RpcError to refuse with, or None

    cdef int read(self, list fields) except -1
    cdef int read_type(self, bytes value, Py_ssize_t n) except -1


cdef class GrpcServerStream(GrpcStream):
    cdef GrpcFront front
    cdef GrpcJob job                       # the call under way, or None
    cdef readonly GrpcRoute route
    cdef Asked asked
    cdef int dialect
    cdef double arrived                    # monotonic seconds
    cdef bytes text                        # of a body in base64: what is no group of four yet
    cdef int http_error                    # HTTP status to refuse with, or 0
    cdef bint started                      # the front has taken it up
    cdef bint head_sent
    cdef bint came_packed                  # the request taken last was compressed
    cdef str sending                       # encoding announced in the head; None: identity

    cdef int look_up(self, Asked asked) except -1


cdef class GrpcServerConnection(H2Connection):
    cdef GrpcFront front
    cdef Connection transport
    cdef Py_ssize_t running                # handlers under way, those of streams that were reset too
    cdef list postponed                    # streams that wait until the peer takes its answers
    cdef double pinged                     # when the PING left that has not come back; 0: none
    cdef bint farewell                     # the timer for the last GOAWAY runs


cdef class GrpcJob(Job):
    cdef GrpcServerStream stream
    cdef GrpcRoute route
    cdef Gate reading                      # where the handler waits for the next request
    cdef Gate writing                      # … and for room to answer


cdef class GrpcFront(Front):
    cdef readonly dict routes              # b"/package.Service/Method" → GrpcRoute
    cdef readonly set services             # full names of those that may have no method just now
    cdef dict short                        # the same without packages, as Kitex compares
    cdef readonly dict abuse               # kind → connections ended for it
    cdef Py_ssize_t max_message
    cdef Py_ssize_t max_streams
    cdef double keepalive_time, keepalive_timeout
    cdef object origins                    # what browsers may call from: a frozenset of bytes, or None for all
    cdef double complained

    cdef int start_call(self, Connection c, GrpcServerStream s) except -1
    cdef object why_not(self, Connection c, GrpcServerStream s)
    cdef int refuse(self, Connection c, GrpcServerStream s, object error) except -1
    cdef int refuse_http(self, GrpcServerStream s, int status) except -1
    cdef int preflight(self, GrpcServerStream s) except -1
    cdef int cancel(self, GrpcJob job, object error) except -1
    cdef int send_head(self, GrpcServerStream s, Call call) except -1
    cdef object head_fields(self, GrpcServerStream s, Call call)
    cdef bytes encoded(self, GrpcRoute route, object value)
    cdef int send_value(self, GrpcJob job, object value, bint end) except -1
    cdef int send_status(self, GrpcServerStream s, Call call, list status) except -1
    cdef int settle(self, GrpcServerConnection p) except -1
    cdef int write_answer(self, GrpcJob job, object value, object error) except -1

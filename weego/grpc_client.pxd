# cython: language_level=3
"""gRPC's side of a client."""

from codec.grpc cimport GrpcStream
from codec.h2.connection cimport H2Connection
from codec.h2.hpack cimport Field
from governance.call cimport Call, Ending
from poller.connection cimport Receiver
from poller.timers cimport Alarm
from weego.grpc_server cimport Gate


cdef class GrpcMethod:
    """One method as a client needs it."""

    cdef readonly object spec
    cdef Field path
    cdef object encode                   # the argument → bytes
    cdef object decode                   # bytes → the result
    cdef readonly bint client_streaming
    cdef readonly bint server_streaming
    cdef readonly bint is_streaming      # … either


cdef class GrpcClientConnection(H2Connection):
    pass


cdef class GrpcClientStream(GrpcStream):
    cdef Gate reading                    # where who reads waits (hub)
    cdef Gate writing                    # … and who writes
    cdef Alarm late_reading              # rings at the deadline of who reads (hub)
    cdef Alarm late_writing
    cdef bint is_late                    # the deadline has passed
    cdef bint wants_head                 # who reads waits for the headers alone
    cdef bint has_broken                 # the connection ended under it

    cdef bint has_news(self) noexcept
    cdef bint has_room(self) noexcept
    cdef int expire(self) except -1


cdef class Link(Receiver):
    cdef readonly GrpcClientConnection protocol
    cdef readonly str address
    cdef readonly object error           # why the connection ended, once it has
    cdef Field authority
    cdef Field scheme
    cdef Field accept                    # what answers may come in
    cdef Field caller                    # source-service, or None
    cdef dict heads                      # by GrpcMethod: the fields that every call of it begins with
    cdef Py_ssize_t max_message
    cdef double keepalive_time, keepalive_timeout
    cdef readonly bint is_closed

    cdef int prepare(self, str address, str authority, bint is_secure, Py_ssize_t max_message, double keepalive_time,
                     double keepalive_timeout, str caller) except -1
    cdef bint may_open(self) noexcept
    cdef bint is_stale(self, double idle_timeout) noexcept
    cdef object simple(self, Call call, GrpcMethod method, object argument, str compression)
    cdef object decoded(self, GrpcClientStream s, GrpcMethod method, object message)
    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int push(self, double deadline) except -1
    cdef int push_soon(self, double deadline) except -1
    cdef int wait_news(self, GrpcClientStream s, double deadline) except -1
    cdef int wait_room(self, GrpcClientStream s, double deadline) except -1
    cdef tuple head_of(self, GrpcMethod method)
    cdef GrpcClientStream start(self, Call call, GrpcMethod method, str compression, bytes payload, bint end)
    cdef object finish(self, GrpcClientStream s, Call call)
    cdef int abandon_call(self, GrpcClientStream s) except -1


cdef class GrpcCall:
    """A call that sends or receives more than one message."""

    cdef Link link
    cdef readonly GrpcClientStream stream
    cdef readonly Call call
    cdef GrpcMethod method
    cdef str compression
    cdef double deadline
    cdef public double recv_timeout      # seconds to wait for one message; 0: until the deadline
    cdef public double send_timeout      # … and for room to send one
    cdef Ending ending                   # told how it went
    cdef str late                        # which of the two it was that passed
    cdef bint is_over                    # the end was told: a value, an exception, or a cancellation
    cdef object outcome                  # the error it ended with, or None

    cdef object next_message(self)
    cdef int wait_news(self) except -1
    cdef double until(self, double patience) except -1
    cdef int tell(self, object error) except -1

# cython: language_level=3
"""gRPC connections for programs that use gevent."""

from poller.connection cimport Connection
from poller.loop cimport Loop
from poller.timers cimport Timer
from weego.grpc_client cimport GrpcClientStream, Link
from weego.grpc_server cimport ConnectionSink, Gate


cdef class HubLink(Link):
    cdef Loop loop
    cdef readonly Connection connection
    cdef HubSink sink
    cdef object on_change                # told when streams ended, or the peer's settings or goodbye came
    cdef Gate spare                      # for the next who waits
    cdef Timer pinger
    cdef double heard                    # when bytes came last, as the pinger saw
    cdef double pinged                   # when the PING left that has not come back; 0: none
    cdef long long bytes_seen
    cdef public bint wants_change        # somebody waits for a stream to end

    cdef Gate gate(self)
    cdef int tell(self, GrpcClientStream s) except -1
    cdef int changed(self) except -1


cdef class HubSink(ConnectionSink):
    cdef bint is_corked

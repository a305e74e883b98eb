# cython: language_level=3
"""Many calls at a time over one connection, for programs that use gevent."""

from codec.thrift cimport Reply, Route, ThriftClientProtocol
from libc.stdint cimport int32_t
from poller.connection cimport Connection, Receiver
from poller.loop cimport Loop, Waiter
from poller.timers cimport Timer


cdef class Waiting(Waiter):
    """One call that waits for its answer."""

    cdef SharedExchange exchange
    cdef int32_t seqid
    cdef object greenlet
    cdef Reply reply
    cdef object error
    cdef long long offset              # bytes that had to leave before the first of this call's
    cdef bint answered

    cdef int finish(self) except -1


cdef class SharedExchange(Receiver):
    cdef readonly Connection connection
    cdef readonly str address
    cdef readonly bint leaving         # the peer asked for no more calls here
    cdef ThriftClientProtocol protocol
    cdef object hub
    cdef dict waiting                  # sequence id → Waiting
    cdef object on_closed              # called with this exchange when it takes no more calls

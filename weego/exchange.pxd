# cython: language_level=3
"""One call at a time over one connection, for programs that use gevent."""

from codec.thrift cimport Reply, Route, ThriftClientProtocol
from libc.stdint cimport int32_t
from poller.connection cimport Connection, Receiver
from poller.loop cimport Loop
from poller.timers cimport Timer


cdef class Exchange(Receiver):
    cdef readonly Connection connection
    cdef readonly str address
    cdef ThriftClientProtocol protocol
    cdef object hub
    cdef object waiter                 # the greenlet that waits for the answer, or None
    cdef Reply reply
    cdef object error
    cdef object on_closed              # called with this exchange when the connection ends while no call is under way
    cdef bint answered

    cdef int wait(self, double deadline) except -1
    cdef int wake_soon(self) except -1

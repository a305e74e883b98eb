# cython: language_level=3
"""Connections with TLS in between."""

from libc.stdint cimport uint8_t
from poller.connection cimport Connection


cdef class SecureConnection(Connection):
    cdef readonly object session         # a poller.tls.Session
    cdef object ssl
    cdef object incoming
    cdef object outgoing
    cdef bint is_shaken                  # the handshake is done
    cdef bint has_spoken                 # a byte of the peer's has come
    cdef bint is_ended                   # the peer said goodbye, or the kernel said that nothing more comes
    cdef double opened                   # when the connection was taken in
    cdef double handshake_timeout        # seconds
    cdef bytes left                      # encrypted and not sent; None when there is nothing
    cdef Py_ssize_t left_sent            # bytes of it that were
    cdef Py_ssize_t counted              # plain bytes that are in it
    cdef object failure                  # why the connection is to be closed
    cdef object failures                 # a poller.tls.Failures, or None
    cdef object _identity

    cdef bint shake(self) except -1
    cdef bint push(self) except -1
    cdef int fail(self, str what) except -1
    cdef Py_ssize_t broke(self, object error) except? -2

# cython: language_level=3
"""A user's protocol on a server."""

from codec.protocol cimport Protocol
from weego.dispatch cimport Front


cdef class UserProtocol(Protocol):
    cdef object rules                  # weego.extend.ServerProtocol
    cdef Py_ssize_t max_message
    cdef Py_ssize_t wanted             # bytes before the rules want to be asked again


cdef class UserFront(Front):
    cdef readonly object make          # makes the rules of one connection
    cdef readonly dict services
    cdef Py_ssize_t max_message

# cython: language_level=3
"""A client's connection of streams whose callers wait in their threads."""

from codec.buffer cimport ReadBuffer, WriteBuffer
from weego.stream_client cimport StreamLink


cdef class BlockingStreamLink(StreamLink):
    cdef object sock, session
    cdef object lock                     # over everything; reentrant
    cdef object news                     # a Condition of it
    cdef int waiting                     # threads at `news`
    cdef int fd                          # -1 when closed
    cdef bint is_reading                 # a thread waits for bytes
    cdef ReadBuffer input
    cdef WriteBuffer output
    cdef object __weakref__

    # What the socket is ready for, of `events`; 0 at the deadline.
    cdef int wait_for(self, int events, double deadline) except -1

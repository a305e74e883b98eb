# cython: language_level=3
"""gRPC-Web on HTTP/1.1."""

from codec.buffer cimport Cursor
from libc.stdint cimport int64_t
from weego.grpc_server cimport GrpcFront, GrpcServerConnection, GrpcServerStream


cdef class WebConnection(GrpcServerConnection):
    cdef GrpcServerStream current          # the request being read or answered, or None
    cdef int64_t remaining                 # bytes of the body, or of its chunk, that are still to come
    cdef bint in_body
    cdef bint chunked
    cdef bint in_chunk                     # … and its size has been read
    cdef bint in_trailers                  # … and the last chunk is through
    cdef bint progressed                    # the last step took something
    cdef bint keep                         # another request may follow on the connection
    cdef bint head_written
    cdef bint sends_chunks                 # the answer is in chunks; else the end of the connection ends it

    cdef object read_head(self, Cursor* c)
    cdef object read_body(self, Cursor* c)
    cdef object read_chunks(self, Cursor* c)
    cdef int take_body(self, Cursor* c) except -1
    cdef list parse_head(self, bytes head)
    cdef int bad(self, int status, str why) except -1


cdef class WebFront(GrpcFront):
    pass

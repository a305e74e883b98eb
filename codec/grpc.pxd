# cython: language_level=3
"""gRPC on HTTP/2: messages in a stream, and what its fields mean."""

from codec.buffer cimport WriteBuffer
from codec.h2.connection cimport H2Connection, Stream
from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef class GrpcStream(Stream):
    cdef public Py_ssize_t max_message       # bytes of one message to receive
    cdef public bint eager                   # tell the owner of every message, and not only of the end
    cdef readonly Py_ssize_t ready           # whole messages not taken yet: bytes, or a tuple of bytes if compressed
    cdef object first                        # the first of them
    cdef list later                          # … and the others, if there ever were any
    cdef readonly object failure             # the RpcError that what arrived is, or None
    cdef readonly int64_t size               # bytes of messages received, prefixes included
    cdef readonly int64_t sent               # bytes of messages sent, prefixes included
    cdef bytes partial                       # a message that has not come whole, if its length was known to be bearable
    cdef WriteBuffer growing                 # the same, if it is long
    cdef Py_ssize_t wanted                   # bytes that message has
    cdef Py_ssize_t filled                   # bytes of it that came
    cdef bint partial_compressed
    cdef uint8_t prefix[5]
    cdef int prefix_filled

    cdef int begin_message(self, const uint8_t* prefix) except -1
    cdef int whole(self, payload) except -1   # bytes, or a tuple of bytes if compressed
    cdef int fail(self, object failure) except -1
    cdef object take_message(self)           # bytes, a tuple of bytes, or None
    cdef int drop_messages(self) except -1   # those that are ready
    cdef int send_message(self, bytes payload, bint compressed, bint end) except -1
    # An answer of one message: its head (None: that has left), the message, its trailers.
    cdef int send_answer(self, tuple head, bytes payload, tuple trailers) except -1


cdef double parse_timeout(bytes value) noexcept
cpdef bytes timeout_text(double seconds)

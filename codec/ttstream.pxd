# cython: language_level=3
"""TTHeaderStreaming: many streams of Thrift messages on one connection, without HTTP/2."""

from codec.buffer cimport Cursor, WriteBuffer
from codec.plan cimport ArgsPlan, ResultPlan, StructPlan
from codec.protocol cimport Protocol
from codec.ttheader cimport Header
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef enum:
    # Types of frames.
    META = 1
    HEADER = 2
    DATA = 3
    TRAILER = 4
    RST = 5
    # TTHeader's flag "Streaming": every frame has it.
    STREAMING = 2


cdef class Frame:
    """One frame that arrived."""

    cdef readonly int type             # 0: not known, for it was longer than is allowed
    cdef readonly int32_t sid
    cdef readonly Header header        # None of a DATA frame
    cdef readonly bytes payload
    cdef readonly Py_ssize_t size      # bytes on the wire


cdef class StreamProtocol(Protocol):
    cdef public Py_ssize_t max_message
    cdef Py_ssize_t skipping           # bytes to come of a frame that is not taken

    cdef object take_frame(self, Cursor* c)


cdef class StreamMethod:
    """One method, as streams carry it."""

    cdef readonly object spec
    cdef readonly bytes name
    cdef readonly bint client_streaming
    cdef readonly bint server_streaming
    cdef public object target          # belongs to whoever serves it
    cdef public int64_t max_decoded    # bytes of memory that one message may become
    cdef ArgsPlan args
    cdef ResultPlan result
    cdef StructPlan request            # None where a message is no struct, and of a method that does not stream: it goes in `args` …
    cdef StructPlan reply              # … and its answer in `result`
    cdef bytes head                    # of a DATA frame, LENGTH and stream id to be filled in

    cdef tuple read_args(self, bytes payload)
    cdef object read_request(self, bytes payload)
    cdef object read_reply(self, bytes payload)
    # A whole DATA frame.
    cdef int write_request(self, object value, int32_t sid, WriteBuffer out, Py_ssize_t limit) except -1
    cdef int write_args(self, tuple args, int32_t sid, WriteBuffer out, Py_ssize_t limit) except -1
    cdef int write_reply(self, object value, int32_t sid, WriteBuffer out, Py_ssize_t limit) except -1
    cdef int finish(self, WriteBuffer out, Py_ssize_t start, Py_ssize_t limit) except -1


cdef int write_frame(WriteBuffer out, int type, int32_t sid, str method, dict ints, dict strings, bytes payload) except -1

# cython: language_level=3
"""TTHeader: the header that Kitex puts before a Thrift or Protobuf message."""

from codec.buffer cimport Cursor, WriteBuffer
from libc.stdint cimport int32_t, uint8_t, uint16_t

cdef enum:
    HEADER_FIXED = 14      # bytes before the info area: length, magic, flags, sequence id, info size
    MAX_INFO = 262140      # 4 × 65535: the info size is a u16 count of 4-byte words


cdef class Header:
    cdef public int32_t seqid
    cdef public int flags
    cdef public int protocol_id
    cdef public bytes transforms     # ids of what was done to the payload; empty: nothing
    cdef public dict strings
    cdef public dict ints


# `c` holds one whole TTHeader packet; afterwards c.p stands on the payload.
cdef Header read_header(Cursor* c)
# Writes all but the payload; returns where it began, for `end_header`. With `sum` not NULL, room for a checksum is left, and sum[0] is where.
cdef Py_ssize_t begin_header(WriteBuffer out, int32_t seqid, int flags, dict ints, dict strings, Py_ssize_t* sum, bytes transforms) except -1
# Sets LENGTH now that the payload stands behind the header; `apart`: how much of it is in pieces of the buffer.
cdef void end_header(WriteBuffer out, Py_ssize_t start, Py_ssize_t apart) noexcept
# Fills in the checksum of the payload, for which `begin_header` left room at `sum`.
cdef int put_checksum(WriteBuffer out, Py_ssize_t start, Py_ssize_t sum) except -1
# Compares the payload with the checksum of the header that came before it; ProtocolError when they do not fit. Without a checksum, nothing.
cdef int check_payload(Header header, const uint8_t* p, const uint8_t* end) except -1

# cython: language_level=3
"""Finding the end of a Thrift binary struct without decoding it."""

from codec.buffer cimport Cursor
from libc.stdint cimport int32_t, uint8_t, uint64_t

cdef enum:
    # Open structs and containers. Wider than what decoding bears (64 structs, with the IDL's containers between them), so that a
    # buffered message is never refused here while the same message would be understood in a frame.
    MAX_LEVELS = 512


cdef struct Level:
    uint8_t kind      # what is open: struct, list (or set), map
    uint8_t key       # element type of a list, key type of a map
    uint8_t value     # value type of a map
    uint8_t on_value  # in a map: the key is done, the value is next
    int32_t count     # elements or pairs that are still to come


cdef struct Scan:
    # State between two calls, so that a message that trickles in is looked at once and not again from its start.
    Level levels[MAX_LEVELS + 1]
    int depth
    Py_ssize_t skip   # bytes of the value at hand that have yet to arrive and be passed over
    Py_ssize_t limit  # bytes that no value may exceed


# Walk a struct, or one value of wire type `kind`; a value that claims to be longer than `limit` bytes is refused at once.
cdef void scan_start(Scan* s, Py_ssize_t limit) noexcept
cdef void scan_start_value(Scan* s, uint8_t kind, Py_ssize_t limit) noexcept
# 1: it ended at c.p. 0: more bytes are needed. -1: ProtocolError was raised.
cdef int scan(Scan* s, Cursor* c) except -1
# The same for the compact protocol.
cdef int scan_compact(Scan* s, Cursor* c) except -1
# An unsigned number of the compact protocol. 1: read, p stands behind it. 0: more bytes are needed. -1: ProtocolError was raised.
cdef int compact_varint(const uint8_t** p, const uint8_t* end, uint64_t* value) except -1

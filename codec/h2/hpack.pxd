# cython: language_level=3
"""Header compression (RFC 7541)."""

from codec.buffer cimport WriteBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

cdef enum Kind:
    # Field names that somebody here treats in a way of their own.
    OTHER = 0
    METHOD = 1
    SCHEME = 2
    PATH = 3
    AUTHORITY = 4
    STATUS = 5
    PSEUDO = 6                # any further name that begins with a colon
    CONTENT_TYPE = 7
    TE = 8
    CONTENT_LENGTH = 9
    HOST = 10
    HOP = 11                  # what belongs to one connection and so to HTTP/1 alone (RFC 9113, 8.2.2)
    USER_AGENT = 12
    GRPC_TIMEOUT = 13
    GRPC_ENCODING = 14
    GRPC_ACCEPT_ENCODING = 15
    GRPC_STATUS = 16
    GRPC_MESSAGE = 17
    GRPC_DETAILS = 18
    GRPC_RESERVED = 19        # other names that begin with "grpc-": not the user's
    BINARY = 20               # ends with "-bin"


cdef class Field:
    """A header field. Equal fields may be different objects; an Encoder knows those it may index by identity."""

    cdef readonly bytes name
    cdef readonly bytes value
    cdef readonly int kind
    cdef readonly bint is_valid          # name in lower case and of token characters, no NUL, CR or LF in the value (RFC 9113, 8.2.1)
    cdef int static_index                # of name and value in the static table, or 0
    cdef int static_name                 # of the name alone, or 0
    cdef Py_ssize_t size                 # as the RFC counts (4.1)
    cdef public object parsed            # belongs to whoever interprets fields: the value as they need it, or None


cdef Field new_field(bytes name, bytes value)


cdef class Decoder:
    cdef list table                      # Fields, the oldest first
    cdef Py_ssize_t size                 # of the table, as the RFC counts
    cdef readonly Py_ssize_t max_size    # what the peer has chosen, at most `limit`
    cdef Py_ssize_t limit                # what we allow: SETTINGS_HEADER_TABLE_SIZE
    cdef public Py_ssize_t max_list      # of one block, decoded
    cdef readonly bint overflowed        # the last block was longer than `max_list`, and so is not whole
    cdef int64_t changes                 # of the table: while this stays the same, the same bytes are the same Fields

    cdef int decode(self, const uint8_t* p, const uint8_t* end, list out) except -1
    cdef Field at(self, int64_t index)
    cdef int evict(self, Py_ssize_t room) except -1
    cdef int insert(self, Field f) except -1
    cdef int resize(self, int64_t size) except -1


cdef enum:
    MOST_KEPT = 16


cdef struct Kept:
    # What a tuple of Fields was encoded to.
    int size                             # 0: nothing is kept
    uint8_t data[MOST_KEPT]


cdef class Encoder:
    cdef dict known                      # Field → number of its insertion
    cdef list table                      # Fields, the oldest first
    cdef Py_ssize_t size
    cdef Py_ssize_t max_size
    cdef Py_ssize_t lowest               # smallest max_size since the last block; -1: no change to announce
    cdef int64_t inserted                # insertions so far
    cdef tuple first_fields, last_fields # what was encoded last of what comes first in a stream, and of what comes last, if it is sent often
    cdef Kept first, last                # … and what it became, while the table is the same

    # A whole block: of a list, whose items are Fields or pairs of bytes, or of a tuple of Fields that is given again and again. `last` says
    # whether its fields end a stream.
    cdef int block(self, WriteBuffer out, object fields, bint last) except -1
    cdef int keep(self, tuple fields, bint last, const uint8_t* p, Py_ssize_t n) except -1
    cdef void change(self) noexcept
    cdef int forget(self) except -1
    cdef int begin(self, WriteBuffer out) except -1
    cdef int field(self, WriteBuffer out, Field f) except -1
    cdef int literal(self, WriteBuffer out, bytes name, bytes value) except -1
    cdef int set_max(self, int64_t size) except -1
    cdef int evict(self, Py_ssize_t room) except -1


cdef inline int repeat(Encoder e, tuple fields, bint last, uint8_t* p) noexcept:
    """Write to `p`, where there is room for MOST_KEPT bytes, what these fields were encoded to. How many bytes that is; 0: it is not known."""
    if last:
        if fields is not e.last_fields:
            return 0
        memcpy(p, e.last.data, MOST_KEPT)
        return e.last.size
    if fields is not e.first_fields:
        return 0
    memcpy(p, e.first.data, MOST_KEPT)
    return e.first.size

# cython: language_level=3
"""Bytes on their way: the one Cython header that every room with native code shares."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int16_t, int32_t, int64_t


cdef extern from *:
    """
    static inline uint16_t weego_get16(const uint8_t *p) {
        return (uint16_t)(((uint16_t)p[0] << 8) | p[1]);
    }
    static inline uint32_t weego_get32(const uint8_t *p) {
        uint32_t v; __builtin_memcpy(&v, p, 4); return __builtin_bswap32(v);
    }
    static inline uint64_t weego_get64(const uint8_t *p) {
        uint64_t v; __builtin_memcpy(&v, p, 8); return __builtin_bswap64(v);
    }
    static inline void weego_put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
    static inline void weego_put32(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v); __builtin_memcpy(p, &v, 4); }
    static inline void weego_put64(uint8_t *p, uint64_t v) { v = __builtin_bswap64(v); __builtin_memcpy(p, &v, 8); }
    """
    # Big-endian loads and stores; the pointer need not be aligned.
    uint16_t get16 "weego_get16"(const uint8_t* p) noexcept nogil
    uint32_t get32 "weego_get32"(const uint8_t* p) noexcept nogil
    uint64_t get64 "weego_get64"(const uint8_t* p) noexcept nogil
    void put16 "weego_put16"(uint8_t* p, uint16_t v) noexcept nogil
    void put32 "weego_put32"(uint8_t* p, uint32_t v) noexcept nogil
    void put64 "weego_put64"(uint8_t* p, uint64_t v) noexcept nogil


cdef struct Cursor:
    # A read position. Readers compare with `end` before they touch a byte; whoever makes one keeps the memory alive.
    const uint8_t* p
    const uint8_t* end


cdef inline Py_ssize_t left(Cursor* c) noexcept nogil:
    """Bytes that are still to be read."""
    return c.end - c.p


cdef enum:
    # Bytes from which on a value is left where it is, in an object of its own, instead of being copied: into a message that is sent, or out of
    # one that arrived. Below, the copy costs less than the object that would stand for it and its place in the system call.
    APART = 16384


cdef class Piece:
    """Bytes that belong to another object, which it holds: part of a message that is sent, or what a view of one that arrived looks at."""

    cdef object owner
    cdef const uint8_t* p
    cdef Py_ssize_t n
    cdef Py_ssize_t at      # in a WriteBuffer: how many of the buffer's own bytes go before it


cdef class WriteBuffer:
    """Bytes being gathered. `p[0:n]` is the content, `cap` the room; `p` moves when it grows.

    Where the one who made it can send from several places at once (`gathers`), and the message is sent as it is written (`splices`, while it is),
    large values stay where they are: `pieces`, each at a place between the buffer's own bytes, `apart` bytes in all.
    """

    cdef uint8_t* p
    cdef Py_ssize_t n
    cdef Py_ssize_t cap
    cdef list pieces
    cdef Py_ssize_t apart
    cdef bint gathers
    cdef bint splices
    cdef WriteBuffer before      # belongs to whoever keeps buffers that nobody uses: the next of them

    cdef int splice(self, object owner, const void* src, Py_ssize_t size) except -1
    cdef int grow(self, Py_ssize_t more) except -1
    cdef int append(self, const void* src, Py_ssize_t size) except -1
    cdef void truncate(self, Py_ssize_t n) noexcept
    cdef void consume(self, Py_ssize_t n) noexcept
    cdef void release(self) noexcept


cdef inline int reserve(WriteBuffer b, Py_ssize_t more) except -1:
    """Make room for `more` bytes behind the content; MemoryError when there is none to be had."""
    if b.cap - b.n < more:
        b.grow(more)
    return 0


cdef class Block:
    """Memory that has outlived its ReadBuffer, or may: views hold it."""

    cdef uint8_t* p


cdef class ReadBuffer:
    """Bytes that arrived and wait to be understood: `p[head:tail]`, with room up to `cap`.

    Once `lend` was called the memory belongs to the Block that it returned. What has arrived is not moved in it any more; what comes may still
    be put behind it.
    """

    cdef uint8_t* p
    cdef Py_ssize_t head
    cdef Py_ssize_t tail
    cdef Py_ssize_t cap
    cdef Block block        # None: the memory is the buffer's own

    cdef Block lend(self)
    cdef int move(self, Py_ssize_t cap) except -1

    cdef int make_room(self, Py_ssize_t want) except -1
    cdef int feed(self, const void* src, Py_ssize_t size) except -1
    cdef void compact(self) noexcept
    cdef void release(self) noexcept

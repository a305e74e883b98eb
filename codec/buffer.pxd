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


cdef class WriteBuffer:
    """Bytes being gathered. `p[0:n]` is the content, `cap` the room; `p` moves when it grows."""

    cdef uint8_t* p
    cdef Py_ssize_t n
    cdef Py_ssize_t cap

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


cdef class ReadBuffer:
    """Bytes that arrived and wait to be understood: `p[head:tail]`, with room up to `cap`."""

    cdef uint8_t* p
    cdef Py_ssize_t head
    cdef Py_ssize_t tail
    cdef Py_ssize_t cap

    cdef int make_room(self, Py_ssize_t want) except -1
    cdef int feed(self, const void* src, Py_ssize_t size) except -1
    cdef void compact(self) noexcept
    cdef void release(self) noexcept

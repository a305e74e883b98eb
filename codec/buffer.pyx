# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Growable byte buffers over malloc.

Both give their memory back with `release` when a connection has nothing to say, so that ten thousand idle connections
cost no buffer at all. Growth doubles, so that appending n bytes costs O(n) in all.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

# The first block of a buffer: holds a usual small message, and malloc serves it from a bin without a system call.
cdef Py_ssize_t FIRST_BLOCK = 4096


cdef class WriteBuffer:
    def __cinit__(self):
        self.p = NULL
        self.n = 0
        self.cap = 0

    def __dealloc__(self):
        free(self.p)

    cdef int grow(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t cap = self.cap if self.cap else FIRST_BLOCK
        cdef uint8_t* p
        while cap - self.n < more:
            cap *= 2
        p = <uint8_t*>realloc(self.p, cap)
        if p == NULL:
            raise MemoryError(f"no memory for a message of {self.n + more} bytes")
        self.p = p
        self.cap = cap
        return 0

    cdef int append(self, const void* src, Py_ssize_t size) except -1:
        if self.cap - self.n < size:
            self.grow(size)
        memcpy(self.p + self.n, src, size)
        self.n += size
        return 0

    cdef void truncate(self, Py_ssize_t n) noexcept:
        self.n = n

    cdef void consume(self, Py_ssize_t n) noexcept:
        """Drop the first `n` bytes: they have left."""
        if n >= self.n:
            self.n = 0
        else:
            memmove(self.p, self.p + n, self.n - n)
            self.n -= n

    cdef void release(self) noexcept:
        free(self.p)
        self.p = NULL
        self.n = 0
        self.cap = 0

    def write(self, const uint8_t[::1] data not None):
        """Append `data`."""
        if data.shape[0]:
            self.append(&data[0], data.shape[0])

    def take(self):
        """The content as bytes; the buffer is empty afterwards."""
        cdef bytes content = PyBytes_FromStringAndSize(<char*>self.p, self.n)
        self.n = 0
        return content

    def __len__(self):
        return self.n

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<char*>self.p, self.n)

    def __repr__(self):
        return f"<WriteBuffer {self.n} of {self.cap} bytes>"


cdef class ReadBuffer:
    def __cinit__(self):
        self.p = NULL
        self.head = 0
        self.tail = 0
        self.cap = 0

    def __dealloc__(self):
        free(self.p)

    cdef int make_room(self, Py_ssize_t want) except -1:
        """Make room for `want` bytes behind the tail: move the content to the front first, then grow."""
        cdef Py_ssize_t cap
        cdef uint8_t* p
        if self.cap - self.tail >= want:
            return 0
        self.compact()
        if self.cap - self.tail >= want:
            return 0
        cap = self.cap if self.cap else FIRST_BLOCK
        while cap - self.tail < want:
            cap *= 2
        p = <uint8_t*>realloc(self.p, cap)
        if p == NULL:
            raise MemoryError(f"no memory to receive {self.tail + want} bytes")
        self.p = p
        self.cap = cap
        return 0

    cdef int feed(self, const void* src, Py_ssize_t size) except -1:
        self.make_room(size)
        memcpy(self.p + self.tail, src, size)
        self.tail += size
        return 0

    cdef void compact(self) noexcept:
        """Move the content to the front of the block."""
        if self.head == 0:
            return
        if self.tail > self.head:
            memmove(self.p, self.p + self.head, self.tail - self.head)
        self.tail -= self.head
        self.head = 0

    cdef void release(self) noexcept:
        free(self.p)
        self.p = NULL
        self.head = 0
        self.tail = 0
        self.cap = 0

    def write(self, const uint8_t[::1] data not None):
        """Append `data`, as if it had arrived."""
        if data.shape[0]:
            self.feed(&data[0], data.shape[0])

    def skip(self, Py_ssize_t n):
        """Drop the first `n` bytes; ValueError when there are fewer."""
        if n < 0 or n > self.tail - self.head:
            raise ValueError(f"cannot skip {n} bytes of {self.tail - self.head}")
        self.head += n

    def __len__(self):
        return self.tail - self.head

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<char*>self.p + self.head, self.tail - self.head)

    def __repr__(self):
        return f"<ReadBuffer {self.tail - self.head} of {self.cap} bytes>"

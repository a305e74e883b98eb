# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Growable byte buffers over malloc.

Both give their memory back with `release` when a connection has nothing to say, so that ten thousand idle connections
cost no buffer at all. Growth doubles, so that appending n bytes costs O(n) in all.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

# The first block of a buffer: holds a usual small message, and malloc serves it from a bin without a system call.
cdef Py_ssize_t FIRST_BLOCK = 4096


# Where values begin to stay apart, for tests and the documentation.
LARGE_VALUE = APART


cdef class Piece:
    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.p, self.n, True, flags)

    def __repr__(self):
        return f"<Piece of {self.n} bytes of {type(self.owner).__name__}>"


cdef class WriteBuffer:
    def __cinit__(self):
        self.p = NULL
        self.n = 0
        self.cap = 0
        self.apart = 0
        self.gathers = False
        self.splices = False

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

    cdef int splice(self, object owner, const void* src, Py_ssize_t size) except -1:
        """Append `size` bytes at `src` without a copy; they must stay as they are for as long as `owner` lives."""
        cdef Piece piece = Piece.__new__(Piece)
        piece.owner = owner
        piece.p = <const uint8_t*>src
        piece.n = size
        piece.at = self.n
        if self.pieces is None:
            self.pieces = []
        self.pieces.append(piece)
        self.apart += size
        return 0

    cdef void truncate(self, Py_ssize_t n) noexcept:
        """Drop what stands behind the first `n` bytes of the buffer's own, pieces too. (None begins right at `n`: what announces it is written first.)"""
        cdef Piece last
        self.n = n
        self.splices = False
        while self.pieces is not None:
            last = <Piece>self.pieces[len(self.pieces) - 1]
            if last.at <= n:
                break
            self.apart -= last.n
            if len(self.pieces) == 1:
                self.pieces = None
            else:
                self.pieces.pop()

    cdef void consume(self, Py_ssize_t n) noexcept:
        """Drop the first `n` bytes, pieces included: they have left."""
        cdef Py_ssize_t own = n, gone = 0
        cdef Piece piece
        if n >= self.n + self.apart:
            self.n = self.apart = 0
            self.pieces = None
            return
        if self.pieces is not None:
            own = 0
            for piece in self.pieces:
                if n <= piece.at - own:
                    break
                n -= piece.at - own
                own = piece.at
                if n < piece.n:
                    piece.p += n
                    piece.n -= n
                    self.apart -= n
                    n = 0
                    break
                n -= piece.n
                self.apart -= piece.n
                gone += 1
            own += n
            if gone == len(self.pieces):
                self.pieces = None
            else:
                del self.pieces[:gone]
                for piece in self.pieces:
                    piece.at -= own
        memmove(self.p, self.p + own, self.n - own)
        self.n -= own

    cdef void release(self) noexcept:
        free(self.p)
        self.p = NULL
        self.n = 0
        self.cap = 0
        self.pieces = None
        self.apart = 0

    def write(self, const uint8_t[::1] data not None):
        """Append `data`."""
        if data.shape[0]:
            self.append(&data[0], data.shape[0])

    def gather(self):
        """From now on large values stay where they are; `parts` gives them as they are."""
        self.gathers = True

    def take(self):
        """The content as bytes; the buffer is empty afterwards."""
        content = bytes(self)
        self.n = self.apart = 0
        self.pieces = None
        return content

    def parts(self):
        """The content as a list of what is to be sent one after the other; the buffer is empty afterwards."""
        parts = self._parts()
        self.n = self.apart = 0
        self.pieces = None
        return parts

    def _parts(self):
        cdef Piece piece
        cdef Py_ssize_t own = 0
        cdef list parts = []
        for piece in self.pieces or ():
            parts += [PyBytes_FromStringAndSize(<char*>self.p + own, piece.at - own), memoryview(piece)]
            own = piece.at
        parts.append(PyBytes_FromStringAndSize(<char*>self.p + own, self.n - own))
        return [part for part in parts if len(part)]

    def __len__(self):
        return self.n + self.apart

    def __bytes__(self):
        if self.pieces is not None:
            return b"".join(self._parts())
        return PyBytes_FromStringAndSize(<char*>self.p, self.n)

    def __repr__(self):
        return f"<WriteBuffer {self.n} of {self.cap} bytes, {self.apart} apart>"


cdef class Block:
    def __dealloc__(self):
        free(self.p)


cdef class ReadBuffer:
    def __cinit__(self):
        self.p = NULL
        self.head = 0
        self.tail = 0
        self.cap = 0

    def __dealloc__(self):
        if self.block is None:
            free(self.p)

    cdef Block lend(self):
        """The memory of what has arrived, for views that may live longer."""
        if self.block is None:
            self.block = Block.__new__(Block)
            self.block.p = self.p
        return self.block

    cdef int move(self, Py_ssize_t cap) except -1:
        """Go on in memory of our own, with room for `cap` bytes: what was lent stays as it is."""
        cdef uint8_t* p = <uint8_t*>malloc(cap)
        if p == NULL:
            raise MemoryError(f"no memory to receive {cap} bytes")
        memcpy(p, self.p + self.head, self.tail - self.head)
        self.block = None
        self.p = p
        self.tail -= self.head
        self.head = 0
        self.cap = cap
        return 0

    cdef int make_room(self, Py_ssize_t want) except -1:
        """Make room for `want` bytes behind the tail: move the content to the front first, then grow."""
        cdef Py_ssize_t cap
        cdef uint8_t* p
        if self.cap - self.tail >= want:
            return 0
        if self.block is not None:
            cap = FIRST_BLOCK
            while cap - (self.tail - self.head) < want:
                cap *= 2
            return self.move(cap)
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
        """Move the content to the front of the block, if it is our own."""
        if self.head == 0 or self.block is not None:
            return
        if self.tail > self.head:
            memmove(self.p, self.p + self.head, self.tail - self.head)
        self.tail -= self.head
        self.head = 0

    cdef void release(self) noexcept:
        if self.block is None:
            free(self.p)
        self.block = None
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

# cython: language_level=3, boundscheck=False, wraparound=False
"""Log lines on their way to a thread that writes them: a bounded queue that never makes anybody wait.

One buffer of whole lines. Whoever logs adds to it, and the thread takes it all; each is one step under the interpreter's lock, so there
is no other. What finds no room is dropped and counted.
"""


cdef class Spool:
    """Holds at most `limit` bytes; `wake()` is called when a line comes while the thread sleeps (`asleep`)."""

    def __init__(self, Py_ssize_t limit, wake):
        self.lines = WriteBuffer()
        self.limit = limit
        self.wake = wake
        self.asleep = True

    def __len__(self):
        return self.lines.n

    def put(self, bytes line not None):
        """Add one line, its end included."""
        self.add(<const char*>line, len(line))

    cdef int add(self, const void* line, Py_ssize_t size) except -1:
        if self.lines.n + size > self.limit:
            self.dropped += 1
            return 0
        self.lines.append(line, size)
        self.put_lines += 1
        if self.asleep:
            self.asleep = False
            self.wake()
        return 0

    cdef bint refuses(self) noexcept:
        """Whether not even a short line finds room: it is dropped and counted then, and need not be made."""
        if self.lines.n + SHORTEST <= self.limit:
            return False
        self.dropped += 1
        return True

    def take(self):
        """All the lines there are; the memory of a burst goes back."""
        cdef bytes taken = (<char*>self.lines.p)[:self.lines.n] if self.lines.n else b""
        if self.lines.cap > KEPT:
            self.lines.release()
        else:
            self.lines.truncate(0)
        return taken

    def lose(self, long long count):
        """So many lines more have been lost, after they were taken."""
        self.dropped += count


# Bytes of the buffer that stay between two looks of the thread: what a busy worker logs in that time.
cdef Py_ssize_t KEPT = 256 * 1024
# Bytes that any line has, whose time alone takes half of that.
cdef Py_ssize_t SHORTEST = 64

# One stream: part of connection.pyx.

cdef class Stream:
    """One request and its answer. What arrived is in `headers`, `take_data` and `trailers`; H2Connection sends."""

    def __cinit__(self):
        self.reset_code = -1
        self.announced = -1

    cdef int64_t send_window(self) noexcept:
        return self.connection.peer_window + self.send_delta

    cdef int on_headers(self) except -1:
        return 1

    cdef int on_data(self, const uint8_t* p, Py_ssize_t n) except -1:
        if self.chunks is None:
            self.chunks = []
        self.chunks.append(PyBytes_FromStringAndSize(<const char*>p, n))
        self.held += n
        self.connection.held += n
        return 1

    cdef int on_end(self) except -1:
        return 1

    cdef int on_reset(self) except -1:
        return 1

    cdef int on_drained(self) except -1:
        return 0

    def take_data(self):
        """The data that arrived since the last time; the windows open again."""
        data = b"".join(self.chunks or ())
        self.chunks = None
        self.connection.take(self, len(data))
        return data

    def __repr__(self):
        state = "open" if self.is_open else "ended"
        if self.reset_code >= 0:
            state = f"reset by {'the peer' if self.reset_by_peer else 'us'} with {self.reset_code}"
        return f"<Stream {self.id} {state}>"

# cython: language_level=3
"""The rules of one connection, without the connection."""

from codec.buffer cimport ReadBuffer


cdef class Protocol:
    cdef object receive(self, Cursor* c):
        raise NotImplementedError(f"{type(self).__name__} does not say how to receive")

    cdef bint between(self) noexcept:
        return True

    def feed(self, ReadBuffer data not None):
        """All whole messages in `data`, which keeps the rest. For tests and tools; ProtocolError as from a connection."""
        cdef Cursor c
        messages = []
        while True:
            c.p = data.p + data.head
            c.end = data.p + data.tail
            message = self.receive(&c)
            data.head = c.p - data.p
            if message is None:
                return messages
            messages.append(message)

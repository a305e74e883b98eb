# cython: language_level=3
"""The rules of one connection, without the connection."""

from codec.buffer cimport ReadBuffer

from codec.errors import ProtocolError


cdef class Protocol:
    cdef object receive(self, Cursor* c):
        raise NotImplementedError(f"{type(self).__name__} does not say how to receive")

    cdef bint between(self) noexcept:
        return True

    cdef bint portable(self) noexcept:
        return True

    def feed(self, ReadBuffer data not None):
        """All whole messages in `data`, which keeps the rest. For tests and tools.

        ProtocolError as from a connection; messages before the broken one are returned first, and the next call raises.
        """
        cdef Cursor c
        messages = []
        while True:
            c.p = data.p + data.head
            c.end = data.p + data.tail
            self.source = data
            try:
                message = self.receive(&c)
            except ProtocolError:
                if messages:
                    return messages
                raise
            finally:
                self.source = None
            data.head = c.p - data.p
            if message is None:
                return messages
            messages.append(message)

# cython: language_level=3
"""The rules of one connection, without the connection."""

from codec.buffer cimport Cursor, ReadBuffer


cdef class Protocol:
    """Sans-IO: bytes in, messages out. A subclass for each family of protocols and side."""

    # Seconds that the rest of what has begun to arrive may take; 0: what the connection's limits say. A subclass sets it as it goes.
    cdef readonly double patience
    # What the cursor of the next `receive` points into, where views of a message may hold on to it; None where it is used again at once.
    cdef ReadBuffer source

    # The next whole message in `c`, with c.p moved behind it, or None when more bytes are needed. What it returns is the
    # protocol's own class. Raises ProtocolError when the connection cannot go on.
    cdef object receive(self, Cursor* c)
    # True when no half of a message is remembered outside of the bytes that were left in the cursor.
    cdef bint between(self) noexcept
    # May another process go on with the connection, given only the bytes that were not understood yet? Not when both sides remember things,
    # as in HTTP/2.
    cdef bint portable(self) noexcept

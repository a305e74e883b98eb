# cython: language_level=3
"""Bytes on one socket."""

from codec.buffer cimport Cursor, ReadBuffer, WriteBuffer
from codec.protocol cimport Protocol
from libc.stdint cimport int64_t, uint8_t, uint32_t

from poller.loop cimport Loop, Pollable, Waiter


cdef class Receiver(Waiter):
    """Who hears what a Connection has to say. One for many connections on a server, one for each on a client."""

    # A whole message arrived. The receiver calls `begin` if it will answer later, and `done` when it has.
    cdef int message(self, Connection c, object message) except -1
    # The peer broke the rules; the connection is closed next.
    cdef int broken(self, Connection c, object error) except -1
    # The connection is gone. `error` is None when it ended in order.
    cdef int closed(self, Connection c, object error) except -1
    # All output has left and no call is under way; only told of connections whose `watch_idle` is set.
    cdef int idle(self, Connection c) except -1
    # Most of the output has left; only told, and once, to who set `watch_room`. Must not block.
    cdef int room(self, Connection c) except -1
    # Nothing has happened for the idle timeout. Must not block.
    cdef int expired(self, Connection c) except -1
    # The loop looks at time limits; only told to who set `watch_time`. Must not block.
    cdef int tick(self, Connection c, double now) except -1


cdef class Limits:
    """Bounds of one connection, shared by many."""

    cdef public double idle_timeout      # seconds without a call under way; 0: none
    cdef public double frame_timeout     # seconds from the first byte of a message to its last; 0: none
    cdef public double write_timeout     # seconds that the peer may take nothing of our output; 0: none


cdef class Connection(Pollable):
    cdef readonly Loop loop
    cdef readonly Protocol protocol
    cdef readonly Receiver receiver
    cdef public Limits limits
    cdef public object context           # belongs to the receiver
    cdef public bint is_surplus          # likewise: one too many, which is served only when another one goes
    cdef ReadBuffer input                # what was read and not understood yet; None when there is nothing
    cdef WriteBuffer output              # what is to be sent; None when there is nothing
    cdef Py_ssize_t sent                 # bytes of `output` that left already
    cdef public int busy                 # calls under way
    cdef int most_busy                   # stop reading messages at this many
    cdef bint ends_with_peer             # close when the peer has finished, even with calls under way
    cdef bint is_writing                 # `output` is in use between `writer` and `wrote`: it must not be sent or given away
    cdef bint is_flush_missed            # because of that, a flush was left out
    cdef bint is_dirty                   # in Loop.unsent
    cdef bint is_again                   # in Loop.unread
    cdef bint more                       # the kernel may hold input that no event will announce
    cdef bint is_behind                  # `get` returned less than there was room for, and there is more (or the end) all the same
    cdef bint is_rooted                  # the socket cannot go on in another process: there is state in this one
    cdef readonly bint finished          # the peer will send no more
    cdef bint closing                    # close as soon as nothing is under way and all is sent
    cdef public bint watch_idle
    cdef bint watch_time                 # tell the receiver when the loop looks at time limits
    cdef bint has_news                   # the protocol has messages to give without any input
    cdef bint watch_room                 # tell the receiver, once, when there is little output left
    cdef int64_t processing              # the loop's term in which a message of ours is with the receiver
    cdef bint is_closed
    cdef readonly double last_active
    cdef double partial_since            # when the first byte of an unfinished message came; 0: none
    cdef double stalled_since            # when the kernel last took nothing of our output; 0: none
    cdef readonly int64_t bytes_in
    cdef readonly int64_t bytes_out
    cdef object _peer

    cdef Py_ssize_t get(self, uint8_t* p, Py_ssize_t size) except? -2
    cdef Py_ssize_t put(self, const uint8_t* p, Py_ssize_t size) except? -2
    cdef Py_ssize_t put_pieces(self) noexcept
    cdef WriteBuffer writer(self)
    cdef int wrote(self) except -1
    cdef void begin(self) noexcept
    cdef int done(self) except -1
    cdef int receive(self) except -1
    # These three return 0 when another greenlet has gone on with the turn: return at once, touching nothing.
    cdef int process(self) except -1
    cdef int process_scratch(self, Py_ssize_t size) except -1
    cdef int deliver(self, object message) except -1
    cdef void unguard(self) noexcept
    cdef int offend(self, object error) except -1
    cdef bint may_process(self) noexcept
    cdef void await_rest(self, bint moved) noexcept
    cdef int become(self, Protocol protocol, Receiver receiver, int most_busy) except -1
    cdef int settle(self) except -1
    cdef int nudge(self) except -1
    cdef int process_news(self) except -1
    cdef int keep(self, Cursor* c) except -1
    cdef int shut(self, object error) except -1
    cdef int release_output(self) except -1

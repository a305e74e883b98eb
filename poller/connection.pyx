# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bytes on one socket.

Theory of operation
1. Reading goes into the loop's scratch block when nothing is left over from before; only the beginning of an unfinished message is copied into a
   buffer of the connection's own. An idle connection holds no buffer.
2. The receiver may run user code, which may block: then another greenlet has gone on with the loop's turn, `deliver` says so, and whoever
   called it returns at once. What is left of the input is safe in `input` before the receiver is called.
3. Messages are taken one after the other while `may_process` says so: not while as many calls are under way as the connection allows, and not
   while the peer does not take what it is sent. What is left stays in `input` or in the kernel, so the peer is slowed down by TCP itself.
4. Edge triggering: whoever stops early sets `more`, and `settle` resumes when the reason is gone.
5. Output is gathered in `output` and sent once a turn. What the kernel does not take waits for EPOLLOUT, which is always registered: with edge
   triggering it costs nothing until it is needed.
6. A peer that finishes sending (FIN) is answered before the connection is closed. A reset closes at once, after what came before it was read.
7. `detach` gives the socket away between two messages, with the bytes already read.
"""

import _socket
import os

from codec.buffer cimport Piece
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, errno
from libc.string cimport memset
from poller.clock cimport monotonic
from poller.loop cimport SCRATCH

from codec.errors import ProtocolError, Unavailable

cdef extern from "<sys/epoll.h>":
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
    enum: EPOLLET "(1u << 31)"

cdef extern from "<sys/socket.h>":
    enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
        MSG_PEEK
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags) nogil
    Py_ssize_t send(int fd, const void* buffer, size_t size, int flags) nogil
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    Py_ssize_t sendmsg(int fd, const msghdr* message, int flags) nogil

cdef extern from "<unistd.h>":
    int close_fd "close"(int fd)

cdef enum:
    # Room asked for when the rest of a long message is awaited; grows by doubling with what really arrives.
    READ_STEP = 16384
    # Reads of one readiness before the other connections have their turn.
    READS_PER_TURN = 16
    # Unsent output from which no further message is taken, and below which it goes on (TH-11: back-pressure at 1 MiB).
    HIGH_WATER = 1048576
    LOW_WATER = 262144
    # A spare output buffer larger than this is given back to malloc, and any beyond so many bytes in all. Room for what a turn answers to a peer that
    # has many calls under way: growing it anew each time would cost more than the answers do.
    SPARE_SIZE = 262144
    SPARE_BYTES = 4194304
    # Parts of one gathered send: a message with one large value has three.
    IOVECS = 16
    # Sent bytes at the front of an output buffer that are worth moving the rest over.
    SENT_WORTH_MOVING = 65536


cdef class Receiver:
    cdef int message(self, Connection c, object message) except -1:
        return 0

    cdef int broken(self, Connection c, object error) except -1:
        return 0

    cdef int closed(self, Connection c, object error) except -1:
        return 0

    cdef int idle(self, Connection c) except -1:
        return 0

    cdef int room(self, Connection c) except -1:
        return 0

    cdef int expired(self, Connection c) except -1:
        return c.shut(None)

    cdef int tick(self, Connection c, double now) except -1:
        return 0


cdef class Limits:
    """Time limits of connections, in seconds; 0 means none."""

    def __init__(self, double idle_timeout=0, double frame_timeout=0, double write_timeout=0):
        self.idle_timeout = idle_timeout
        self.frame_timeout = frame_timeout
        self.write_timeout = write_timeout


cdef class Connection(Pollable):
    """One connected, non-blocking stream socket in a Loop. It owns the descriptor.

    `most_busy` bounds the calls under way at a time (1: answers come in the order of the calls). A server answers a peer that has finished
    sending; for a client (`ends_with_peer`) nothing more can come then, and the connection is over, calls under way or not.
    """

    def __init__(self, Loop loop not None, int fd, Protocol protocol not None, Receiver receiver not None,
                 Limits limits not None, int most_busy=1, bint ends_with_peer=False):
        self.loop = loop
        self.protocol = protocol
        self.receiver = receiver
        self.limits = limits
        self.most_busy = most_busy
        self.ends_with_peer = ends_with_peer
        self.last_active = loop.polled
        loop.add(self, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

    # ---- the socket: what lies between it and us overrides these -------------------------------------------------------

    cdef Py_ssize_t get(self, uint8_t* p, Py_ssize_t size) except? -2:
        """As `recv`."""
        return recv(self.fd, p, size, 0)

    cdef Py_ssize_t put(self, const uint8_t* p, Py_ssize_t size) except? -2:
        """As `send`. What it took has left for certain."""
        return send(self.fd, p, size, MSG_NOSIGNAL)

    # ---- reading ---------------------------------------------------------------------------------------------------

    cdef int ready(self, uint32_t events) except -1:
        if events & EPOLLERR:
            if events & EPOLLIN and self.busy and self.may_process():
                # A client: a server that refuses a message answers, closes, and so resets; its answer is still there to be read.
                self.more = True
                self.receive()
            if self.fd >= 0 and not self.is_again:
                self.shut(self.socket_error())
            return 0
        if events & EPOLLOUT and self.stalled_since:
            self.flush()
            if self.fd < 0:
                return 0
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP):
            if events & (EPOLLRDHUP | EPOLLHUP):
                # Data and FIN may share one event: read to the end, a short read proves nothing now.
                self.more = True
            if self.may_process():
                self.receive()
            else:
                self.more = True
        return 0

    cdef bint may_process(self) noexcept:
        if self.busy >= self.most_busy or self.closing or self.fd < 0:
            return False
        return self.output is None or self.output.n + self.output.apart - self.sent < HIGH_WATER

    cdef int receive(self) except -1:
        cdef Py_ssize_t r, room
        cdef int reads
        cdef bint to_end
        for reads in range(READS_PER_TURN):
            to_end = self.more
            if self.input is None:
                room = SCRATCH
                r = self.get(self.loop.scratch, SCRATCH)
            else:
                self.input.make_room(READ_STEP)
                room = self.input.cap - self.input.tail
                r = self.get(self.input.p + self.input.tail, room)
            if r < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    self.more = False
                    return 0
                return self.shut(network_error(errno))
            if r == 0:
                self.more = False
                self.finished = True
                return self.settle()
            self.bytes_in += r
            self.last_active = self.loop.polled
            # A full read leaves something in the kernel. Noted now, for a handler that blocks takes this greenlet out of here.
            self.more = to_end or r == room or self.is_behind
            if self.input is None:
                if not self.process_scratch(r):
                    return 0
            else:
                self.input.tail += r
                if not self.process():
                    return 0
            if self.fd < 0:
                return 0
            if self.closing:
                return self.settle()
            if not self.may_process():
                self.more = True
                return 0
            if r < room and not to_end and not self.is_behind:
                return 0
        self.more = True
        if not self.is_again:
            self.is_again = True
            self.loop.again(self)
        return 0

    cdef int keep(self, Cursor* c) except -1:
        """Copy what was not understood into a buffer of our own: it is the beginning of a message, or waits for a call to end."""
        self.input = ReadBuffer()
        self.input.feed(c.p, c.end - c.p)
        return 0

    cdef int process_scratch(self, Py_ssize_t size) except -1:
        """Take a message out of the loop's scratch block; what is behind it goes into a buffer of our own before user code runs."""
        cdef Cursor c
        cdef object message
        c.p = self.loop.scratch
        c.end = c.p + size
        try:
            message = self.protocol.receive(&c)
        except ProtocolError as error:
            return self.offend(error)
        if c.p < c.end:
            self.keep(&c)
        if message is None:
            self.await_rest(c.p > self.loop.scratch)
            return 1
        self.partial_since = 0
        if not self.deliver(message):
            return 0
        return self.process()

    cdef int process(self) except -1:
        """Take messages out of `input` while that is allowed."""
        cdef Cursor c
        cdef object message
        cdef bint moved
        while self.input is not None and self.may_process():
            c.p = self.input.p + self.input.head
            c.end = self.input.p + self.input.tail
            self.protocol.source = self.input
            try:
                message = self.protocol.receive(&c)
            except ProtocolError as error:
                self.protocol.source = None
                return self.offend(error)
            self.protocol.source = None
            moved = c.p > self.input.p + self.input.head
            self.input.head = c.p - self.input.p
            if self.input.head == self.input.tail:
                self.input = None
            if message is None:
                self.await_rest(moved)
                return 1
            self.partial_since = 0
            if not self.deliver(message):
                return 0
        return 1

    cdef void await_rest(self, bint moved) noexcept:
        """What was received is no whole message. Note since when its rest is awaited: from its first byte."""
        if self.input is None and self.protocol.between():
            self.partial_since = 0
        elif self.partial_since == 0 or (moved and self.protocol.between()):
            self.partial_since = self.loop.polled

    cdef int become(self, Protocol protocol, Receiver receiver, int most_busy) except -1:
        """Go on with another protocol and receiver: the first bytes, which were not taken, have told which."""
        self.protocol = protocol
        self.receiver = receiver
        self.most_busy = most_busy
        self.context = None
        return 0

    cdef int deliver(self, object message) except -1:
        """Give a message to the receiver, which may run user code, which may block."""
        cdef Loop loop = self.loop
        cdef int64_t term = loop.term
        cdef bint guarded = False
        self.processing = term
        if self.most_busy > 1 and not self.is_again and (self.more or self.has_news or self.input is not None):
            # Several calls at a time: should this one block, whoever goes on with the turn goes on with this connection too.
            guarded = self.is_again = True
            loop.guarded = self
        try:
            self.receiver.message(self, message)
        except ProtocolError as error:
            if loop.term != term:
                return 0
            self.processing = 0
            if guarded:
                self.unguard()
            return self.offend(error)
        except BaseException as error:
            # A mistake of ours, not of the peer: what state the connection is in nobody knows.
            if guarded and loop.term == term:
                self.unguard()
            self.shut(error)
            raise
        if loop.term != term:
            return 0
        self.processing = 0
        if guarded:
            self.unguard()
        return 1

    cdef void unguard(self) noexcept:
        """The receiver did not block."""
        self.loop.guarded = None
        self.is_again = False

    cdef int offend(self, object error) except -1:
        """The peer broke the rules."""
        self.input = None
        self.partial_since = 0
        # Before anybody is told: a client that hears of it must not take the connection for the next call.
        self.closing = True
        self.receiver.broken(self, error)
        if self.fd >= 0:
            self.settle()
        return 1

    cdef int nudge(self) except -1:
        """The protocol has messages to give though nothing arrived: ask it, in the next turn."""
        self.has_news = True
        if not self.is_again:
            self.is_again = True
            self.loop.again(self)
        return 0

    cdef int process_news(self) except -1:
        cdef Cursor c
        cdef object message
        while self.may_process():
            c.p = c.end = self.loop.scratch
            message = self.protocol.receive(&c)
            if message is None:
                self.has_news = False
                return 1
            if not self.deliver(message):
                return 0
        return 1

    cdef int resume(self) except -1:
        self.is_again = False
        if self.has_news and not self.process_news():
            return 0
        if self.input is not None and not self.process():
            return 0
        if self.fd >= 0 and self.may_process() and self.more:
            return self.receive()
        return self.settle()

    # ---- calls under way -------------------------------------------------------------------------------------------

    cdef void begin(self) noexcept:
        self.busy += 1

    cdef int done(self) except -1:
        """One call is over and its answer, if any, is written."""
        self.busy -= 1
        self.last_active = self.loop.polled
        if self.fd < 0 or self.processing == self.loop.term:
            return 0
        return self.settle()

    cdef int settle(self) except -1:
        """Go on, or end, now that something changed."""
        if self.fd < 0:
            return 0
        if self.closing:
            if self.busy == 0 and self.output is None:
                self.shut(None)
            return 0
        if not self.may_process():
            return 0
        if self.input is not None and self.partial_since == 0 or self.more:
            if not self.is_again:
                self.is_again = True
                self.loop.again(self)
        elif self.finished and (self.ends_with_peer or (self.busy == 0 and self.output is None)):
            self.shut(None)
        return 0

    # ---- writing ---------------------------------------------------------------------------------------------------

    cdef WriteBuffer writer(self):
        """Where output is gathered; call `wrote` after writing."""
        cdef Loop loop = self.loop
        if self.output is None:
            if loop.spare is not None:
                self.output = loop.spare
                loop.spare = self.output.before
                loop.spare_bytes -= self.output.cap
                self.output.before = None
            else:
                self.output = WriteBuffer()
            self.output.gathers = not self.is_rooted  # what a connection does to bytes before they leave, it does in one place
            self.sent = 0
        self.is_writing = True
        return self.output

    cdef int wrote(self) except -1:
        self.is_writing = False
        if self.output is not None and self.output.n == 0:  # a piece never comes first
            self.release_output()
            return 0
        if not self.is_dirty and self.fd >= 0 and (self.is_flush_missed or not self.stalled_since):
            self.is_flush_missed = False
            self.is_dirty = True
            self.loop.dirty(self)
        return 0

    cdef int release_output(self) except -1:
        cdef WriteBuffer out = self.output
        self.output = None
        self.sent = 0
        if out.cap <= SPARE_SIZE and self.loop.spare_bytes + out.cap <= SPARE_BYTES:
            out.n = out.apart = 0
            out.pieces = None
            out.before = self.loop.spare
            self.loop.spare = out
            self.loop.spare_bytes += out.cap
        return 0

    cdef int flush(self) except -1:
        cdef Py_ssize_t r, size
        cdef bint was_full
        self.is_dirty = False
        if self.output is None or self.fd < 0:
            return 0
        if self.is_writing:
            # Whoever writes was interrupted by a switch (a lock of the log, a finalizer) and would go on in a buffer of somebody else's.
            self.is_flush_missed = True
            return 0
        size = self.output.n + self.output.apart
        was_full = size - self.sent >= HIGH_WATER
        while self.sent < size:
            if self.output.pieces is None:
                r = self.put(self.output.p + self.sent, size - self.sent)
            else:
                r = self.put_pieces()
            if r < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    if not self.stalled_since:
                        self.stalled_since = self.loop.polled
                    break
                return self.shut(network_error(errno))
            self.sent += r
            self.bytes_out += r
            if self.stalled_since:
                self.stalled_since = self.loop.polled
        if self.sent == size:
            self.stalled_since = 0
            self.release_output()
            if self.watch_idle and self.busy == 0:
                self.receiver.idle(self)
                if self.fd < 0:
                    return 0
            if self.more or self.closing or self.finished or self.input is not None:
                self.settle()
        else:
            if self.sent >= SENT_WORTH_MOVING and self.sent * 2 >= size:
                # A peer that reads slowly but steadily must not make the buffer grow for ever.
                self.output.consume(self.sent)
                size -= self.sent
                self.sent = 0
            if was_full and size - self.sent < LOW_WATER:
                self.settle()
        if self.watch_room and (self.output is None or self.output.n + self.output.apart - self.sent < LOW_WATER):
            self.watch_room = False
            self.receiver.room(self)
        return 0

    cdef Py_ssize_t put_pieces(self) noexcept:
        """As `put`, from the buffer and its pieces in turn: as many of them as one call takes."""
        cdef iovec parts[IOVECS]
        cdef msghdr message
        cdef WriteBuffer out = self.output
        cdef Piece piece
        cdef Py_ssize_t skip = self.sent, own = 0
        cdef int n = 0
        for piece in out.pieces:
            n = add_part(parts, n, out.p + own, piece.at - own, &skip)
            n = add_part(parts, n, piece.p, piece.n, &skip)
            own = piece.at
            if n >= IOVECS - 2:
                break
        else:
            n = add_part(parts, n, out.p + own, out.n - own, &skip)
        memset(&message, 0, sizeof(message))
        message.msg_iov = parts
        message.msg_iovlen = n
        return sendmsg(self.fd, &message, MSG_NOSIGNAL)

    # ---- ending ----------------------------------------------------------------------------------------------------

    cdef int shut(self, object error) except -1:
        cdef int fd = self.fd
        if self.is_closed:
            return 0
        self.is_closed = True
        if fd >= 0:
            self.loop.remove(self)
            close_fd(fd)
        self.input = None
        self.output = None
        self.receiver.closed(self, error)
        return 0

    cdef int abandon(self) except -1:
        cdef int fd = self.fd
        self.fd = -1
        self.is_closed = True
        self.input = None
        self.output = None
        if fd >= 0:
            close_fd(fd)
        return 0

    def close(self, error=None):
        """Close at once; calls under way are told `error`."""
        self.shut(error)

    def close_soon(self):
        """Close when the calls under way have been answered and all output has left."""
        self.closing = True
        self.settle()

    @property
    def is_open(self):
        """False after close or detach."""
        return self.fd >= 0

    @property
    def is_between(self):
        """True when nothing is under way and nothing waits to be sent: the socket may be given away."""
        return (self.fd >= 0 and self.busy == 0 and self.output is None and not self.closing and not self.finished
                and self.protocol.portable())

    @property
    def is_quiet(self):
        """True when nothing is under way, waits to be sent, or was half received."""
        return self.is_between and self.input is None and self.protocol.between()

    @property
    def is_portable(self):
        """May the socket go on in another process?"""
        return not self.is_rooted

    @property
    def unread(self):
        """Bytes that were read and not understood yet."""
        return 0 if self.input is None else self.input.tail - self.input.head

    def detach(self):
        """Give the socket away: ``(fd, bytes read and not understood)``. Only when `is_between`.

        The connection forgets the descriptor without closing it, and the receiver is not told.
        """
        if not self.is_between:
            raise RuntimeError(f"{self!r} is in the middle of something")
        if self.is_rooted:
            raise RuntimeError(f"{self!r} has state that stays in this process")
        cdef int fd = self.fd
        data = b"" if self.input is None else bytes(self.input)
        self.loop.remove(self)
        self.is_closed = True
        self.input = None
        return fd, data

    def adopt(self, const unsigned char[::1] data not None):
        """Take over `data`, read by the socket's former owner, and go on as if it had just arrived."""
        if data.shape[0]:
            if self.input is None:
                self.input = ReadBuffer()
            self.input.feed(&data[0], data.shape[0])
        self.more = True
        if not self.is_again:
            self.is_again = True
            self.loop.again(self)

    cdef int sweep(self, double now) except -1:
        cdef Limits l = self.limits
        cdef double patience
        if l.write_timeout and self.stalled_since and now - self.stalled_since > l.write_timeout:
            return self.shut(Unavailable(f"the peer took nothing of its answers for {l.write_timeout:g} s"))
        if self.partial_since and l.frame_timeout:
            patience = self.protocol.patience
            if patience == 0 or patience > l.frame_timeout:
                patience = l.frame_timeout
            if now - self.partial_since > patience:
                return self.shut(Unavailable(f"a message did not arrive whole within {patience:g} s"))
        if (l.idle_timeout and self.busy == 0 and self.output is None and now - self.last_active > l.idle_timeout):
            return self.receiver.expired(self)
        if self.watch_time:
            return self.receiver.tick(self, now)
        return 0

    # ---- about -----------------------------------------------------------------------------------------------------

    @property
    def peer(self):
        """The other side's address: ``tcp://host:port`` or ``unix://``."""
        if self._peer is None and self.fd >= 0:
            self._peer = peer_name(self.fd)
        return self._peer or "unknown"

    def socket_error(self):
        """The pending error of the socket as Unavailable."""
        sock = _socket.socket(fileno=self.fd)
        try:
            return network_error(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR) or ECONNRESET)
        finally:
            sock.detach()

    def __repr__(self):
        state = "closed" if self.fd < 0 else f"fd {self.fd} {self.peer}"
        return f"<Connection {state}, {self.busy} calls, in {self.bytes_in}, out {self.bytes_out}>"


cdef inline int add_part(iovec* parts, int n, const uint8_t* p, Py_ssize_t size, Py_ssize_t* skip) noexcept:
    """Add what is left of one part to those that are sent; how many these are."""
    if skip[0] >= size:
        skip[0] -= size
        return n
    parts[n].iov_base = <void*>(p + skip[0])
    parts[n].iov_len = size - skip[0]
    skip[0] = 0
    return n + 1


cdef object network_error(int number):
    return Unavailable(f"the connection broke: {os.strerror(number)}")


cdef object peer_name(int fd):
    # Never through a copy of the descriptor: there may be no room for one just when somebody needs to know who fills it all.
    try:
        sock = _socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        address = sock.getpeername()
    except OSError:
        return None
    finally:
        sock.detach()
    return format_address(address)


def format_address(address):
    """`address` of the socket module as ``tcp://host:port`` or ``unix://path``."""
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"tcp://{host}:{address[1]}"
    if isinstance(address, bytes):
        address = address.decode("utf-8", "replace")
    return f"unix://{address}"


def has_ended(int fd):
    """Has the peer of an idle socket closed, or sent what nobody asked for? One MSG_PEEK that does not wait."""
    cdef char byte
    cdef Py_ssize_t r
    while True:
        r = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        if r < 0 and errno == EINTR:
            continue
        return not (r < 0 and errno == EAGAIN)

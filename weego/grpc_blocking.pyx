# cython: language_level=3, boundscheck=False, wraparound=False
"""gRPC connections for programs that do not use gevent: any thread calls, and waits in itself; all threads share a connection.

Theory of operation
1. One lock guards a connection and its protocol. It is never held while a thread waits.
2. Whoever calls sends at once, in its own thread. What the socket does not take now is waited for by whoever wrote it.
3. Of those who wait for answers one *reads*: it waits at the socket, and takes in what comes for all. The others take a Seat, and are called when
   there is news of their stream. A reader whose own call is over calls one of them to read next.
4. Threads that are woken at once only queue for the interpreter's lock. So where one read has news for many, they take *turns*: whoever comes back to
   wait calls the next one, as it lets the interpreter go, and its request is held to leave with those of the others. Who finds nobody left to call
   sends all and reads. One thread, without news of its own, *watches*: when those who were called do something else instead, it sends what is held and calls the
   rest, and for some reads to come all are called at once. There is always one who reads, watches, or was called to do so (the *heir*).
5. System calls that cannot wait are made with the interpreter's lock held, unless they move much: to let go of it costs more than they do.
6. A thread may give up a call for which another one waits. If that is the one at the socket, a bell wakes it: a descriptor that there is as soon as a
   call is opened that could be given up so.
   Who has the connection to itself, where nobody could give up its call, waits in `recv` itself, for a short time: that spares a system call.
7. A stream that is finalized while this very thread is inside (garbage is collected anywhere) is an orphan, and reset on the way out.
"""

import os
import struct
from collections import deque

from codec.buffer cimport Cursor
from codec.h2.connection cimport Stream
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_get_thread_ident, PyThread_release_lock,
)
from governance.call cimport Call
from poller.clock cimport monotonic
from weego.grpc_client cimport GrpcMethod

from libc.errno cimport EAGAIN, EINTR, errno as error_number
from libc.math cimport ceil

from codec.errors import ClosedError, DeadlineExceeded, ProtocolError, RpcError, Unavailable
from codec.h2.errors import ErrorCode
from weego.grpc_client import Crowded

import _socket

cdef extern from "pythread.h":
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long microseconds, int intr_flag) nogil

cdef extern from "<poll.h>":
    enum:
        POLLIN
        POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long n, int timeout) nogil

cdef extern from "<sys/socket.h>":
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags) nogil
    Py_ssize_t send(int fd, const void* buffer, size_t size, int flags) nogil

cdef extern from "<unistd.h>":
    int close_fd "close"(int fd)

cdef enum:
    READ_SIZE = 65536
    # Bytes to send from which other threads may run meanwhile.
    MUCH = 16384
    # … and from which what is held to leave with more does leave: with what comes on top it is still not much.
    HELD = 12288
    # What `wait_for` adds to poll's events: no event of the socket's is meant.
    RANG = 1 << 30
    # Room for output that is kept when it has left.
    MOST_KEPT = 262144
    # Seats kept for the next who waits.
    MOST_SPARE = 64
    # Of so many who have news at once, each is called by the one before.
    CROWD = 3
    # Reads that call all at once when those who were called did not come back soon: twice as many each time that happens, half as many when they do.
    LEAST_EAGER = 8
    MOST_EAGER = 4096
    # Fewer who came back than this in a TURN, and it is not worth the waiting.
    FEWEST = 4

# Seconds after which is looked whether those who were called come back, and that output may wait for more: as long as a hundred calls take, or each look
# in between costs a switch for nothing.
cdef double TURN = 0.0015

# Seconds that the only call of a connection waits for its answer in the system call that reads it; if it takes longer than that, one more call more or
# less is no matter. Calls whose deadline is nearer than twice this do not: the kernel is late by a few milliseconds.
cdef double PATIENCE = 0.02
cdef bytes RECEIVE_TIMEOUT = struct.pack("@ll", 0, int(PATIENCE * 1e6))

# Seconds for a last word, which the peer may not take.
cdef double PARTING = 1.0
cdef bytes PING = b"weego:up"
cdef int H2_CANCEL = ErrorCode.CANCEL


cdef class Seat:
    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError()
        PyThread_acquire_lock(self.lock, NOWAIT_LOCK)

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef int call(self) except -1:
        """Whoever sits here may go on."""
        if not self.called:
            self.called = True
            PyThread_release_lock(self.lock)
        return 0

    cdef bint has_news(self) noexcept:
        """Need who sits here wait no longer?"""
        return self.stream.has_room() if self.for_room else self.stream.has_news()

    cdef int sit(self, double deadline, Seat next) except -1:
        """Wait to be called, until `deadline` (0: for ever) or a signal. `next` is called first, when others can run (None: nobody)."""
        cdef long long microseconds = -1
        cdef PyLockStatus how
        cdef PyThread_type_lock other = NULL
        if deadline:
            microseconds = <long long>min(max(0.0, ceil((deadline - monotonic()) * 1e6)), 1e12)
        if next is not None and not next.called:
            next.called = True
            other = next.lock
        with nogil:
            if other != NULL:
                PyThread_release_lock(other)
            how = PyThread_acquire_lock_timed(self.lock, microseconds, 1)
        if how == PY_LOCK_ACQUIRED:
            self.called = False
        elif how == PY_LOCK_INTR:
            PyErr_CheckSignals()
        return 0

    cdef int rise(self) except -1:
        """Make the seat as it was. The link's lock is held, so nobody calls now."""
        if self.called:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.called = False
        self.stream = None
        return 0


cdef class BlockingSink(Sink):
    cdef WriteBuffer writer(self):
        return self.buffer

    cdef Py_ssize_t backlog(self) noexcept:
        return self.buffer.n + (0 if self.buffer is self.link.output else self.link.output.n) - self.link.sent

    cdef int want_room(self) except -1:
        self.wants_room = True
        return 0

    cdef double now(self) noexcept:
        return monotonic()


cdef class BlockingLink(Link):
    """A connection over `sock`, an unpatched socket, which threads share. `session` is its TLS, with the handshake done.

    `on_change(link)` is called, if `wants_change`, when a call has ended or none can begin any more.
    """

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError()
        self.bell = -1

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)
        if self.bell >= 0:
            close_fd(self.bell)

    def __init__(self, sock not None, str address not None, str authority not None, Py_ssize_t max_message, *, session=None,
                 double keepalive_time=0, double keepalive_timeout=20.0, str caller="", on_change=None):
        self.prepare(address, authority, session is not None, max_message, keepalive_time, keepalive_timeout, caller)
        self.sock = sock
        self.session = session
        self.on_change = on_change
        self.seats = []
        self.due = deque()
        self.caution = LEAST_EAGER
        self.spare = []
        self.orphans = []
        sock.settimeout(None)  # `recv_alone` waits in it; all else says MSG_DONTWAIT
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, RECEIVE_TIMEOUT)
        self.fd = sock.fileno()
        self.last_used = monotonic()
        self.input = ReadBuffer()
        self.sink = BlockingSink.__new__(BlockingSink)
        self.sink.buffer = WriteBuffer()
        self.sink.link = self
        self.output = self.sink.buffer if session is None else WriteBuffer()
        self.protocol.start(self.sink)

    # ---- the lock ----------------------------------------------------------------------------------------------------

    cdef int enter(self) except -1:
        cdef unsigned long me = PyThread_get_thread_ident()
        if self.owner == me:
            self.depth += 1
            return 0
        return self.regain(1)

    cdef int leave(self) except -1:
        """Let go; what was written meanwhile leaves, and what is over is ended."""
        if self.depth > 1:
            self.depth -= 1
            return 0
        try:
            if self.orphans or self.is_retiring or self.wants_change or self.protocol.peer_leaving:
                self.finish_leaving()
            if self.has_output() and not self.may_hold():
                self.try_send()
        finally:
            self.release()
        return 0

    cdef int regain(self, int depth) except -1:
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
        self.owner = PyThread_get_thread_ident()
        self.depth = depth
        return 0

    cdef int release(self) except -1:
        """Let go, for others to go on meanwhile. What to give to `regain`."""
        cdef int depth = self.depth
        self.depth = 0
        self.owner = 0
        PyThread_release_lock(self.lock)
        return depth

    cdef int finish_leaving(self) except -1:
        while self.orphans:
            self.protocol.reset_stream(<Stream>self.orphans.pop(), H2_CANCEL)
        if (self.is_retiring or self.protocol.peer_leaving) and not self.protocol.streams and not self.is_closed:
            self.say_goodbye()
        if self.wants_change and (self.is_leaving or self.can_open):
            self.wants_change = False
            self.on_change(self)
        return 0

    def disown(self, GrpcClientStream s not None):
        """Nobody can read `s` any more."""
        self.orphans.append(s)
        if self.owner != PyThread_get_thread_ident():
            self.enter()
            self.leave()

    # ---- sending -----------------------------------------------------------------------------------------------------

    cdef bint has_output(self) noexcept:
        return not self.is_closed and (self.sink.buffer.n > 0 or self.output.n > self.sent)

    cdef int try_send(self) except -1:
        """Send what the socket takes without waiting."""
        cdef Py_ssize_t r, n
        cdef int fd = self.fd
        cdef unsigned char* p
        while not self.is_closed:
            if self.session is not None and self.sink.buffer.n:
                self.encrypt()
            while self.sent < self.output.n:
                p = self.output.p + self.sent
                n = self.output.n - self.sent
                # While many bytes move, the lock of the link keeps the buffer where it is.
                if n < MUCH:
                    r = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT)
                else:
                    with nogil:
                        r = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT)
                if r < 0:
                    if error_number == EINTR:
                        continue
                    if error_number != EAGAIN:
                        error = Unavailable(f"the connection broke: {os.strerror(error_number).lower()}", instance=self.address)
                        if not self.is_parting:
                            # It may have said goodbye before: then calls that it did not look at can go elsewhere.
                            self.is_parting = True
                            self.read()
                        self.fail(error)
                    return 0
                self.sent += r
            self.output.n = 0
            self.sent = 0
            if self.output.cap > MOST_KEPT:
                self.output.release()
            if not self.sink.wants_room:
                return 0
            self.sink.wants_room = False
            self.protocol.pump()
            if not self.has_output():
                return 0
        return 0

    def encrypt(self):
        """Plain output becomes output."""
        self.session.ssl.write(self.sink.buffer.take())
        self.take_encrypted()

    def take_encrypted(self):
        """What TLS has to send is output."""
        cdef bytes data = self.session.outgoing.read()
        self.output.append(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def open(self, Call call not None, GrpcMethod method not None, tuple args not None, str compression=None):
        """Begin a call that sends or receives more than one message. Its GrpcCall."""
        if self.bell < 0:
            self.enter()
            try:
                if self.bell < 0 and not self.is_closed:
                    self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            finally:
                self.leave()
        return Link.open(self, call, method, args, compression)

    cdef int abandon_call(self, GrpcClientStream s) except -1:
        Link.abandon_call(self, s)
        if self.reading_for is s and self.bell >= 0:
            os.eventfd_write(self.bell, 1)
        return self.call_seats()

    cdef int push_soon(self, double deadline) except -1:
        return 0 if self.may_hold() else self.push(deadline)

    cdef int push(self, double deadline) except -1:
        cdef int ready
        self.try_send()
        while self.has_output():
            # The peer may only read on when we read what it has sent. A thread in `recv_alone` does that; but it may go, and so is not relied on for long.
            if self.is_receiving:
                ready = self.wait_outside(POLLOUT, deadline, PATIENCE)
                if not ready and (not deadline or monotonic() < deadline):
                    continue
            else:
                ready = self.wait_outside(POLLIN | POLLOUT, deadline, 0)
            if not ready:
                raise DeadlineExceeded(f"{self.address} took nothing in time", instance=self.address)
            if ready & ~POLLOUT:
                self.read()
                self.call_seats()
            self.try_send()
        return 0

    cdef bint is_stale(self, double idle_timeout) noexcept:
        return not self.protocol.streams and monotonic() - self.last_used > idle_timeout

    # ---- a call begins -----------------------------------------------------------------------------------------------

    cdef GrpcClientStream start(self, Call call, GrpcMethod method, str compression, bytes payload, bint end):
        if not self.protocol.streams.count:
            self.read()  # nobody has looked since the last call: is the peer leaving?
        if not self.may_open():
            raise Crowded(f"the connection to {self.address} takes no further call now", sent=False, instance=self.address)
        self.last_used = monotonic()
        return Link.start(self, call, method, compression, payload, end)

    # ---- waiting -----------------------------------------------------------------------------------------------------

    cdef int wait_news(self, GrpcClientStream s, double deadline) except -1:
        return self.wait(s, False, deadline)

    cdef int wait_room(self, GrpcClientStream s, double deadline) except -1:
        return self.wait(s, True, deadline)

    cdef int wait(self, GrpcClientStream s, bint for_room, double deadline) except -1:
        try:
            while not (s.has_room() if for_room else s.has_news()):
                if deadline and monotonic() >= deadline:
                    s.is_late = True
                    break
                if self.is_reading or self.due:
                    self.take_seat(s, for_room, deadline)
                    continue
                self.reading_for = s
                try:
                    self.fetch(deadline)
                finally:
                    self.reading_for = None
        finally:
            self.hand_over()
        return 0

    cdef int take_seat(self, GrpcClientStream s, bint for_room, double deadline) except -1:
        """Let others go on until one of them calls."""
        cdef Seat seat = <Seat>self.spare.pop() if self.spare else Seat.__new__(Seat)
        cdef int depth
        seat.stream = s
        seat.for_room = for_room
        self.seats.append(seat)
        try:
            if self.due and self.watch is None:
                self.watch_turn(seat, deadline)
            else:
                next = self.next_due()
                depth = self.release()
                try:
                    seat.sit(deadline, next)
                finally:
                    self.regain(depth)
        finally:
            self.seats.remove(seat)
            if seat.is_heir:
                seat.is_heir = self.has_heir = False
            if seat.is_due:
                seat.is_due = False
                self.due.remove(seat)
            seat.rise()
            if len(self.spare) < MOST_SPARE:
                self.spare.append(seat)
        return 0

    cdef int watch_turn(self, Seat seat, double deadline) except -1:
        """Sit while the others take their turns, and look now and then whether they do."""
        cdef int depth
        cdef long before
        self.watch = seat
        try:
            while True:
                before = self.took_turns
                self.hold_until = monotonic() + TURN
                next = self.next_due()
                depth = self.release()
                try:
                    seat.sit(min(deadline, self.hold_until) if deadline else self.hold_until, next)
                finally:
                    self.regain(depth)
                if not self.due:
                    self.caution = max(self.caution // 2, LEAST_EAGER)
                    break
                if seat.has_news():
                    break
                if self.took_turns - before < FEWEST or deadline and monotonic() >= deadline:
                    # Who was called has not come back.
                    self.eager = self.caution
                    self.caution = min(self.caution * 2, MOST_EAGER)
                    self.call_due()
                    break
        finally:
            self.watch = None
            if self.has_output():
                self.try_send()
        return 0

    cdef Seat next_due(self):
        """Whose turn it is now, or None."""
        cdef Seat seat
        if not self.due:
            return None
        seat = <Seat>self.due.popleft()
        seat.is_due = False
        self.took_turns += 1
        return seat

    cdef int call_due(self) except -1:
        """Call all whose turn was to come."""
        cdef Seat seat
        while self.due:
            seat = self.next_due()
            seat.call()
        return 0

    cdef bint may_hold(self) noexcept:
        """May what was written by who will sit down now wait for what others write in their turns?"""
        cdef double now
        if self.watch is None or self.sink.backlog() >= HELD:
            return False
        now = monotonic()
        if now < self.hold_until:
            return True
        self.hold_until = now + TURN
        return False

    cdef int hand_over(self) except -1:
        """If nobody sees to those who sit, have one of them do it."""
        cdef Seat seat
        if self.is_reading or self.has_heir or self.watch is not None:
            return 0
        for each in self.seats:
            seat = <Seat>each
            if not seat.called and not seat.is_due:
                seat.is_heir = self.has_heir = True
                return seat.call()
        if self.due:
            # All have news. Each calls another one.
            seat = self.next_due()
            seat.is_heir = self.has_heir = True
            return seat.call()
        return 0

    cdef int call_seats(self) except -1:
        """Call those who have something to do now."""
        cdef Seat seat
        for each in self.seats:
            seat = <Seat>each
            if not seat.called and not seat.is_due and seat.has_news():
                seat.call()
        return 0

    cdef int begin_turn(self) except -1:
        """Those who have something to do now are to be called: at once if they are few, else one by the other."""
        cdef Seat seat
        for each in self.seats:
            seat = <Seat>each
            if not seat.called and not seat.is_due and seat.has_news():
                seat.is_due = True
                self.due.append(seat)
        if self.eager or len(self.due) < CROWD:
            if self.eager:
                self.eager -= 1
            self.call_due()
        return 0

    cdef int fetch(self, double deadline) except -1:
        """Wait for bytes, without the lock, and take them in, for all."""
        cdef int ready = 0
        cdef short events = POLLIN
        cdef bint is_dead = False
        if self.has_output():
            # Held, or of somebody who waits to send: the first to see that it can leave sends it.
            self.try_send()
            if self.has_output():
                events |= POLLOUT
        if events == POLLIN and self.may_wait_reading(deadline):
            if self.recv_alone():
                if self.has_output():
                    self.try_send()
                return self.begin_turn()
            if self.is_closed:
                return 0
        self.is_reading = True
        try:
            ready = self.wait_outside(events, deadline, self.keepalive_time)
            if not ready and self.keepalive_time and not self.is_closed and (not deadline or monotonic() < deadline):
                # The peer was silent: ask whether it is there.
                self.protocol.ping(PING)
                self.try_send()
                ready = self.wait_outside(POLLIN, deadline, self.keepalive_timeout)
                is_dead = not ready and (not deadline or monotonic() < deadline)
        finally:
            self.is_reading = False
        if is_dead:
            self.fail(Unavailable(f"it has not answered a PING for {self.keepalive_timeout:g} s", instance=self.address))
        elif ready:
            self.read()
            if self.has_output():
                self.try_send()
        return self.begin_turn()

    cdef bint may_wait_reading(self, double deadline) noexcept:
        """May the caller wait in the system call that reads? Not if others wait for news too: then more comes until the interpreter is free again. And
        not if a bell may ring, or the time is short."""
        return (self.protocol.streams.count == 1 and not self.polling and self.bell < 0 and not self.is_closed
                and not 0 < self.keepalive_time < 2 * PATIENCE and not (deadline and deadline - monotonic() < 2 * PATIENCE))

    cdef bint recv_alone(self) except -1:
        """Wait for bytes for a short time, without the lock, in the call that reads them, and take them in. False: none came."""
        cdef Py_ssize_t r, room
        cdef int depth, number
        cdef unsigned char* p
        self.input.make_room(READ_SIZE)
        room = self.input.cap - self.input.tail
        p = self.input.p + self.input.tail
        self.polling += 1
        self.is_reading = self.is_receiving = True
        depth = self.release()
        try:
            with nogil:
                r = recv(self.fd, p, room, 0)
                number = error_number
            if r < 0 and number == EINTR:
                PyErr_CheckSignals()
        finally:
            self.regain(depth)
            self.is_reading = self.is_receiving = False
            self.polling -= 1
            if self.is_closed and not self.polling:
                self.shut_socket()
        if self.is_closed:
            return False
        if r < 0:
            if number != EAGAIN and number != EINTR:
                self.fail(Unavailable(f"the connection broke: {os.strerror(number).lower()}", instance=self.address))
            return False
        if self.take_in(r) and (r == room or self.protocol.peer_leaving):
            self.read()
        return True

    cdef int read(self) except -1:
        """Take in what has come. Never waits."""
        cdef ReadBuffer input = self.input
        cdef Py_ssize_t r, room
        while not self.is_closed and not self.is_receiving:
            input.make_room(READ_SIZE)
            room = input.cap - input.tail
            r = recv(self.fd, input.p + input.tail, room, MSG_DONTWAIT)
            if r < 0:
                if error_number == EINTR:
                    continue
                if error_number != EAGAIN:
                    self.fail(Unavailable(f"the connection broke: {os.strerror(error_number).lower()}", instance=self.address))
                return 0
            if not self.take_in(r) or r < room and not self.protocol.peer_leaving:
                return 0
        return 0

    cdef bint take_in(self, Py_ssize_t r) except -1:
        """Of the input, `r` bytes are new; 0: there will be no more. False: the connection is over."""
        cdef ReadBuffer input = self.input
        cdef Cursor c
        cdef object told = self
        if r == 0:
            self.fail(None)
            return False
        if self.session is None:
            input.tail += r
        else:
            self.session.incoming.write(PyBytes_FromStringAndSize(<char*>input.p + input.tail, r))
            data = self.decrypted()
            if data is None:
                return False
            input.write(data)
        try:
            while told is not None:  # what streams have to tell, they know; who waits for it is seen to later
                c.p = input.p + input.head
                c.end = input.p + input.tail
                self.protocol.source = input
                try:
                    told = self.protocol.receive(&c)
                finally:
                    self.protocol.source = None
                input.head = c.p - input.p
        except ProtocolError as error:
            try:
                self.try_send()
            finally:
                self.fail(error)
            return False
        return True

    def decrypted(self):
        """The plain bytes of what has come; None when the connection had to be given up."""
        import ssl

        from poller.tls import describe

        parts = []
        try:
            while True:
                part = self.session.ssl.read(READ_SIZE)
                if not part:
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.fail(Unavailable(f"TLS: {describe(error)}", instance=self.address))
            return None
        if self.session.outgoing.pending:
            self.take_encrypted()  # a key update is answered
        return b"".join(parts)

    cdef int wait_outside(self, short events, double deadline, double most) except -1:
        """`wait_for`, and nobody is kept out meanwhile."""
        cdef int depth, ready
        if self.is_closed:
            return events
        self.polling += 1
        depth = self.release()
        try:
            ready = self.wait_for(events, deadline, most)
        finally:
            self.regain(depth)
            self.polling -= 1
            if self.is_closed and not self.polling:
                self.shut_socket()
        return ready

    cdef int wait_for(self, short events, double deadline, double most) except -1:
        """Wait until the socket is ready, the deadline has passed (0: none), or `most` seconds are over (0: any).

        The events that are there, 0 for none.
        """
        cdef pollfd both[2]
        cdef double left
        cdef int milliseconds, found
        cdef int watched = 1 if self.bell < 0 else 2
        both[0].fd = self.fd
        both[0].events = events
        both[0].revents = 0
        both[1].fd = self.bell
        both[1].events = POLLIN
        both[1].revents = 0
        while True:
            left = max(0.0, deadline - monotonic()) if deadline else -1
            if most and (left < 0 or most < left):
                left = most
            milliseconds = -1 if left < 0 else <int>min(ceil(left * 1000), 1e9)
            with nogil:
                found = poll(both, watched, milliseconds)
            if found > 0 and both[1].revents:
                self.hear()
                return both[0].revents | RANG
            if found >= 0 or error_number != EINTR:
                return both[0].revents if found else 0
            PyErr_CheckSignals()

    def hear(self):
        """The bell rang."""
        try:
            os.eventfd_read(self.bell)
        except BlockingIOError:
            pass  # another thread was faster

    # ---- the end -----------------------------------------------------------------------------------------------------

    cdef int fail(self, object error) except -1:
        """The connection is over."""
        cdef GrpcClientStream s
        cdef Seat seat
        if self.is_closed:
            return 0
        self.is_closed = True
        self.error = error
        self.protocol.dead = True
        for each in list(self.protocol.streams.values()):
            s = <GrpcClientStream>each
            s.has_broken = True
            self.protocol.end_stream(s, True)
        if self.polling:
            # Who waits at the socket would not learn that it is closed.
            try:
                self.sock.shutdown(_socket.SHUT_RDWR)
            except OSError:
                pass
        else:
            self.shut_socket()
        self.due.clear()
        for each in self.seats:
            seat = <Seat>each
            seat.is_due = False
            seat.call()
        if self.wants_change:
            self.wants_change = False
            self.on_change(self)
        return 0

    def shut_socket(self):
        """Give the descriptor back."""
        if self.fd >= 0:
            self.fd = -1
            self.sock.close()
        if self.bell >= 0:
            os.close(self.bell)
            self.bell = -1

    def say_goodbye(self):
        """Close in good order; no call is under way, or all that are fail with ClosedError."""
        self.protocol.shut_down_now()
        try:
            self.try_send()
            if self.session is not None and not self.is_closed:
                goodbye = self.session.close()
                self.sock.send(goodbye, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
        except OSError:
            pass
        self.fail(ClosedError("the client was closed during the call"))

    def close(self):
        """Say goodbye and close."""
        self.enter()
        try:
            if not self.is_closed:
                self.say_goodbye()
        finally:
            self.leave()

    def close_soon(self):
        """Close when the calls under way are over."""
        self.is_retiring = True
        self.enter()
        self.leave()

    def abandon(self):
        """In a forked child: close our copy, say nothing."""
        self.is_closed = True
        self.polling = 0
        self.shut_socket()

    def __repr__(self):
        return f"<BlockingLink {self.address} {'closed' if self.is_closed else 'open'}, {self.streams} calls>"

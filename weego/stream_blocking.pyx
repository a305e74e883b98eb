# cython: language_level=3, boundscheck=False, wraparound=False
"""A client's connection of streams whose callers wait in their threads.

Two threads may use a call, one to send and one to receive, and several calls may be under way. Whoever waits first reads for all of them, without holding
the lock while nothing comes, and wakes the others. Who sends while the socket takes nothing reads meanwhile: the peer may only go on when what it sends is
taken, for the protocol has no windows.
"""

import _socket
import errno
import os

from codec.buffer cimport ReadBuffer, WriteBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno as error_number
from libc.math cimport ceil
from poller.clock cimport monotonic
from weego.stream_client cimport StreamLink, ThriftStream

from threading import Condition, RLock

from codec.errors import ClosedError, DeadlineExceeded, ProtocolError, RpcError, Unavailable
from weego.stream_client import DEFAULT_MAX_QUEUED

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
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags) nogil

cdef enum:
    READ_SIZE = 65536


cdef class BlockingStreamLink(StreamLink):
    """A connection over `sock`, an unpatched socket. `session` is its TLS, with the handshake done."""

    def __init__(self, sock not None, str address not None, Py_ssize_t max_message, *, Py_ssize_t max_queued=DEFAULT_MAX_QUEUED, session=None):
        super().__init__(address, max_message, max_queued)
        self.sock = sock
        self.session = session
        sock.settimeout(0)
        self.fd = sock.fileno()
        self.lock = RLock()
        self.news = Condition(self.lock)
        self.input = ReadBuffer()
        self.output = WriteBuffer()

    cpdef enter(self):
        self.lock.acquire()

    cpdef leave(self):
        self.lock.release()

    cpdef WriteBuffer writer(self):
        return self.output

    cpdef wrote(self):
        pass

    cpdef tell(self, ThriftStream s):
        if self.waiting:
            self.news.notify_all()

    # ---- sending -----------------------------------------------------------------------------------------------------

    cpdef push(self, double deadline):
        with self.lock:
            data = self.output.take()
            if data:
                self.send(data, deadline)

    def send(self, data, double deadline):
        """Send all, in the calling thread."""
        if self.is_closed:
            return
        if self.session is not None:
            self.session.ssl.write(data)
            data = self.session.outgoing.read()
        rest = memoryview(data)
        try:
            while rest and not self.is_closed:
                try:
                    rest = rest[self.sock.send(rest, _socket.MSG_NOSIGNAL):]
                except BlockingIOError:
                    events = POLLOUT if self.queued > self.max_queued else POLLOUT | POLLIN
                    ready = self.wait_for(events, deadline)
                    if not ready:
                        raise DeadlineExceeded(f"{self.address} took nothing in time", instance=self.address) from None
                    if ready & POLLIN:
                        self.read()
        except OSError as error:
            self.fail(Unavailable(f"the connection broke: {os.strerror(error.errno or errno.EIO).lower()}", instance=self.address))
        except DeadlineExceeded as error:
            self.fail(error)
            raise

    cpdef wait_room(self, ThriftStream s, double deadline):
        pass  # who sends waits itself

    # ---- receiving ---------------------------------------------------------------------------------------------------

    cpdef wait_news(self, ThriftStream s, double deadline):
        with self.lock:
            while not s.has_news():
                if not self.wait_more(deadline):
                    s.is_late = True

    def wait_more(self, double deadline):
        """Wait until something has happened, reading if nobody else does. The lock is held. False at the deadline."""
        cdef double left = deadline - monotonic() if deadline else -1
        cdef int ready
        if deadline and left <= 0:
            return False
        if self.is_reading:
            self.waiting += 1
            try:
                self.news.wait(left if deadline else None)
            finally:
                self.waiting -= 1
            return True
        self.is_reading = True
        self.lock.release()
        try:
            ready = self.wait_for(POLLIN, deadline)
        finally:
            self.lock.acquire()
            self.is_reading = False
            if self.waiting:
                self.news.notify_all()
        if ready and not self.is_closed:
            self.read()
            self.push(deadline)
        return ready != 0 or self.is_closed

    def read(self):
        """Take in what has come. Never waits; the lock is held."""
        cdef ReadBuffer input = self.input
        cdef Py_ssize_t r
        input.make_room(READ_SIZE)
        r = recv(self.fd, input.p + input.tail, input.cap - input.tail, MSG_DONTWAIT)
        if r < 0:
            if error_number != EAGAIN and error_number != EINTR:
                self.fail(Unavailable(f"the connection broke: {os.strerror(error_number).lower()}", instance=self.address))
            return
        if r == 0:
            self.fail(None)
            return
        if self.session is None:
            input.tail += r
        else:
            self.session.incoming.write(PyBytes_FromStringAndSize(<char*>input.p + input.tail, r))
            data = self.decrypted()
            if data is None:
                return
            input.write(data)
        try:
            while frames := self.protocol.feed(input):
                for frame in frames:
                    self.take(frame)
        except ProtocolError as error:
            self.fail(error)

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
            try:
                self.sock.send(self.session.outgoing.read(), _socket.MSG_NOSIGNAL)  # a key update
            except OSError:
                pass
        return b"".join(parts)

    cdef int wait_for(self, int events, double deadline) except -1:
        """Wait until the socket is ready or the deadline has passed (0: none). What it is ready for; 0 at the deadline."""
        cdef pollfd it
        cdef double left
        cdef int milliseconds, found
        it.fd = self.fd
        it.events = <short>events
        while True:
            if it.fd < 0:
                return events  # closed by another thread
            left = max(0.0, deadline - monotonic()) if deadline else -1
            milliseconds = -1 if left < 0 else <int>min(ceil(left * 1000), 1e9)
            with nogil:
                found = poll(&it, 1, milliseconds)
            if found == 0:
                return 0
            if found > 0:
                # Errors and ends are found by whoever reads or writes.
                return it.revents & events or events
            if error_number != EINTR:
                return events
            PyErr_CheckSignals()

    # ---- its end -----------------------------------------------------------------------------------------------------

    def fail(self, error):
        """The connection is over."""
        if self.is_closed:
            return
        self.is_closed = True
        self.fd = -1
        self.broke(error)
        self.sock.close()
        if self.waiting:
            self.news.notify_all()

    def is_alive(self):
        """Could a call begin now? Takes in what has come since the last one: nothing watches the socket between two calls."""
        with self.lock:
            while not self.is_closed and self.wait_for(POLLIN, 1e-9):
                self.read()
            return not self.is_leaving

    @property
    def is_reusable(self):
        """Is nothing under way?"""
        return not self.is_leaving and not self.open_streams

    def close(self):
        """Close. Calls under way fail with ClosedError."""
        with self.lock:
            if self.is_closed:
                return
            try:
                self.push(monotonic() + 1)
                if self.session is not None and not self.is_closed:
                    self.sock.send(self.session.close(), _socket.MSG_NOSIGNAL)
            except (OSError, RpcError):
                pass
            self.fail(ClosedError("the client was closed during the call"))

    def abandon(self):
        """In a forked child: close our copy, say nothing."""
        self.is_closed = True
        self.sock.close()

    def __repr__(self):
        return f"<BlockingStreamLink {self.address} {'closed' if self.is_closed else 'open'}, {self.streams} streams>"

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Connections with TLS in between.

Theory of operation
1. A Connection reads by `get` and sends by `put`. Here `get` fills the caller's block with cipher text, gives that to OpenSSL, and fills the
   block again with what comes out: no memory of its own. It returns less than the block has room for only when the kernel had no more, so the
   rules of edge triggering hold as they are.
2. `put` encrypts a piece and sends it. Plain bytes count as sent when all of their cipher text has left; until then `left` has the rest, and
   `put` says "try again", as the kernel would.
3. Until the handshake is done `get` has nothing to read and `put` takes nothing. A peer that does not finish it in time is closed in the sweep.
4. A failed handshake is one line in the log and an alert to the peer. After it, errors of TLS end the connection as errors of the network do.
5. Such a connection is never given away: the other process would need the keys.
"""

import ssl as ssl_module

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, EPROTO, errno as error_number
from libc.stdint cimport uint8_t, uint32_t
from codec.protocol cimport Protocol
from poller.connection cimport Connection, Limits, Receiver
from poller.loop cimport Loop

from codec.errors import Unavailable
from poller.clock import monotonic
from poller.tls import TlsError, describe

cdef extern from *:
    """
    #include <errno.h>
    static inline void weego_set_errno(int number) { errno = number; }
    """
    void set_error "weego_set_errno"(int number) nogil

cdef extern from "<sys/epoll.h>":
    enum:
        EPOLLOUT

cdef extern from "<sys/socket.h>":
    enum:
        MSG_NOSIGNAL
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags) nogil
    Py_ssize_t send(int fd, const void* buffer, size_t size, int flags) nogil

cdef enum:
    # Plain bytes encrypted at a time: a few records, so that a slow peer costs little memory on top of the output itself.
    PIECE = 65536
    # A block smaller than this is not worth a call to OpenSSL: the next read gets a fresh one.
    LEAST_ROOM = 512

WantRead = ssl_module.SSLWantReadError
SSLError = ssl_module.SSLError


cdef class SecureConnection(Connection):
    """A Connection whose bytes are encrypted by `session`. `shaken`: its handshake is done already; else `failures` hears if it fails."""

    def __init__(self, Loop loop not None, int fd, Protocol protocol not None, Receiver receiver not None, Limits limits not None,
                 session not None, int most_busy=1, bint ends_with_peer=False, *, bint shaken=False, double handshake_timeout=0,
                 failures=None):
        self.session = session
        self.ssl = session.ssl
        self.incoming = session.incoming
        self.outgoing = session.outgoing
        self.is_shaken = shaken
        self.handshake_timeout = handshake_timeout
        self.failures = failures
        self.is_rooted = True
        Connection.__init__(self, loop, fd, protocol, receiver, limits, most_busy, ends_with_peer)
        self.opened = monotonic()
        if shaken and (self.incoming.pending or self.ssl.pending()):
            # What came behind the last byte of the handshake: no event will announce it.
            self.adopt(b"")

    # ---- reading ---------------------------------------------------------------------------------------------------

    cdef Py_ssize_t get(self, uint8_t* p, Py_ssize_t size) except? -2:
        cdef Py_ssize_t got = 0, r
        cdef bint is_empty = False       # the kernel has nothing more for now
        self.is_behind = False
        while True:
            if not self.is_shaken and self.incoming.pending and not self.shake() and self.failure is not None:
                set_error(EPROTO)
                return -1
            while self.is_shaken and got < size and not self.is_ended and (self.incoming.pending or self.ssl.pending()):
                try:
                    r = self.ssl.read(size - got, PyMemoryView_FromMemory(<char*>p + got, size - got, PyBUF_WRITE))
                except WantRead:
                    break
                except SSLError as error:
                    if got:
                        self.is_behind = True  # first what came before; OpenSSL repeats its error
                        return got
                    return self.broke(error)
                if r == 0:
                    self.is_ended = True  # its goodbye
                got += r
            if self.is_shaken and self.outgoing.pending:
                self.push()  # a key update, answered
            if self.is_ended or size - got < LEAST_ROOM:
                self.is_behind = got > 0
                return got
            if is_empty:
                if got:
                    return got
                set_error(EAGAIN)
                return -1
            r = recv(self.fd, p + got, size - got, 0)
            if r < 0 and error_number == EINTR:
                continue
            if r < 0:
                if got and error_number != EAGAIN:
                    self.is_behind = True
                return got if got else -1
            if r == 0:
                self.is_ended = True
                if not self.is_shaken and self.has_spoken:  # who never said a word only looked whether the port is open
                    self.fail("the peer closed the connection during the handshake")
                    set_error(EPROTO)
                    return -1
                continue
            self.has_spoken = True
            is_empty = r < size - got and not self.more  # with FIN in the same event, a short read proves nothing
            self.incoming.write(PyMemoryView_FromMemory(<char*>p + got, r, PyBUF_READ))

    cdef Py_ssize_t broke(self, object error) except? -2:
        self.failure = Unavailable(f"the TLS connection to {self.peer} broke: {describe(error)}")
        self.push()  # the alert that says so
        set_error(EPROTO)
        return -1

    cdef bint shake(self) except -1:
        """A step of the handshake. True when it is done."""
        try:
            self.is_shaken = self.session.shake()
        except TlsError as error:
            self.push()  # the alert
            self.fail(str(error))
            return False
        self.push()
        return self.is_shaken

    cdef int fail(self, str what) except -1:
        self.failure = Unavailable(f"TLS handshake with {self.peer} failed: {what}")
        if self.failures is not None:
            self.failures.tell(self.peer, what)
        return 0

    # ---- writing ---------------------------------------------------------------------------------------------------

    cdef Py_ssize_t put(self, const uint8_t* p, Py_ssize_t size) except? -2:
        if not self.is_shaken:
            set_error(EAGAIN)
            return -1
        if self.left is None and self.outgoing.pending:
            self.push()  # older than what is to be written
        if self.left is None:
            try:
                self.counted = self.ssl.write(PyMemoryView_FromMemory(<char*>p, min(size, PIECE), PyBUF_READ))
            except SSLError as error:
                return self.broke(error)
        if not self.push():
            return -1
        size, self.counted = self.counted, 0
        return size

    cdef bint push(self) except -1:
        """Send cipher text. True when all has left; else `errno` says why not."""
        cdef Py_ssize_t r
        while True:
            if self.left is None:
                if not self.outgoing.pending:
                    return True
                self.left = self.outgoing.read()
                self.left_sent = 0
            r = send(self.fd, PyBytes_AS_STRING(self.left) + self.left_sent, PyBytes_GET_SIZE(self.left) - self.left_sent, MSG_NOSIGNAL)
            if r < 0:
                if error_number == EINTR:
                    continue
                return False
            self.left_sent += r
            if self.left_sent == PyBytes_GET_SIZE(self.left):
                self.left = None

    cdef int ready(self, uint32_t events) except -1:
        if events & EPOLLOUT and self.left is not None and self.output is None:
            # A flight of the handshake or a key update that did not fit; with output, `flush` sends it in its turn.
            self.push()
        return Connection.ready(self, events)

    # ---- ending ----------------------------------------------------------------------------------------------------

    cdef int shut(self, object error) except -1:
        cdef bytes goodbye
        if self.is_closed:
            return 0
        if self.failure is not None:
            error = self.failure
        if self.fd >= 0 and self.is_shaken and self.failure is None and self.left is None:
            goodbye = self.session.close()
            # Whether it fits or not: the connection is over.
            send(self.fd, PyBytes_AS_STRING(goodbye), PyBytes_GET_SIZE(goodbye), MSG_NOSIGNAL)
        return Connection.shut(self, error)

    cdef int sweep(self, double now) except -1:
        if not self.is_shaken and self.handshake_timeout and now - self.opened > self.handshake_timeout:
            self.fail(f"it was not done in {self.handshake_timeout:g} s")
            return self.shut(None)
        return Connection.sweep(self, now)

    @property
    def is_quiet(self):
        """As a Connection's; a handshake under way is not quiet."""
        return self.is_shaken and Connection.is_quiet.__get__(self)

    # ---- about -----------------------------------------------------------------------------------------------------

    @property
    def identity(self):
        """Who the peer proved to be, or None."""
        if self._identity is None and self.is_shaken:
            self._identity = self.session.identity or False
        return self._identity or None


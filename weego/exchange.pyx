# cython: language_level=3, boundscheck=False, wraparound=False
"""One call at a time over one connection, for programs that use gevent.

The call is written and sent at once, in the caller's greenlet; the answer is read in the loop's turn, which switches straight back to the caller.
While no call is under way the connection stays in the loop, so that the peer's FIN or reset ends it at once.
"""

from codec.buffer cimport WriteBuffer
from poller.connection cimport Limits

from greenlet import getcurrent

from codec.errors import ClosedError, DeadlineExceeded, ProtocolError, Unavailable, UsageError
from codec.thrift import DEFAULT_MAX_MESSAGE, client_protocol
from poller.connection import has_ended


cdef class Exchange(Receiver):
    """A client's connection `fd` to `address`, in `loop`; with `session` (of poller.tls, its handshake done), TLS is in between."""

    def __init__(self, Loop loop not None, int fd, str address not None, str framing="framed", max_message=DEFAULT_MAX_MESSAGE, on_closed=None,
                 bint checksum=False, session=None, str compression="", payload=None):
        self.address = address
        self.hub = loop.hub
        self.protocol = client_protocol(framing, max_message, checksum, compression, payload)
        self.on_closed = on_closed
        self.answered = True
        # 2: while one call is under way its answer must still be read.
        if session is None:
            self.connection = Connection(loop, fd, self.protocol, self, NO_LIMITS, 2, True)
        else:
            from poller.secure import SecureConnection  # most clients never need OpenSSL

            self.connection = SecureConnection(loop, fd, self.protocol, self, NO_LIMITS, session, 2, True, shaken=True)

    def call(self, Route route not None, tuple args not None, int32_t seqid, double deadline, dict ints=None, dict strings=None):
        """Send a call and wait for its Reply; None when the method is oneway.

        `deadline` is in monotonic seconds, 0 for none. Raises EncodeError when an argument does not fit, Unavailable when the connection
        breaks (`sent` tells whether a byte had left), DeadlineExceeded. The connection is closed after all but the first.
        """
        cdef Connection c = self.connection
        cdef WriteBuffer out
        cdef Reply reply
        cdef long long before
        if c.fd < 0:
            raise Unavailable(f"the connection to {self.address} was closed", sent=False, instance=self.address)
        if getcurrent() is self.hub:
            raise UsageError(IN_THE_LOOP)
        before = c.bytes_out
        out = c.writer()
        try:
            self.protocol.call(route, args, seqid, out, ints, strings)
        except BaseException:
            c.wrote()
            raise
        self.answered = False
        self.error = None
        c.is_writing = False
        c.begin()
        c.flush()
        if c.fd < 0:
            error, self.error = self.error, None
            error.sent = c.bytes_out > before
            raise error
        if route.oneway:
            self.answered = True
            c.done()
            return None
        self.wait(deadline)
        reply, self.reply = self.reply, None
        if reply is None:
            error, self.error = self.error, None
            raise error
        return reply

    cdef int wait(self, double deadline) except -1:
        cdef Timer timer = None
        if deadline:
            timer = self.connection.loop.call_at(deadline, self.expire)
        self.waiter = getcurrent()
        try:
            while not self.answered:
                self.hub.switch()
        except BaseException:
            # Whatever woke us, the answer is still on its way: the connection is of no use any more.
            self.answered = True
            self.waiter = None
            self.connection.shut(None)
            raise
        finally:
            self.waiter = None
            if timer is not None:
                timer.cancel()
        return 0

    cdef int wake(self) except -1:
        """Switch to the caller, from the hub. It may have gone on for another reason meanwhile."""
        waiter = self.waiter
        self.waiter = None
        if waiter is not None:
            waiter.switch()
        return 0

    cdef int wake_soon(self) except -1:
        if self.waiter is not None:
            self.connection.loop.wake_after_turn(self)
        return 0

    cdef int message(self, Connection c, object message) except -1:
        if self.answered:
            raise ProtocolError("an answer that no call waits for")
        self.reply = <Reply>message
        self.answered = True
        c.done()
        return self.wake_soon()

    cdef int broken(self, Connection c, object error) except -1:
        if not self.answered:
            self.error = error
            error.instance = self.address
            self.answered = True
            c.busy = 0
            self.wake_soon()
        return 0

    cdef int closed(self, Connection c, object error) except -1:
        if not self.answered:
            what = "it was closed by the peer" if error is None else getattr(error, "message", None) or repr(error)
            self.error = Unavailable(f"no answer from {self.address}: {what}", instance=self.address)
            self.answered = True
            return self.wake_soon()
        if self.on_closed is not None:
            self.on_closed(self)
        return 0

    def expire(self):
        """The deadline has passed."""
        if self.answered:
            return
        self.error = DeadlineExceeded(f"no answer from {self.address} in time", instance=self.address)
        self.answered = True
        self.connection.shut(None)
        self.wake_soon()

    def is_alive(self):
        """Could a call go out now? Asks the kernel: a FIN may have come since the hub looked, and a call sent after it would be lost."""
        cdef Connection c = self.connection
        return c.fd >= 0 and not c.finished and not c.busy and not has_ended(c.fd)

    @property
    def is_reusable(self):
        """True when the last call left the connection between two messages."""
        return self.connection.is_between

    def close(self):
        """Close the connection; a call under way fails with ClosedError."""
        if not self.answered and self.waiter is not None:
            self.error = ClosedError("the client was closed during the call")
            self.answered = True
            self.connection.shut(None)
            self.wake_soon()
            return
        self.on_closed = None
        self.connection.shut(None)

    def __repr__(self):
        return f"<Exchange {self.address} {'busy' if self.waiter is not None else 'idle'} {self.connection!r}>"


cdef Limits NO_LIMITS = Limits()

IN_THE_LOOP = (
    "this code runs in gevent's event loop (a callback of a watcher or timer) and must not wait, as a call does; "
    "make the call from a greenlet: gevent.spawn(...)"
)

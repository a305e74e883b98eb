# cython: language_level=3, boundscheck=False, wraparound=False
"""Many calls at a time over one connection, told apart by sequence id, for programs that use gevent (Kitex: `netpollmux`).

Calls are gathered and leave in one write a turn; answers come in any order. A call that is given up at its deadline is forgotten, and its answer is
dropped when it comes: the connection stays. A peer that is about to leave says so by "crrst", beside an answer or in a frame of its own with sequence
id 0; then the calls under way are finished, and no more are made here.
"""

from codec.buffer cimport WriteBuffer
from poller.clock cimport monotonic
from poller.connection cimport Limits

from greenlet import getcurrent

from codec.errors import ClosedError, DeadlineExceeded, ResourceExhausted, Unavailable, UsageError
from codec.thrift import DEFAULT_MAX_MESSAGE, client_protocol
from codec.ttheader import StringKey
from weego.exchange import IN_THE_LOOP

cdef str RESET = StringKey.RESET

# Calls that may wait on one connection; the memory of a peer that answers nothing is bounded by it. Further calls fail, unsent.
MOST_WAITING = 4096
cdef Py_ssize_t MOST = MOST_WAITING


cdef class Waiting(Waiter):
    cdef int wake(self) except -1:
        greenlet, self.greenlet = self.greenlet, None
        if greenlet is not None:
            greenlet.switch()
        return 0

    cdef int finish(self) except -1:
        self.answered = True
        if self.greenlet is not None:
            self.exchange.connection.loop.wake_after_turn(self)
        return 0

    def expire(self):
        """The deadline has passed."""
        if self.answered:
            return
        self.exchange.waiting.pop(self.seqid, None)
        self.exchange.protocol.forget(self.seqid)
        self.error = DeadlineExceeded(f"no answer from {self.exchange.address} in time", instance=self.exchange.address)
        self.finish()


cdef class SharedExchange(Receiver):
    """A client's connection `fd` to `address`, in `loop`; `framing` is one with a TTHeader. `session` as for Exchange."""

    def __init__(self, Loop loop not None, int fd, str address not None, str framing="ttheader", max_message=DEFAULT_MAX_MESSAGE,
                 on_closed=None, bint checksum=False, session=None, str compression="", payload=None):
        self.address = address
        self.hub = loop.hub
        self.protocol = client_protocol(framing, max_message, checksum, compression, payload)
        self.protocol.shared = True
        self.on_closed = on_closed
        self.waiting = {}
        if session is None:
            self.connection = Connection(loop, fd, self.protocol, self, NO_LIMITS, UNBOUNDED, True)
        else:
            from poller.secure import SecureConnection  # most clients never need OpenSSL

            self.connection = SecureConnection(loop, fd, self.protocol, self, NO_LIMITS, session, UNBOUNDED, True, shaken=True)

    def call(self, Route route not None, tuple args not None, int32_t seqid, double deadline, dict ints=None, dict strings=None):
        """Send a call and wait for its Reply; None when the method is oneway. Errors as `Exchange.call`; the connection outlives a deadline."""
        cdef Connection c = self.connection
        cdef WriteBuffer out
        cdef Waiting w
        cdef Timer timer = None
        if c.fd < 0 or self.leaving:
            raise Unavailable(f"the connection to {self.address} takes no more calls", sent=False, instance=self.address)
        if getcurrent() is self.hub:
            raise UsageError(IN_THE_LOOP)
        if len(self.waiting) >= MOST:
            raise ResourceExhausted(f"{len(self.waiting)} calls wait for answers of {self.address} on one connection, as many as may")
        out = c.writer()
        w = Waiting.__new__(Waiting)
        w.exchange = self
        w.seqid = seqid
        w.offset = c.bytes_out + out.n + out.apart - c.sent
        try:
            self.protocol.call(route, args, seqid, out, ints, strings)
        finally:
            c.wrote()
        if route.oneway:
            return None
        self.waiting[seqid] = w
        c.begin()
        if deadline:
            timer = c.loop.call_at(deadline, w.expire)
        w.greenlet = getcurrent()
        try:
            while not w.answered:
                self.hub.switch()
        except BaseException:
            self.waiting.pop(seqid, None)
            self.protocol.forget(seqid)
            w.answered = True
            raise
        finally:
            w.greenlet = None
            if timer is not None:
                timer.cancel()
            c.done()
            if self.leaving and not self.waiting:
                c.close_soon()
        if w.reply is None:
            raise w.error
        return w.reply

    cdef int message(self, Connection c, object message) except -1:
        cdef Reply reply = <Reply>message
        cdef Waiting w = self.waiting.pop(reply.seqid, None)
        if reply.header is not None and RESET in reply.header.strings:
            self.retire()
        if w is not None:
            w.reply = reply
            w.finish()
        elif self.leaving and not self.waiting:
            c.close_soon()
        return 0

    def retire(self):
        """Make no more calls here; those under way go on."""
        if not self.leaving:
            self.leaving = True
            if self.on_closed is not None:
                self.on_closed(self)

    cdef int broken(self, Connection c, object error) except -1:
        error.instance = self.address
        self.fail(error)
        return 0

    cdef int closed(self, Connection c, object error) except -1:
        what = "it was closed by the peer" if error is None else getattr(error, "message", None) or repr(error)
        self.retire()
        self.fail(Unavailable(f"no answer from {self.address}: {what}", instance=self.address))
        return 0

    def fail(self, error):
        """End all calls under way with `error`, each with a copy of its own."""
        cdef Waiting w
        waiting, self.waiting = self.waiting, {}
        for w in waiting.values():
            w.error = twin(error)
            if isinstance(w.error, Unavailable):
                w.error.sent = self.connection.bytes_out > w.offset
            w.finish()

    def is_alive(self):
        """Could a call go out now?"""
        cdef Connection c = self.connection
        return c.fd >= 0 and not c.finished and not self.leaving

    def silence(self):
        """Seconds since the peer was last heard of."""
        return monotonic() - self.connection.last_active

    def give_up(self, error):
        """Close the connection; calls under way fail with `error`."""
        self.retire()
        self.fail(error)
        self.connection.shut(None)

    def close(self):
        """Close the connection; calls under way fail with ClosedError."""
        self.on_closed = None
        self.leaving = True
        if self.waiting:
            self.fail(ClosedError("the client was closed during the call"))
        self.connection.shut(None)

    def close_soon(self):
        """Close the connection when the calls under way are over."""
        self.on_closed = None
        self.leaving = True
        if not self.waiting:
            self.connection.shut(None)

    def __len__(self):
        return len(self.waiting)

    def __repr__(self):
        return f"<SharedExchange {self.address} {len(self.waiting)} calls {self.connection!r}>"


cdef object twin(object error):
    """A copy: each caller adds its own facts and traceback."""
    import copy

    return copy.copy(error)


cdef Limits NO_LIMITS = Limits()
cdef int UNBOUNDED = 1 << 30

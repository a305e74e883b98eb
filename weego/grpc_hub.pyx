# cython: language_level=3, boundscheck=False, wraparound=False
"""gRPC connections for programs that use gevent: the connection is in the loop, the caller's greenlet at a Gate of its stream.

What the callers of one turn send leaves together; a call that has the connection to itself is sent at once, from its greenlet.
"""

from codec.h2.connection cimport GOT_GOAWAY, GOT_PONG, GOT_SETTINGS
from governance.call cimport Call
from poller.clock cimport monotonic
from poller.connection cimport Limits
from poller.switching cimport PyGreenlet_Import, this_greenlet
from weego.grpc_client cimport GrpcMethod
from weego.grpc_server cimport Gate

from codec.errors import ClosedError, Unavailable, UsageError
from weego.exchange import IN_THE_LOOP

cdef enum:
    # Calls on a connection as the transport sees it: what bounds them is the peer's SETTINGS.
    MANY = 1000000
    # Calls on a connection up to which each is sent at once.
    FEW = 2

cdef Limits NO_LIMITS = Limits()
cdef bytes PING = b"weego:up"

PyGreenlet_Import()


cdef int ring(object stream) except -1:
    """The deadline of who waits for this stream has passed."""
    return (<GrpcClientStream>stream).expire()


cdef class HubLink(Link):
    """A connection in `loop`, whose callers wait with its hub. `on_change(link)` is told when a call may begin that could not before, or none any more."""

    def __init__(self, Loop loop not None, int fd, str address not None, str authority not None, Py_ssize_t max_message, *,
                 session=None, double keepalive_time=0, double keepalive_timeout=20.0, str caller="", on_change=None):
        self.prepare(address, authority, session is not None, max_message, keepalive_time, keepalive_timeout, caller)
        self.loop = loop
        self.on_change = on_change
        if session is None:
            self.connection = Connection(loop, fd, self.protocol, self, NO_LIMITS, MANY, True)
        else:
            from poller.secure import SecureConnection

            self.connection = SecureConnection(loop, fd, self.protocol, self, NO_LIMITS, session, MANY, True, shaken=True)
        self.connection.busy = 1  # an answer that came before a reset is read
        self.sink = HubSink(self.connection)
        self.protocol.start(self.sink)
        self.heard = monotonic()
        if keepalive_time:
            self.pinger = loop.call_at(self.heard + keepalive_time, self.keep_alive)

    cdef int push(self, double deadline) except -1:
        # Where many calls are under way, it leaves at the end of this turn, with what others write meanwhile. Else sending it now spares
        # the loop a turn.
        if len(self.protocol.streams) <= FEW:
            self.connection.flush()
        return 0

    cdef GrpcClientStream start(self, Call call, GrpcMethod method, str compression, bytes payload, bint end):
        self.sink.is_corked = len(self.protocol.streams) < FEW
        try:
            return Link.start(self, call, method, compression, payload, end)
        except BaseException:
            self.connection.wrote()
            raise
        finally:
            self.sink.is_corked = False

    cdef int wait_news(self, GrpcClientStream s, double deadline) except -1:
        cdef bint is_set
        cdef object me = this_greenlet()
        if me is self.loop.hub:
            raise UsageError(IN_THE_LOOP)
        if s.reading is None:
            s.reading = self.gate()
        # Not if it is set: then another greenlet waits here, and `wait` says that this one may not.
        is_set = deadline != 0 and not s.late_reading.place
        if is_set:
            s.late_reading.ring = ring
            self.loop.set_alarm(&s.late_reading, s, deadline)
        try:
            while not s.has_news():
                s.reading.park(me)
        finally:
            if is_set:
                self.loop.timers.unset(&s.late_reading)
        # Should somebody still want to open it, who waits there next looks and waits on. But nobody may be in it, as where two read one stream.
        if s.reading is not None and s.reading.greenlet is None:
            self.spare, s.reading = s.reading, None
        return 0

    cdef int wait_room(self, GrpcClientStream s, double deadline) except -1:
        cdef bint is_set
        if s.writing is None:
            s.writing = self.gate()
        # Not if it is set: then another greenlet waits here, and `wait` says that this one may not.
        is_set = deadline != 0 and not s.late_writing.place
        if is_set:
            s.late_writing.ring = ring
            self.loop.set_alarm(&s.late_writing, s, deadline)
        try:
            while not s.has_room():
                s.writing.wait()
        finally:
            if is_set:
                self.loop.timers.unset(&s.late_writing)
        return 0

    cdef Gate gate(self):
        cdef Gate made = self.spare
        if made is not None:
            self.spare = None
            return made
        made = Gate.__new__(Gate)
        made.loop = self.loop
        return made

    cdef int message(self, Connection c, object message) except -1:
        cdef GrpcClientStream s
        cdef int events
        if isinstance(message, GrpcClientStream):
            s = <GrpcClientStream>message
            s.events = 0
            self.tell(s)
            if self.wants_change and not s.is_open or self.protocol.peer_leaving:
                self.changed()
            return 0
        events = self.protocol.events
        self.protocol.events = 0
        if events & GOT_PONG:
            self.pinged = 0
        if events & (GOT_SETTINGS | GOT_GOAWAY):
            self.changed()
        return 0

    cdef int abandon_call(self, GrpcClientStream s) except -1:
        Link.abandon_call(self, s)
        return self.tell(s)  # another greenlet may wait for it

    cdef int tell(self, GrpcClientStream s) except -1:
        if s.reading is not None:
            s.reading.open()
        if s.writing is not None:
            s.writing.open()
        return 0

    cdef int changed(self) except -1:
        if self.protocol.peer_leaving and not self.protocol.streams and not self.is_closed:
            self.connection.close()
            return 0
        if self.on_change is not None:
            self.on_change(self)
        return 0

    cdef int broken(self, Connection c, object error) except -1:
        self.error = error
        c.busy = 0
        return 0

    cdef int room(self, Connection c) except -1:
        return self.protocol.pump()

    cdef int closed(self, Connection c, object error) except -1:
        cdef GrpcClientStream s
        self.is_closed = True
        if self.error is None:
            self.error = error
        if self.pinger is not None:
            self.pinger.cancel()
            self.pinger = None
        self.protocol.dead = True
        for each in self.protocol.news:  # refused by a GOAWAY, and nobody has told them yet
            self.tell(<GrpcClientStream>each)
        for each in list(self.protocol.streams.values()):
            s = <GrpcClientStream>each
            s.has_broken = True
            self.protocol.end_stream(s, True)
            self.tell(s)
        if self.on_change is not None:
            self.on_change(self)
        return 0

    def keep_alive(self):
        """Is the peer still there? Asked when it was silent for a while although a call is under way."""
        cdef double now = monotonic()
        self.pinger = None
        if self.is_closed:
            return
        if self.connection.bytes_in != self.bytes_seen:
            self.bytes_seen = self.connection.bytes_in
            self.heard = now
            self.pinged = 0
        if self.pinged and now - self.pinged >= self.keepalive_timeout:
            self.error = Unavailable(f"it has not answered a PING for {self.keepalive_timeout:g} s", instance=self.address)
            self.connection.close(self.error)
            return
        if not self.pinged and self.protocol.streams and now - self.heard >= self.keepalive_time:
            self.protocol.ping(PING)
            self.pinged = now
        self.pinger = self.loop.call_at(
            self.pinged + self.keepalive_timeout if self.pinged else max(self.heard, now - self.keepalive_time / 2) + self.keepalive_time,
            self.keep_alive)

    def disown(self, GrpcClientStream s not None):
        """Nobody can read `s` any more."""
        # Not now: whoever is at work here may be in the middle of a frame.
        if not self.is_closed:
            self.loop.hub.loop.run_callback(self.abandon_stream, s)

    def abandon_stream(self, GrpcClientStream s not None):
        """Reset it."""
        self.abandon_call(s)

    def close(self):
        """Say goodbye and close. Calls under way fail with ClosedError."""
        if not self.is_closed:
            if self.protocol.streams:
                self.error = ClosedError("the client was closed during the call")
            self.protocol.shut_down_now()
            self.connection.flush()
            self.connection.close()

    def __repr__(self):
        return f"<HubLink {self.address} {self.streams} calls {self.connection!r}>"


cdef class HubSink(ConnectionSink):
    """While it is corked, who writes will see to it that it leaves: a call that has the connection to itself costs the loop no turn."""

    cdef int wrote(self) except -1:
        if self.is_corked:
            self.connection.is_writing = False
            return 0
        return self.connection.wrote()

# cython: language_level=3, boundscheck=False, wraparound=False
"""TTHeaderStreaming's side of a client: calls become streams of shared connections, and what comes back values, iterators and errors.

Theory of operation
1. A StreamLink is one connection; many calls share it. A call opens a stream and holds a StreamCall, which has the shape that codec.streams describes.
2. HubStreamLink waits with gevent: the connection is in the loop, the caller's greenlet at a Gate of its stream. (In threads: weego/stream_blocking.py.)
   The first message that a greenlet sends leaves at once; what it sends behind that without waiting leaves together, at the turn's end or after
   LINGER.
3. What waits for who reads is counted. Beyond `max_queued` the connection is not read; if a stream is not read meanwhile for STALL seconds, and holds up
   others, it is given up.
4. A stream that is given up – cancelled, too late, left unread – is reset, with the reason and the path that the cancellation came: the peer's handler
   learns of it. A call made while another was served passes on why that one was cancelled.
5. A peer that leaves says so (a Meta of stream 0, or a Trailer, with "crrst"): no further stream begins there.
"""

from collections import deque

from codec.ttstream cimport DATA, HEADER, META, RST, TRAILER, write_frame
from cpython.bytes cimport PyBytes_GET_SIZE
from poller.clock cimport monotonic
from poller.connection cimport Limits

from greenlet import getcurrent

from codec.errors import Cancelled, ClosedError, Code, DeadlineExceeded, ProtocolError, ResourceExhausted, RpcError, Unavailable, UsageError
from codec.stream_errors import CANCEL_PATH, FOREIGN_PATH, Reason, error_of, path_of, reset_error, trailer_error
from codec.ttheader import StringKey
from codec.ttstream import exception_payload
from weego.exchange import IN_THE_LOOP
from weego.thrift_channel import with_code

cdef enum:
    # Streams as the transport sees them.
    MANY = 1000000
    # What a waiting message counts for beside its bytes.
    MESSAGE_COST = 64
    # Bytes that may wait for the socket before who sends has to wait.
    MOST_UNSENT = 262144
    # Streams on a connection up to which each is sent for at once.
    FEW = 2
    # What is written behind the first message of a turn leaves when there is so much of it …
    BURST = 65536

# … or when it has waited so long (seconds).
cdef double LINGER = 0.001
# Seconds that a stream may hold up others because nobody reads it: as long as a server's write timeout.
cdef double STALL = 30.0
# Seconds for a last word, which the peer may not take.
cdef double PARTING = 1.0

DEFAULT_MAX_QUEUED = 4 * 2**20
"""Bytes that may wait on one connection for those who read its streams."""

cdef str RESET = StringKey.RESET
cdef Limits NO_LIMITS = Limits()


# ---- streams -----------------------------------------------------------------------------------------------------------


cdef class ThriftStream:
    cpdef bint has_news(self) noexcept:
        """Need who reads wait no longer?"""
        return self.messages or self.ended or self.is_late or (self.wants_head and self.head is not None)

    @property
    def metadata_pairs(self):
        """For Call.metadata: what came before the messages and after them."""
        return [*(self.head or {}).items(), *(self.trailer or {}).items()]

    @property
    def framing_name(self):
        """For Call.protocol."""
        return "ttheader-streaming"

    def expire(self):
        """The deadline has passed."""
        self.is_late = True
        if self.reading is not None:
            self.reading.open()
        if self.writing is not None:
            self.writing.open()

    def __repr__(self):
        return f"<ThriftStream {self.sid} of {self.method.spec.name} {'ended' if self.ended else 'open'}>"


# ---- connections -------------------------------------------------------------------------------------------------------


cdef class StreamLink(Receiver):
    """One connection to `address`."""

    def __init__(self, str address not None, Py_ssize_t max_message, Py_ssize_t max_queued=DEFAULT_MAX_QUEUED):
        self.address = address
        self.protocol = StreamProtocol()
        self.protocol.max_message = max_message
        self.max_queued = max_queued
        self.open_streams = {}

    cpdef WriteBuffer writer(self):
        raise NotImplementedError

    cpdef wrote(self):
        raise NotImplementedError

    cpdef push(self, double deadline):
        raise NotImplementedError

    cpdef enter(self):
        pass

    cpdef leave(self):
        pass

    cpdef wait_news(self, ThriftStream s, double deadline):
        raise NotImplementedError

    cpdef wait_room(self, ThriftStream s, double deadline):
        raise NotImplementedError

    cpdef pause(self, bint on):
        pass

    cpdef tell(self, ThriftStream s):
        pass

    cpdef changed(self):
        pass

    cpdef double now(self):
        return monotonic()

    @property
    def streams(self):
        """Calls under way."""
        return len(self.open_streams)

    @property
    def is_leaving(self):
        """True when no further call may begin here."""
        return self.is_closed or self.peer_leaving

    def open(self, Call call not None, StreamMethod method not None, tuple args not None, dict ints, dict strings, serving, str caller not None):
        """Begin a call; its StreamCall. EncodeError when the request does not fit, Unavailable with `sent` False when the connection is gone."""
        cdef ThriftStream s = ThriftStream.__new__(ThriftStream)
        cdef StreamCall c = StreamCall.__new__(StreamCall)
        cdef WriteBuffer out
        cdef Py_ssize_t before
        s.method = method
        s.messages = deque()
        self.enter()
        try:
            if self.is_closed:
                raise Unavailable(f"the connection to {self.address} was closed", sent=False, instance=self.address)
            s.sid = self.next_id()
            out = self.writer()
            before = out.n
            try:
                write_frame(out, HEADER, s.sid, method.spec.name, ints, strings, None)
                if not method.client_streaming:
                    method.write_args(args, s.sid, out, self.protocol.max_message)
                    write_frame(out, TRAILER, s.sid, method.spec.name, None, None, None)
                    s.half_closed = True
            except BaseException:
                out.truncate(before)
                raise
            finally:
                self.wrote()
            self.open_streams[s.sid] = s
            c.link = self
            c.stream = s
            c.call = call
            c.method = method
            c.deadline = call.deadline_at
            c.serving = serving
            c.caller = caller
            call.answer(s)
            self.push(call.deadline_at)
        finally:
            self.leave()
        c.recv_timeout = call.recv_timeout
        c.send_timeout = call.send_timeout
        c.ending = call.opened()
        return c

    def is_usable(self):
        """Can anything be said here? Not where the hub has ended before its streams."""
        return not self.is_closed

    def next_id(self):
        """A stream id that is free: they go round, and 0 belongs to nobody."""
        while True:
            self.last_id = self.last_id + 1 if self.last_id < 0x7FFFFFFF else -0x80000000
            if self.last_id != 0 and self.last_id not in self.open_streams:
                return self.last_id

    cpdef take(self, Frame f):
        """A frame has come."""
        cdef ThriftStream s = <ThriftStream>self.open_streams.get(f.sid)
        if s is None:
            if f.type == META and f.sid == 0 and RESET in f.header.strings:
                self.peer_leaving = True
                self.changed()
            return
        if f.type == DATA:
            if not s.messages:
                s.taken = self.now()
            s.messages.append(f.payload)
            self.count_queued(s, PyBytes_GET_SIZE(f.payload) + MESSAGE_COST)
        elif f.type == HEADER:
            if s.head is not None:
                self.offended(s, f"{self.address} sent a second Header", Reason.UNEXPECTED_HEADER)
                return
            s.head = f.header.strings
        elif f.type == TRAILER:
            s.trailer = f.header.strings
            failure = trailer_error(f.header.strings, f.payload, s.method.result)
            if RESET in f.header.strings:
                self.peer_leaving = True
                if isinstance(failure, Unavailable):
                    failure.sent = False  # nobody has looked at it
            self.finish(s, failure)
            return
        elif f.type == RST:
            reset = reset_error(f.header.strings, f.payload)
            self.finish(s, error_of(reset.reason, reset.message, reset.path) if reset.reason > 12000 else reset)
            return
        elif f.type == META:
            return
        else:
            self.reset(s, Reason.INTERNAL_CANCEL, "a message is over the limit", ())
            self.finish(s, ResourceExhausted(f"a message of {f.size} bytes is longer than the limit of {self.protocol.max_message}"))
            return
        self.tell(s)

    def offended(self, ThriftStream s not None, str text, int reason):
        """The peer broke a rule in this stream."""
        self.reset(s, reason, text, ())
        self.finish(s, ProtocolError(text))

    cdef int finish(self, ThriftStream s, object failure) except -1:
        """The stream is over."""
        cdef WriteBuffer out
        if s.ended:
            return 0
        s.ended = True
        if isinstance(failure, RpcError):
            failure = with_code(failure)
            failure.instance = self.address
        s.failure = failure
        self.open_streams.pop(s.sid, None)
        if not s.half_closed and not self.is_closed:
            # As Kitex does: proxies of an older kind wait for it.
            s.half_closed = True
            out = self.writer()
            try:
                write_frame(out, TRAILER, s.sid, s.method.spec.name, None, None, None)
            finally:
                self.wrote()
        self.tell(s)
        self.changed()
        return 0

    cdef int reset(self, ThriftStream s, int reason, str text, tuple path) except -1:
        """Tell the peer that the stream is given up, and why."""
        cdef WriteBuffer out
        if self.is_closed or s.ended:
            return 0
        payload = exception_payload(s.method.spec.name, s.sid, reason, text)
        strings = {CANCEL_PATH: ",".join(path)} if path else None
        out = self.writer()
        try:
            write_frame(out, RST, s.sid, s.method.spec.name, None, strings, payload)
        finally:
            self.wrote()
        return 0

    def abandon_stream(self, ThriftStream s not None, int reason, str text, tuple path):
        """Nobody waits for the rest of it: tell the peer."""
        self.enter()
        try:
            if not s.ended:
                self.reset(s, reason, text, path)
                self.finish(s, None)
                self.drop(s)
                try:
                    self.push(monotonic() + PARTING)
                except RpcError:
                    pass  # it takes nothing, not even this
        finally:
            self.leave()

    def orphaned(self, ThriftStream s not None, int reason, str text, tuple path):
        """The collector found that nobody holds the stream any more. It comes in the middle of anything, perhaps with the lock of the pool held: here the
        stream had the connection to itself, which is not given back.
        """
        self.abandon_stream(s, reason, text, path)
        self.close()

    cdef int count_queued(self, ThriftStream s, Py_ssize_t size) except -1:
        cdef bint was_full = self.queued > self.max_queued
        s.queued += size
        self.queued += size
        if self.queued > self.max_queued:
            if not was_full:
                self.pause(True)
        elif self.queued <= self.max_queued // 2:
            self.pause(False)
        return 0

    cdef object take_message(self, ThriftStream s):
        """A payload that has come."""
        cdef bytes payload = s.messages.popleft()
        s.taken = self.now()
        self.count_queued(s, -PyBytes_GET_SIZE(payload) - MESSAGE_COST)
        return payload

    def drop(self, ThriftStream s not None):
        """Nobody reads the rest."""
        s.messages.clear()
        if s.queued:
            self.count_queued(s, -s.queued)

    def broke(self, error):
        """The connection is gone, and with it all streams."""
        cdef ThriftStream s
        self.is_closed = True
        if self.error is None:
            self.error = error
        for each in list(self.open_streams.values()):
            s = <ThriftStream>each
            self.finish(s, self.why_ended())
        self.changed()

    def why_ended(self):
        """The connection's end as the error of a stream."""
        error = self.error
        if isinstance(error, ProtocolError):
            return ProtocolError(error.message, code=Code.INTERNAL)
        if isinstance(error, ClosedError):
            return error
        what = "it was closed by the peer" if error is None else getattr(error, "message", None) or repr(error)
        return Unavailable(f"no answer from {self.address}: {what}")


cdef class HubStreamLink(StreamLink):
    """A connection in `loop`, whose callers wait with its hub. `on_change(link)` is told when a stream has ended, or the peer leaves."""

    def __init__(self, Loop loop not None, int fd, str address not None, Py_ssize_t max_message, *, Py_ssize_t max_queued=DEFAULT_MAX_QUEUED,
                 session=None, on_change=None):
        super().__init__(address, max_message, max_queued)
        self.loop = loop
        self.on_change = on_change
        self.writers = []
        if session is None:
            self.connection = Connection(loop, fd, self.protocol, self, NO_LIMITS, MANY, True)
        else:
            from poller.secure import SecureConnection

            self.connection = SecureConnection(loop, fd, self.protocol, self, NO_LIMITS, session, MANY, True, shaken=True)
        self.connection.busy = 1  # an answer that came before a reset is read

    cpdef double now(self):
        return self.loop.polled

    def is_usable(self):
        """Is there still a hub?"""
        return not self.is_closed and self.connection.fd >= 0 and self.loop.hub.loop is not None

    def orphaned(self, ThriftStream s not None, int reason, str text, tuple path):
        """Aside: who was interrupted by the collector may be in the middle of a frame, or be another thread."""
        self.loop.hub.loop.run_callback_threadsafe(self.abandon_stream, s, reason, text, path)

    cpdef WriteBuffer writer(self):
        return self.connection.writer()

    cpdef wrote(self):
        self.connection.wrote()

    cpdef push(self, double deadline):
        """Send now what a turn writes first; what comes behind it in the same turn waits a little for company."""
        cdef Connection c = self.connection
        cdef double now
        if c.output is None:
            return
        if self.pushed != self.loop.turns and len(self.open_streams) <= FEW:
            self.pushed = self.loop.turns
            self.waiting = 0
            c.flush()
            return
        now = monotonic()
        if self.waiting == 0:
            self.waiting = now
        elif now - self.waiting > LINGER or c.output.n - c.sent > BURST:
            self.waiting = now
            c.flush()

    cpdef wait_news(self, ThriftStream s, double deadline):
        cdef Timer timer = None
        if getcurrent() is self.loop.hub:
            raise UsageError(IN_THE_LOOP)
        if self.connection.output is not None and len(self.open_streams) <= FEW:
            self.connection.flush()
        if s.reading is None:
            s.reading = Gate(self.loop)
        if deadline:
            timer = self.loop.call_at(deadline, s.expire)
        try:
            while not s.has_news():
                s.reading.wait()
        finally:
            if timer is not None:
                timer.cancel()

    cpdef wait_room(self, ThriftStream s, double deadline):
        cdef Timer timer = None
        cdef Connection c = self.connection
        if c.output is None or c.output.n - c.sent <= MOST_UNSENT:
            return
        c.flush()
        if c.output is None or c.output.n - c.sent <= MOST_UNSENT:
            return
        if s.writing is None:
            s.writing = Gate(self.loop)
        if deadline:
            timer = self.loop.call_at(deadline, s.expire)
        try:
            while not s.ended and not s.is_late and c.output is not None and c.output.n - c.sent > MOST_UNSENT:
                self.writers.append(s.writing)
                c.watch_room = True
                s.writing.wait()
        finally:
            if timer is not None:
                timer.cancel()

    cpdef pause(self, bint on):
        cdef Connection c = self.connection
        if on == self.is_paused:
            return
        self.is_paused = on
        c.most_busy = 0 if on else MANY
        if on:
            self.stall = self.loop.call_later(STALL / 2, self.look_for_stalls)
        else:
            if self.stall is not None:
                self.stall.cancel()
                self.stall = None
            if c.processing != c.loop.term:
                c.settle()

    def look_for_stalls(self, double patience=STALL):
        """Not read for a while: who is the reason, if there is anybody to suffer from it?"""
        cdef ThriftStream s
        cdef double now = monotonic()
        self.stall = None
        for each in list(self.open_streams.values()):
            s = <ThriftStream>each
            if len(self.open_streams) > 1 and s.queued and now - s.taken >= patience:
                text = f"nobody read {s.queued} bytes that had come for {patience:g} s, and other streams waited"
                self.reset(s, Reason.INTERNAL_CANCEL, text, ())
                self.finish(s, ResourceExhausted(text))
                self.drop(s)
        if self.is_paused:
            self.stall = self.loop.call_later(STALL / 2, self.look_for_stalls)

    cpdef tell(self, ThriftStream s):
        if s.reading is not None:
            s.reading.open()
        if s.ended and s.writing is not None:
            s.writing.open()

    cpdef changed(self):
        if self.peer_leaving and not self.open_streams and not self.is_closed:
            self.connection.closing = True
            self.connection.busy = 0
            self.connection.settle()
        if self.on_change is not None:
            self.on_change(self)

    cdef int message(self, Connection c, object message) except -1:
        self.take(<Frame>message)
        return 0

    cdef int room(self, Connection c) except -1:
        writers, self.writers = self.writers, []
        for gate in writers:
            (<Gate>gate).open()
        return 0

    cdef int broken(self, Connection c, object error) except -1:
        self.error = error
        c.busy = 0
        return 0

    cdef int closed(self, Connection c, object error) except -1:
        if self.stall is not None:
            self.stall.cancel()
            self.stall = None
        self.broke(error)
        return self.room(c)

    def close(self):
        """Close. Calls under way fail with ClosedError."""
        if not self.is_closed:
            if self.open_streams:
                self.error = ClosedError("the client was closed during the call")
            self.connection.flush()
            self.connection.close()

    def __repr__(self):
        return f"<HubStreamLink {self.address} {self.streams} streams {self.connection!r}>"


# ---- what callers hold -------------------------------------------------------------------------------------------------


cdef class StreamCall:
    def __iter__(self):
        return self

    def __next__(self):
        payload = self.next_payload()
        if payload is None:
            raise StopIteration
        return self.decoded(payload)

    def decoded(self, bytes payload not None):
        """A message as the caller wants it."""
        try:
            return self.method.read_reply(payload)
        except BaseException as error:
            if isinstance(error, RpcError):
                error.instance = self.link.address
            self.tell(error)
            self.cancel()
            raise

    cdef int wait_news(self) except -1:
        cdef double until = self.until(self.recv_timeout)
        try:
            self.link.wait_news(self.stream, until)
        except BaseException:
            self.cancel()
            raise
        if until != self.deadline and self.stream.is_late:
            self.late = f"no message within {self.recv_timeout:g} s (recv_timeout)"
        return 0

    cdef double until(self, double patience) except -1:
        """The instant that a wait of `patience` seconds (0: any) may last to."""
        cdef double until
        if patience <= 0:
            return self.deadline
        until = monotonic() + patience
        return until if not self.deadline or until < self.deadline else self.deadline

    cdef int tell(self, object error) except -1:
        """It is over: for the policies that it came through."""
        if self.ending is not None:
            self.ending.tell(error, self.stream.head is not None)
        return 0

    cdef object next_payload(self):
        """The next message's bytes, or None at the end. What the call failed with, raised."""
        cdef ThriftStream s = self.stream
        if not self.is_over:
            if not s.has_news():
                self.wait_news()
            if s.messages and not s.is_late:
                self.link.enter()
                try:
                    if s.messages:
                        return self.link.take_message(s)
                finally:
                    self.link.leave()
            self.settle()
        if self.outcome is not None:
            raise self.outcome
        return None

    def settle(self):
        """The call has ended: note how."""
        cdef ThriftStream s = self.stream
        if self.is_over:
            return
        self.is_over = True
        if s.is_late and not s.ended:
            text = f"no answer from {self.link.address} in time"
            if self.late is not None:
                text = f"{self.method.spec.name} at {self.link.address}: {self.late}"
            self.outcome = DeadlineExceeded(text, instance=self.link.address)
            self.give_up(Reason.STREAM_TIMEOUT, "the deadline of the stream has passed")
        else:
            self.outcome = s.failure
        if isinstance(self.outcome, RpcError):
            if self.outcome.elapsed is None:
                self.outcome.elapsed = self.call.elapsed
            self.outcome.attempt = self.outcome.attempt or self.call.attempt
        self.tell(self.outcome)
        self.finished()

    def finished(self):
        """Tell the transport, once, that the connection is free of this call."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self.link)

    cdef int give_up(self, int reason, str text) except -1:
        """Have the peer told that nobody waits for the rest."""
        self.link.abandon_stream(self.stream, reason, text, self.path())
        return 0

    def path(self):
        """Of a cancellation that comes from here."""
        return (*self.path_before(), self.caller) if self.caller else self.path_before()

    def path_before(self):
        """Whom the cancellation came from, if this call was made for one that is cancelled."""
        if self.serving is None or not self.serving.cancelled:
            return ()
        told = getattr((<Call>self.serving).source, "cancellation", None)
        return told.path if told is not None else (FOREIGN_PATH,)

    def send(self, request, /):
        """Send one message; waits while the peer is slow. RpcError when the call has ended, UsageError after `close_send`."""
        cdef ThriftStream s = self.stream
        cdef WriteBuffer out
        cdef double until
        if not self.method.client_streaming:
            raise UsageError(f"{self.method.spec.name} takes one request, which has been sent")
        if self.is_over:
            raise self.outcome or Cancelled(f"{self.method.spec.name} has ended", instance=self.link.address)
        if s.half_closed and not s.ended:
            raise UsageError("nothing can be sent after close_send")
        until = self.until(self.send_timeout)
        try:
            self.link.wait_room(s, until)
        except BaseException:
            self.cancel()
            raise
        if until != self.deadline and s.is_late:
            self.late = f"no room for a message within {self.send_timeout:g} s (send_timeout)"
        if s.ended or s.is_late:
            if s.messages and s.failure is None and not s.is_late:
                raise Cancelled(f"{self.method.spec.name} has ended; what it still had to say can be read", instance=self.link.address)
            self.settle()
            raise self.outcome or Cancelled(f"{self.method.spec.name} has ended", instance=self.link.address)
        self.link.enter()
        try:
            out = self.link.writer()
            try:
                self.method.write_request(request, s.sid, out, self.link.protocol.max_message)
            finally:
                self.link.wrote()
            self.link.push(until)
        except DeadlineExceeded as error:  # in a thread, where who sends waits itself
            self.tell(error)
            raise
        finally:
            self.link.leave()

    def close_send(self):
        """Say that no more messages follow."""
        cdef ThriftStream s = self.stream
        cdef WriteBuffer out
        if s.ended or s.half_closed:
            return
        self.link.enter()
        try:
            if not s.ended and not self.link.is_closed:
                s.half_closed = True
                out = self.link.writer()
                try:
                    write_frame(out, TRAILER, s.sid, self.method.spec.name, None, None, None)
                finally:
                    self.link.wrote()
                self.link.push(self.deadline)
        finally:
            self.link.leave()

    def result(self):
        """The one reply; says `close_send` if that was not said yet, and waits. RpcError when the call has failed."""
        self.close_send()
        payload = self.next_payload()
        if payload is None:
            raise ProtocolError("the peer said that all is well and sent no answer", code=Code.UNIMPLEMENTED, instance=self.link.address)
        # How it ended comes behind it, and has the last word.
        if self.next_payload() is not None:
            self.cancel()
            raise ProtocolError("the peer sent more than one answer", code=Code.UNIMPLEMENTED, instance=self.link.address)
        return self.decoded(payload)

    def cancel(self):
        """Give the call up; the peer is told. Does nothing after the end."""
        if self.is_over:
            return
        self.is_over = True
        self.outcome = Cancelled(f"{self.method.spec.name} was cancelled by its caller", instance=self.link.address)
        self.tell(self.outcome)
        reason, text = self.why()
        self.give_up(reason, text)
        self.finished()

    def why(self):
        """The reason for giving up, as a number and a text: of the call that this one was made for, if that is cancelled."""
        if self.serving is None or not self.serving.cancelled:
            return Reason.BUSINESS_CANCEL, "the caller has given the stream up"
        told = getattr((<Call>self.serving).source, "cancellation", None)
        if told is None:
            return Reason.INTERNAL_CANCEL, "the call that it was made for was cancelled"
        return told.reason or Reason.UPSTREAM_CANCEL, told.message

    @property
    def metadata(self):
        """What the peer sent before its first message, as names and values; waits for it."""
        cdef ThriftStream s = self.stream
        if s.head is None and not s.ended and not s.is_late:
            s.wants_head = True
            try:
                while s.head is None and not s.ended and not s.is_late:
                    self.wait_news()
                    if s.messages:
                        break
            finally:
                s.wants_head = False
        return list((s.head or {}).items())

    @property
    def trailers(self):
        """What the peer sent after its last message, as names and values; empty before the end."""
        return list((self.stream.trailer or {}).items())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()

    def __del__(self):
        # Nobody can read the rest.
        if self.link is not None and not self.is_over:
            self.tell(Cancelled("nobody holds the stream any more"))
        if self.link is not None and not self.is_over and not self.stream.ended and self.link.is_usable():
            self.link.orphaned(self.stream, *self.why(), self.path())

    def __repr__(self):
        return f"<StreamCall {self.method.spec.name} {'over' if self.is_over else 'under way'}>"


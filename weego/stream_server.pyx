# cython: language_level=3, boundscheck=False, wraparound=False
"""TTHeaderStreaming's side of a server: streams of Thrift messages become Jobs, and what handlers return, yield or raise becomes frames.

Theory of operation
1. A method that takes a stream starts when its stream is opened, any other with its one request. Its handler then runs like all others (weego.dispatch);
   one that waits for requests, or for a peer that takes nothing, waits at a Gate, and the loop goes on without it.
2. The protocol has no windows, so a peer may send what nobody takes. What waits for handlers is counted: beyond `max_queued` bytes the connection is not
   read, and TCP slows the peer down. A stream whose handler then takes nothing for the write timeout is ended, so that the others go on.
3. An answer waits for the socket: a handler goes on when most of what it wrote has left.
4. A stream that the client resets, or whose connection ends, is over at once: `Call.cancelled` is true and a greenlet handler is interrupted with
   Cancelled, which tells the reason and the path, where it waits. It counts among the streams of its connection until it has really returned.
5. What Kitex leaves open has an answer: an unknown method, a second Header, a message behind the end or over the limit end that stream with an
   exception; bytes that are no frames end the connection, and its streams are told why. A frame of an unknown stream is ignored, for
   it may have crossed the end of that stream.
6. The caller's timeout, if a weego client sent it (int info 12, as in calls), is a deadline like any other.
7. A worker that leaves says so in a control frame that Kitex ignores (Meta, stream 0, "crrst"), and weego's clients go elsewhere. Where another worker
   takes the connection over, frames of new streams are held until those under way have ended, and handed on with it; after HOLD seconds they are
   served here. Where nobody does, new streams are refused after FAREWELL.
"""

import logging
from collections import deque

from codec.buffer cimport ReadBuffer
from codec.protocol cimport Protocol
from codec.ttstream cimport DATA, HEADER, META, RST, STREAMING, TRAILER, write_frame
from cpython.bytes cimport PyBytes_GET_SIZE
from libc.math cimport isfinite
from poller.clock cimport monotonic
from weego.dispatch cimport Target
from weego.thrift_front cimport business_strings, shorter, text_of, type_name

from codec.errors import (
    ApplicationError, ApplicationErrorType, BusinessError, Cancelled, Code, DeadlineExceeded, EncodeError, ProtocolError, ResourceExhausted, RpcError,
    Unavailable, UnknownMethod, UnknownService,
)
from codec.stream_errors import Reason, declared_strings, reset_error, trailer_error
from codec.thrift import DEFAULT_MAX_MESSAGE
from codec.ttheader import StringKey
from codec.ttstream import exception_payload
from weego.dispatch import Unknown

cdef enum:
    # Streams of a connection as the transport sees it: what bounds them is `max_streams`.
    MANY = 1000000
    # What a waiting message counts for beside its bytes: empty ones are not free.
    MESSAGE_COST = 64
    # Bytes that a handler may write before the socket has its turn, and that may wait there before it goes on.
    SEND_BURST = 65536
    MOST_UNSENT = 262144
    KEY_RPC_TIMEOUT = 12

DEFAULT_MAX_STREAMS = 1024
"""Streams at a time on one connection. Kitex's clients open any number over as many connections as they have CPUs, and cannot be told."""

DEFAULT_MAX_QUEUED = 4 * 2**20
"""Bytes that may wait for the handlers of one connection: as HTTP/2's windows together."""

# Seconds that new streams wait for the worker that takes their connection over: streams that last longer are no reason to let others wait.
cdef double HOLD = 1.0
# Seconds in which a peer that was told to go may still open streams: what it had sent before it heard.
cdef double FAREWELL = 1.0

cdef str RESET = StringKey.RESET
cdef dict GOODBYE = {RESET: "1"}

cdef int OK = 0
cdef int UNKNOWN = Code.UNKNOWN
cdef int INTERNAL = Code.INTERNAL
cdef int TYPE_INTERNAL = ApplicationErrorType.INTERNAL_ERROR
cdef int TYPE_PROTOCOL = ApplicationErrorType.PROTOCOL_ERROR

log = logging.getLogger("weego.worker")


cdef class StreamDetector(Detector):
    """A TTHeader with the streaming flag begins a connection of streams, as for Kitex; it decides for the whole connection."""

    cdef int match(self, const uint8_t* p, Py_ssize_t n) except -2:
        if n >= 5 and p[4] != 0x10 or n >= 6 and p[5] != 0:
            return 0
        if n < 8:
            return -1 if n >= 5 else 0 if n and p[0] != 0 else -1
        return p[7] & STREAMING != 0


# ---- one stream --------------------------------------------------------------------------------------------------------


cdef class ServerStream:
    @property
    def framing_name(self):
        """For Call.protocol."""
        return "ttheader-streaming"

    @property
    def method(self):
        """The method's name as text."""
        return self.header.ints.get(9, "")

    def __repr__(self):
        return f"<ServerStream {self.sid} of {self.method}>"


cdef class Requests:
    """What a handler of a stream iterates over: the requests as they come."""

    def __iter__(self):
        return self

    def __next__(self):
        cdef StreamJob job = self.job
        cdef ServerStream s = job.stream
        cdef bytes payload
        while True:
            if s.messages:
                payload = s.messages.popleft()
                s.taken = job.connection.loop.polled
                (<StreamFront>job.front).count_queued(s, -PyBytes_GET_SIZE(payload) - MESSAGE_COST)
                try:
                    return job.route.read_request(payload)
                except ProtocolError as error:
                    raise unreadable(job.route, error) from None
            if job.call.cancelled:
                raise s.cancellation or Cancelled("the stream has ended", elapsed=job.call.elapsed)
            if s.failure is not None:
                raise s.failure
            if s.half_closed or s.over:
                raise StopIteration
            if job.reading is None:
                job.reading = Gate(job.connection.loop)
            job.reading.wait()

    def __repr__(self):
        return f"<Requests of {self.job.target.service}.{self.job.route.spec.name}>"


cdef object unreadable(StreamMethod route, object error):
    return ApplicationError(f"{route.spec.name}: {error.message}", TYPE_PROTOCOL)


cdef class Interruption(Waiter):
    """Throws `error` into the greenlet that serves `job`, from the hub, if it still does."""

    cdef int wake(self) except -1:
        runner = self.job.runner
        if runner is not None and not runner.dead:
            runner.throw(self.error)
        return 0


# ---- one connection ----------------------------------------------------------------------------------------------------


cdef class StreamServerProtocol(StreamProtocol):
    cdef bint portable(self) noexcept:
        return self.skipping == 0 and not self.streams and self.running == 0 and self.held is None

    cdef object receive(self, Cursor* c):
        cdef const uint8_t* start
        cdef Frame f
        while True:
            if self.is_holding and self.skipping == 0 and not self.streams and not self.held_ids:
                return None  # all of it is for the next worker
            start = c.p
            f = self.take_frame(c)
            if f is None or not self.is_holding or f.sid in self.streams:
                return f
            if f.type == HEADER and f.sid != 0 or f.sid in self.held_ids:
                if f.type == 0:
                    raise ProtocolError(f"stream {f.sid}: a message over the limit while its connection was about to be handed over")
                if self.held is None:
                    self.held = WriteBuffer()
                self.held.append(start, c.p - start)
                self.held_ids.add(f.sid)
                if self.held.n > self.front.max_queued:
                    self.stop_holding()
                    return None

    def stop_holding(self):
        """Serve here what was held back."""
        cdef Connection c = self.transport
        self.is_holding = False
        self.put_back()
        if c is not None and c.fd >= 0 and c.input is not None:
            c.partial_since = 0
            if not c.is_again:
                c.is_again = True
                c.loop.again(c)

    cdef int put_back(self) except -1:
        """Held frames come before what is still unread, as they came."""
        cdef Connection c = self.transport
        cdef ReadBuffer input
        self.held_ids.clear()
        if self.held is not None and c is not None and c.fd >= 0:
            input = ReadBuffer()
            input.feed(self.held.p, self.held.n)
            if c.input is not None:
                input.feed(c.input.p + c.input.head, c.input.tail - c.input.head)
            c.input = input
        self.held = None
        return 0

    def __repr__(self):
        return f"<StreamServerProtocol {len(self.streams)} streams, {self.running} handlers, {self.queued} bytes wait>"


cdef class StreamJob(Job):
    pass


# ---- all streams -------------------------------------------------------------------------------------------------------


cdef class StreamFront(Front):
    """`methods` and `services` hold StreamMethods, each with its Target, as ThriftFront has Routes.

    `max_message` bounds one message, `max_streams` the streams of one connection, `max_queued` the bytes that wait for its handlers.
    """

    def __init__(self, Dispatcher dispatcher not None, dict methods not None, dict services not None, *,
                 Py_ssize_t max_message=DEFAULT_MAX_MESSAGE, Py_ssize_t max_streams=DEFAULT_MAX_STREAMS, Py_ssize_t max_queued=DEFAULT_MAX_QUEUED):
        super().__init__(dispatcher)
        self.methods = methods
        self.services = services
        self.max_message = max_message
        self.max_streams = max_streams
        self.max_queued = max_queued

    cdef Protocol new_protocol(self):
        cdef StreamServerProtocol p = StreamServerProtocol.__new__(StreamServerProtocol)
        p.front = self
        p.max_message = self.max_message
        p.streams = {}
        p.writers = []
        p.held_ids = set()
        return p

    cdef int opened(self, Connection c) except -1:
        c.most_busy = MANY
        c.ends_with_peer = True  # a peer that is gone sends no Rst
        c.watch_time = True
        (<StreamServerProtocol>c.protocol).transport = c
        if self.dispatcher.draining:
            self.leave(c)
        return 0

    # ---- frames come in ----------------------------------------------------------------------------------------------

    cdef int message(self, Connection c, object message) except -1:
        cdef Frame f = <Frame>message
        cdef ServerStream s = (<StreamServerProtocol>c.protocol).streams.get(f.sid)
        if s is None:
            if f.type == HEADER and f.sid != 0:
                return self.open_stream(c, f)
            return 0
        s.size += f.size
        if f.type == DATA:
            return self.take_data(c, s, f)
        if f.type == TRAILER:
            return self.take_end(c, s, f)
        if f.type == RST:
            return self.take_reset(c, s, f)
        if f.type == HEADER:
            return self.fail(c, s, ApplicationError(f"a second Header for stream {s.sid}", Reason.UNEXPECTED_HEADER))
        if f.type == META:
            return 0
        return self.fail(c, s, ResourceExhausted(f"a message of {f.size} bytes is longer than the limit of {self.max_message}"))

    cdef StreamMethod look_up(self, bytes name, object service):
        cdef StreamMethod found = None
        if service is None:
            return <StreamMethod>self.methods.get(name)
        methods = self.services.get(service)
        if methods is not None:
            return <StreamMethod>methods.get(name)
        # As Kitex does (`SearchService`): a name that nobody has means the one service that has the method, if it is one.
        for methods in self.services.values():
            if name in methods:
                if found is not None:
                    return None
                found = <StreamMethod>methods[name]
        return found

    cdef int open_stream(self, Connection c, Frame f) except -1:
        cdef StreamServerProtocol p = <StreamServerProtocol>c.protocol
        cdef ServerStream s = ServerStream.__new__(ServerStream)
        cdef StreamJob job
        cdef Requests requests
        s.connection = p
        s.sid = f.sid
        s.header = f.header
        s.size = f.size
        s.arrived = s.taken = c.loop.polled
        s.route = self.look_up(s.method.encode("utf-8", "surrogateescape"), f.header.strings.get("isn"))
        s.timeout = shorter(0, f.header.ints.get(KEY_RPC_TIMEOUT))
        error = self.why_not(c, p, s)
        if error is not None:
            return self.refuse(c, s, error)
        p.streams[s.sid] = s
        if not s.route.client_streaming:
            p.waiting += 1
            return 0
        s.messages = deque()
        requests = Requests.__new__(Requests)
        s.job = requests.job = StreamJob.__new__(StreamJob)
        return self.start(c, s, (requests,))

    def why_not(self, Connection c not None, StreamServerProtocol p, ServerStream s not None):
        """The RpcError to answer a new stream with instead of calling anyone, or None."""
        if p.refuses_at and monotonic() > p.refuses_at:
            return Unavailable("this server is leaving; connect again")
        if p.running + p.waiting >= self.max_streams:
            return ResourceExhausted(f"{p.running + p.waiting} streams are under way on this connection, its limit")
        if s.route is None:
            return self.nobody(s)
        return self.dispatcher.full(c, s.route.target, s.route.spec.name)

    def nobody(self, ServerStream s not None):
        """The error for a method that nobody serves. (Kitex never answers.)"""
        service = s.header.strings.get("isn")
        if service is not None and service not in self.services:
            return UnknownService(f"unknown service {service}, method {s.method}")
        if service is None:
            if not self.methods:
                return UnknownService(f"the call of {s.method} names no service, and this server wants one (TTHeader \"isn\")")
            service = ", ".join(self.services)
        return UnknownMethod(f"unknown method {s.method} (service {service})")

    cdef int take_data(self, Connection c, ServerStream s, Frame f) except -1:
        cdef StreamServerProtocol p = s.connection
        if s.half_closed:
            return self.fail(c, s, ApplicationError(f"a message behind the Trailer of stream {s.sid}", Reason.ILLEGAL_OPERATION))
        if s.route.client_streaming:
            if not s.messages:
                s.taken = c.loop.polled
            s.messages.append(f.payload)
            self.count_queued(s, PyBytes_GET_SIZE(f.payload) + MESSAGE_COST)
            if s.job.reading is not None:
                s.job.reading.open()
            return 0
        if s.job is not None:
            return self.fail(c, s, ApplicationError(f"{s.method} takes one request, a second one came", TYPE_PROTOCOL))
        p.waiting -= 1
        try:
            args = s.route.read_args(f.payload)
        except ProtocolError as error:
            return self.refuse(c, s, unreadable(s.route, error))
        s.job = StreamJob.__new__(StreamJob)
        return self.start(c, s, args)

    cdef int take_end(self, Connection c, ServerStream s, Frame f) except -1:
        """The client sends no more."""
        if s.half_closed:
            return self.fail(c, s, ApplicationError(f"a second Trailer of stream {s.sid}", Reason.ILLEGAL_OPERATION))
        s.half_closed = True
        if s.job is None:
            s.connection.waiting -= 1
            return self.refuse(c, s, ApplicationError(f"{s.method} takes one request, none came", TYPE_PROTOCOL))
        s.failure = trailer_error(f.header.strings, f.payload)
        if s.job.reading is not None:
            s.job.reading.open()
        return 0

    cdef int take_reset(self, Connection c, ServerStream s, Frame f) except -1:
        """The client has given the stream up."""
        if s.job is None:
            s.connection.waiting -= 1
            return self.forget(s)
        error = reset_error(f.header.strings, f.payload)
        error.elapsed = s.job.call.elapsed
        return self.cancel(s.job, error)

    cdef int count_queued(self, ServerStream s, Py_ssize_t size) except -1:
        """`size` more wait for the handler of `s`, or less if negative; read on, or no longer."""
        cdef StreamServerProtocol p = s.connection
        cdef Connection c = p.transport
        s.queued += size
        p.queued += size
        if c is None or c.fd < 0:
            return 0
        if p.queued > self.max_queued:
            if not p.is_paused:
                p.is_paused = True
                c.most_busy = 0
        elif p.is_paused and p.queued <= self.max_queued // 2:
            p.is_paused = False
            c.most_busy = MANY
            if c.processing != c.loop.term:
                c.settle()
        return 0

    # ---- a handler runs ----------------------------------------------------------------------------------------------

    cdef int start(self, Connection c, ServerStream s, tuple args) except -1:
        cdef StreamServerProtocol p = s.connection
        cdef StreamJob job = s.job
        cdef Target target = <Target>s.route.target
        cdef double timeout = target.timeout
        self.dispatcher.count_request()
        job.front = self
        job.route = s.route
        job.stream = s
        job.request = s
        job.target = target
        job.connection = c
        job.call = self.dispatcher.new_call(c, s.route.spec, target.service, s)
        job.cancellable = True
        job.args = args
        if s.timeout > 0:
            left = max(s.timeout - (monotonic() - s.arrived), 1e-9)
            if timeout <= 0 or left < timeout:
                timeout = left
        p.running += 1
        try:
            self.dispatcher.run(job, timeout)
        finally:
            p.running -= 1
            self.settle_down(p)
        return 0

    def settle_down(self, StreamServerProtocol p not None):
        """The connection may have become one to hand over."""
        if p.is_holding and not p.streams and p.running == 0:
            p.put_back()

    cdef int refuse(self, Connection c, ServerStream s, object error) except -1:
        """Answer with `error` without calling anyone."""
        self.dispatcher.count_request()
        strings = dict(GOODBYE) if isinstance(error, Unavailable) else {}
        self.send_end(s, None, False, strings, self.told(s, error))
        self.forget(s)
        if c.is_surplus:
            self.turn_away(c)
        if s.route is not None:
            return self.dispatcher.refused(c, s, s.route.spec, (<Target>s.route.target).service, s.sent, error)
        return self.dispatcher.refused(c, s, Unknown(s.method), "", s.sent, error)

    def told(self, ServerStream s not None, error):
        """An RpcError as the exception in a Trailer."""
        if isinstance(error, ApplicationError):
            return exception_payload(s.method, s.sid, error.type, error.message)
        if isinstance(error, Unavailable):
            return exception_payload(s.method, s.sid, Reason.TRANSPORT_CLOSING, error.message)
        return exception_payload(s.method, s.sid, TYPE_INTERNAL, f"{error.code.name}: {error.message}")

    cdef int fail(self, Connection c, ServerStream s, object error) except -1:
        """The client broke a rule in this stream: it is told, and the handler is interrupted."""
        if s.job is None:
            s.connection.waiting -= 1
            return self.refuse(c, s, error)
        self.send_end(s, None, False, None, self.told(s, error))
        return self.cancel(s.job, Cancelled(f"the stream was ended: {error.message}", reason=Reason.INTERNAL_CANCEL, elapsed=s.job.call.elapsed))

    cdef int cancel(self, StreamJob job, object error) except -1:
        """Nobody wants the answer any more: the stream is over, and its handler is interrupted."""
        cdef Interruption interruption
        cdef ServerStream s = job.stream
        if job.answered:
            return 0
        job.answered = True
        job.call.cancelled = True
        s.cancellation = error
        self.forget(s)
        job.disarm()
        if job.runner is not None:
            interruption = Interruption.__new__(Interruption)
            interruption.job = job
            interruption.error = error
            job.connection.loop.wake_after_turn(interruption)
        job.expected = True
        job.answer_size = s.sent
        self.dispatcher.finish(job, error.code, error)
        return job.connection.done()

    cdef int forget(self, ServerStream s) except -1:
        """The stream is over: what waits in it is dropped, and who waits for it looks again."""
        cdef StreamServerProtocol p = s.connection
        s.over = True
        if p.streams.get(s.sid) is s:
            del p.streams[s.sid]
        if s.messages:
            s.messages.clear()
        if s.queued:
            self.count_queued(s, -s.queued)
        if s.job is not None:
            if s.job.reading is not None:
                s.job.reading.open()
            if s.job.writing is not None:
                s.job.writing.open()
        return 0

    # ---- answers go out ----------------------------------------------------------------------------------------------

    cdef int send_value(self, StreamJob j, object value) except -1:
        """Send one message of the answer; EncodeError when it does not fit the IDL."""
        cdef ServerStream s = j.stream
        cdef Connection c = j.connection
        cdef WriteBuffer out
        cdef Py_ssize_t before
        if c.fd < 0:
            return 0
        out = c.writer()
        before = out.n
        try:
            if not s.head_sent:
                write_frame(out, HEADER, s.sid, j.route.spec.name, None, j.call.outgoing, None)
                s.head_sent = True
            j.route.write_reply(value, s.sid, out, s.connection.max_message)
        finally:
            s.sent += out.n - before
            c.wrote()
        return 0

    cdef int send_end(self, ServerStream s, Call call, bint head, dict strings, bytes payload) except -1:
        """The last frame of a stream, with the handler's trailers; with `head` after its first one, if that has not left."""
        cdef Connection c = s.connection.transport
        cdef WriteBuffer out
        cdef Py_ssize_t before
        if c is None or c.fd < 0:
            return 0
        if call is not None and call.trailing:
            strings = {**call.trailing, **(strings or {})}
        if self.dispatcher.leaves(c):
            strings = {**(strings or {}), **GOODBYE}
        out = c.writer()
        before = out.n
        try:
            if head and not s.head_sent:
                write_frame(out, HEADER, s.sid, s.method, None, call.outgoing if call is not None else None, None)
                s.head_sent = True
            write_frame(out, TRAILER, s.sid, s.method, None, strings, payload)
        finally:
            s.sent += out.n - before
            c.wrote()
        return 0

    cdef int send_all(self, Job job, object values) except -1:
        """Send what a streaming handler returned, at the peer's pace."""
        cdef StreamJob j = <StreamJob>job
        cdef Connection c = j.connection
        try:
            for value in values:
                if j.answered:
                    break
                self.send_value(j, value)
                if c.output is not None and c.output.n - c.sent > SEND_BURST:
                    self.wait_for_room(j)
        finally:
            close = getattr(values, "close", None)
            if close is not None:
                close()
        return 0

    def wait_for_room(self, StreamJob j not None):
        """Until the socket had its turn, and has taken most of what waits."""
        cdef StreamServerProtocol p = j.stream.connection
        cdef Connection c = j.connection
        if j.writing is None:
            j.writing = Gate(c.loop)
        c.loop.wake_after_turn(j.writing)
        j.writing.wait()
        while not j.answered and c.fd >= 0 and c.output is not None and c.output.n - c.sent > MOST_UNSENT:
            p.writers.append(j.writing)
            c.watch_room = True
            j.writing.wait()

    cdef int room(self, Connection c) except -1:
        cdef StreamServerProtocol p = <StreamServerProtocol>c.protocol
        writers, p.writers = p.writers, []
        for gate in writers:
            (<Gate>gate).open()
        return 0

    cdef int answer(self, Job job, object value, object error) except -1:
        cdef StreamJob j = <StreamJob>job
        cdef ServerStream s = j.stream
        cdef int code
        if j.answered:
            return 0
        j.answered = True
        j.disarm()
        code = self.write_answer(j, value, error)
        j.answer_size = s.sent
        self.forget(s)
        self.dispatcher.finish(j, code, error)
        return j.connection.done()

    cdef int write_answer(self, StreamJob j, object value, object error) except -1:
        """Write the end of the answer, log what is our side's fault, and return the Code. Never raises what the handler raised."""
        cdef ServerStream s = j.stream
        cdef StreamMethod route = j.route
        cdef Call call = j.call
        cdef dict strings = None
        cdef bytes payload = None
        cdef int code = OK
        try:
            if error is None:
                try:
                    if not route.server_streaming:
                        self.send_value(j, value)
                    self.send_end(s, call, True, None, None)
                    return OK
                except EncodeError as wrong:
                    error = wrong
            try:
                code, strings, payload = self.ending(j, error)
                self.send_end(s, call, True, strings, payload)
            except EncodeError as wrong:  # metadata that cannot travel
                log.error("%s.%s: %s", j.target.service, route.spec.name, wrong)
                call.outgoing = call.trailing = None
                code = INTERNAL
                self.send_end(s, call, True, None, exception_payload(s.method, s.sid, TYPE_INTERNAL, f"the answer cannot be sent: {wrong}"))
        except Exception:
            log.exception("%s.%s: the answer could not be written", j.target.service, route.spec.name)
            code = INTERNAL
            self.send_end(s, None, False, None, exception_payload(s.method, s.sid, TYPE_INTERNAL, "the answer could not be written"))
        return code

    def ending(self, StreamJob j not None, error):
        """``(code, strings, payload)`` of the Trailer that says how the handler failed; logs what is our side's fault."""
        cdef ServerStream s = j.stream
        where = f"{j.target.service}.{j.route.spec.name}"
        if isinstance(error, BusinessError):
            j.expected = True
            return error.code, business_strings(error, None), None
        if isinstance(error, EncodeError):
            log.error("%s: the answer does not fit the IDL: %s", where, error)
            text = f"the answer does not fit the IDL: {error}"
            return INTERNAL, None, exception_payload(s.method, s.sid, TYPE_INTERNAL, text)
        if isinstance(error, RpcError):
            if isinstance(error, ApplicationError) and error.instance is None:
                return error.code, None, self.told(s, error)
            return error.code, None, exception_payload(s.method, s.sid, TYPE_INTERNAL, f"{error.code.name}: {error.message}")
        strings = declared_strings(j.route.result, error)
        if strings is not None:
            j.expected = True
        else:
            log.error("%s: the handler failed", where, exc_info=error)
        text = f"biz error: {type_name(error)}: {text_of(error)}"
        return UNKNOWN, strings, exception_payload(s.method, s.sid, TYPE_INTERNAL, text)

    # ---- connections end ---------------------------------------------------------------------------------------------

    cdef int leave(self, Connection c) except -1:
        """New streams are for others; see the top."""
        cdef StreamServerProtocol p = <StreamServerProtocol>c.protocol
        if self.dispatcher.draining:
            if p.is_leaving:
                return 0
            p.is_leaving = True
        # Else an operator had us say so, and all that comes is served.
        if self.dispatcher.leaves(c):
            if p.is_leaving:
                p.refuses_at = monotonic() + FAREWELL
        else:
            p.is_holding = True
            c.loop.call_later(HOLD, p.stop_holding)
            if not p.streams:
                return 0
        write_frame(c.writer(), META, 0, "", None, GOODBYE, None)
        return c.wrote()

    cdef int expired(self, Connection c) except -1:
        if (<StreamServerProtocol>c.protocol).streams:
            return 0
        return c.shut(None)

    cdef int tick(self, Connection c, double now) except -1:
        """Streams that stand still."""
        cdef StreamServerProtocol p = <StreamServerProtocol>c.protocol
        cdef ServerStream s
        cdef double patience = c.limits.frame_timeout, stall = c.limits.write_timeout
        if p.waiting and patience:
            for each in list(p.streams.values()):
                s = <ServerStream>each
                if s.job is None and now - s.arrived > patience:
                    self.fail(c, s, DeadlineExceeded(f"no request came within {patience:g} s"))
        if p.is_paused and stall:
            for each in list(p.streams.values()):
                s = <ServerStream>each
                if s.queued and now - s.taken > stall:
                    self.fail(c, s, ResourceExhausted(f"the handler took none of {s.queued} bytes for {stall:g} s, and holds up other streams"))
        return 0

    cdef int broken(self, Connection c, object error) except -1:
        cdef StreamServerProtocol p = <StreamServerProtocol>c.protocol
        cdef ServerStream s
        Front.broken(self, c, error)
        for each in list(p.streams.values()):
            s = <ServerStream>each
            payload = exception_payload(s.method, s.sid, Reason.ILLEGAL_FRAME, error.message)
            self.send_end(s, None, False, None, payload)
        return self.give_up(c)

    def give_up(self, Connection c not None):
        """The connection is over: so are all its streams."""
        cdef StreamServerProtocol p = <StreamServerProtocol>c.protocol
        cdef ServerStream s
        for each in list(p.streams.values()):
            s = <ServerStream>each
            if s.job is not None:
                self.cancel(s.job, Cancelled("the caller's connection ended", reason=Reason.CONNECTION_CLOSED, elapsed=s.job.call.elapsed))
            else:
                p.waiting -= 1
                self.forget(s)
        self.room(c)
        return 0

    cdef int closed(self, Connection c, object error) except -1:
        cdef StreamServerProtocol p = <StreamServerProtocol>c.protocol
        self.give_up(c)
        p.transport = None
        p.held = None
        return self.dispatcher.gone(c)

# cython: language_level=3, boundscheck=False, wraparound=False
"""gRPC's side of a server: streams become Jobs, and what handlers return, yield or raise becomes messages and a status.

Theory of operation
1. A unary or server-streaming call starts when its request is whole, a client-streaming one when its headers are there. Its handler then runs like any
   other (weego.dispatch); one that waits for requests, or for a peer that takes nothing, waits at a Gate, and the loop goes on without it.
2. What no window allows waits in the stream, and with it the handler that made it. While much waits on a connection, its further calls are
   postponed, so that a peer which asks and never reads costs no more than its windows and those calls (attack case H2-11).
3. A stream that the peer resets, or whose connection ends, is over at once: `Call.cancelled` is true, and a greenlet handler is interrupted with
   Cancelled where it waits. It counts among the calls under way, and among the streams of its connection, until it has really returned
   (H2-01: otherwise a peer could start any number).
4. Draining says GOAWAY twice. A connection is closed when its last stream is through.
5. gRPC-Web differs in the content type, in trailers that are a last message, and in what browsers want to know (CORS). On HTTP/1.1 it is the same
   code over another connection: weego.grpc_web.
"""

import base64
import logging
import re

from codec.grpc cimport parse_timeout
from codec.h2.connection cimport GOT_END, GOT_RESET
from codec.h2.hpack cimport (
    AUTHORITY, CONTENT_TYPE, Field, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, GRPC_TIMEOUT, METHOD, OTHER, PATH,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp
from poller.clock cimport monotonic
from poller.connection cimport Receiver
from poller.switching cimport PyGreenlet_Import, switch_to
from weego.dispatch cimport GREENLET

from greenlet import getcurrent

from codec.errors import BusinessError, Cancelled, Code, DeadlineExceeded, EncodeError, ProtocolError, RpcError, UsageError
from codec.grpc import DEFAULT_MAX_MESSAGE, metadata_fields, metadata_pairs
from codec.grpc_compression import accepted, compress, decompress, is_known
from codec.grpc_status import status_fields, status_of
from codec.h2 import limits as h2_limits
from codec.h2.errors import ErrorCode
from weego.dispatch import Unknown

PyGreenlet_Import()

cdef enum:
    # Calls of a connection at a time as the transport sees it: what bounds them is `max_streams`.
    MANY = 1000000
    # Answers that wait for the peer's windows, in bytes of one connection, beyond which its further calls are postponed.
    MOST_QUEUED = 1048576
    # Bytes that a streaming handler may write before the socket has its turn.
    SEND_BURST = 65536

# Seconds between the two GOAWAYs of a peer that does not answer the PING between them (grpc-go: a minute; the drain has less).
cdef double FAREWELL = 1.0
# Log lines about peers that abuse the protocol: one a second.
cdef double COMPLAIN_EVERY = 1.0

cdef int NO_ERROR = ErrorCode.NO_ERROR
cdef int INTERNAL_ERROR = ErrorCode.INTERNAL_ERROR
cdef int REFUSED_STREAM = ErrorCode.REFUSED_STREAM
cdef int H2_CANCEL = ErrorCode.CANCEL

# What the length before a message can say.
cdef Py_ssize_t LONGEST_MESSAGE = 0xFFFFFFFF

cdef int OK = 0
cdef int INTERNAL = Code.INTERNAL

cdef Field STATUS_200 = Field(b":status", b"200")
cdef Field PLAIN_TYPE = Field(b"content-type", b"application/grpc")
cdef tuple HEAD = (STATUS_200, PLAIN_TYPE)
cdef Field STATUS_OK = Field(b"grpc-status", b"0")
cdef tuple OK_TRAILERS = (STATUS_OK,)
cdef bytes GRPC_TYPE = b"application/grpc"
cdef dict CONTENT_TYPES = {}
# What a browser's script may read of our answers, and send with its calls, beyond what is always allowed.
cdef list EXPOSED = [(b"access-control-expose-headers", b"grpc-status,grpc-message,grpc-status-details-bin,grpc-encoding,biz-status,biz-extra")]
cdef bytes ACCEPT_POST = b"application/grpc, application/grpc-web, application/grpc-web-text"
cdef bytes NO_GRPC = b"This server speaks gRPC: POST with content-type application/grpc.\n"
PIECES = re.compile(rb"[^=]+=*")
PREFLIGHT_AGE = b"86400"

log = logging.getLogger("weego.worker")


cdef class GrpcRoute:
    """One method. `decode` turns a message's bytes into the handler's argument, `encode` what it returns into bytes."""

    def __init__(self, spec, Target target not None, str service not None, decode, encode):
        self.spec = spec
        self.name = spec.name
        self.target = target
        self.path = f"/{service}/{self.name}".encode()
        self.decode = decode
        self.encode = encode
        self.client_streaming = spec.client_streaming
        self.server_streaming = spec.server_streaming

    def __repr__(self):
        return f"<GrpcRoute {self.path.decode()}>"


# ---- how the parts hang together ---------------------------------------------------------------------------------------


cdef class ConnectionSink(Sink):
    """What an HTTP/2 protocol writes goes to its Connection."""

    def __init__(self, Connection connection not None):
        self.connection = connection

    cdef WriteBuffer writer(self):
        return self.connection.writer()

    cdef int wrote(self) except -1:
        return self.connection.wrote()

    cdef Py_ssize_t backlog(self) noexcept:
        cdef Connection c = self.connection
        return 0 if c.output is None else c.output.n + c.output.apart - c.sent

    cdef int want_room(self) except -1:
        self.connection.watch_room = True
        return 0

    cdef double now(self) noexcept:
        return self.connection.loop.polled


cdef class Gate(Waiter):
    def __init__(self, Loop loop not None):
        self.loop = loop

    cdef int wait(self) except -1:
        """Wait, in any greenlet but the hub, until someone opens."""
        if self.loop.hub is None or getcurrent() is self.loop.hub:
            raise UsageError("a stream was used where nothing may wait: in gevent's event loop; use it in a greenlet")
        return self.park(getcurrent())

    cdef int park(self, object me) except -1:
        """`wait` of who knows what it is, and that it is not the hub."""
        if self.greenlet is not None:
            raise UsageError("two greenlets use the same side of one stream")
        self.greenlet = me
        try:
            # What gevent's `Hub.switch` does, less three calls of Python.
            leaving = getattr(me, "switch_out", None)
            if leaving is not None:
                leaving()
            switch_to(self.loop.hub)
        finally:
            self.greenlet = None
        return 0

    cdef int open(self) except -1:
        """Wake who waits, after the turn."""
        if self.greenlet is not None:
            self.loop.wake_after_turn(self)
        return 0

    cdef int wake(self) except -1:
        greenlet = self.greenlet
        if greenlet is not None:
            self.greenlet = None
            switch_to(greenlet)
        return 0


cdef class Interruption(Waiter):
    """Throws `error` into the greenlet that serves `job`, from the hub, if it still does."""

    cdef int wake(self) except -1:
        runner = self.job.runner
        if runner is not None and not runner.dead:
            runner.throw(self.error)
        return 0


cdef class Requests:
    """What a client-streaming handler iterates over: the requests as they come."""

    cdef GrpcJob job

    def __iter__(self):
        return self

    def __next__(self):
        cdef GrpcJob job = self.job
        cdef GrpcServerStream s = job.stream
        while True:
            payload = s.take_message()
            if payload is not None:
                return decoded(s, job.route, payload, (<GrpcFront>job.front).max_message)
            if s.failure is not None:
                raise s.failure
            if job.call.cancelled:
                raise Cancelled("the caller has given the call up", elapsed=job.call.elapsed)
            if s.remote_done or not s.is_open:
                raise StopIteration
            if job.reading is None:
                job.reading = Gate(job.connection.loop)
            job.reading.wait()

    def __repr__(self):
        return f"<Requests of {self.job.target.service}.{self.job.route.spec.name}>"


cdef object decoded(GrpcServerStream s, GrpcRoute route, object payload, Py_ssize_t limit):
    """A message as the handler wants it. RpcError when it cannot be read."""
    s.came_packed = type(payload) is tuple
    if s.came_packed:
        payload = decompress(s.asked.encoding or "", payload[0], limit)
    return route.decode(payload)


include "grpc_server_stream.pxi"


cdef class GrpcJob(Job):
    pass


# ---- all streams -------------------------------------------------------------------------------------------------------


cdef class GrpcFront(Front):
    """`routes` are GrpcRoutes. `max_message` bounds one message, `max_streams` the calls of one connection.

    `keepalive_time` is how long a connection may be silent before it is asked whether it still lives, `keepalive_timeout` how long the
    answer may take (seconds, 0: never asked). `origins` are the origins whose scripts may call by gRPC-Web; None: all.
    """

    def __init__(self, Dispatcher dispatcher not None, routes, *, Py_ssize_t max_message=DEFAULT_MAX_MESSAGE,
                 Py_ssize_t max_streams=h2_limits.MAX_STREAMS, double keepalive_time=0, double keepalive_timeout=20, origins=None):
        cdef GrpcRoute route
        super().__init__(dispatcher)
        self.routes = {}
        self.services = set()
        self.short = {}
        self.abuse = {}
        self.follow(max_message, max_streams, keepalive_time, keepalive_timeout)
        self.origins = None if origins is None else frozenset([each.encode() for each in origins])
        for route in routes:
            self.add(route)

    def add(self, GrpcRoute route not None):
        """Serve one more method."""
        service, _, method = route.path[1:].rpartition(b"/")
        self.routes[route.path] = route
        self.short.setdefault(service.rpartition(b".")[2] + b"/" + method, route)

    def follow(self, Py_ssize_t max_message, Py_ssize_t max_streams, double keepalive_time, double keepalive_timeout):
        """Keep to these from now on; `max_streams` on connections to come, for the peers of the others were told what they may."""
        self.max_message = max_message
        self.max_streams = max_streams
        self.keepalive_time = keepalive_time
        self.keepalive_timeout = keepalive_timeout

    cdef Protocol new_protocol(self):
        cdef GrpcServerConnection p = GrpcServerConnection(False, max_streams=self.max_streams)
        p.front = self
        p.postponed = []
        return p

    cdef int opened(self, Connection c) except -1:
        cdef GrpcServerConnection p = <GrpcServerConnection>c.protocol
        c.most_busy = MANY
        c.ends_with_peer = True  # who has closed its half cannot open our windows any more
        c.watch_time = True
        p.transport = c
        p.start(ConnectionSink(c))
        if self.dispatcher.draining:
            self.leave(c)
        return 0

    # ---- a call comes in ---------------------------------------------------------------------------------------------

    cdef int message(self, Connection c, object message) except -1:
        cdef GrpcServerConnection p
        cdef GrpcServerStream s
        cdef int events
        if not isinstance(message, GrpcServerStream):
            p = <GrpcServerConnection?>message
            p.events = 0
            p.pinged = 0
            return self.settle(p)
        s = <GrpcServerStream>message
        events = s.events
        s.events = 0
        if s.job is None:
            if events & GOT_RESET:
                return self.settle(<GrpcServerConnection>c.protocol)
            return 0 if s.started or not s.is_open else self.start_call(c, s)
        if events & GOT_RESET:
            self.cancel(s.job, Cancelled("the caller has given the call up", elapsed=s.job.call.elapsed))
            return self.settle(<GrpcServerConnection>c.protocol)
        if s.job.reading is not None:
            s.job.reading.open()
        return 0

    cdef int start_call(self, Connection c, GrpcServerStream s) except -1:
        cdef GrpcServerConnection p = <GrpcServerConnection>c.protocol
        cdef Dispatcher d = self.dispatcher
        cdef GrpcRoute route = s.route
        cdef GrpcJob job
        cdef Requests requests
        cdef double timeout
        cdef object error, request = None
        if p.queued > MOST_QUEUED:
            p.postponed.append(s)
            return 0
        s.started = True
        if p.running >= p.max_streams:
            # Their streams are gone, but their handlers are not.
            p.reset_stream(s, REFUSED_STREAM)
            return 0
        d.count_request()
        if s.http_error:
            return self.refuse_http(s, s.http_error)
        error = self.why_not(c, s)
        if error is None and not route.client_streaming:
            try:
                request = decoded(s, route, s.take_message(), self.max_message)
            except RpcError as wrong:
                error = wrong
        if error is not None:
            return self.refuse(c, s, error)
        job = GrpcJob.__new__(GrpcJob)
        job.front = self
        job.route = route
        job.stream = s
        job.request = s
        job.target = route.target
        job.connection = c
        job.call = d.new_call(c, route.spec, route.target.service, s)
        job.cancellable = True
        if route.client_streaming:
            requests = Requests.__new__(Requests)
            requests.job = job
            job.args = (requests,)
        else:
            job.args = (request,)
        s.job = job
        timeout = route.target.timeout
        if s.asked.timeout >= 0:
            left = s.asked.timeout - (monotonic() - s.arrived)
            if left < 1e-9:
                left = 1e-9
            if timeout <= 0 or left < timeout:
                timeout = left
        p.running += 1
        return d.run(job, timeout)

    cdef int over(self, Job job) except -1:
        (<GrpcServerConnection>job.connection.protocol).running -= 1
        return 0

    cdef object why_not(self, Connection c, GrpcServerStream s):
        """The RpcError to answer with instead of calling anyone, or None."""
        cdef GrpcRoute route = s.route
        cdef Asked asked = s.asked
        if asked.refusal is not None:
            return asked.refusal
        if route is None:
            return self.nobody(asked.path)
        if asked.encoding is not None and not is_known(asked.encoding):
            return RpcError(f"messages cannot be read in the encoding {asked.encoding[:40]!r}", code=Code.UNIMPLEMENTED)
        if s.failure is not None:
            return s.failure
        if asked.timeout == 0:
            return DeadlineExceeded("the call came with no time left")
        if not route.client_streaming:
            if s.ready != 1:
                return ProtocolError(f"{route.path.decode()} takes one request, {s.ready} came", code=Code.INTERNAL)
        return self.dispatcher.full(c, route.target, route.name)

    def nobody(self, bytes path):
        """The error for a path that nobody serves: by service or by method."""
        name = path.decode("utf-8", "replace")
        service = name[1:].rpartition("/")[0]
        known = sorted(self.services | {each[1:].rpartition(b"/")[0].decode() for each in self.routes})
        if service in known:
            return RpcError(f"unknown method {name}", code=Code.UNIMPLEMENTED)
        return RpcError(f"unknown service {service or name} (there are {', '.join(known)})", code=Code.UNIMPLEMENTED)

    # ---- refusals ----------------------------------------------------------------------------------------------------

    cdef int refuse(self, Connection c, GrpcServerStream s, object error) except -1:
        """Answer with `error` without calling anyone."""
        cdef list fields = status_fields(error.code, error.message, error)
        if error.code == Code.UNIMPLEMENTED and s.route is not None:
            fields.append((b"grpc-accept-encoding", accepted()))
        s.drop_messages()
        self.send_status(s, None, fields)
        if c.is_surplus:
            self.turn_away(c)
        self.settle(<GrpcServerConnection>c.protocol)
        spec = s.route.spec if s.route is not None else Unknown(s.method)
        service = s.route.target.service if s.route is not None else ""
        return self.dispatcher.refused(c, s, spec, service, s.sent, error)

    cdef int refuse_http(self, GrpcServerStream s, int status) except -1:
        """Answer something that is no gRPC."""
        cdef list fields
        if status == 204:
            s.connection.send_fields(s, self.preflight_fields(s), True)
        else:
            self.dispatcher.count_error()
            fields = [(b":status", b"%d" % status), (b"content-type", b"text/plain"), (b"accept-post", ACCEPT_POST)]
            if status == 405:
                fields.append((b"allow", b"POST, OPTIONS"))
            s.connection.send_fields(s, fields, False)
            s.connection.send_data(s, <const unsigned char*>PyBytes_AS_STRING(NO_GRPC), PyBytes_GET_SIZE(NO_GRPC), True, NO_GRPC)
        return self.settle(<GrpcServerConnection>s.connection)

    cdef int preflight(self, GrpcServerStream s) except -1:
        return self.refuse_http(s, 204)

    def preflight_fields(self, GrpcServerStream s not None):
        """The answer to a browser that asks whether a script may call."""
        asked = s.text_of(b"access-control-request-headers")
        allowed = self.allowed_origin(s)
        if allowed is None:
            return [(b":status", b"403")]
        fields = [
            (b":status", b"204"), (b"access-control-allow-origin", allowed), (b"access-control-allow-methods", b"POST"),
            (b"access-control-max-age", PREFLIGHT_AGE), (b"vary", b"origin"),
        ]
        if asked:
            fields.append((b"access-control-allow-headers", asked.encode()))
        return fields

    def allowed_origin(self, GrpcServerStream s not None):
        """The origin of a browser's script if it may call, else None."""
        cdef bytes origin = s.asked.origin
        if origin is None or (self.origins is not None and origin not in self.origins):
            return None
        return origin

    # ---- a call ends early -------------------------------------------------------------------------------------------

    cdef int cancel(self, GrpcJob job, object error) except -1:
        """Nobody wants the answer any more: the call is over, and its handler is interrupted."""
        cdef Interruption interruption
        if job.answered:
            return 0
        job.answered = True
        job.call.cancelled = True
        job.stream.job = None
        job.disarm()
        if job.reading is not None:
            job.reading.open()
        if job.runner is not None:
            interruption = Interruption.__new__(Interruption)
            interruption.job = job
            interruption.error = error
            job.connection.loop.wake_after_turn(interruption)
        job.expected = True
        job.answer_size = job.stream.sent
        self.dispatcher.finish(job, error.code, error)
        return job.connection.done()

    # ---- the answer goes out -----------------------------------------------------------------------------------------

    cdef object head_fields(self, GrpcServerStream s, Call call):
        cdef list fields
        if call is None or (call.outgoing is None and call.compression is None):
            if s.dialect == GRPC:
                s.head_sent = True
                return HEAD
            fields = []
        else:
            fields = metadata_fields(call.outgoing.items()) if call.outgoing else []
            if call.compression is not None and call.compression != "identity" and accepts(s.asked.accepts, call.compression):
                s.sending = call.compression
                fields.append((b"grpc-encoding", s.sending.encode()))
        s.head_sent = True
        if s.dialect == GRPC:
            return [*HEAD, *fields]
        allowed = self.allowed_origin(s)
        if allowed is not None:
            fields += [(b"access-control-allow-origin", allowed), (b"vary", b"origin")]
            names = b",".join([name for name, _ in fields])
            fields.append((b"access-control-expose-headers", EXPOSED[0][1] + b"," + names))
        return [STATUS_200, (b"content-type", s.asked.content_type)] + fields

    cdef int send_head(self, GrpcServerStream s, Call call) except -1:
        if not s.head_sent:
            fields = self.head_fields(s, call)
            s.connection.send_fields(s, fields, False)
        return 0

    cdef bytes encoded(self, GrpcRoute route, object value):
        """A message of the answer; EncodeError when it does not fit the IDL."""
        cdef bytes payload = route.encode(value)
        if PyBytes_GET_SIZE(payload) > LONGEST_MESSAGE:
            raise EncodeError(f"a message of {len(payload)} bytes is longer than gRPC can say", route.spec.name)
        return payload

    cdef int send_value(self, GrpcJob job, object value, bint end) except -1:
        """Send one message of the answer; EncodeError when it does not fit the IDL."""
        cdef GrpcServerStream s = job.stream
        cdef bytes payload = self.encoded(job.route, value)
        cdef bint compressed = False
        self.send_head(s, job.call)
        if s.sending is not None and job.call.compression is not None:
            payload = compress(s.sending, payload)
            compressed = True
        if s.dialect == GRPC:
            return s.send_message(payload, compressed, False)
        s.sent += 5 + PyBytes_GET_SIZE(payload)
        payload = framed(compressed, payload)
        if s.dialect == WEB_TEXT:
            payload = base64.b64encode(payload)
        return s.connection.send_data(s, <const unsigned char*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), False, payload)

    cdef int send_status(self, GrpcServerStream s, Call call, list status) except -1:
        """End the call: `status` and the handler's trailers."""
        cdef bytes data
        if call is not None and call.trailing:
            status = status + metadata_fields(call.trailing.items())
        if s.dialect == GRPC:
            if not s.head_sent:
                status = [*self.head_fields(s, call), *status]
            return s.connection.send_fields(s, status, True)
        self.send_head(s, call)
        data = b"".join([f.name + b": " + f.value + b"\r\n" if isinstance(f, Field) else f[0] + b": " + f[1] + b"\r\n" for f in status])
        data = framed(0x80, data)
        if s.dialect == WEB_TEXT:
            data = base64.b64encode(data)
        return s.connection.send_data(s, <const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), True, data)

    cdef int send_all(self, Job job, object values) except -1:
        """Send what a streaming handler returned, at the peer's pace."""
        cdef GrpcJob j = <GrpcJob>job
        cdef GrpcServerStream s = j.stream
        try:
            for value in values:
                if j.answered:
                    break
                self.send_value(j, value, False)
                if s.queued or s.connection.sink.backlog() > SEND_BURST:
                    self.wait_for_room(j)
        finally:
            close = getattr(values, "close", None)
            if close is not None:
                close()
        return 0

    def wait_for_room(self, GrpcJob j not None):
        """Until what waits for windows has left, or else until the socket had its turn."""
        cdef GrpcServerStream s = j.stream
        if j.writing is None:
            j.writing = Gate(j.connection.loop)
        if not s.queued:
            j.connection.loop.wake_after_turn(j.writing)
            j.writing.wait()
        while s.queued and s.is_open and not j.answered:
            j.writing.wait()

    cdef int answer(self, Job job, object value, object error) except -1:
        cdef GrpcJob j = <GrpcJob>job
        cdef GrpcServerStream s = j.stream
        cdef int code = OK
        if j.answered:
            return 0
        j.answered = True
        s.job = None
        j.disarm()
        if error is None:
            code = self.write_answer(j, value, None)
        else:
            code = self.write_answer(j, None, error)
        j.answer_size = s.sent
        self.settle(<GrpcServerConnection>s.connection)
        self.dispatcher.finish(j, code, error)
        j.connection.done()
        return 0

    cdef int write_answer(self, GrpcJob j, object value, object error) except -1:
        """Write the answer, log what is our side's fault, and return the Code. Never raises what the handler raised."""
        cdef GrpcServerStream s = j.stream
        cdef Call call = j.call
        where = f"{j.target.service}.{j.route.spec.name}" if error is not None else None
        try:
            if error is None:
                try:
                    if not j.route.server_streaming:
                        if s.dialect == GRPC and call.outgoing is None and call.trailing is None and call.compression is None:
                            s.send_answer(None if s.head_sent else HEAD, self.encoded(j.route, value), OK_TRAILERS)
                            s.head_sent = True
                            return OK
                        self.send_value(j, value, False)
                    if call.trailing is None and s.dialect == GRPC:
                        if not s.head_sent:
                            self.send_head(s, call)
                        s.connection.send_fields(s, OK_TRAILERS, True)
                    else:
                        self.send_head(s, call)
                        self.send_status(s, call, [(b"grpc-status", b"0")])
                    return OK
                except EncodeError as wrong:
                    where = f"{j.target.service}.{j.route.spec.name}"
                    error = wrong
            code, text = status_of(error)
            if isinstance(error, BusinessError):
                j.expected = True
            elif isinstance(error, EncodeError):
                log.error("%s: the answer does not fit the IDL: %s", where, error)
            elif not isinstance(error, RpcError):
                log.error("%s: the handler failed", where, exc_info=error)
            fields = status_fields(code, text, error)
            if s.queue is not None:
                s.connection.drop_queue(s)
            try:
                self.send_status(s, call, fields)
            except EncodeError as wrong:  # metadata that cannot travel
                log.error("%s: %s", where, wrong)
                call.outgoing = call.trailing = None
                self.send_status(s, call, status_fields(INTERNAL, f"the answer cannot be sent: {wrong}"))
                code = Code.INTERNAL
            return code
        except Exception:
            log.exception("%s.%s: the answer could not be written", j.target.service, j.route.spec.name)
            s.connection.reset_stream(s, INTERNAL_ERROR)
            return INTERNAL

    # ---- connections end ---------------------------------------------------------------------------------------------

    cdef int settle(self, GrpcServerConnection p) except -1:
        """Close the connection once it has said goodbye and its last stream is through."""
        if p.left and not p.streams and p.transport is not None and not p.transport.closing:
            p.transport.close_soon()
        return 0

    cdef int leave(self, Connection c) except -1:
        cdef GrpcServerConnection p = <GrpcServerConnection>c.protocol
        if not p.farewell:
            p.farewell = True
            p.shut_down()
            c.loop.call_later(FAREWELL, p_farewell(p))
        return 0

    cdef int turn_away(self, Connection c) except -1:
        return self.leave(c)  # a GOAWAY: calls that are on their way are answered too

    cdef int expired(self, Connection c) except -1:
        if (<GrpcServerConnection>c.protocol).streams:
            return 0
        return self.leave(c)

    cdef int room(self, Connection c) except -1:
        cdef GrpcServerConnection p = <GrpcServerConnection>c.protocol
        p.pump()
        if p.news:
            c.nudge()
        return 0

    cdef int tick(self, Connection c, double now) except -1:
        """Streams that make no progress, and connections that may be dead."""
        cdef GrpcServerConnection p = <GrpcServerConnection>c.protocol
        cdef GrpcServerStream s
        cdef double stall = c.limits.write_timeout
        if p.queued and stall:
            for each in list(p.streams.values()):
                s = <GrpcServerStream>each
                if s.queue is not None and now - s.progress > stall:
                    self.note_abuse("window_stall", c)
                    if s.job is not None:
                        self.cancel(s.job, Cancelled(f"the peer took nothing of the answer for {stall:g} s"))
                    p.reset_stream(s, H2_CANCEL)
            if p.postponed and p.queued < MOST_QUEUED:
                p.news.append(p.postponed.pop(0))
                c.nudge()
        if self.keepalive_time:
            if p.pinged:
                if now - p.pinged > self.keepalive_timeout:
                    return c.shut(None)
            elif now - c.last_active > self.keepalive_time:
                p.pinged = now
                p.ping(b"weego:up")
        return 0

    cdef int broken(self, Connection c, object error) except -1:
        abuse = getattr(error, "abuse", "")
        if not abuse:
            Front.broken(self, c, error)
        else:
            self.dispatcher.count_error()
            self.note_abuse(abuse, c)
        self.give_up(c)
        return 0

    def note_abuse(self, str kind, Connection c):
        """Count it, and say so, but not for each."""
        self.abuse[kind] = self.abuse.get(kind, 0) + 1
        if c.loop.polled - self.complained > COMPLAIN_EVERY:
            self.complained = c.loop.polled
            log.warning("%s: abuse of HTTP/2 (%s); so far: %s", c.peer, kind, ", ".join([f"{k} {n}" for k, n in sorted(self.abuse.items())]))

    def give_up(self, Connection c not None):
        """The connection is over: so are all its calls."""
        cdef GrpcServerConnection p = <GrpcServerConnection>c.protocol
        cdef GrpcServerStream s
        for each in list(p.streams.values()):
            s = <GrpcServerStream>each
            if s.job is not None:
                self.cancel(s.job, Cancelled("the caller's connection ended", elapsed=s.job.call.elapsed))
            p.end_stream(s, True)
        p.dead = True
        p.postponed.clear()

    cdef int closed(self, Connection c, object error) except -1:
        cdef GrpcServerConnection p = <GrpcServerConnection>c.protocol
        self.give_up(c)
        p.transport = None
        return self.dispatcher.gone(c)


cdef bytes framed(int flag, bytes payload):
    return b"%c%b%b" % (flag, len(payload).to_bytes(4, "big"), payload)


cdef bint accepts(bytes offered, str name) except -1:
    """Does a grpc-accept-encoding hold this encoding?"""
    return offered is not None and is_known(name) and name.encode() in [each.strip() for each in offered.split(b",")]


cdef object p_farewell(GrpcServerConnection p):
    """What the timer calls between the two GOAWAYs."""
    def last():
        if p.transport is not None:
            p.shut_down_now()
            p.front.settle(p)
    return last

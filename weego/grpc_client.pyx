# cython: language_level=3, boundscheck=False, wraparound=False
"""gRPC's side of a client: calls become streams of HTTP/2 connections, and what comes back values, iterators and errors.

Theory of operation
1. A Link is one connection; many calls share it. A call opens a stream, waits, and reads the outcome; who sends or receives more holds a GrpcCall.
2. HubLink waits with gevent: the connection is in the loop, the caller's greenlet at a Gate of its stream. What one turn's callers send leaves together.
3. BlockingLink waits in the thread. It carries one call at a time, but two threads may use that call, one to send and one to receive: whoever waits
   first reads for both, without holding the lock, and wakes the other. One that gives the call up wakes the one that waits for its messages.
4. A stream that the peer has not looked at (REFUSED_STREAM, or beyond the last id of its GOAWAY) fails with Unavailable whose `sent` is False: the
   transport repeats the call elsewhere, and nobody notices.
5. A stream that is given up – cancelled, too late, its greenlet killed – is reset, so that the peer's handler learns of it.
"""

import errno
import os

from codec.buffer cimport ReadBuffer, WriteBuffer
from codec.h2.connection cimport GOT_GOAWAY, GOT_PONG, GOT_RESET, GOT_SETTINGS, Stream
from codec.h2.hpack cimport CONTENT_TYPE, Field, GRPC_ENCODING, GRPC_STATUS, STATUS
from cpython.exc cimport PyErr_CheckSignals
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from poller.clock cimport monotonic
from poller.connection cimport Connection, Limits
from poller.loop cimport Loop
from weego.grpc_server cimport ConnectionSink

from libc.errno cimport EAGAIN, EINTR, errno as error_number
from libc.math cimport ceil

from threading import RLock, Condition

from greenlet import getcurrent

from codec.errors import (
    Cancelled, ClosedError, Code, DeadlineExceeded, Origin, ProtocolError, ResourceExhausted, RpcError, StatusError, Unavailable, UsageError,
)
from codec.grpc import metadata_fields, metadata_pairs, timeout_text
from codec.grpc_compression import ACCEPTED, compress, decompress, is_known
from codec.grpc_status import HTTP_CODES, RESET_CODES, error_of
from codec.h2.errors import ErrorCode
from weego import __version__
from weego.exchange import IN_THE_LOOP

import _socket

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
    # Calls on a connection as the transport sees it: what bounds them is the peer's SETTINGS.
    MANY = 1000000
    # Bytes a call may have waiting for the peer's windows before who sends has to wait.
    MOST_QUEUED = 65536
    # Calls on a connection up to which each is sent at once.
    FEW = 2
    READ_SIZE = 65536

# Seconds for a last word, which the peer may not take.
cdef double PARTING = 1.0

cdef int H2_CANCEL = ErrorCode.CANCEL

cdef Field POST = Field(b":method", b"POST")
cdef Field HTTP = Field(b":scheme", b"http")
cdef Field HTTPS = Field(b":scheme", b"https")
cdef Field TRAILERS = Field(b"te", b"trailers")
cdef Field GRPC_TYPE = Field(b"content-type", b"application/grpc")
cdef Field AGENT = Field(b"user-agent", b"grpc-python-weego/" + __version__.encode())
cdef Field ACCEPT = Field(b"grpc-accept-encoding", ACCEPTED)
cdef dict ENCODINGS = {name: Field(b"grpc-encoding", name.encode()) for name in ("gzip", "deflate", "zstd")}
cdef Limits NO_LIMITS = Limits()
cdef bytes PING = b"weego:up"


cdef class GrpcMethod:
    """One method: `service` is its full name; `encode` makes bytes of the argument, `decode` a value of bytes."""

    def __init__(self, spec, str service not None, encode, decode):
        self.spec = spec
        self.path = Field(b":path", f"/{service}/{spec.name}".encode())
        self.encode = encode
        self.decode = decode
        self.client_streaming = spec.client_streaming
        self.server_streaming = spec.server_streaming

    def __repr__(self):
        return f"<GrpcMethod {self.path.value.decode()}>"


# ---- streams -----------------------------------------------------------------------------------------------------------


cdef class GrpcClientStream(GrpcStream):
    """One call on its connection."""

    cdef int on_headers(self) except -1:
        return self.wants_head

    cdef int on_drained(self) except -1:
        if self.writing is not None:
            self.writing.open()
        return 0

    cdef bint has_news(self) noexcept:
        """Need who reads wait no longer?"""
        if self.eager and self.messages or self.wants_head and self.headers is not None:
            return True
        return self.remote_done or not self.is_open or self.failure is not None or self.is_late

    cdef bint has_room(self) noexcept:
        """Need who writes wait no longer?"""
        return self.queued < MOST_QUEUED or not self.is_open or self.local_done or self.is_late or self.failure is not None

    @property
    def metadata_pairs(self):
        """For Call.metadata: what came before the messages and after them."""
        return metadata_pairs([*(self.headers or ()), *(self.trailers or ())])

    @property
    def framing_name(self):
        """For Call.protocol."""
        return "grpc"

    def expire(self):
        """The deadline has passed."""
        self.is_late = True
        if self.reading is not None:
            self.reading.open()
        if self.writing is not None:
            self.writing.open()


cdef class GrpcClientConnection(H2Connection):
    """A client's HTTP/2 connection whose streams are gRPC calls."""

    cdef Stream new_stream(self):
        return GrpcClientStream.__new__(GrpcClientStream)


cdef object find(list fields, int kind):
    cdef Field f
    for each in fields:
        f = <Field>each
        if f.kind == kind:
            return f.value
    return None


cdef object refusal(str text, str address):
    return Unavailable(text, sent=False, instance=address, origin=Origin.PEER)


cdef object plain(object error):
    """A status as the error that every protocol of ours has for it, unless it has details that would be lost."""
    if type(error) is not StatusError or error.status_details:
        return error
    for cls in (DeadlineExceeded, ResourceExhausted, Cancelled, Unavailable):
        if error.code == cls.default_code:
            return cls(error.message, origin=Origin.PEER, instance=error.instance)
    return error


# ---- connections -------------------------------------------------------------------------------------------------------


cdef class Link(Receiver):
    """One connection to `address`, to which calls go as `authority`."""

    cdef int prepare(self, str address, str authority, bint is_secure, Py_ssize_t max_message, double keepalive_time,
                     double keepalive_timeout) except -1:
        self.address = address
        self.authority = Field(b":authority", authority.encode())
        self.scheme = HTTPS if is_secure else HTTP
        self.max_message = max_message
        self.keepalive_time = keepalive_time
        self.keepalive_timeout = keepalive_timeout
        self.protocol = GrpcClientConnection(True)
        return 0

    cdef int push(self, double deadline) except -1:
        """Have what was written leave."""
        raise NotImplementedError

    cdef int enter(self) except -1:
        """From here to `leave` no other thread touches the protocol."""
        return 0

    cdef int leave(self) except -1:
        return 0

    cdef int wait_news(self, GrpcClientStream s, double deadline) except -1:
        """Wait until `s.has_news()`; sets `s.is_late` at the deadline."""
        raise NotImplementedError

    cdef int wait_room(self, GrpcClientStream s, double deadline) except -1:
        """Wait until `s.has_room()`; sets `s.is_late` at the deadline."""
        raise NotImplementedError

    @property
    def streams(self):
        """Calls under way."""
        return len(self.protocol.streams)

    @property
    def is_leaving(self):
        """True when no further call may begin here, however long one waits."""
        return self.is_closed or self.protocol.peer_leaving or self.protocol.left or self.protocol.dead

    @property
    def can_open(self):
        """May a call begin now?"""
        return not self.is_closed and not self.protocol.dead and self.protocol.can_open

    cdef GrpcClientStream start(self, Call call, GrpcMethod method, str compression, bytes payload, bint end):
        """Open a stream and write its headers, and its first message if there is one."""
        cdef GrpcClientStream s
        cdef list fields
        cdef double left
        if self.is_closed:
            raise Unavailable(f"the connection to {self.address} was closed", sent=False, instance=self.address)
        fields = [POST, self.scheme, method.path, self.authority, TRAILERS, GRPC_TYPE, AGENT, ACCEPT]
        if compression is not None:
            fields.append(ENCODINGS[compression])
        if call.deadline_at:
            left = call.deadline_at - monotonic()
            fields.append((b"grpc-timeout", timeout_text(left)))
        if call.outgoing:
            fields += metadata_fields(call.outgoing.items())
        s = <GrpcClientStream>self.protocol.open_stream(fields, False)
        s.max_message = self.max_message
        s.eager = method.server_streaming
        if payload is not None:
            if compression is not None:
                s.send_message(compress(compression, payload), True, end)
            else:
                s.send_message(payload, False, end)
        return s

    def unary(self, Call call not None, GrpcMethod method not None, argument, str compression=None):
        """A whole call of one message each way. Its value, or what went wrong raised."""
        cdef GrpcClientStream s
        cdef bytes payload = method.encode(argument)
        cdef object message, error
        s = self.start(call, method, compression, payload, True)
        try:
            self.push(call.deadline_at)
            if not s.has_news():
                self.wait_news(s, call.deadline_at)
        except BaseException:
            self.abandon_call(s)
            raise
        call.answer(s)
        error = self.finish(s, call)
        if error is not None:
            raise error
        message = s.take_message()
        if message is None:
            raise ProtocolError("the peer said that all is well and sent no answer", code=Code.UNIMPLEMENTED, instance=self.address)
        if s.messages:
            raise ProtocolError("the peer sent more than one answer", code=Code.UNIMPLEMENTED, instance=self.address)
        return self.decoded(s, method, message)

    def decoded(self, GrpcClientStream s, GrpcMethod method, message):
        """A message as the caller wants it."""
        if type(message) is tuple:
            try:
                message = decompress((find(s.headers, GRPC_ENCODING) or b"").decode("latin-1"), message[0], self.max_message)
            except RpcError as error:
                error.instance = self.address
                raise
        return method.decode(message)

    cdef object finish(self, GrpcClientStream s, Call call):
        """How the call went: None, or its error. What is still open is given up."""
        cdef object error = None
        cdef object status
        cdef list fields
        if s.is_late and not s.remote_done:
            self.abandon_call(s)
            return DeadlineExceeded(f"no answer from {self.address} in time", instance=self.address)
        if s.failure is not None:
            error = s.failure
            error.instance = self.address
            self.abandon_call(s)
            return error
        if s.remote_done:
            fields = s.trailers if s.trailers is not None else s.headers
            status = find(fields, GRPC_STATUS)
            if status is None or status != b"0" or s.headers is None:
                error = self.told(s, fields, status)
            if s.is_open:
                # It needs no more of what we would send.
                self.abandon_call(s)
            return error
        if s.refused:
            return refusal(f"{self.address} did not take the call: it is leaving, or has too many", self.address)
        if s.reset_code >= 0 and not s.has_broken:
            code = RESET_CODES.get(s.reset_code, Code.INTERNAL)
            name = ErrorCode(s.reset_code).name if s.reset_code in ErrorCode.__members__.values() else s.reset_code
            if s.reset_by_peer:
                return plain(StatusError(code, f"{self.address} reset the call: {name}", instance=self.address))
            return ProtocolError(f"{self.address} broke the rules of HTTP/2 in this call: {name}", code=Code.INTERNAL, instance=self.address)
        if self.error is not None and isinstance(self.error, ProtocolError):
            return ProtocolError(self.error.message, code=Code.INTERNAL, instance=self.address)
        what = "it was closed by the peer" if self.error is None else getattr(self.error, "message", None) or repr(self.error)
        return Unavailable(f"no answer from {self.address}: {what}", instance=self.address)

    def told(self, GrpcClientStream s, list fields, status):
        """The error that the peer's fields mean."""
        cdef Field f
        http = find(s.headers, STATUS)
        if status is None and http != b"200":
            code = HTTP_CODES.get(int(http), Code.UNKNOWN)
            return plain(StatusError(code, f"{self.address} answered with HTTP status {http.decode()}", instance=self.address))
        kind = find(s.headers, CONTENT_TYPE)
        if status is None and (kind is None or not kind.startswith(b"application/grpc")):
            shown = "no content type" if kind is None else f"content type {kind[:60].decode('latin-1')!r}"
            return StatusError(Code.UNKNOWN, f"{self.address} answered with {shown}: is it a gRPC server?", instance=self.address)
        pairs = []
        for each in fields:
            f = <Field>each
            pairs.append((f.name, f.value))
        error = error_of(pairs)
        if error is None:
            return None
        error.instance = self.address
        return plain(error)

    cdef int abandon_call(self, GrpcClientStream s) except -1:
        """Nobody waits for the rest of `s`: tell the peer."""
        if s.is_open and not self.is_closed:
            self.protocol.reset_stream(s, H2_CANCEL)
            try:
                self.push(monotonic() + PARTING)
            except RpcError:
                pass  # it takes nothing, not even this
        return 0

    def open(self, Call call not None, GrpcMethod method not None, tuple args not None, str compression=None):
        """Begin a call that sends or receives more than one message. Its GrpcCall."""
        cdef GrpcCall c = GrpcCall.__new__(GrpcCall)
        cdef bytes payload = None if method.client_streaming else method.encode(args[0])
        c.link = self
        c.call = call
        c.method = method
        c.compression = compression
        c.deadline = call.deadline_at
        c.stream = self.start(call, method, compression, payload, payload is not None)
        call.answer(c.stream)
        self.push(call.deadline_at)
        return c


cdef class HubLink(Link):
    """A connection in `loop`, whose callers wait with its hub. `on_change(link)` is told when a call may begin that could not before, or none any more."""

    def __init__(self, Loop loop not None, int fd, str address not None, str authority not None, Py_ssize_t max_message, *,
                 session=None, double keepalive_time=0, double keepalive_timeout=20.0, on_change=None):
        self.prepare(address, authority, session is not None, max_message, keepalive_time, keepalive_timeout)
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
        cdef Timer timer = None
        cdef object hub = self.loop.hub
        if getcurrent() is hub:
            raise UsageError(IN_THE_LOOP)
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
        return 0

    cdef int wait_room(self, GrpcClientStream s, double deadline) except -1:
        cdef Timer timer = None
        if s.writing is None:
            s.writing = Gate(self.loop)
        if deadline:
            timer = self.loop.call_at(deadline, s.expire)
        try:
            while not s.has_room():
                s.writing.wait()
        finally:
            if timer is not None:
                timer.cancel()
        return 0

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
        self.tell(s)  # another greenlet may wait for it
        return 0

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


cdef class BlockingSink(Sink):
    cdef WriteBuffer writer(self):
        return self.buffer

    cdef Py_ssize_t backlog(self) noexcept:
        return self.buffer.n

    cdef int want_room(self) except -1:
        self.wants_room = True
        return 0

    cdef double now(self) noexcept:
        return monotonic()


cdef class BlockingLink(Link):
    """A connection over `sock`, an unpatched socket, whose callers wait in their threads. `session` is its TLS, with the handshake done."""

    def __init__(self, sock not None, str address not None, str authority not None, Py_ssize_t max_message, *, session=None,
                 double keepalive_time=0, double keepalive_timeout=20.0):
        self.prepare(address, authority, session is not None, max_message, keepalive_time, keepalive_timeout)
        self.sock = sock
        self.session = session
        sock.settimeout(0)
        self.fd = sock.fileno()
        self.lock = RLock()
        self.condition = Condition(self.lock)
        self.input = ReadBuffer()
        self.sink = BlockingSink()
        self.sink.buffer = WriteBuffer()
        self.protocol.start(self.sink)

    cdef int enter(self) except -1:
        self.lock.acquire()
        return 0

    cdef int leave(self) except -1:
        self.lock.release()
        return 0

    cdef int push(self, double deadline) except -1:
        with self.lock:
            while True:
                data = self.sink.buffer.take()
                if data:
                    self.send(data, deadline)
                if not self.sink.wants_room:
                    return 0
                self.sink.wants_room = False
                self.protocol.pump()

    def send(self, data, double deadline):
        """Send all, in the calling thread."""
        if self.is_closed:
            return
        if self.session is not None:
            self.session.ssl.write(data)
            data = self.session.outgoing.read()
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[self.sock.send(rest, _socket.MSG_NOSIGNAL):]
                except BlockingIOError:
                    # The peer may only read on when we read what it has sent. (Windows bound how much that is.)
                    if not self.wait_for(POLLOUT, deadline, 0):
                        raise DeadlineExceeded(f"{self.address} took nothing in time", instance=self.address) from None
        except OSError as error:
            self.fail(Unavailable(f"the connection broke: {os.strerror(error.errno or errno.EIO).lower()}", instance=self.address))
        except DeadlineExceeded as error:
            self.fail(error)
            raise

    cdef int wait_news(self, GrpcClientStream s, double deadline) except -1:
        with self.lock:
            while not s.has_news():
                if not self.wait_more(deadline):
                    s.is_late = True
        return 0

    cdef int wait_room(self, GrpcClientStream s, double deadline) except -1:
        with self.lock:
            while not s.has_room():
                if not self.wait_more(deadline):
                    s.is_late = True
        return 0

    cdef int abandon_call(self, GrpcClientStream s) except -1:
        with self.lock:
            Link.abandon_call(self, s)
            if self.is_reading and not self.is_closed:
                # Another thread waits for bytes of a call that brings none any more. It is the connection's only call, and nothing else wakes it.
                try:
                    self.sock.shutdown(_socket.SHUT_RDWR)
                except OSError:
                    pass  # it has broken, which the other one sees
            if self.waiting:
                self.condition.notify_all()
        return 0

    def wait_more(self, double deadline):
        """Wait until something has happened, reading if nobody else does. The condition is held. False at the deadline."""
        cdef double left = deadline - monotonic() if deadline else -1
        cdef bint is_ready
        if deadline and left <= 0:
            return False
        if self.is_reading:
            self.waiting += 1
            try:
                self.condition.wait(left if deadline else None)
            finally:
                self.waiting -= 1
            return True
        self.is_reading = True
        self.lock.release()
        try:
            is_ready = self.wait_for(POLLIN, deadline, self.keepalive_time)
            if not is_ready and self.keepalive_time and (not deadline or monotonic() < deadline):
                is_ready = self.ping(deadline)
                if not is_ready and not self.is_closed:
                    return False
        finally:
            self.lock.acquire()
            self.is_reading = False
            if self.waiting:
                self.condition.notify_all()
        if is_ready:
            self.read()
            if self.sink.buffer.n:
                self.push(deadline)
            if self.waiting:
                self.condition.notify_all()
        return is_ready or self.is_closed

    def ping(self, double deadline):
        """The peer was silent: ask whether it is there. True when bytes came, False at the deadline; a peer that does not answer is given up."""
        with self.lock:
            self.protocol.ping(PING)
            self.push(deadline)
        if self.wait_for(POLLIN, deadline, self.keepalive_timeout):
            return True
        if not deadline or monotonic() < deadline:
            with self.lock:
                self.fail(Unavailable(f"it has not answered a PING for {self.keepalive_timeout:g} s", instance=self.address))
        return False

    def read(self):
        """Take in what has come. Never waits; the condition is held."""
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
            while self.protocol.feed(input):  # what came before a broken rule is told first, and the rule the next time
                pass
        except ProtocolError as error:
            self.push(monotonic() + PARTING)
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
            self.flush_tls()
        return b"".join(parts)

    def flush_tls(self):
        """Answer a key update, if it fits."""
        try:
            self.sock.send(self.session.outgoing.read(), _socket.MSG_NOSIGNAL)
        except OSError:
            pass

    cdef bint wait_for(self, short events, double deadline, double most) except -1:
        """Wait until the socket is ready, the deadline has passed (0: none), or `most` seconds are over (0: any). Is it ready?"""
        cdef pollfd it
        cdef double left
        cdef int milliseconds, found
        it.fd = self.fd
        it.events = events
        while True:
            left = max(0.0, deadline - monotonic()) if deadline else -1
            if most and (left < 0 or most < left):
                left = most
            milliseconds = -1 if left < 0 else <int>min(ceil(left * 1000), 1e9)
            if it.fd < 0:
                return True  # closed by another thread
            with nogil:
                found = poll(&it, 1, milliseconds)
            if found >= 0 or error_number != EINTR:
                return found != 0
            PyErr_CheckSignals()

    cdef int fail(self, object error) except -1:
        """The connection is over."""
        cdef GrpcClientStream s
        if self.is_closed:
            return 0
        self.is_closed = True
        self.error = error
        self.protocol.dead = True
        for each in list(self.protocol.streams.values()):
            s = <GrpcClientStream>each
            s.has_broken = True
            self.protocol.end_stream(s, True)
        self.fd = -1
        self.sock.close()
        if self.waiting:
            self.condition.notify_all()
        return 0

    def is_alive(self):
        """Could a call begin now? Takes in what has come since the last one: nothing watches the socket between two calls."""
        with self.lock:
            while not self.is_closed and self.wait_for(POLLIN, 1e-9, 0):
                self.read()
            if self.sink.buffer.n and not self.is_closed:
                self.push(monotonic() + PARTING)
            return self.can_open

    @property
    def is_reusable(self):
        """Is nothing under way?"""
        return self.can_open and not self.protocol.streams

    def close(self):
        """Say goodbye and close."""
        with self.lock:
            if self.is_closed:
                return
            self.protocol.shut_down_now()
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
        return f"<BlockingLink {self.address} {'closed' if self.is_closed else 'open'}, {self.streams} calls>"


# ---- what callers hold -------------------------------------------------------------------------------------------------


cdef class GrpcCall:
    def __iter__(self):
        return self

    def __next__(self):
        message = self.next_message()
        if message is None:
            raise StopIteration
        try:
            return self.link.decoded(self.stream, self.method, message)
        except BaseException:
            self.cancel()
            raise

    cdef object next_message(self):
        """The next message, or None at the end. RpcError when the call has failed."""
        cdef GrpcClientStream s = self.stream
        if self.is_over:
            if self.outcome is not None:
                raise self.outcome
            return None
        if not s.messages and not s.has_news():
            try:
                self.link.wait_news(s, self.deadline)
            except BaseException:
                self.cancel()
                raise
        if s.messages and not s.is_late:
            self.link.enter()
            try:
                return s.take_message()
            finally:
                self.link.leave()
        self.settle()
        if self.outcome is not None:
            raise self.outcome
        return None

    def settle(self):
        """The call has ended: note how."""
        if not self.is_over:
            self.is_over = True
            self.link.enter()
            try:
                self.outcome = self.link.finish(self.stream, self.call)
            finally:
                self.link.leave()
            if self.outcome is not None:
                if self.outcome.elapsed is None:
                    self.outcome.elapsed = self.call.elapsed
                self.outcome.attempt = self.outcome.attempt or self.call.attempt
            self.ended()

    def ended(self):
        """Tell the transport, once, that the connection is free of this call."""
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self.link)

    def send(self, request, /):
        """Send one message; waits while the peer is slow. RpcError when the call has ended, UsageError after `close_send`."""
        cdef GrpcClientStream s = self.stream
        cdef bytes payload
        if not self.method.client_streaming:
            raise UsageError(f"{self.method.spec.name} takes one request, which has been sent")
        payload = self.method.encode(request)
        if self.is_over:
            raise self.outcome or Cancelled(f"{self.method.spec.name} has ended", instance=self.link.address)
        if s.local_done and s.is_open and not s.remote_done:
            raise UsageError("nothing can be sent after close_send")
        if not s.has_room():
            try:
                self.link.wait_room(s, self.deadline)
            except BaseException:
                self.cancel()
                raise
        if not s.is_open or s.remote_done or s.is_late or s.failure is not None:
            if s.messages and s.failure is None and not s.is_late:
                raise Cancelled(f"{self.method.spec.name} has ended; what it still had to say can be read", instance=self.link.address)
            self.settle()
            raise self.outcome or Cancelled(f"{self.method.spec.name} has ended", instance=self.link.address)
        if self.compression is not None:
            payload = compress(self.compression, payload)
        self.link.enter()
        try:
            s.send_message(payload, self.compression is not None, False)
            self.link.push(self.deadline)
        finally:
            self.link.leave()

    def close_send(self):
        """Say that no more messages follow."""
        cdef GrpcClientStream s = self.stream
        if s.is_open and not s.local_done and not self.link.is_closed:
            self.link.enter()
            try:
                self.link.protocol.send_data(s, NULL, 0, True)
                self.link.push(self.deadline)
            finally:
                self.link.leave()

    def result(self):
        """The one reply; says `close_send` if that was not said yet, and waits. RpcError when the call has failed."""
        self.close_send()
        message = self.next_message()
        if message is None:
            raise ProtocolError(
                "the peer said that all is well and sent no answer", code=Code.UNIMPLEMENTED, instance=self.link.address)
        # The status comes behind it, and has the last word.
        if self.next_message() is not None:
            self.cancel()
            raise ProtocolError("the peer sent more than one answer", code=Code.UNIMPLEMENTED, instance=self.link.address)
        return self.link.decoded(self.stream, self.method, message)

    def cancel(self):
        """Give the call up; the peer is told. Does nothing after the end."""
        if not self.is_over:
            self.is_over = True
            self.outcome = Cancelled(f"{self.method.spec.name} was cancelled by its caller", instance=self.link.address)
            self.link.enter()
            try:
                self.link.abandon_call(self.stream)
            finally:
                self.link.leave()
            self.ended()

    @property
    def metadata(self):
        """What the peer sent before its first message, as names and values; waits for it."""
        cdef GrpcClientStream s = self.stream
        if s.headers is None and not s.has_news():
            s.wants_head = True
            try:
                self.link.wait_news(s, self.deadline)
            except BaseException:
                self.cancel()
                raise
            s.wants_head = False
        return metadata_pairs(s.headers or [])

    @property
    def trailers(self):
        """What the peer sent after its last message, as names and values; empty before the end."""
        return metadata_pairs(self.stream.trailers or [])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()

    def __del__(self):
        # Nobody can read the rest.
        if self.link is not None and not self.is_over and self.stream.is_open:
            self.cancel()

    def __repr__(self):
        return f"<GrpcCall {self.method.path.value.decode()} {'over' if self.is_over else 'under way'}>"

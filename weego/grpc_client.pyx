# cython: language_level=3, boundscheck=False, wraparound=False
"""gRPC's side of a client: calls become streams of HTTP/2 connections, and what comes back values, iterators and errors.

Theory of operation
1. A Link is one connection; many calls share it. A call opens a stream, waits, and reads the outcome; who sends or receives more holds a GrpcCall.
2. HubLink (weego.grpc_hub) waits with gevent, BlockingLink (weego.grpc_blocking) in the thread.
3. Whoever touches a protocol has entered its link: to threads that is a lock, to greenlets nothing. Only `wait_news`, `wait_room` and `push` wait.
4. A stream that the peer has not looked at (REFUSED_STREAM, or beyond the last id of its GOAWAY) fails with Unavailable whose `sent` is False: the
   transport repeats the call elsewhere, and nobody notices.
5. A stream that is given up – cancelled, too late, its greenlet killed – is reset, so that the peer's handler learns of it.
"""

from codec.grpc cimport timeout_text
from codec.h2.connection cimport Stream
from codec.h2.hpack cimport CONTENT_TYPE, Field, GRPC_ENCODING, GRPC_STATUS, STATUS
from cpython.contextvars cimport get_value
from governance.call cimport Call, served
from poller.clock cimport monotonic

from codec.errors import (
    Cancelled, Code, DeadlineExceeded, Origin, ProtocolError, ResourceExhausted, RpcError, StatusError, Unavailable, UsageError,
)
from codec.grpc import metadata_fields, metadata_pairs
from codec.grpc_compression import accepted, compress, decompress, is_known
from codec.grpc_status import HTTP_CODES, RESET_CODES, error_of
from codec.h2.errors import ErrorCode
from governance import metainfo
from weego import __version__

cdef enum:
    # Bytes a call may have waiting for the peer's windows before who sends has to wait.
    MOST_QUEUED = 65536

# Seconds for a last word, which the peer may not take.
cdef double PARTING = 1.0

cdef int H2_CANCEL = ErrorCode.CANCEL

cdef Field POST = Field(b":method", b"POST")
cdef Field HTTP = Field(b":scheme", b"http")
cdef Field HTTPS = Field(b":scheme", b"https")
cdef Field TRAILERS = Field(b"te", b"trailers")
cdef Field GRPC_TYPE = Field(b"content-type", b"application/grpc")
cdef Field AGENT = Field(b"user-agent", b"grpc-python-weego/" + __version__.encode())
cdef bytes GRPC_TIMEOUT = b"grpc-timeout"
cdef object GIVEN = metainfo.given
cdef dict ENCODINGS = {}  # by name, those that were used


cdef Field encoding_field(str name):
    cdef Field found = Field(b"grpc-encoding", name.encode())
    ENCODINGS[name] = found
    return found


class Crowded(Unavailable):
    """A connection takes no call although it did a moment ago: others were faster. Another one may."""


cdef class GrpcMethod:
    """One method: `service` is its full name; `encode` makes bytes of the argument, `decode` a value of bytes."""

    def __init__(self, spec, str service not None, encode, decode):
        self.spec = spec
        self.path = Field(b":path", f"/{service}/{spec.name}".encode())
        self.encode = encode
        self.decode = decode
        self.client_streaming = spec.client_streaming
        self.server_streaming = spec.server_streaming
        self.is_streaming = self.client_streaming or self.server_streaming

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
        if self.eager and self.ready or self.wants_head and self.headers is not None:
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

    cdef int expire(self) except -1:
        """The deadline has passed."""
        self.is_late = True
        if self.reading is not None:
            self.reading.open()
        if self.writing is not None:
            self.writing.open()
        return 0


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


cdef dict carried_along(Call call):
    """What goes with every call made here, as Kitex's HTTP/2 handlers send it: metainfo of this context and of the call being served, and the log id."""
    cdef dict found
    serving = call.within if call.is_within else served()
    added = get_value(GIVEN)
    if serving is None and added is None:
        return None
    found = {}
    log_id = ""
    if serving is not None:
        found.update(serving.carried)
        log_id = serving.log_id
    if added is not None:
        found.update(added.strings)
        log_id = added.log_id or log_id
    if log_id:
        found["stream-log-id"] = log_id
    return found


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
                     double keepalive_timeout, str caller) except -1:
        self.address = address
        self.authority = Field(b":authority", authority.encode())
        self.scheme = HTTPS if is_secure else HTTP
        self.accept = Field(b"grpc-accept-encoding", accepted())
        self.max_message = max_message
        self.keepalive_time = keepalive_time
        self.keepalive_timeout = keepalive_timeout
        self.heads = {}
        self.caller = Field(b"source-service", caller.encode()) if caller else None
        self.protocol = GrpcClientConnection(True)
        return 0

    cdef int push(self, double deadline) except -1:
        """Have what was written leave."""
        raise NotImplementedError

    cdef int push_soon(self, double deadline) except -1:
        """`push` of who waits for the answer next: it may wait a little for what others write."""
        return self.push(deadline)

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
        return self.may_open()

    cdef bint may_open(self) noexcept:
        return not self.is_closed and not self.protocol.dead and self.protocol.may_open()

    cdef bint is_stale(self, double idle_timeout) noexcept:
        """Was it without calls for longer than this, and nobody has seen to that yet?"""
        return False

    cdef tuple head_of(self, GrpcMethod method):
        found = self.heads.get(method)
        if found is None:
            found = (POST, self.scheme, method.path, self.authority, TRAILERS, GRPC_TYPE, AGENT, self.accept)
            if self.caller is not None:
                found += (self.caller,)
            self.heads[method] = found
        return <tuple>found

    cdef GrpcClientStream start(self, Call call, GrpcMethod method, str compression, bytes payload, bint end):
        """Open a stream and write its headers, and its first message if there is one."""
        cdef GrpcClientStream s
        cdef list fields
        cdef double left
        if self.is_closed:
            raise Unavailable(f"the connection to {self.address} was closed", sent=False, instance=self.address)
        fields = []
        if compression is not None:
            fields.append(ENCODINGS.get(compression) or encoding_field(compression))
        if call.deadline_at:
            left = call.deadline_at - monotonic()
            fields.append((GRPC_TIMEOUT, timeout_text(left)))
        carried = carried_along(call)
        if carried is not None:
            fields += metadata_fields({**carried, **call.outgoing}.items() if call.outgoing else carried.items())
        elif call.outgoing:
            fields += metadata_fields(call.outgoing.items())
        s = <GrpcClientStream>self.protocol.open_stream(fields, False, self.head_of(method))
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
        return self.simple(call, method, argument, compression)

    cdef object simple(self, Call call, GrpcMethod method, object argument, str compression):
        cdef GrpcClientStream s
        cdef bytes payload = method.encode(argument)
        cdef object message, error
        self.enter()
        try:
            s = self.start(call, method, compression, payload, True)
            try:
                self.push_soon(call.deadline_at)
                if not s.has_news():
                    self.wait_news(s, call.deadline_at)
            except BaseException:
                self.abandon_call(s)
                raise
            call.source = s
            call.incoming = None
            error = self.finish(s, call)
            if error is not None:
                raise error
            message = s.take_message()
        finally:
            self.leave()
        if message is None:
            raise ProtocolError("the peer said that all is well and sent no answer", code=Code.UNIMPLEMENTED, instance=self.address)
        if s.ready:
            raise ProtocolError("the peer sent more than one answer", code=Code.UNIMPLEMENTED, instance=self.address)
        return self.decoded(s, method, message)

    cdef object decoded(self, GrpcClientStream s, GrpcMethod method, object message):
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

    def disown(self, GrpcClientStream s not None):
        """Nobody can read `s` any more; said by a finalizer, which may run anywhere."""
        raise NotImplementedError

    def open(self, Call call not None, GrpcMethod method not None, tuple args not None, str compression=None):
        """Begin a call that sends or receives more than one message. Its GrpcCall."""
        cdef GrpcCall c = GrpcCall.__new__(GrpcCall)
        cdef bytes payload = None if method.client_streaming else method.encode(args[0])
        c.link = self
        c.call = call
        c.method = method
        c.compression = compression
        c.deadline = call.deadline_at
        self.enter()
        try:
            c.stream = self.start(call, method, compression, payload, payload is not None)
            call.answer(c.stream)
            self.push(call.deadline_at)
        finally:
            self.leave()
        c.recv_timeout = call.recv_timeout
        c.send_timeout = call.send_timeout
        c.ending = call.opened()
        return c


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
        except BaseException as error:
            self.tell(error)
            self.cancel()
            raise

    cdef object next_message(self):
        """The next message, or None at the end. RpcError when the call has failed."""
        cdef GrpcClientStream s = self.stream
        if self.is_over:
            if self.outcome is not None:
                raise self.outcome
            return None
        if not s.ready and not s.has_news():
            self.wait_news()
        if s.ready and not s.is_late:
            self.link.enter()
            try:
                return s.take_message()
            finally:
                self.link.leave()
        self.settle()
        if self.outcome is not None:
            raise self.outcome
        return None

    cdef int wait_news(self) except -1:
        cdef double until = self.until(self.recv_timeout)
        self.link.enter()
        try:
            self.link.wait_news(self.stream, until)
        except BaseException:
            self.cancel()
            raise
        finally:
            self.link.leave()
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
            self.ending.tell(error, self.stream.headers is not None)
        return 0

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
                if self.late is not None and isinstance(self.outcome, DeadlineExceeded) and self.outcome.origin is not Origin.PEER:
                    self.outcome = DeadlineExceeded(f"{self.method.spec.name} at {self.link.address}: {self.late}", instance=self.link.address)
                if self.outcome.elapsed is None:
                    self.outcome.elapsed = self.call.elapsed
                self.outcome.attempt = self.outcome.attempt or self.call.attempt
            self.tell(self.outcome)

    def send(self, request, /):
        """Send one message; waits while the peer is slow. RpcError when the call has ended, UsageError after `close_send`."""
        cdef GrpcClientStream s = self.stream
        cdef bytes payload
        cdef double until
        if not self.method.client_streaming:
            raise UsageError(f"{self.method.spec.name} takes one request, which has been sent")
        payload = self.method.encode(request)
        if self.is_over:
            raise self.outcome or Cancelled(f"{self.method.spec.name} has ended", instance=self.link.address)
        if s.local_done and s.is_open and not s.remote_done:
            raise UsageError("nothing can be sent after close_send")
        until = self.until(self.send_timeout)
        if not s.has_room():
            self.link.enter()
            try:
                self.link.wait_room(s, until)
            except BaseException:
                self.cancel()
                raise
            finally:
                self.link.leave()
            if until != self.deadline and s.is_late:
                self.late = f"no room for a message within {self.send_timeout:g} s (send_timeout)"
        if not s.is_open or s.remote_done or s.is_late or s.failure is not None:
            if s.ready and s.failure is None and not s.is_late:
                raise Cancelled(f"{self.method.spec.name} has ended; what it still had to say can be read", instance=self.link.address)
            self.settle()
            raise self.outcome or Cancelled(f"{self.method.spec.name} has ended", instance=self.link.address)
        if self.compression is not None:
            payload = compress(self.compression, payload)
        self.link.enter()
        try:
            s.send_message(payload, self.compression is not None, False)
            self.link.push(until)
        except DeadlineExceeded as error:  # in a thread, where who sends waits itself
            self.tell(error)
            raise
        finally:
            self.link.leave()

    def close_send(self):
        """Say that no more messages follow."""
        cdef GrpcClientStream s = self.stream
        if s.is_open and not s.local_done and not self.link.is_closed:
            self.link.enter()
            try:
                self.link.protocol.send_data(s, NULL, 0, True, None)
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
            self.tell(self.outcome)
            self.link.enter()
            try:
                self.link.abandon_call(self.stream)
            finally:
                self.link.leave()

    @property
    def metadata(self):
        """What the peer sent before its first message, as names and values; waits for it."""
        cdef GrpcClientStream s = self.stream
        if s.headers is None and not s.has_news():
            s.wants_head = True
            self.wait_news()
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
        if self.stream is not None and not self.is_over:
            self.tell(Cancelled("nobody holds the stream any more"))
            if self.stream.is_open:
                self.link.disown(self.stream)

    def __repr__(self):
        return f"<GrpcCall {self.method.path.value.decode()} {'over' if self.is_over else 'under way'}>"

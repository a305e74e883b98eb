# cython: language_level=3, boundscheck=False, wraparound=False
"""gRPC-Web on HTTP/1.1, so that a browser can call without a proxy (gRPC's `PROTOCOL-WEB.md`): unary and server streaming.

A WebConnection looks to the gRPC Front like an HTTP/2 connection that has one stream at a time and windows without end: it reads a request's head
and body (RFC 9112) into a stream, and writes what the stream sends as one answer in chunks. Everything else is weego.grpc_server's.

What could be read in two ways is refused (400) and the connection closed: folded lines, two lengths, a length beside chunks, bare CR, blanks before
a colon. Plain gRPC needs HTTP/2 and is told so.
"""

import re

from codec.buffer cimport WriteBuffer, left
from codec.h2.connection cimport GOT_HEADERS, Sink, Stream
from codec.h2.hpack cimport Field, new_field
from codec.protocol cimport Protocol
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from http import HTTPStatus

from codec.h2 import limits as h2_limits
from codec.h2.errors import ErrorCode, H2Error

cdef enum:
    # Bytes of a request's head (nginx: 8 KiB for the line and 32 for the fields; Go: 1 MiB), and of the line before a chunk.
    MOST_HEAD = 32768
    MOST_LINE = 1024
    POST = 1

cdef bytes END_OF_HEAD = b"\r\n\r\n"
cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef bytes LAST_CHUNK = b"0\r\n\r\n"
cdef double HEADER_PATIENCE = h2_limits.HEADER_PATIENCE
cdef Py_ssize_t DATA_BACKLOG = h2_limits.DATA_BACKLOG

# RFC 9110, 5.6.2 and 9.1; RFC 9112, 3.
REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")


cdef class WebConnection(GrpcServerConnection):
    cdef int start(self, Sink sink) except -1:
        self.sink = sink
        self.started = self.settled = True
        self.preface = 0
        self.peer_window = self.send_window = h2_limits.MAX_WINDOW
        self.patience = HEADER_PATIENCE
        return 0

    cdef bint between(self) noexcept:
        return True

    cdef bint portable(self) noexcept:
        return self.current is None

    # ---- what arrives ------------------------------------------------------------------------------------------------

    cdef object receive(self, Cursor* c):
        cdef object told
        if self.news:
            return self.news.pop(0)
        if self.dead:
            raise self.failure
        while left(c):
            if self.in_body:
                told = self.read_chunks(c) if self.chunked else self.read_body(c)
            elif self.current is None:
                told = self.read_head(c)
            else:
                return None  # the answer to the one before comes first
            if told is not None:
                return told
            if self.news:
                return self.news.pop(0)
            if not self.progressed:
                return None
        return None

    cdef object read_head(self, Cursor* c):
        cdef bytes data = PyBytes_FromStringAndSize(<const char*>c.p, min(left(c), MOST_HEAD))
        cdef GrpcServerStream s
        cdef Field f
        cdef list fields
        self.progressed = False
        if data.startswith(b"\r\n"):  # some clients send one too many
            c.p += 2
            self.progressed = True
            return None
        end = data.find(END_OF_HEAD)
        if end < 0:
            if left(c) >= MOST_HEAD:
                self.bad(431, "the head of a request is too long")
            return None
        self.progressed = True
        c.p += end + 4
        fields = self.parse_head(data[:end])
        s = <GrpcServerStream>self.new_stream()
        s.connection = self
        self.last_remote += 2
        s.id = self.last_remote
        s.is_open = True
        s.headers = fields
        self.streams.add(s)
        self.remote_streams += 1
        self.current = s
        self.head_written = False
        s.events = GOT_HEADERS
        told = s.on_headers()
        if not s.http_error and s.dialect == 0:
            s.http_error = 415
            s.eager = told = False
        if not self.in_body:
            return self.finish_remote(s)
        self.patience = 0
        return s if told else None

    cdef list parse_head(self, bytes head):
        """The fields of a request, as HTTP/2 would have them; sets how the body comes."""
        cdef list lines = head.split(b"\r\n")
        cdef dict seen = {}
        line = REQUEST_LINE.fullmatch(lines[0])
        if line is None:
            self.bad(400, "this is no request line of HTTP/1")
        method, target, minor = line.groups()
        self.keep = self.sends_chunks = minor == b"1"
        fields = [new_field(b":method", method), new_field(b":scheme", b"http"), new_field(b":path", target)]
        for text in lines[1:]:
            found = FIELD_LINE.fullmatch(text)
            if found is None:
                self.bad(400, "this is no field of HTTP/1")
            name, value = found[1].lower(), found[2]
            if name in (b"content-length", b"host", b"transfer-encoding") and name in seen:
                self.bad(400, f"{name.decode()} stands twice")
            seen[name] = value
            f = new_field(name, value)
            if not (<Field>f).is_valid:
                self.bad(400, "this is no field of HTTP/1")
            if name not in (b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"host", b"te"):
                fields.append(f)
        if self.sends_chunks and b"host" not in seen:
            self.bad(400, "a request of HTTP/1.1 names its host")
        fields.append(new_field(b":authority", seen.get(b"host", b"")))
        options = [each.strip().lower() for each in seen.get(b"connection", b"").split(b",")]
        if b"close" in options:
            self.keep = False
        self.chunked = self.in_body = self.in_chunk = self.in_trailers = False
        coding = seen.get(b"transfer-encoding")
        length = seen.get(b"content-length")
        if coding is not None:
            if coding.lower() != b"chunked" or length is not None or not self.sends_chunks:
                self.bad(400, "a body of which nobody can say how long it is")
            self.chunked = self.in_body = True
        elif length is not None:
            if not length.isdigit() or len(length) > 15:
                self.bad(400, "content-length is no number")
            self.remaining = int(length)
            self.in_body = self.remaining > 0
        if self.in_body and seen.get(b"expect", b"").lower() == b"100-continue":
            self.put(CONTINUE)
        return fields

    cdef object read_body(self, Cursor* c):
        self.take_body(c)
        self.progressed = True
        if self.remaining:
            return self.current if self.current is not None and self.current.events & 2 else None
        self.in_body = False
        return self.body_ends()

    cdef object read_chunks(self, Cursor* c):
        cdef bytes data
        self.progressed = False
        if self.in_chunk and self.remaining:
            self.take_body(c)
            self.progressed = True
            if self.remaining:
                return None
        # A line: behind a chunk, before one, or of the trailers.
        data = PyBytes_FromStringAndSize(<const char*>c.p, min(left(c), MOST_LINE))
        end = data.find(b"\r\n")
        if end < 0:
            if left(c) >= MOST_LINE:
                self.bad(400, "a chunk begins with too long a line")
            return None
        c.p += end + 2
        self.progressed = True
        if self.in_trailers:
            if end:
                return None  # ignored
            self.in_body = False
            return self.body_ends()
        if self.in_chunk:
            if end:
                self.bad(400, "a chunk is longer than it says")
            self.in_chunk = False
            return None
        found = CHUNK_LINE.fullmatch(data[:end])
        if found is None:
            self.bad(400, "this is no size of a chunk")
        self.remaining = int(found[1], 16)
        self.in_chunk = self.remaining > 0
        self.in_trailers = not self.in_chunk
        return None

    cdef int take_body(self, Cursor* c) except -1:
        cdef Py_ssize_t n = min(left(c), <Py_ssize_t>self.remaining)
        cdef GrpcServerStream s = self.current
        self.remaining -= n
        if s is not None and s.is_open and s.on_data(c.p, n):
            s.events |= 2
        c.p += n
        return 0

    def body_ends(self):
        """The request is whole."""
        cdef GrpcServerStream s = self.current
        self.patience = HEADER_PATIENCE
        return self.finish_remote(s) if s is not None and s.is_open else None

    cdef int bad(self, int status, str why) except -1:
        """Refuse what cannot be understood, and end the connection."""
        if not self.dead:
            self.put(b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, HTTPStatus(status).phrase.encode()))
            self.dead = self.leaving = self.left = True
            self.failure = H2Error(f"HTTP/1: {why}", ErrorCode.PROTOCOL_ERROR)
        raise self.failure

    # ---- what is sent ------------------------------------------------------------------------------------------------

    def put(self, bytes data not None):
        """Write bytes as they are."""
        cdef WriteBuffer out = self.sink.writer()
        out.append(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.sink.wrote()

    cdef int write_fields(self, Stream s, object fields, bint end, tuple head=None) except -1:
        """The head of the answer."""
        cdef list lines = []
        cdef bytes name, value, status = b"200"
        if self.head_written:
            return 0
        self.head_written = True
        if head is not None:
            fields = [*head, *fields]
        for each in fields:
            if isinstance(each, Field):
                name, value = (<Field>each).name, (<Field>each).value
            else:
                name, value = each
            if name == b":status":
                status = value
            else:
                lines.append(name + b": " + value)
        if self.in_body or self.leaving:
            self.keep = False
        if not self.keep:
            lines.append(b"connection: close")
        if end:
            if status != b"204":
                lines.append(b"content-length: 0")
        elif self.sends_chunks:
            lines.append(b"transfer-encoding: chunked")
        lines.insert(0, b"HTTP/1.1 " + status + b" " + HTTPStatus(int(status)).phrase.encode())
        self.put(b"\r\n".join(lines) + END_OF_HEAD)
        if end:
            s.local_done = True
            return self.local_end(s)
        return 0

    cdef Py_ssize_t write_data(self, Stream s, const uint8_t* p, Py_ssize_t n, bint end, bytes owner) except -1:
        cdef bytes head
        cdef WriteBuffer out
        if n and self.sink.backlog() >= DATA_BACKLOG:
            return 0
        out = self.sink.writer()
        if n:
            if self.sends_chunks:
                head = b"%x\r\n" % n
                out.append(PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
            out.append(p, n)
            if self.sends_chunks:
                out.append(<const char*>b"\r\n", 2)
        if end and self.sends_chunks:
            out.append(PyBytes_AS_STRING(LAST_CHUNK), PyBytes_GET_SIZE(LAST_CHUNK))
        self.sink.wrote()
        if end:
            s.local_done = True
            self.local_end(s)
        return n

    cdef int local_end(self, Stream s) except -1:
        """The answer is whole. The next request may come, if all of this one has."""
        s.ended_locally = True
        self.end_stream(s, False)
        self.current = None
        if self.transport is not None:
            if self.in_body or not self.keep:
                self.transport.close_soon()
            elif self.transport.input is not None:
                self.transport.nudge()
        return 0

    cdef int write_simple(self, int type, int flags, uint32_t id, const void* p, Py_ssize_t n) except -1:
        return 0  # HTTP/1 has no such words

    cdef int write_rst(self, uint32_t id, int code) except -1:
        """An answer that breaks off: the connection does."""
        self.current = None
        if self.transport is not None:
            self.transport.close_soon()
        return 0


cdef class WebFront(GrpcFront):
    """gRPC-Web on HTTP/1.1, for the methods of `grpc`."""

    def __init__(self, dispatcher not None, GrpcFront grpc not None):
        super().__init__(dispatcher, ())
        self.routes = grpc.routes
        self.short = grpc.short
        self.abuse = grpc.abuse
        self.max_message = grpc.max_message
        self.max_streams = grpc.max_streams
        self.origins = grpc.origins

    cdef Protocol new_protocol(self):
        cdef WebConnection p = WebConnection(False)
        p.front = self
        p.postponed = []
        return p

# One call as it comes, and what it says about itself: part of grpc_server.pyx.

cdef class Asked:
    cdef int read(self, list fields) except -1:
        """Find out what is asked for; what is wrong with it is answered when the call would start."""
        cdef Field f
        cdef int kind
        cdef bytes method = None, type = None
        cdef Py_ssize_t n = PyBytes_GET_SIZE(GRPC_TYPE)
        self.timeout = -1
        for each in fields:
            f = <Field>each
            kind = f.kind
            if kind == PATH:
                self.path = f.value
            elif kind == CONTENT_TYPE:
                if PyBytes_GET_SIZE(f.value) >= n and memcmp(PyBytes_AS_STRING(f.value), PyBytes_AS_STRING(GRPC_TYPE), n) == 0:
                    type = f.value
            elif kind == METHOD:
                method = f.value
            elif kind == GRPC_TIMEOUT:
                self.timeout = parse_timeout(f.value)
                if self.timeout < 0:
                    self.refusal = ProtocolError(f"malformed grpc-timeout {f.value[:40]!r}", code=Code.INTERNAL)
            elif kind == GRPC_ENCODING:
                self.encoding = f.value.decode("latin-1")
            elif kind == GRPC_ACCEPT_ENCODING:
                self.accepts = f.value
            elif kind == OTHER and f.name == b"origin":
                self.origin = f.value
        if method != b"POST":
            self.http_error = 204 if method == b"OPTIONS" and self.origin is not None else 405
        elif type is None:
            self.http_error = 415
        else:
            self.read_type(type, n)
        return 0

    cdef int read_type(self, bytes value, Py_ssize_t n) except -1:
        """Which gRPC it is, by what stands behind the first `n` bytes of the content type: nothing, "+proto", ";charset…", "-web…"."""
        rest = value[n:]
        if not rest or rest[:1] in b"+;":
            return 0
        self.content_type = value
        if rest.startswith(b"-web-text"):
            self.dialect = WEB_TEXT
        elif rest.startswith(b"-web"):
            self.dialect = WEB
        else:
            self.http_error = 415
        return 0


cdef class GrpcServerStream(GrpcStream):
    cdef int on_headers(self) except -1:
        """Find out what is asked for, unless the connection knows these headers."""
        cdef Block seen = self.connection.seen
        cdef Asked asked = None
        if seen is not None:
            asked = <Asked>seen.parsed
        if asked is None:
            asked = Asked.__new__(Asked)
            asked.read(self.headers)
            if asked.refusal is None and seen is not None:  # an error belongs to one call
                seen.parsed = asked
        self.asked = asked
        self.arrived = self.connection.sink.now()
        self.dialect = asked.dialect
        self.http_error = asked.http_error
        if asked.dialect == WEB_TEXT:
            self.text = b""
        if asked.path is not None:
            self.look_up(asked)
        if self.http_error:
            return 0  # answered when all of it has come, as by any HTTP server
        if self.route is None or asked.refusal is not None:
            return 1
        self.eager = self.route.client_streaming
        return self.eager

    cdef int on_data(self, const unsigned char* p, Py_ssize_t n) except -1:
        cdef bytes data
        cdef Py_ssize_t whole
        if self.dialect != WEB_TEXT:
            return GrpcStream.on_data(self, p, n)
        # Base64, in groups of four characters; padding may stand wherever the caller ended a piece.
        data = self.text + p[:n]
        whole = len(data) // 4 * 4
        self.text = data[whole:]
        try:
            data = b"".join([base64.b64decode(piece, validate=True) for piece in PIECES.findall(data[:whole])])
        except ValueError:
            self.fail(ProtocolError("the body is no base64", code=Code.INTERNAL))
            return 1
        return GrpcStream.on_data(self, <const unsigned char*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int look_up(self, Asked asked) except -1:
        cdef bytes path = asked.path
        self.route = <GrpcRoute>self.front.routes.get(path)
        if self.route is not None:
            asked.path = self.route.path  # the dictionary's own: found at a glance the next time
            return 0
        # Kitex does not compare the package (`server_handler.go`), so its callers may leave it out.
        service, _, method = path.rpartition(b"/")
        self.route = <GrpcRoute>self.front.short.get(service.rpartition(b".")[2].rpartition(b"/")[2] + b"/" + method)
        return 0

    cdef int on_drained(self) except -1:
        cdef GrpcServerConnection p = <GrpcServerConnection>self.connection
        if self.job is not None and self.job.writing is not None:
            self.job.writing.open()
        if p.postponed and p.queued < MOST_QUEUED:
            p.news.append(p.postponed.pop(0))
        return self.front.settle(p)

    @property
    def metadata_pairs(self):
        """For Call.metadata."""
        return metadata_pairs(self.headers)

    @property
    def request_compression(self):
        """For Call.request_compression."""
        return self.asked.encoding if self.came_packed else None

    @property
    def framing_name(self):
        """For Call.protocol."""
        return "grpc-web" if self.dialect else "grpc"

    @property
    def method(self):
        """The method's name as text."""
        return (self.asked.path or b"").rpartition(b"/")[2].decode("utf-8", "replace")

    @property
    def caller_name(self):
        """For Call.caller: what Kitex sends as source-service."""
        return self.text_of(b"source-service")

    @property
    def log_id(self):
        """For Call.log_id."""
        return self.text_of(b"stream-log-id")

    def text_of(self, bytes name):
        """The first value of a field, or an empty string."""
        cdef Field f
        for each in self.headers:
            f = <Field>each
            if f.name == name:
                return f.value.decode("utf-8", "replace")
        return ""


cdef class GrpcServerConnection(H2Connection):
    """A server's HTTP/2 connection whose streams are gRPC calls."""

    cdef Stream new_stream(self):
        cdef GrpcServerStream s = GrpcServerStream.__new__(GrpcServerStream)
        s.front = self.front
        s.max_message = self.front.max_message
        return s

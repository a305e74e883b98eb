# The server's side of one connection: part of thrift.pyx.

cdef class ThriftServerProtocol(ThriftProtocol):
    """The server's side of one connection.

    `routes` maps method names (bytes) to Routes over all services; `services` maps service names to such dicts and is asked first
    when a TTHeader names its service (`isn`).
    """

    def __init__(self, dict routes not None, dict services=None, Py_ssize_t max_message=DEFAULT_MAX_MESSAGE,
                 int64_t max_decoded=DEFAULT_MAX_DECODED):
        self.max_decoded = max_decoded
        self.routes = routes
        self.services = services if services is not None else {}
        self.max_message = max_message

    cdef Route route_for(self, bytes name, Header header):
        if header is not None:
            service = header.strings.get("isn")
            if service is not None:
                methods = self.services.get(service)
                if methods is None:
                    # As Kitex does (`SearchService`): a name that nobody has means the one service that has the method, if it is one.
                    if self.services:
                        return self.only_one(name)
                else:
                    return (<dict?>methods).get(name)
        return self.routes.get(name)

    cdef Route only_one(self, bytes name):
        """The method of the only service that has one of this name."""
        cdef Route found = None
        for methods in self.services.values():
            route = (<dict?>methods).get(name)
            if route is not None:
                if found is not None:
                    return None
                found = route
        return found

    cdef int find_route(self, Request r, Head* head) except -1:
        """Set the route and name of `r`. Most connections call one method again and again: that needs no look-up."""
        cdef Route last = self.last
        if (last is not None and r.header is None and head.name_size == PyBytes_GET_SIZE(last.name)
                and memcmp(head.name, PyBytes_AS_STRING(last.name), head.name_size) == 0):
            r.name = last.name
            r.route = last
            return 0
        r.name = PyBytes_FromStringAndSize(<const char*>head.name, head.name_size)
        r.route = self.route_for(r.name, r.header)
        if r.header is None:
            self.last = r.route
        return 0

    cdef object receive(self, Cursor* c):
        cdef Envelope e
        cdef Header header
        cdef Head head
        cdef Cursor body
        cdef Request r
        cdef const uint8_t* start = c.p
        try:
            if self.find(c, &e) == 0:
                return None
        except ProtocolError as error:
            return self.broken(c, error)
        header, self.header = self.header, None
        r = Request.__new__(Request)
        r.framing = e.framing
        r.header = header
        r.size = c.p - start
        body.p = e.body
        body.end = e.end
        if read_head(&body.p, body.end, &head) == 0:
            raise ProtocolError(f"a message of {body.end - e.body} bytes ends inside its head")
        r.type = head.type
        r.seqid = head.seqid
        r.strict = head.strict
        if head.name_size == 0:
            raise ProtocolError("a message without a method name")
        self.find_route(r, &head)
        if r.type == HEARTBEAT:
            return r
        if r.type != CALL and r.type != ONEWAY:
            r.error = ApplicationError(f"a server takes calls, not messages of type {r.type}",
                                       ApplicationErrorType.INVALID_MESSAGE_TYPE)
        elif r.route is None:
            r.error = self.nobody(r)
        else:
            try:
                if r.route.is_protobuf or head.protobuf:
                    self.read_protobuf(r, &body, head.protobuf)
                    return r
                grant(self.max_decoded)
                lend_from(self.inflated if header is not None and header.transforms else self.source)
                r.args = r.route.args.decode(&body, head.compact)
            except ProtocolError as error:
                r.error = ApplicationError(f"{r.method}: {error.message}", ApplicationErrorType.PROTOCOL_ERROR)
            lend_from(None)
        return r

    cdef int read_protobuf(self, Request r, Cursor* body, bint is_protobuf) except -1:
        """The arguments of a call of which the method, the message or both are Protobuf."""
        wrong = other_payload(r.route, is_protobuf)
        if wrong is not None:
            r.error = ApplicationError(f"{r.method}: {wrong}", ApplicationErrorType.INVALID_PROTOCOL)
        else:
            r.args = (read_message(r.route.request, r.route.request_plan, body, self.max_decoded),)
        return 0

    cdef object nobody(self, Request r):
        service = r.header.strings.get("isn") if r.header is not None else None
        if service is not None and self.services and service not in self.services:
            return UnknownService(f"unknown service {service}, method {r.method}")
        if service is None:
            if not self.routes and self.services:
                return UnknownService(f"the call of {r.method} names no service, and this server wants one (TTHeader \"isn\")")
            service = ", ".join(self.services)
        return UnknownMethod(f"unknown method {r.method} (service {service})")

    cdef object broken(self, Cursor* c, object error):
        """A Request that only carries the error to the peer, if the head of a strict message can be read; else raises `error`."""
        cdef Head head
        cdef Request r
        cdef const uint8_t* p = c.p
        cdef const uint8_t* p0
        cdef int framing = BUFFERED
        if left(c) < 12:
            raise error
        if get32(p) & VERSION_MASK != VERSION_1 and not is_compact(p):
            if not is_version(get32(p + 4)) and not is_compact(p + 4):
                raise error
            framing = FRAMED
            p += 4
        p0 = p
        try:
            if read_head(&p, c.end, &head) == 0 or head.name_size == 0:
                raise error
        except ProtocolError:
            raise error
        r = Request.__new__(Request)
        r.framing = framing | payload_of(p0)
        r.name = PyBytes_FromStringAndSize(<const char*>head.name, head.name_size)
        r.type = head.type
        r.seqid = head.seqid
        r.strict = head.strict
        r.route = self.routes.get(r.name)
        r.error = ApplicationError(error.message, ApplicationErrorType.PROTOCOL_ERROR)
        r.fatal = True
        r.size = left(c)
        c.p = c.end
        return r

    cdef int begin(self, Request r, Marks* m, int type, WriteBuffer out, dict strings) except -1:
        cdef dict ints = None
        cdef int32_t header_seqid = 0
        cdef bint checksum = False
        if r.name is None:
            raise UsageError("only a Request that was received can be answered")
        if r.framing & TTHEADER:
            ints = {KEY_MSG_TYPE: "2" if type == REPLY else "3"}
            if r.header is not None:
                header_seqid = r.header.seqid
                # In kind: a caller that sends one looks at one.
                checksum = CHECKSUM in r.header.strings
        return begin_message(out, m, r.framing, r.strict, r.name, type, r.seqid, header_seqid, ints, strings, checksum, 0,
                             b"" if r.header is None else r.header.transforms)

    cdef int check_answer(self, Request request, Py_ssize_t size) except -1:
        if size > self.max_message:
            raise EncodeError(f"the answer takes {size} bytes, more than the limit of {self.max_message}", request.method)
        return 0

    cdef int reply(self, Request request, object value, WriteBuffer out, dict strings) except -1:
        """Write the answer `value`. EncodeError when it does not fit the IDL; the buffer is then as before."""
        cdef Marks m
        cdef Py_ssize_t start = out.n
        if request.route is None:
            raise UsageError(f"there is no such method as {request.name!r}; answer with a failure")
        try:
            self.begin(request, &m, REPLY, out, strings)
            if request.route.is_protobuf:
                write_message(request.route.response, request.route.response_plan, value, out)
            else:
                request.route.result.encode_value(value, out, request.framing & COMPACT)
            end_message(out, &m, start)
            self.check_answer(request, out.n - start + out.apart - m.apart)
        except BaseException:
            out.truncate(start)
            raise
        return 0

    cdef int declared(self, Request request, object error, WriteBuffer out, dict strings) except -1:
        cdef Marks m
        cdef Py_ssize_t start = out.n
        if request.route is None:
            raise UsageError(f"there is no such method as {request.name!r}; answer with a failure")
        if request.route.is_protobuf:
            return 0  # a .proto file declares no exceptions
        try:
            self.begin(request, &m, REPLY, out, strings)
            if request.route.result.encode_exception(error, out, request.framing & COMPACT) == 0:
                out.truncate(start)
                return 0
            end_message(out, &m, start)
            self.check_answer(request, out.n - start + out.apart - m.apart)
        except BaseException:
            out.truncate(start)
            raise
        return 1

    cdef int empty(self, Request request, WriteBuffer out, dict strings) except -1:
        """A reply with nothing in it: what goes with a business status."""
        cdef Marks m
        cdef Py_ssize_t start = out.n
        self.begin(request, &m, REPLY, out, strings)
        if not request.framing & PROTOBUF:  # an empty Protobuf message has no bytes
            out.append(<const char*>b"\0", 1)
        end_message(out, &m, start)
        return 0

    cdef int beat(self, Request request, WriteBuffer out) except -1:
        """Answer a heartbeat."""
        cdef Marks m
        cdef Py_ssize_t start = out.n
        self.begin(request, &m, HEARTBEAT, out, None)
        out.append(<const char*>b"\0", 1)
        end_message(out, &m, start)
        return 0

    cdef int goodbye(self, WriteBuffer out) except -1:
        """Ask a client that shares this connection among calls to make no more of them on it (Kitex's control frame: sequence id 0)."""
        cdef Marks m
        cdef Py_ssize_t start = out.n
        begin_message(out, &m, TTHEADER, True, b"none", REPLY, 0, 0, None, {"crrst": "1"}, False, 0, b"")
        out.append(<const char*>b"\0", 1)
        end_message(out, &m, start)
        return 0

    def write_goodbye(self, WriteBuffer out not None):
        """Write the frame that asks a multiplexing client to leave."""
        self.goodbye(out)

    cdef int fail(self, Request request, int type, str message, WriteBuffer out, dict strings) except -1:
        """Write an application exception. EncodeError when an info does not fit; the buffer is then as before."""
        cdef Marks m
        cdef Py_ssize_t start = out.n
        try:
            self.begin(request, &m, EXCEPTION, out, strings)
            write_application_error(out, type, message, request.framing)
            end_message(out, &m, start)
            self.check_answer(request, out.n - start + out.apart - m.apart)
        except BaseException:
            out.truncate(start)
            raise
        return 0

    def write_reply(self, Request request not None, value, WriteBuffer out not None, dict strings=None):
        """Write the answer `value` to `request`. EncodeError when it does not fit the IDL."""
        self.reply(request, value, out, strings)

    def write_declared(self, Request request not None, error, WriteBuffer out not None, dict strings=None):
        """Write `error` as the method's reply if its IDL declares it; False, and nothing written, if not."""
        return bool(self.declared(request, error, out, strings))

    def write_failure(self, Request request not None, int type, str message not None, WriteBuffer out not None, dict strings=None):
        """Write an application exception."""
        self.fail(request, type, message, out, strings)

    def write_empty(self, Request request not None, WriteBuffer out not None, dict strings=None):
        """Write a reply without a result."""
        self.empty(request, out, strings)

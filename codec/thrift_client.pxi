# The client's side of one connection: part of thrift.pyx.

cdef str shown(Head* head):
    return (<const char*>head.name)[: head.name_size].decode("utf-8", "replace")


cdef class ThriftClientProtocol(ThriftProtocol):
    """The client's side of one connection. `framing` is a name of FRAMINGS; replies in another framing are understood too."""

    def __init__(self, str framing="framed", Py_ssize_t max_message=DEFAULT_MAX_MESSAGE, bint checksum=False,
                 str compression=""):
        if framing not in FRAMINGS:
            raise ValueError(f"unknown framing {framing!r}; choose one of {', '.join(FRAMINGS)}")
        self.framing = FRAMINGS[framing]
        self.max_message = max_message
        self.checksum = checksum
        self.transforms = bytes((compressor(compression).transform,)) if compression else b""
        self.pending = {}

    cdef int call(self, Route route, tuple args, int32_t seqid, WriteBuffer out, dict ints, dict strings) except -1:
        """Write a call. EncodeError when an argument does not fit the IDL; the buffer is then as before."""
        cdef Marks m
        cdef Py_ssize_t start = out.n, size
        cdef int type = ONEWAY if route.oneway else CALL
        if route is HEARTBEAT_ROUTE:
            return self.write_heartbeat(seqid, out)
        try:
            begin_message(out, &m, self.framing, True, route.name, type, seqid, seqid, ints, strings, self.checksum,
                          OUT_OF_ORDER if self.shared else 0, self.transforms)
            if route.is_protobuf or self.framing & PROTOBUF:
                self.write_protobuf(route, args, out)
            else:
                route.args.encode(args, out, self.framing & COMPACT)
            size = out.n - start + out.apart - m.apart
            if size > self.max_message:
                raise EncodeError(f"the call takes {size} bytes, more than the limit of {self.max_message}", route.spec.name)
            end_message(out, &m, start)
        except BaseException:
            out.truncate(start)
            raise
        if type == CALL:
            self.pending[seqid] = route
        return 0

    cdef int write_protobuf(self, Route route, tuple args, WriteBuffer out) except -1:
        """The request of a Protobuf method. UsageError when method and framing are of two families."""
        wrong = other_payload(route, self.framing & PROTOBUF)
        if wrong is not None:
            raise UsageError(f"{route.spec.name}: {wrong}")
        if len(args) != 1:
            raise EncodeError(f"takes one message, got {len(args)} arguments", route.spec.name)
        return write_message(route.request, route.request_plan, args[0], out)

    cdef object receive(self, Cursor* c):
        cdef Envelope e
        cdef Header header
        cdef Head head
        cdef Cursor body
        cdef Reply r
        cdef Route route
        cdef const uint8_t* start = c.p
        if self.find(c, &e) == 0:
            return None
        header, self.header = self.header, None
        body.p = e.body
        body.end = e.end
        if read_head(&body.p, body.end, &head) == 0:
            raise ProtocolError(f"a message of {body.end - e.body} bytes ends inside its head")
        r = Reply.__new__(Reply)
        r.seqid = head.seqid
        r.header = header
        r.size = c.p - start
        route = self.pending.pop(head.seqid, None)
        if self.shared and route is None:
            # A call whose caller has given up, or the peer's own message, which has sequence id 0.
            return r
        if route is None and len(self.pending) == 1 and head.type == EXCEPTION:
            # Some servers answer an exception with another sequence id; it can only belong to the one call under way.
            r.seqid, route = self.pending.popitem()
        if route is None:
            raise ProtocolError(f"an answer with sequence id {head.seqid}, which no call waits for")
        if head.type == EXCEPTION:
            try:
                type, message = read_application_error(&body, &head)
                r.error = application_error(message, type)
            except ProtocolError as error:
                r.error = error
        elif head.type == HEARTBEAT and route is HEARTBEAT_ROUTE:
            pass
        elif head.type != REPLY:
            raise ProtocolError(f"a client takes replies, not messages of type {head.type}")
        elif head.name_size != PyBytes_GET_SIZE(route.name) or (<const char*>head.name)[: head.name_size] != route.name:
            r.error = ApplicationError(
                f"the answer is for method {shown(&head)}, not {route.spec.name}",
                ApplicationErrorType.WRONG_METHOD_NAME)
        else:
            if header is not None and BUSINESS_STATUS in header.strings:
                r.error = read_business_status(header.strings)
                if r.error is not None:
                    return r
            try:
                if route.is_protobuf or head.protobuf:
                    wrong = other_payload(route, head.protobuf)
                    if wrong is not None:
                        raise ProtocolError(f"{route.spec.name}: {wrong}")
                    r.value = read_message(route.response, route.response_plan, &body, self.max_decoded)
                    return r
                grant(self.max_decoded)
                lend_from(self.inflated if header is not None and header.transforms else self.source)
                r.value = route.result.decode(&body, head.compact)
            except Exception as error:
                # Declared exceptions of the IDL, and results that cannot be decoded: the connection is in step in both cases.
                r.error = error
            lend_from(None)
        return r

    cpdef int write_heartbeat(self, int32_t seqid, WriteBuffer out) except -1:
        """Write a message that a weego server answers without calling a handler."""
        cdef Marks m
        cdef Py_ssize_t start = out.n
        begin_message(out, &m, self.framing, True, HEARTBEAT_ROUTE.name, HEARTBEAT, seqid, seqid, {KEY_MSG_TYPE: "6"}, None, False,
                      OUT_OF_ORDER if self.shared else 0, b"")
        out.append(<const char*>b"\0", 1)
        end_message(out, &m, start)
        self.pending[seqid] = HEARTBEAT_ROUTE
        return 0

    def forget(self, int32_t seqid):
        """No answer is waited for any more."""
        self.pending.pop(seqid, None)

    def write_call(self, Route route not None, tuple args not None, int32_t seqid, WriteBuffer out not None,
                   dict ints=None, dict strings=None):
        """Write a call with sequence id `seqid`; `ints` and `strings` are TTHeader infos. EncodeError when an argument does not fit."""
        self.call(route, args, seqid, out, ints, strings)


cdef Route HEARTBEAT_ROUTE = Route(MethodSpec("heartbeat", args=(), result=None))

# A call of this is a heartbeat: neither side knows it as a method.
HEARTBEAT_CALL = HEARTBEAT_ROUTE


cdef object read_business_status(dict strings):
    """The BusinessError that the infos of a reply carry, None when the status is 0, or a ProtocolError that says what is wrong."""
    try:
        status = status_number(strings[BUSINESS_STATUS])
        if status == 0:
            return None
        extra = json_object(strings.get(StringKey.BUSINESS_EXTRA) or "{}")
    except (ValueError, RecursionError) as error:
        return ProtocolError(f"the business status of the answer cannot be read: {error}")
    return BusinessError(status, strings.get(StringKey.BUSINESS_MESSAGE, ""), extra)


cdef object status_number(str text):
    """The decimal i32 in `text`, read as Go's `strconv.ParseInt` reads it; ValueError when it is anything else."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    # The longest i32 has ten digits; zeros may stand before it, but nobody writes more than this.
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        raise ValueError(f"{text[:40]!r} is not a number")
    status = int(text)
    if not -0x80000000 <= status <= 0x7FFFFFFF:
        raise ValueError(f"{status} does not fit in 32 bits")
    return status


cdef object json_object(str text):
    """The JSON object of strings in `text`; ValueError when it is anything else, RecursionError when it is nested too deep."""
    import json

    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, got {type(found).__name__}")
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}

# The client's side of a connection whose payloads are a user's (codec/payload.py): part of thrift.pyx.

cdef class PayloadClientProtocol(ThriftClientProtocol):
    """Calls and answers in TTHeaders around what a PayloadCodec makes of arguments and results. Sequence ids are the header's."""

    def __init__(self, codec, Py_ssize_t max_message=DEFAULT_MAX_MESSAGE):
        super().__init__("ttheader", max_message)
        self.codec = codec
        self.magic = codec.magic

    cdef int call(self, Route route, tuple args, int32_t seqid, WriteBuffer out, dict ints, dict strings) except -1:
        cdef bytes payload = self.written(route, args)
        cdef Py_ssize_t start = out.n, packet
        try:
            packet = begin_header(out, seqid, OUT_OF_ORDER if self.shared else 0, ints, strings, NULL, b"")
            out.append(PyBytes_AS_STRING(self.magic), PyBytes_GET_SIZE(self.magic))
            out.append(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
            if out.n - start > self.max_message:
                raise EncodeError(f"the call takes {out.n - start} bytes, more than the limit of {self.max_message}", route.spec.name)
            end_header(out, packet, 0)
        except BaseException:
            out.truncate(start)
            raise
        if not route.oneway:
            self.pending[seqid] = route
        return 0

    cdef bytes written(self, Route route, tuple args):
        try:
            payload = self.codec.write_args(route.spec, args)
        except (EncodeError, RpcError):
            raise
        except Exception as error:
            raise EncodeError(f"payload codec {self.codec.name} could not write the arguments: {error!r}", route.spec.name) from error
        if not isinstance(payload, bytes):
            raise EncodeError(f"payload codec {self.codec.name}: write_args gave {type(payload).__name__}, not bytes", route.spec.name)
        return payload

    cdef object receive(self, Cursor* c):
        cdef Cursor packet
        cdef Header header
        cdef Reply r
        cdef Route route
        cdef bytes payload
        cdef Py_ssize_t size
        if left(c) < DETECT:
            return None
        if get32(c.p + 4) & VERSION_MASK != TTHEADER_MAGIC:
            raise ProtocolError(
                f"not a TTHeader packet: {described((<const char*>c.p)[:DETECT])}", ProtocolErrorKind.BAD_VERSION)
        size = self.checked(get32(c.p), "TTHeader packet") + 4
        if left(c) < size:
            return None
        packet.p = c.p
        packet.end = c.p + size
        header = read_header(&packet)
        check_payload(header, packet.p, packet.end)
        c.p += size
        r = Reply.__new__(Reply)
        r.seqid = header.seqid
        r.header = header
        r.size = size
        route = self.pending.pop(header.seqid, None)
        if route is None:
            if self.shared:
                return r  # its caller has given up
            raise ProtocolError(f"an answer with sequence id {header.seqid}, which no call waits for")
        if BUSINESS_STATUS in header.strings:
            r.error = read_business_status(header.strings)
            if r.error is not None:
                return r
        payload = (<const char*>packet.p)[: left(&packet)]
        try:
            self.take(r, route, payload)
        except Exception as error:
            # The connection is in step: where the next answer begins, the header has said.
            r.error = error if isinstance(error, RpcError) or is_declared(route, error) else ProtocolError(
                f"payload codec {self.codec.name} could not read the answer of {route.spec.name}: {error!r}")
        return r

    cdef int take(self, Reply r, Route route, bytes payload) except -1:
        if payload[:2] != self.magic:
            raise ProtocolError(
                f"the answer's payload begins with {payload[:2]!r}, where payload codec {self.codec.name} has {self.magic!r}")
        if r.header.transforms:
            raise ProtocolError(f"the answer is compressed, which payload codec {self.codec.name} was not asked for")
        if r.header.ints.get(KEY_MSG_TYPE) == "3":
            r.error = self.codec.read_error(route.spec, payload[2:])
            if not isinstance(r.error, Exception):
                raise ProtocolError(f"payload codec {self.codec.name}: read_error gave {type(r.error).__name__}, not an exception")
        else:
            r.value = self.codec.read_result(route.spec, payload[2:])
        return 0

    cpdef int write_heartbeat(self, int32_t seqid, WriteBuffer out) except -1:
        raise UsageError("heartbeats are Thrift messages; a connection with a payload codec has TCP's keepalive")


cdef bint is_declared(Route route, error):
    return type(error) in [field.type.cls for field in route.spec.throws]


def client_protocol(str framing="framed", Py_ssize_t max_message=DEFAULT_MAX_MESSAGE, bint checksum=False, str compression="", payload=None):
    """The client's side of a connection: Thrift's, or with the PayloadCodec `payload` that one's, in TTHeaders."""
    if payload is None:
        return ThriftClientProtocol(framing, max_message, checksum, compression)
    return PayloadClientProtocol(payload, max_message)

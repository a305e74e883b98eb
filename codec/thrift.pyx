# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Thrift messages in every framing that Kitex puts on a plain connection.

Each message says for itself how it is framed, so one connection may mix them (Kitex `default_codec.go`, `checkPayload`). With W0 and
W1 the first and second big-endian word:

    W1 = 1000 ....                      TTHeader; what follows it is one of the next two
    W0 = 8001 ....                      buffered: the message alone, its end is found by walking it
    W1 = 8001 ....                      framed: W0 is the length
    W0 small, W1 begins with a letter   buffered, old head without a version: W0 is the length of the name
    W1 small, 0 < W1 < W0               framed, old head
    82 .1 where 8001 would be           the same framings in the compact protocol (Apache `TCompactProtocol`)
    W1 = 9001 ....                      Kitex Protobuf, always framed: W0 is the length

The old heads and compact are Apache Thrift's; Kitex refuses them. Anything else is a ProtocolError, after which a connection cannot go on.

A ThriftServerProtocol turns bytes into Requests and writes replies; a ThriftClientProtocol writes calls and turns bytes into Replies.
Neither knows sockets, clocks or tasks. Heads and framings are here; the two sides are in thrift_server.pxi and thrift_client.pxi.
thrift_payload.pxi is the client's side with a payload of the user's.
"""

cimport cython
from codec.buffer cimport get32, left, put32, reserve
from codec.plan cimport grant, lend_from
from codec.scan cimport compact_varint, scan, scan_compact, scan_start, scan_start_value
from codec.proto_plan cimport ProtoPlan
from codec.ttheader cimport HEADER_FIXED, begin_header, check_payload, end_header, put_checksum, read_header
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT32_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from codec.compression import compressor, restored, transformed
from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    EncodeError,
    ProtocolError,
    ProtocolErrorKind,
    RpcError,
    UnknownMethod,
    UnknownService,
    UsageError,
    application_error,
)
from codec.plan import DEFAULT_MAX_DECODED
from codec.spec import Field, MethodSpec
from codec.ttheader import StringKey
from codec.types import I32, STRING

cdef enum:
    VERSION_MASK = 0xFFFF0000
    VERSION_1 = 0x80010000
    PROTOBUF_1 = 0x90010000
    TTHEADER_MAGIC = 0x10000000
    # The first byte of a compact message, and the version in the low bits of its second; the type is above them.
    COMPACT_ID = 0x82
    COMPACT_VERSION = 1
    VERSION_BITS = 0x1F
    # Bytes of the shortest compact message: two of head, two numbers, a name of one letter, an empty struct.
    SHORTEST = 6
    # TTHeader's protocol ids; THeader has the same.
    ID_BINARY = 0
    ID_COMPACT = 2
    # A method name longer than this is taken for garbage; real ones are below 100 bytes. It also tells old heads from noise.
    MAX_NAME = 4096
    # Bytes that decide how a message is framed.
    DETECT = 8
    # TTHeader int key "MsgType" and its decimal values.
    KEY_MSG_TYPE = 22

# Bytes of a message, unless the config says otherwise: Thrift's own default for a frame (`TConfiguration.DEFAULT_MAX_FRAME_SIZE`), rounded up.
DEFAULT_MAX_MESSAGE = 16 * 2**20

FRAMINGS = {"buffered": BUFFERED, "framed": FRAMED, "ttheader": TTHEADER, "ttheader-framed": TTHEADER | FRAMED}
FRAMINGS.update({f"{name}-compact": number | COMPACT for name, number in FRAMINGS.items()})
FRAMINGS.update({f"{name}-protobuf": FRAMINGS[name] | PROTOBUF for name in ("framed", "ttheader-framed")})
FRAMING_NAMES = {number: name for name, number in FRAMINGS.items()}

cdef object INVALID_DATA = ProtocolErrorKind.INVALID_DATA
cdef object NEGATIVE_SIZE = ProtocolErrorKind.NEGATIVE_SIZE
cdef object SIZE_LIMIT = ProtocolErrorKind.SIZE_LIMIT
cdef str BUSINESS_STATUS = StringKey.BUSINESS_STATUS
cdef str CHECKSUM = StringKey.CHECKSUM


cdef extern from "objects.h":
    uint8_t* proto_varint "weego_put_varint"(uint8_t* p, uint64_t v) noexcept
    const uint8_t* get_proto_varint "weego_get_varint"(const uint8_t* p, const uint8_t* end, uint64_t* value) noexcept


cdef class Route:
    """One method as the codec needs it. `spec` is its MethodSpec or ProtobufMethodSpec; `target` is the owner's own."""

    def __cinit__(self, spec, target=None):
        self.spec = spec
        self.name = spec.name.encode()
        self.oneway = spec.oneway
        self.target = target
        self.is_protobuf = spec.kind == "protobuf"
        if self.is_protobuf:
            self.request, self.response = spec.request, spec.response
            self.request_plan, self.response_plan = native_plan(spec.request), native_plan(spec.response)
        else:
            self.args = spec.args_plan
            self.result = spec.result_plan

    def __repr__(self):
        return f"<Route {self.name.decode()}>"


cdef ProtoPlan native_plan(type):
    """The plan of a native message, which needs no copy of its bytes; None for protobuf's own messages."""
    plan = type.cls.__dict__.get("__plan__")
    return plan if isinstance(plan, ProtoPlan) else None


# One for each message: the memory is kept for the next instead of going back to the allocator.
@cython.freelist(64)
cdef class Request:
    """A call that arrived.

    `error`, if not None, is the ApplicationError to answer with instead of calling the method; `fatal` says that the connection must be
    closed after the answer, because where the next message begins is not known.
    """

    @property
    def method(self):
        """The method's name as text."""
        return self.name.decode("utf-8", "replace")

    @property
    def framing_name(self):
        """How it was framed: buffered, framed, ttheader or ttheader-framed; `-compact` or `-protobuf` behind it where it was not binary."""
        return FRAMING_NAMES[self.framing]

    def __repr__(self):
        return f"<Request {self.method} seq {self.seqid} {self.framing_name}>"


cdef class Reply:
    """An answer that arrived: `value`, or `error` to raise."""

    def __repr__(self):
        return f"<Reply seq {self.seqid} {self.error or self.value!r}>"


cdef int read_head(const uint8_t** p, const uint8_t* end, Head* h) except -1:
    """Read the head of a Thrift message. 1: read, p stands on the struct. 0: more bytes are needed."""
    cdef uint32_t word
    cdef Py_ssize_t size
    if end - p[0] < 4:
        return 0
    word = get32(p[0])
    if word & VERSION_MASK == VERSION_1 or word & VERSION_MASK == PROTOBUF_1:
        if end - p[0] < 8:
            return 0
        h.strict = True
        h.compact = False
        h.protobuf = word & VERSION_MASK == PROTOBUF_1
        h.type = word & 0xFF
        size = <int32_t>get32(p[0] + 4)
        if size < 0:
            raise ProtocolError(f"negative length {size} of the method name", NEGATIVE_SIZE)
        if size > MAX_NAME:
            raise ProtocolError(f"method name of {size} bytes is longer than {MAX_NAME}", SIZE_LIMIT)
        if end - p[0] < 12 + size:
            return 0
        h.name = p[0] + 8
        h.seqid = <int32_t>get32(p[0] + 8 + size)
        p[0] += 12 + size
    elif is_compact(p[0]):
        return read_compact_head(p, end, h)
    elif word <= MAX_NAME:
        size = word
        h.compact = h.protobuf = False
        if end - p[0] < 9 + size:
            return 0
        h.strict = False
        h.name = p[0] + 4
        h.type = p[0][4 + size]
        h.seqid = <int32_t>get32(p[0] + 5 + size)
        p[0] += 9 + size
    else:
        raise ProtocolError(f"not a Thrift message: begins with {word:#010x}", ProtocolErrorKind.BAD_VERSION)
    h.name_size = size
    return 1


cdef inline bint is_compact(const uint8_t* p) noexcept:
    """Does a compact message begin here? Two bytes tell."""
    return p[0] == COMPACT_ID and p[1] & VERSION_BITS == COMPACT_VERSION


cdef int read_compact_head(const uint8_t** p, const uint8_t* end, Head* h) except -1:
    cdef uint64_t seqid = 0, size = 0
    cdef const uint8_t* at = p[0] + 2
    h.strict = True
    h.compact = True
    h.protobuf = False
    h.type = p[0][1] >> 5
    if compact_varint(&at, end, &seqid) == 0 or compact_varint(&at, end, &size) == 0:
        return 0
    if size > MAX_NAME:
        raise ProtocolError(f"method name of {size} bytes is longer than {MAX_NAME}", SIZE_LIMIT)
    if end - at < <Py_ssize_t>size:
        return 0
    # Plain, not zigzag; Apache's Python writes negative ones as they are in 32 bits.
    h.seqid = <int32_t>seqid
    h.name = at
    h.name_size = <Py_ssize_t>size
    p[0] = at + size
    return 1


cdef inline bint is_version(uint32_t word) noexcept:
    return word & VERSION_MASK == VERSION_1 or word & VERSION_MASK == PROTOBUF_1


cdef inline int payload_of(const uint8_t* p) noexcept:
    """The bit of the framing that the first two bytes of a message stand for."""
    if is_compact(p):
        return COMPACT
    return PROTOBUF if p[0] == 0x90 and p[1] == 0x01 else 0


cdef inline bint is_letter(uint32_t word) noexcept:
    """Can the first byte of `word` begin a method name?"""
    cdef uint8_t c = <uint8_t>(word >> 24)
    return c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c == c'_'


# How other protocols begin, for whoever connected the wrong ends.
cdef tuple STRANGERS = (
    (b"PRI * HT", "HTTP/2 (gRPC?)"),
    (b"PROXY ", "the PROXY protocol"),
    (b"\x16\x03", "TLS"),
    (b"\x15\x03", "TLS"),
    (b"HTTP/", "an HTTP answer"),
)


cdef str described(bytes beginning):
    for start, name in STRANGERS:
        if beginning.startswith(start):
            return f"it looks like {name}, which is not spoken here"
    if beginning.split(b" ")[0] in (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS", b"CONNECT"):
        return "it looks like an HTTP request, which is not spoken here"
    return f"it begins with {beginning.hex(' ')}"


cdef class ThriftProtocol(Protocol):
    """What both sides share: finding where a message begins and ends. `max_message` bounds its bytes."""

    def __cinit__(self):
        self.max_message = DEFAULT_MAX_MESSAGE
        self.max_decoded = DEFAULT_MAX_DECODED
        self.progress = NULL

    def __dealloc__(self):
        free(self.progress)

    cdef bint between(self) noexcept:
        return self.progress == NULL

    cdef int find(self, Cursor* c, Envelope* e) except -1:
        cdef uint32_t w0, w1
        cdef Py_ssize_t n = left(c), size, size_of_packet
        cdef Cursor packet
        if n >= SHORTEST and is_compact(c.p):
            self.header = None
            return self.find_end(c, e)
        if n < DETECT:
            # A TLS alert, say, is shorter than that and nothing follows it.
            if (n >= 4 and get32(c.p) & VERSION_MASK != VERSION_1 and not is_compact(c.p)
                    and get32(c.p) > <uint64_t>self.max_message):
                raise ProtocolError(
                    f"not a Thrift message in any known framing: {described((<const char*>c.p)[:n])}", ProtocolErrorKind.BAD_VERSION)
            return 0
        w0 = get32(c.p)
        w1 = get32(c.p + 4)
        self.header = None
        if (is_version(w1) and w0 & VERSION_MASK != VERSION_1) or is_compact(c.p + 4):
            size = self.checked(w0, "frame")
            if n < size + 4:
                return 0
            e.framing, e.body, e.end = FRAMED | payload_of(c.p + 4), c.p + 4, c.p + 4 + size
            c.p = e.end
            return 1
        if w1 & VERSION_MASK == TTHEADER_MAGIC:
            size_of_packet = size = self.checked(w0, "TTHeader packet")
            if n < size + 4:
                return 0
            packet.p = c.p
            packet.end = c.p + 4 + size
            self.header = read_header(&packet)
            check_payload(self.header, packet.p, packet.end)
            if self.header.transforms:
                self.inflate(&packet)
            e.framing, e.body, e.end = TTHEADER, packet.p, packet.end
            if left(&packet) >= SHORTEST and is_compact(packet.p):
                e.framing |= COMPACT
            elif left(&packet) >= DETECT and get32(packet.p) & VERSION_MASK != VERSION_1:
                # The inner frame's own length counts (Kitex does not compare the two); it cannot reach beyond the packet.
                size = get32(packet.p)
                if size > left(&packet) - 4:
                    raise ProtocolError(
                        f"frame of {size} bytes inside a TTHeader packet that has {left(&packet) - 4} left", SIZE_LIMIT)
                e.framing, e.body, e.end = TTHEADER | FRAMED, packet.p + 4, packet.p + 4 + size
                if size >= 2:
                    e.framing |= payload_of(e.body)
            c.p += 4 + size_of_packet
            return 1
        if w0 & VERSION_MASK == VERSION_1 or (0 < w0 <= MAX_NAME and is_letter(w1)):
            return self.find_end(c, e)
        if 0 < w1 <= MAX_NAME and w1 + 9 < w0:
            size = self.checked(w0, "frame")
            if n < size + 4:
                return 0
            e.framing, e.body, e.end = FRAMED, c.p + 4, c.p + 4 + size
            c.p = e.end
            return 1
        raise ProtocolError(
            f"not a Thrift message in any known framing: {described((<const char*>c.p)[:DETECT])}",
            ProtocolErrorKind.BAD_VERSION)

    cdef int inflate(self, Cursor* packet) except -1:
        """Undo the transforms of a payload. One that begins like a Thrift message was not transformed, as Kitex takes every one."""
        if left(packet) >= DETECT and (get32(packet.p) & VERSION_MASK == VERSION_1 or get32(packet.p + 4) & VERSION_MASK == VERSION_1
                                       or payload_of(packet.p) or payload_of(packet.p + 4)):
            self.header.transforms = b""
            return 0
        self.inflated = restored(self.header.transforms, (<const char*>packet.p)[:left(packet)], self.max_message)
        packet.p = <const uint8_t*>PyBytes_AS_STRING(self.inflated)
        packet.end = packet.p + PyBytes_GET_SIZE(self.inflated)
        return 0

    cdef Py_ssize_t checked(self, uint32_t size, str what) except -1:
        if <Py_ssize_t>size > self.max_message or size > <uint32_t>INT32_MAX:
            if size > <uint32_t>INT32_MAX:
                raise ProtocolError(f"negative length {<int32_t>size} of a {what}", NEGATIVE_SIZE)
            raise ProtocolError(f"{what} of {size} bytes is larger than the limit of {self.max_message}", SIZE_LIMIT)
        return size

    cdef int find_end(self, Cursor* c, Envelope* e) except -1:
        """The end of a buffered message, going on where the last call stopped."""
        cdef Head head
        cdef const uint8_t* p = c.p
        cdef Cursor rest
        cdef Scan first
        cdef Scan* s = self.progress
        cdef int done
        rest.end = c.end
        if s == NULL:
            if read_head(&p, c.end, &head) == 0:
                return 0
            rest.p = p
            s = &first
            scan_start(s, self.max_message)
        else:
            rest.p = c.p + self.scanned
        try:
            done = scan_compact(s, &rest) if is_compact(c.p) else scan(s, &rest)
            if rest.p - c.p + s.skip > self.max_message:
                raise ProtocolError(f"message is larger than the limit of {self.max_message} bytes", SIZE_LIMIT)
        except BaseException:
            self.forget_progress()
            raise
        if not done:
            self.scanned = rest.p - c.p
            if self.progress == NULL:
                # Only a message that trickles in costs a connection this memory.
                self.progress = <Scan*>malloc(sizeof(Scan))
                if self.progress == NULL:
                    raise MemoryError("no memory to follow a message that arrives in parts")
                memcpy(self.progress, s, sizeof(Scan))
            return 0
        self.forget_progress()
        e.framing, e.body, e.end = BUFFERED | COMPACT if is_compact(c.p) else BUFFERED, c.p, rest.p
        c.p = rest.p
        return 1

    cdef void forget_progress(self) noexcept:
        if self.progress != NULL:
            free(self.progress)
            self.progress = NULL


# ---- writing -------------------------------------------------------------------------------------------------------


cdef inline uint8_t* put_varint(uint8_t* p, uint32_t v) noexcept:
    while v >= 0x80:
        p[0] = <uint8_t>(v | 0x80)
        v >>= 7
        p += 1
    p[0] = <uint8_t>v
    return p + 1


cdef int begin_message(
    WriteBuffer out, Marks* m, int framing, bint strict, bytes name, int type, int32_t seqid,
    int32_t header_seqid, dict ints, dict strings, bint checksum, int flags, bytes transforms,
) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef uint8_t* p
    m.packet = m.frame = m.sum = -1
    m.packed = framing & TTHEADER and len(transforms) > 0
    m.apart = out.apart
    # What is compressed or summed up must be in one place.
    out.splices = out.gathers and not m.packed and not (framing & TTHEADER and checksum)
    if framing & TTHEADER:
        m.packet = begin_header(out, header_seqid, flags, ints, strings, &m.sum if checksum else NULL, transforms)
        if framing & COMPACT:
            out.p[m.packet + HEADER_FIXED] = ID_COMPACT
    reserve(out, 16 + size)
    if framing & FRAMED:
        m.frame = out.n
        out.n += 4
    p = out.p + out.n
    if framing & COMPACT:
        p[0] = COMPACT_ID
        p[1] = <uint8_t>(type << 5) | COMPACT_VERSION
        p = put_varint(p + 2, <uint32_t>seqid)
        p = put_varint(p, <uint32_t>size)
        memcpy(p, PyBytes_AS_STRING(name), size)
        out.n = p + size - out.p
    elif strict:
        put32(p, (PROTOBUF_1 if framing & PROTOBUF else VERSION_1) | <uint32_t>type)
        put32(p + 4, <uint32_t>size)
        memcpy(p + 8, PyBytes_AS_STRING(name), size)
        put32(p + 8 + size, <uint32_t>seqid)
        out.n += 12 + size
    else:
        put32(p, <uint32_t>size)
        memcpy(p + 4, PyBytes_AS_STRING(name), size)
        p[4 + size] = <uint8_t>type
        put32(p + 5 + size, <uint32_t>seqid)
        out.n += 9 + size
    return 0


cdef int compress_payload(WriteBuffer out, Marks* m) except -1:
    cdef Py_ssize_t info = m.packet + HEADER_FIXED
    cdef Py_ssize_t payload = info + ((out.p[info - 2] << 8) | out.p[info - 1]) * 4
    cdef bytes transforms = (<const char*>out.p + info + 2)[: out.p[info + 1]]
    cdef bytes packed = transformed(transforms, (<const char*>out.p + payload)[: out.n - payload])
    out.truncate(payload)
    return out.append(PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))


cdef int end_message(WriteBuffer out, Marks* m, Py_ssize_t start) except -1:
    """Fill in the lengths of the message that began at `start`."""
    cdef Py_ssize_t apart = out.apart - m.apart
    out.splices = False
    if out.n + apart - start > INT32_MAX:
        raise EncodeError(f"a message of {out.n + apart - start} bytes; no framing carries more than {INT32_MAX}")
    if m.frame >= 0:
        put32(out.p + m.frame, <uint32_t>(out.n + apart - m.frame - 4))
    if m.packed:
        compress_payload(out, m)
    if m.packet >= 0:
        end_header(out, m.packet, apart)
    if m.sum >= 0:
        put_checksum(out, m.packet, m.sum)
    return 0


cdef int write_application_error(WriteBuffer out, int type, str message, int framing) except -1:
    """Exactly the two fields, in this order: Kitex's reader loses its place on any other."""
    cdef bytes text = message.encode("utf-8", "replace")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef uint8_t* p
    if framing & PROTOBUF:
        return write_protobuf_error(out, type, text)
    reserve(out, 15 + size)
    p = out.p + out.n
    if framing & COMPACT:
        p[0] = 0x18  # field 1, binary
        p = put_varint(p + 1, <uint32_t>size)
        memcpy(p, PyBytes_AS_STRING(text), size)
        p += size
        p[0] = 0x15  # field 2, i32, zigzag
        p = put_varint(p + 1, (<uint32_t>type << 1) ^ <uint32_t>(type >> 31))
        p[0] = 0
        out.n = p + 1 - out.p
        return 0
    p[0], p[1], p[2] = 11, 0, 1
    put32(p + 3, <uint32_t>size)
    memcpy(p + 7, PyBytes_AS_STRING(text), size)
    p += 7 + size
    p[0], p[1], p[2] = 8, 0, 2
    put32(p + 3, <uint32_t>type)
    p[7] = 0
    out.n += 15 + size
    return 0


cdef tuple read_application_error(Cursor* c, Head* head):
    """``(type number, message)``; fields may come in any order, unknown ones are passed over."""
    if head.protobuf:
        return read_protobuf_error(c)
    if head.compact:
        return read_compact_application_error(c)
    cdef Scan s
    cdef int kind, fid, type = 0
    cdef Py_ssize_t size
    cdef str message = ""
    while True:
        if left(c) < 1:
            raise ProtocolError("the exception ends in the middle")
        kind = c.p[0]
        if kind == 0:
            c.p += 1
            return type, message
        if left(c) < 3:
            raise ProtocolError("the exception ends in the middle")
        fid = (c.p[1] << 8) | c.p[2]
        if kind == 11 and fid == 1 and left(c) >= 7:
            size = <int32_t>get32(c.p + 3)
            if size < 0 or left(c) - 7 < size:
                raise ProtocolError(f"the exception's message claims {size} bytes", NEGATIVE_SIZE if size < 0 else INVALID_DATA)
            message = PyUnicode_DecodeUTF8(<const char*>c.p + 7, size, "replace")
            c.p += 7 + size
        elif kind == 8 and fid == 2 and left(c) >= 7:
            type = <int32_t>get32(c.p + 3)
            c.p += 7
        else:
            c.p += 3
            scan_start_value(&s, <uint8_t>kind, left(c))
            if scan(&s, c) == 0:
                raise ProtocolError("the exception ends in the middle")


cdef tuple read_compact_application_error(Cursor* c):
    values = COMPACT_ERROR.decode(c, True)
    return values[1], values[0]


cdef ArgsPlan COMPACT_ERROR = ArgsPlan("exception", (Field(1, "message", STRING), Field(2, "type", I32)))

include "thrift_protobuf.pxi"
include "thrift_server.pxi"
include "thrift_client.pxi"
include "thrift_payload.pxi"

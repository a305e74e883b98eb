# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TTHeaderStreaming (Kitex `pkg/remote/trans/ttstream`): many streams of Thrift messages on one connection, without HTTP/2.

A frame is a TTHeader packet with the flag 0x0002. Its sequence id is the stream's, which the client chooses; the int infos ToMethod (9) and
FrameType (27, one digit) are in every one:

    1  Meta      what proxies add, for nobody here
    2  Header    opens a stream; the server sends one too, before its first message. Strings: service, metainfo, metadata
    3  Data      one struct: no head, no length of its own
    4  Trailer   the sender's last frame. Strings: a business status, metadata. Payload: nothing, or an EXCEPTION message
    5  Rst       the stream is over on both sides. String "ttscp": through whom the cancellation came. Payload: an EXCEPTION message, its reason

The protocol has no windows, no limits, no deadline and no goodbye: what weego does about that is in weego/stream_server.pyx. Stream id 0 belongs to
nobody; both sides ignore a frame whose stream they do not know.

A StreamProtocol turns bytes into Frames; a StreamMethod writes the messages of one method and reads them.
"""

cimport cython
from codec.buffer cimport get16, get32, left, put32, reserve
from codec.plan cimport grant
from codec.thrift cimport EXCEPTION, Head, read_application_error, read_business_status, read_head, write_application_error
from codec.ttheader cimport HEADER_FIXED, begin_header, end_header, read_header
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, uint16_t, uint32_t
from libc.string cimport memcpy

from codec.errors import EncodeError, ProtocolError, ProtocolErrorKind
from codec.plan import DEFAULT_MAX_DECODED
from codec.thrift import DEFAULT_MAX_MESSAGE
from codec.types import StructType

cdef enum:
    MAGIC = 0x1000
    # TTHeader's protocol id of a struct without a message's head.
    ID_STRUCT = 0x10
    BLOCK_PADDING = 0x00
    BLOCK_INTS = 0x10
    KEY_TO_METHOD = 9
    KEY_FRAME_TYPE = 27

cdef object SIZE_LIMIT = ProtocolErrorKind.SIZE_LIMIT
# The digits of FrameType.
cdef tuple DIGITS = (None, "1", "2", "3", "4", "5")
cdef dict TYPES = {digit: number for number, digit in enumerate(DIGITS) if digit}
FRAME_NAMES = {META: "Meta", HEADER: "Header", DATA: "Data", TRAILER: "Trailer", RST: "Rst"}


@cython.freelist(64)
cdef class Frame:
    """One frame that arrived. `type` is 0 for one that is longer than the limit: only its stream is known, and its bytes are passed over."""

    @property
    def method(self):
        """ToMethod; an empty string where there is none, and in Data."""
        return self.header.ints.get(KEY_TO_METHOD, "") if self.header is not None else ""

    def __repr__(self):
        return f"<Frame {FRAME_NAMES.get(self.type, 'too long')} of stream {self.sid}, {self.size} bytes>"


cdef class StreamProtocol(Protocol):
    """Bytes to Frames, for both sides. `max_message` bounds a payload."""

    def __cinit__(self):
        self.max_message = DEFAULT_MAX_MESSAGE

    cdef object receive(self, Cursor* c):
        return self.take_frame(c)

    cdef bint between(self) noexcept:
        return self.skipping == 0

    cdef bint portable(self) noexcept:
        return self.skipping == 0

    cdef object take_frame(self, Cursor* c):
        cdef const uint8_t* p = c.p
        cdef Py_ssize_t n = left(c), size, infos
        cdef int type
        cdef Cursor packet
        cdef Frame f
        if self.skipping:
            size = min(n, self.skipping)
            self.skipping -= size
            c.p += size
            if self.skipping:
                return None
            p = c.p
            n = left(c)
        if n >= 6 and get16(p + 4) != MAGIC:
            raise ProtocolError(f"not a frame of TTHeaderStreaming: its magic is {get16(p + 4):#06x}, not 0x1000")
        if n < HEADER_FIXED:
            return None
        if get16(p + 6) & STREAMING == 0:
            raise ProtocolError(f"a TTHeader without the streaming flag on a connection of streams (flags {get16(p + 6):#06x})")
        if get32(p) > <uint32_t>INT32_MAX:
            raise ProtocolError(f"a frame of {get32(p)} bytes: no frame is so long", SIZE_LIMIT)
        size = get32(p) + 4
        infos = get16(p + 12) * 4
        if size < HEADER_FIXED + infos:
            raise ProtocolError(f"a frame of {size} bytes that has {infos} bytes of infos")
        f = Frame.__new__(Frame)
        f.sid = <int32_t>get32(p + 8)
        f.size = size
        if size - HEADER_FIXED - infos > self.max_message:
            self.skipping = size
            n = min(n, size)
            self.skipping -= n
            c.p += n
            return f
        if n < size:
            return None
        packet.p = p
        packet.end = p + size
        if is_plain_data(p + HEADER_FIXED, p + HEADER_FIXED + infos):
            f.type = DATA
            packet.p += HEADER_FIXED + infos
        else:
            f.header = read_header(&packet)
            if f.header.transforms:
                raise ProtocolError(f"a frame with transforms {f.header.transforms.hex(' ')}: streams have none")
            text = f.header.ints.get(KEY_FRAME_TYPE)
            if text not in TYPES:
                raise ProtocolError(f"a frame of type {text!r}: there are 1 to 5" if text is not None else "a frame without a type")
            f.type = TYPES[text]
        f.payload = PyBytes_FromStringAndSize(<const char*>packet.p, packet.end - packet.p)
        c.p = packet.end
        return f


cdef bint is_plain_data(const uint8_t* p, const uint8_t* end) noexcept:
    """Do these infos say no more than that it is a Data frame? Then nothing of them needs to be an object. Anything odd is not plain."""
    cdef int count, key, type = 0
    cdef Py_ssize_t size
    if end - p < 2 or p[0] != ID_STRUCT or p[1] != 0:
        return False
    p += 2
    while p < end:
        if p[0] == BLOCK_PADDING:
            p += 1
            continue
        if p[0] != BLOCK_INTS or end - p < 3:
            return False
        count = get16(p + 1)
        p += 3
        while count > 0:
            if end - p < 4:
                return False
            key = get16(p)
            size = get16(p + 2)
            p += 4
            if end - p < size:
                return False
            if key == KEY_FRAME_TYPE:
                if size != 1:
                    return False
                type = p[0]
            p += size
            count -= 1
    return type == c'3'


# ---- writing -------------------------------------------------------------------------------------------------------------


cdef int write_frame(WriteBuffer out, int type, int32_t sid, str method, dict ints, dict strings, bytes payload) except -1:
    """Write a frame; EncodeError when an info does not fit. The buffer is as before when it fails."""
    cdef Py_ssize_t start
    cdef dict infos = {KEY_TO_METHOD: method, KEY_FRAME_TYPE: DIGITS[type]}
    if ints:
        infos.update(ints)
    start = begin_header(out, sid, STREAMING, infos, strings, NULL, b"")
    out.p[start + HEADER_FIXED] = ID_STRUCT
    if payload is not None:
        try:
            out.append(PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        except BaseException:
            out.truncate(start)
            raise
    end_header(out, start, 0)
    return 0


def dumps(int type, int32_t sid, str method not None, *, dict ints=None, dict strings=None, bytes payload=b""):
    """One frame as bytes. EncodeError when an info does not fit."""
    cdef WriteBuffer out = WriteBuffer()
    if type not in FRAME_NAMES:
        raise ValueError(f"no frame has type {type}")
    write_frame(out, type, sid, method, ints, strings, payload)
    return out.take()


def exception_payload(str method not None, int32_t sid, int type, str message not None):
    """What a Trailer or Rst has for payload when something went wrong: a Thrift EXCEPTION message."""
    cdef WriteBuffer out = WriteBuffer()
    cdef bytes name = method.encode("utf-8", "surrogateescape")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    reserve(out, 12 + size)
    put32(out.p, 0x80010000 | EXCEPTION)
    put32(out.p + 4, <uint32_t>size)
    memcpy(out.p + 8, PyBytes_AS_STRING(name), size)
    put32(out.p + 8 + size, <uint32_t>sid)
    out.n = 12 + size
    write_application_error(out, type, message, 0)
    return out.take()


def read_exception(bytes payload not None):
    """``(type number, message)`` of such a payload; ProtocolError when it is none."""
    cdef Head head
    cdef Cursor c
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(payload)
    c.end = p + PyBytes_GET_SIZE(payload)
    if read_head(&p, c.end, &head) == 0:
        raise ProtocolError("the exception at the end of a stream ends in its head")
    if head.type != EXCEPTION or head.protobuf or head.compact:
        raise ProtocolError(f"a stream ended with a message of type {head.type} that is no exception")
    c.p = p
    return read_application_error(&c, &head)


def business_status(dict strings not None):
    """The BusinessError that these strings of a Trailer carry, a ProtocolError if it cannot be read, or None."""
    return read_business_status(strings) if strings.get("biz-status") else None


# ---- messages ------------------------------------------------------------------------------------------------------------


cdef class StreamMethod:
    """One method of a Thrift service. `spec` is its MethodSpec; `target` the owner's own.

    A message of a stream is the struct itself. Where the IDL says something else than a struct, which Kitex does not know, it travels in the
    wrapper that calls have for arguments and results; and so do those of a method that does not stream.
    """

    def __init__(self, spec not None, target=None, *, int64_t max_decoded=DEFAULT_MAX_DECODED):
        self.spec = spec
        self.name = spec.name.encode()
        self.target = target
        self.max_decoded = max_decoded
        self.client_streaming = spec.client_streaming
        self.server_streaming = spec.server_streaming
        self.args = spec.args_plan
        self.result = spec.result_plan
        if self.client_streaming or self.server_streaming:
            self.request = struct_plan(spec.args[0].type)
            self.reply = struct_plan(spec.result)
        self.head = dumps(DATA, 0, spec.name)

    cdef tuple read_args(self, bytes payload):
        """What a handler of one request is called with."""
        cdef Cursor c
        if self.request is not None:
            return (self.read_request(payload),)
        start(&c, payload)
        grant(self.max_decoded)
        return self.args.decode(&c, False)

    cdef object read_request(self, bytes payload):
        cdef Cursor c
        if self.request is None:
            return self.read_args(payload)[0]
        start(&c, payload)
        grant(self.max_decoded)
        return self.request.decode(&c, False)

    cdef object read_reply(self, bytes payload):
        """A message of the answer. Raises an exception of the IDL that stands in its place, of a method that does not stream."""
        cdef Cursor c
        start(&c, payload)
        grant(self.max_decoded)
        if self.reply is not None:
            return self.reply.decode(&c, False)
        return self.result.decode(&c, False)

    cdef int write_request(self, object value, int32_t sid, WriteBuffer out, Py_ssize_t limit) except -1:
        cdef Py_ssize_t at = out.n
        if self.request is None:
            return self.write_args((value,), sid, out, limit)
        try:
            begin_data(out, self.head, sid)
            self.request.encode(value, out, False)
            return self.finish(out, at, limit)
        except BaseException:
            out.truncate(at)
            raise

    cdef int write_args(self, tuple args, int32_t sid, WriteBuffer out, Py_ssize_t limit) except -1:
        cdef Py_ssize_t at = out.n
        if self.request is not None:
            return self.write_request(args[0], sid, out, limit)
        try:
            begin_data(out, self.head, sid)
            self.args.encode(args, out, False)
            return self.finish(out, at, limit)
        except BaseException:
            out.truncate(at)
            raise

    cdef int write_reply(self, object value, int32_t sid, WriteBuffer out, Py_ssize_t limit) except -1:
        cdef Py_ssize_t at = out.n
        try:
            begin_data(out, self.head, sid)
            if self.reply is not None:
                self.reply.encode(value, out, False)
            else:
                self.result.encode_value(value, out, False)
            return self.finish(out, at, limit)
        except BaseException:
            out.truncate(at)
            raise

    cdef int finish(self, WriteBuffer out, Py_ssize_t at, Py_ssize_t limit) except -1:
        cdef Py_ssize_t size = out.n - at - PyBytes_GET_SIZE(self.head)
        if size > limit:
            raise EncodeError(f"a message of {size} bytes is longer than the limit of {limit}", self.spec.name)
        end_header(out, at, 0)
        return 0

    # For tests, tools and clients in plain Python.

    def request_frame(self, tuple args not None, int32_t sid, Py_ssize_t limit=DEFAULT_MAX_MESSAGE):
        """The Data frame of a request; of a method that streams, `args` has one message. EncodeError when it does not fit the IDL."""
        cdef WriteBuffer out = WriteBuffer()
        self.write_args(args, sid, out, limit)
        return out.take()

    def reply_frame(self, value, int32_t sid, Py_ssize_t limit=DEFAULT_MAX_MESSAGE):
        """The Data frame of an answer."""
        cdef WriteBuffer out = WriteBuffer()
        self.write_reply(value, sid, out, limit)
        return out.take()

    def request_args(self, bytes payload not None):
        """The arguments in a Data frame's payload; ProtocolError when they cannot be read."""
        return self.read_args(payload)

    def reply_value(self, bytes payload not None):
        """The value in a Data frame's payload; ProtocolError when it cannot be read."""
        return self.read_reply(payload)

    def __repr__(self):
        return f"<StreamMethod {self.spec.name}>"


cdef inline void start(Cursor* c, bytes payload) noexcept:
    c.p = <const uint8_t*>PyBytes_AS_STRING(payload)
    c.end = c.p + PyBytes_GET_SIZE(payload)


cdef inline int begin_data(WriteBuffer out, bytes head, int32_t sid) except -1:
    cdef uint8_t* p
    cdef Py_ssize_t size = PyBytes_GET_SIZE(head)
    reserve(out, size)
    p = out.p + out.n
    memcpy(p, PyBytes_AS_STRING(head), size)
    put32(p + 8, <uint32_t>sid)
    out.n += size
    return 0


cdef StructPlan struct_plan(object type):
    """The plan of a message that is a struct, else None."""
    return type.cls.__plan__ if isinstance(type, StructType) else None

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""gRPC on HTTP/2, without sockets (`PROTOCOL-HTTP2.md` of gRPC): messages in a stream, and what the fields around them mean.

A message is a byte that says whether it is compressed, four bytes of length, and its bytes; DATA frames cut it anywhere. A GrpcStream puts it together,
both roles, and looks at its length before it makes room for it.

Metadata is text by name as everywhere in weego. A name that ends with "-bin" carries bytes: its text is their base64, with padding, as `codec.metadata`
passes it on; `binary_value` and `text_of_binary` translate. Kitex's metainfo keeps the spelling it has on TTHeader (``RPC_PERSIST_KEY``) and travels as
Kitex sends it (``rpc-persist-key``).
"""

import base64
import binascii

from codec.buffer cimport get32, put32, reserve
from codec.h2.connection cimport DATA, END_STREAM, put_frame_head
from codec.h2.hpack cimport AUTHORITY, BINARY, Field, OTHER, USER_AGENT
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from codec.errors import Code, EncodeError, ProtocolError, ResourceExhausted

cdef enum:
    PREFIX = 5
    FRAME_HEAD = 9
    # Of a grpc-timeout, at most, and the number they can write.
    DIGITS = 8
    MOST_UNITS = 99999999
    # A message of this length or less gets its room at once: as much may come without our leave, in the stream's first window.
    AT_ONCE = 1 << 20

# Units of grpc-timeout, the smallest first, and how many a second has.
cdef const char* UNITS = "numSMH"
cdef double[6] PER_SECOND = [1e9, 1e6, 1e3, 1.0, 1 / 60.0, 1 / 3600.0]

DEFAULT_MAX_MESSAGE = 4 * 2**20
"""Bytes of one message, unless the configuration says otherwise: what grpcio and grpc-go allow."""

cdef Py_ssize_t LONGEST = DEFAULT_MAX_MESSAGE

LONGEST_TIMEOUT = 1e10
"""Seconds; a longer timeout is none at all. 99999999H, the longest that can be written, is."""

TRANSIT, PERSIST = "RPC_TRANSIT_", "RPC_PERSIST_"

# Fields that belong to HTTP/2 or gRPC and not to the user.
RESERVED = frozenset((
    "content-type", "te", "content-length", "host", "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade",
    "user-agent",
))


cdef class GrpcStream(Stream):
    """One call: its messages in both directions."""

    def __cinit__(self):
        self.max_message = LONGEST

    cdef int on_data(self, const uint8_t* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t more
        cdef int told = 0
        if self.failure is not None:
            return 0
        self.size += n
        while n > 0:
            if self.partial is None and self.growing is None:
                if self.prefix_filled == 0 and n >= PREFIX:
                    more = get32(p + 1)
                    if p[0] == 0 and more <= n - PREFIX and more <= self.max_message:
                        # The usual case: all of it is here.
                        self.whole(PyBytes_FromStringAndSize(<const char*>p + PREFIX, more))
                        p += PREFIX + more
                        n -= PREFIX + more
                        told = self.eager
                        continue
                    self.begin_message(p)
                    p += PREFIX
                    n -= PREFIX
                else:
                    more = min(n, PREFIX - self.prefix_filled)
                    memcpy(self.prefix + self.prefix_filled, p, more)
                    self.prefix_filled += more
                    p += more
                    n -= more
                    if self.prefix_filled < PREFIX:
                        return told
                    self.prefix_filled = 0
                    self.begin_message(self.prefix)
                if self.failure is not None:
                    return 1
            more = min(n, self.wanted - self.filled)
            if self.partial is not None:
                memcpy(PyBytes_AS_STRING(self.partial) + self.filled, p, more)
            else:
                self.growing.append(p, more)
            self.filled += more
            p += more
            n -= more
            if self.filled == self.wanted:
                payload = self.partial if self.partial is not None else self.growing.take()
                self.partial = None
                self.growing = None
                self.whole((payload,) if self.partial_compressed else payload)
                told = self.eager
        return told

    cdef int begin_message(self, const uint8_t* prefix) except -1:
        cdef Py_ssize_t length = get32(prefix + 1)
        if prefix[0] > 1:
            return self.fail(ProtocolError(f"a message begins with {prefix[0]:#04x}, which is no compressed-flag", code=Code.INTERNAL))
        if length > self.max_message:
            return self.fail(ResourceExhausted(f"a message of {length} bytes is longer than the limit of {self.max_message}"))
        self.partial_compressed = prefix[0]
        self.wanted = length
        self.filled = 0
        if length <= AT_ONCE:
            self.partial = PyBytes_FromStringAndSize(NULL, length)
        else:
            self.growing = WriteBuffer()
        return 0

    cdef int whole(self, payload) except -1:
        cdef Py_ssize_t size = len(payload[0]) if type(payload) is tuple else PyBytes_GET_SIZE(payload)
        if self.ready == 0:
            self.first = payload
        else:
            if self.later is None:
                self.later = []
            self.later.append(payload)
        self.ready += 1
        self.connection.messages_received += 1
        self.held += size
        self.connection.held += size
        self.connection.productive()
        return 0

    cdef int fail(self, object failure) except -1:
        self.failure = failure
        self.partial = None
        self.growing = None
        return 0

    cdef int on_end(self) except -1:
        if self.failure is None and (self.prefix_filled or self.partial is not None or self.growing is not None):
            self.fail(ProtocolError("the stream ends inside a message", code=Code.INTERNAL))
        return 1

    cdef object take_message(self):
        """The next whole message: bytes, or a tuple of bytes if it is compressed; None when there is none. The windows open again."""
        if self.ready == 0:
            return None
        payload = self.first
        self.ready -= 1
        self.first = self.later.pop(0) if self.ready else None
        self.connection.take(self, len(payload[0]) if type(payload) is tuple else PyBytes_GET_SIZE(payload))
        return payload

    cdef int drop_messages(self) except -1:
        self.ready = 0
        self.first = self.later = None
        return 0

    @property
    def messages(self):
        """Whole messages not taken yet, as a list."""
        return [] if self.ready == 0 else [self.first, *(self.later or ())]

    cdef int send_answer(self, tuple head, bytes payload, tuple trailers) except -1:
        cdef H2Connection c = self.connection
        cdef Py_ssize_t size = PREFIX + PyBytes_GET_SIZE(payload)
        cdef uint8_t* o
        cdef WriteBuffer out
        if (self.queue is not None or not self.is_open or self.local_done or c.dead
                or size > c.send_window or size > self.send_window() or size > c.longest_frame() or not c.has_room_now()):
            if head is not None:
                c.send_fields(self, head, False)
            self.send_message(payload, False, False)
            return c.send_fields(self, trailers, True)
        # The usual case: three frames, written in one go.
        out = c.sink.writer()
        if head is not None:
            c.append_fields(out, self.id, head, False)
        reserve(out, FRAME_HEAD + size)
        o = out.p + out.n
        put_frame_head(o, size, DATA, 0, self.id)
        o[FRAME_HEAD] = 0
        put32(o + FRAME_HEAD + 1, <uint32_t>(size - PREFIX))
        memcpy(o + FRAME_HEAD + PREFIX, PyBytes_AS_STRING(payload), size - PREFIX)
        out.n += FRAME_HEAD + size
        c.append_fields(out, self.id, trailers, True)
        c.sink.wrote()
        c.sent_data(self, size)
        self.sent += size
        c.messages_sent += 1
        self.local_done = True
        return c.local_end(self)

    cdef int send_message(self, bytes payload, bint compressed, bint end) except -1:
        """Send one message; what no window allows waits."""
        cdef H2Connection c = self.connection
        cdef Py_ssize_t n = PyBytes_GET_SIZE(payload), first
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(payload)
        cdef uint8_t* o
        cdef WriteBuffer out
        if not self.is_open or self.local_done or c.dead:
            return 0
        self.sent += PREFIX + n
        c.messages_sent += 1
        first = min(PREFIX + n, c.longest_frame())
        if self.queue is None and first <= c.send_window and first <= self.send_window() and c.has_room_now():
            out = c.sink.writer()
            reserve(out, FRAME_HEAD + first)
            o = out.p + out.n
            put_frame_head(o, first, DATA, END_STREAM if end and first == PREFIX + n else 0, self.id)
            o[FRAME_HEAD] = compressed
            put32(o + FRAME_HEAD + 1, <uint32_t>n)
            memcpy(o + FRAME_HEAD + PREFIX, p, first - PREFIX)
            out.n += FRAME_HEAD + first
            c.sink.wrote()
            c.sent_data(self, first)
            first -= PREFIX
            if first < n:
                return c.send_data(self, p + first, n - first, end, payload)
            if end:
                self.local_done = True
                return c.local_end(self)
            return 0
        framed = PyBytes_FromStringAndSize(NULL, PREFIX + n)
        o = <uint8_t*>PyBytes_AS_STRING(framed)
        o[0] = compressed
        put32(o + 1, <uint32_t>n)
        memcpy(o + PREFIX, p, n)
        return c.send_data(self, o, PREFIX + n, end, framed)

    def next_message(self):
        """`take_message` for Python."""
        return self.take_message()

    def write_message(self, bytes payload not None, bint compressed=False, bint end=False):
        """`send_message` for Python."""
        self.send_message(payload, compressed, end)


cdef class GrpcConnection(H2Connection):
    """An H2Connection whose streams are GrpcStreams: for tests, and for who needs no stream class of his own."""

    cdef Stream new_stream(self):
        return GrpcStream.__new__(GrpcStream)


# ---- grpc-timeout ------------------------------------------------------------------------------------------------------


cdef double parse_timeout(bytes value) noexcept:
    """Seconds of a grpc-timeout, or -1 if it is none: at most eight digits and a unit."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(value)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(value), i
    cdef double number = 0
    if n < 2 or n > 9:
        return -1
    for i in range(n - 1):
        if not c'0' <= p[i] <= c'9':
            return -1
        number = number * 10 + (p[i] - c'0')
    i = p[n - 1]
    if i == c'm':
        return number * 1e-3
    if i == c'S':
        return number
    if i == c'u':
        return number * 1e-6
    if i == c'n':
        return number * 1e-9
    if i == c'M':
        return number * 60
    if i == c'H':
        return number * 3600
    return -1


def timeout_seconds(bytes value not None):
    """Seconds of a grpc-timeout, or None if the text is none."""
    cdef double found = parse_timeout(value)
    return None if found < 0 else found


cpdef bytes timeout_text(double seconds):
    """A timeout as grpc-timeout: in the smallest unit in which it has at most eight digits, rounded up; never negative."""
    cdef char text[DIGITS + 1]
    cdef int at = DIGITS, unit = 0
    cdef double number = seconds * 1e9
    cdef int64_t whole
    if seconds <= 0:
        return b"0n"
    while number > MOST_UNITS:
        unit += 1
        if UNITS[unit] == 0:
            return b"99999999H"
        number = seconds * PER_SECOND[unit]
    whole = <int64_t>number
    if whole != number:
        whole += 1
    text[at] = UNITS[unit]
    while True:
        at -= 1
        text[at] = c"0" + whole % 10
        whole //= 10
        if not whole:
            break
    return PyBytes_FromStringAndSize(text + at, DIGITS + 1 - at)


# ---- grpc-message ------------------------------------------------------------------------------------------------------


def message_bytes(str text not None):
    """A status message as a field: UTF-8 with all but printable ASCII, and the percent sign, escaped."""
    data = text.encode("utf-8", "replace")
    if text.isascii() and text.isprintable() and "%" not in text:
        return data
    return b"".join([b"%c" % c if 0x20 <= c <= 0x7E and c != 0x25 else b"%%%02X" % c for c in data])


def message_text(bytes value not None):
    """The status message of a field; what is wrongly escaped stays as it is."""
    if b"%" not in value:
        return value.decode("utf-8", "replace")
    parts = value.split(b"%")
    out = [parts[0]]
    for part in parts[1:]:
        try:
            out.append(binascii.unhexlify(part[:2]) + part[2:])
        except binascii.Error:
            out.append(b"%" + part)
    return b"".join(out).decode("utf-8", "replace")


# ---- metadata ----------------------------------------------------------------------------------------------------------


def text_of_binary(bytes value not None):
    """Bytes as the text of a "-bin" name."""
    return base64.b64encode(value).decode()


cdef str padded(str text):
    return text + "=" * ((4 - len(text) % 4) % 4)


def binary_value(str text not None):
    """The bytes of a "-bin" name. ProtocolError if the text is no base64, with padding or without."""
    try:
        return base64.b64decode(padded(text), validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("a -bin value is no base64", code=Code.INTERNAL) from None


cdef object pair_of(Field f):
    """``(name, value)`` of a field of the user's, or a list of them; made once for a field that the table remembers."""
    cdef str name = f.name.decode("latin-1"), value = f.value.decode("latin-1")
    if name.startswith("rpc-transit-") or name.startswith("rpc-persist-"):
        return (name.upper().replace("-", "_"), value)
    if f.kind == BINARY:
        # Several values of a name may be joined by commas, which base64 does not have.
        return [(name, padded(each)) for each in [part.strip() for part in value.split(",")]]
    return (name, value)


def metadata_pairs(list fields not None):
    """What fields say to the user: names and values in order, without what belongs to HTTP/2 and gRPC."""
    cdef Field f
    found = []
    for each in fields:
        f = <Field>each
        if f.kind == OTHER or f.kind == BINARY or f.kind == USER_AGENT:
            if f.parsed is None:
                f.parsed = pair_of(f)
            if type(f.parsed) is list:
                found.extend(f.parsed)
            else:
                found.append(f.parsed)
    return found


def metadata_fields(items not None):
    """Names and values of the user's as fields to send. A value may be a string, a list of strings, or for "-bin" names bytes.

    EncodeError when a name or a value cannot travel, or the name is gRPC's own.
    """
    found = []
    for name, value in items:
        if name.startswith(TRANSIT) or name.startswith(PERSIST):
            name = name.replace("_", "-")
        lower = name.lower()
        if lower in RESERVED or lower.startswith(":") or lower.startswith("grpc-"):
            raise EncodeError(f"metadata {name!r} is not the user's to set", name)
        for each in value if isinstance(value, (list, tuple)) else (value,):
            found.append(field_of(lower, each))
    return found


cdef tuple field_of(str name, value):
    cdef Field f
    if name.endswith("-bin"):
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = base64.b64encode(value).rstrip(b"=")
        elif isinstance(value, str):
            binary_value(value)
            value = value.rstrip("=").encode()
        else:
            raise EncodeError(f"metadata {name!r} takes bytes, not {type(value).__name__}", name)
    elif not isinstance(value, str):
        raise EncodeError(f"metadata {name!r} takes a string, not {type(value).__name__}", name)
    else:
        try:
            value = value.encode("ascii")
        except UnicodeEncodeError:
            raise EncodeError(f"metadata {name!r} takes printable ASCII; give a name that ends with -bin bytes", name) from None
        if not all([0x20 <= c <= 0x7E for c in value]):
            raise EncodeError(f"metadata {name!r} takes printable ASCII; give a name that ends with -bin bytes", name)
    try:
        f = Field(name.encode("ascii"), value)
    except UnicodeEncodeError:
        f = None
    if f is None or not f.is_valid:
        raise EncodeError(f"{name!r} is no name of metadata: letters, digits, '-', '_' and '.'", name)
    return (f.name, f.value)


def find_field(list fields not None, int kind):
    """The value of the first field of a Kind, or None."""
    cdef Field f
    for each in fields:
        f = <Field>each
        if f.kind == kind:
            return f.value
    return None

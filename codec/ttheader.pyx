# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TTHeader: the header that Kitex puts before a Thrift or Protobuf message.

    0  u32  LENGTH: bytes after this field       14  u8  protocol id
    4  u16  magic 0x1000                         15  u8  number of transforms, then one byte each
    6  u16  flags                                    info blocks: 0x01 string pairs, 0x10 int-keyed pairs, 0x11 ACL token
    8  i32  sequence id                              zero padding to a multiple of 4
    12 u16  size of what follows from 14, in words   payload

Source: cloudwego/gopkg `protocol/ttheader` (encode.go, decode.go, metakey.go).
"""

from codec.buffer cimport get16, get32, left, put16, put32, reserve
from codec.crc32c cimport crc32c_of
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from codec.errors import EncodeError, ProtocolError, ProtocolErrorKind

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    MAGIC = 0x1000
    BLOCK_PADDING = 0x00
    BLOCK_STRINGS = 0x01
    BLOCK_INTS = 0x10
    BLOCK_ACL = 0x11
    MAX_VALUE = 65535      # a u16 length stands before each key and value
    MAX_QUOTE = 100        # bytes of an over-long value that an error quotes, as Kitex does

# Where the ACL token, which has no key on the wire, is kept among the strings (gopkg `GDPRToken`).
ACL_KEY = "RPC_TRANSIT_gdpr-token"

cdef str CHECKSUM = "crc32c"

# Protocol ids that Kitex accepts (gopkg `checkProtocolID`), and 0x02, Thrift compact, which it refuses and THeader has.
cdef frozenset PROTOCOL_IDS = frozenset((0x00, 0x02, 0x03, 0x04, 0x10, 0x11))


class IntKey:
    """Numbers of the int-keyed infos (gopkg `metakey.go`)."""

    TRANSPORT_TYPE = 1
    LOG_ID = 2
    FROM_SERVICE = 3
    TO_SERVICE = 6
    TO_METHOD = 9
    RPC_TIMEOUT = 12
    CONNECT_TIMEOUT = 17
    FROM_METHOD = 20
    MSG_TYPE = 22


class StringKey:
    """Names of the string infos that carry a meaning of their own."""

    SERVICE = "isn"
    RESET = "crrst"
    BUSINESS_STATUS = "biz-status"
    BUSINESS_MESSAGE = "biz-message"
    BUSINESS_EXTRA = "biz-extra"
    CHECKSUM = "crc32c"
    PERSISTENT = "RPC_PERSIST_"
    TRANSIENT = "RPC_TRANSIT_"


cdef class Header:
    """One TTHeader: sequence id, flags, protocol id, and the infos as `strings` (str → str) and `ints` (int → str)."""

    def __cinit__(self):
        self.seqid = 0
        self.flags = 0
        self.protocol_id = 0
        self.transforms = b""

    def __init__(self, seqid=0, flags=0, ints=None, strings=None):
        self.seqid = seqid
        self.flags = flags
        self.ints = {} if ints is None else ints
        self.strings = {} if strings is None else strings

    def __eq__(self, other):
        if not isinstance(other, Header):
            return NotImplemented
        cdef Header o = other
        return (self.seqid, self.flags, self.protocol_id, self.ints, self.strings) == (
            o.seqid, o.flags, o.protocol_id, o.ints, o.strings)

    def __repr__(self):
        return f"Header(seqid={self.seqid}, flags={self.flags:#06x}, ints={self.ints!r}, strings={self.strings!r})"


cdef str read_text(const uint8_t** p, const uint8_t* end, str what):
    cdef Py_ssize_t n
    if end - p[0] < 2:
        raise ProtocolError(f"TTHeader: the info area ends in the middle of a {what}")
    n = get16(p[0])
    p[0] += 2
    if end - p[0] < n:
        raise ProtocolError(f"TTHeader: the info area ends in the middle of a {what} of {n} bytes")
    # Values are opaque bytes for Kitex; surrogateescape keeps them whole through str.
    text = PyUnicode_DecodeUTF8(<const char*>p[0], n, "surrogateescape")
    p[0] += n
    return text


cdef Header read_header(Cursor* c):
    """Read the header of the whole packet `c`; ProtocolError when it breaks a rule."""
    cdef Header h = Header.__new__(Header)
    cdef Py_ssize_t size
    cdef const uint8_t* p = c.p
    cdef const uint8_t* end
    cdef int count, i, block, transforms
    cdef uint16_t key
    if left(c) < HEADER_FIXED:
        raise ProtocolError(f"TTHeader: packet of {left(c)} bytes is shorter than the fixed part of {HEADER_FIXED}")
    h.flags = get16(p + 6)
    h.seqid = <int32_t>get32(p + 8)
    size = get16(p + 12) * 4
    if size < 2:
        raise ProtocolError("TTHeader: info size 0 leaves no room for the protocol id")
    p += HEADER_FIXED
    if c.end - p < size:
        raise ProtocolError(f"TTHeader: info area of {size} bytes is longer than the packet")
    end = p + size
    h.protocol_id = p[0]
    if h.protocol_id not in PROTOCOL_IDS:
        raise ProtocolError(f"TTHeader: unsupported protocol id {h.protocol_id:#04x}")
    transforms = p[1]
    p += 2
    if end - p < transforms:
        raise ProtocolError(f"TTHeader: {transforms} transforms do not fit into the info area")
    h.transforms = (<const char*>p)[:transforms] if transforms else b""
    p += transforms
    h.strings = {}
    h.ints = {}
    while p < end:
        block = p[0]
        p += 1
        if block == BLOCK_PADDING:
            continue
        if block == BLOCK_ACL:
            h.strings[ACL_KEY] = read_text(&p, end, "ACL token")
            continue
        if block != BLOCK_STRINGS and block != BLOCK_INTS:
            raise ProtocolError(f"TTHeader: unknown info block {block:#04x}")
        if end - p < 2:
            raise ProtocolError("TTHeader: the info area ends before the number of pairs")
        count = get16(p)
        p += 2
        for i in range(count):
            if block == BLOCK_STRINGS:
                name = read_text(&p, end, "key")
                h.strings[name] = read_text(&p, end, "value")
            else:
                if end - p < 2:
                    raise ProtocolError("TTHeader: the info area ends in the middle of an int key")
                key = get16(p)
                p += 2
                h.ints[key] = read_text(&p, end, "value")
    c.p = end
    return h


cdef int write_text(WriteBuffer out, object text) except -1:
    cdef Py_ssize_t n
    cdef const char* s
    cdef bytes raw
    if not isinstance(text, str):
        raise EncodeError(f"TTHeader keys and values are str, got {type(text).__name__}")
    try:
        s = PyUnicode_AsUTF8AndSize(text, &n)
    except UnicodeEncodeError:
        try:
            raw = (<str>text).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise EncodeError(f"TTHeader text has no UTF-8 form: {error.reason} at character {error.start}") from None
        s = raw
        n = len(raw)
    if n > MAX_VALUE:
        raise EncodeError(f"TTHeader value of {n} bytes is longer than {MAX_VALUE}: {text[:MAX_QUOTE]!r}…")
    reserve(out, n + 2)
    put16(out.p + out.n, <uint16_t>n)
    memcpy(out.p + out.n + 2, s, n)
    out.n += n + 2
    return 0


cdef Py_ssize_t begin_header(WriteBuffer out, int32_t seqid, int flags, dict ints, dict strings, Py_ssize_t* sum, bytes transforms) except -1:
    """Write a header; EncodeError when an info does not fit. The buffer is as before when it fails."""
    cdef Py_ssize_t start = out.n, info, size, pairs
    reserve(out, HEADER_FIXED + 2 + len(transforms))
    put32(out.p + start, 0)
    put16(out.p + start + 4, MAGIC)
    put16(out.p + start + 6, <uint16_t>flags)
    put32(out.p + start + 8, <uint32_t>seqid)
    out.n += HEADER_FIXED
    info = out.n
    put16(out.p + out.n, <uint16_t>len(transforms))  # protocol id 0, as Kitex writes for every unary call
    out.n += 2
    if transforms:
        out.append(<const char*>transforms, len(transforms))
    try:
        if strings or sum != NULL:
            pairs = len(strings) if strings is not None else 0
            token = strings.get(ACL_KEY) if pairs else None
            if token is not None:
                pairs -= 1
                out.append(<const char*>b"\x11", 1)
                write_text(out, token)
            if sum != NULL:
                pairs += 1
            if pairs:
                write_count(out, BLOCK_STRINGS, pairs)
                if sum != NULL:
                    # A later pair of that name, such as one passed on by mistake, would win.
                    if strings is not None and CHECKSUM in strings:
                        strings = {key: value for key, value in strings.items() if key != CHECKSUM}
                        put16(out.p + out.n - 2, <uint16_t>(pairs - 1))
                    out.append(<const char*>b"\0\6crc32c\0\x0800000000", 18)
                    sum[0] = out.n - 8
                if strings:
                    for key, value in strings.items():
                        if token is None or key != ACL_KEY:
                            write_text(out, key)
                            write_text(out, value)
        if ints:
            write_count(out, BLOCK_INTS, len(ints))
            for number, value in ints.items():
                if not isinstance(number, int) or not 0 <= number <= MAX_VALUE:
                    raise EncodeError(f"TTHeader int keys are numbers from 0 to {MAX_VALUE}, got {number!r}")
                reserve(out, 2)
                put16(out.p + out.n, <uint16_t>number)
                out.n += 2
                write_text(out, value)
        size = out.n - info
        if size & 3:
            reserve(out, 4)
            memset(out.p + out.n, 0, 4 - (size & 3))
            out.n += 4 - (size & 3)
            size = out.n - info
        if size > MAX_INFO:
            raise EncodeError(f"TTHeader infos take {size} bytes, more than {MAX_INFO}")
    except BaseException:
        out.truncate(start)
        raise
    put16(out.p + start + 12, <uint16_t>(size >> 2))
    return start


cdef int write_count(WriteBuffer out, int block, Py_ssize_t pairs) except -1:
    if pairs > MAX_VALUE:
        raise EncodeError(f"TTHeader carries at most {MAX_VALUE} pairs in a block, got {pairs}")
    reserve(out, 3)
    out.p[out.n] = <uint8_t>block
    put16(out.p + out.n + 1, <uint16_t>pairs)
    out.n += 3
    return 0


cdef void end_header(WriteBuffer out, Py_ssize_t start, Py_ssize_t apart) noexcept:
    put32(out.p + start, <uint32_t>(out.n + apart - start - 4))


cdef int put_checksum(WriteBuffer out, Py_ssize_t start, Py_ssize_t sum) except -1:
    cdef Py_ssize_t payload = start + HEADER_FIXED + get16(out.p + start + 12) * 4
    cdef bytes digits = b"%08x" % crc32c_of(out.p + payload, out.n - payload, 0)
    memcpy(out.p + sum, <const char*>digits, 8)
    return 0


cdef int check_payload(Header header, const uint8_t* p, const uint8_t* end) except -1:
    wanted = header.strings.get(CHECKSUM)
    if not wanted:
        return 0
    found = "%08x" % crc32c_of(p, end - p, 0)
    if found != wanted:
        raise ProtocolError(
            f"TTHeader: the payload's checksum is {found}, the header says {wanted[:8]}: it was changed on its way", ProtocolErrorKind.INVALID_DATA)
    return 0


def loads(const uint8_t[::1] packet not None):
    """Decode one packet: ``(Header, payload bytes)``. ProtocolError when it breaks a rule."""
    cdef Cursor c
    if packet.shape[0] < 8:
        raise ProtocolError(f"TTHeader: packet of {packet.shape[0]} bytes is too short")
    c.p = &packet[0]
    c.end = c.p + packet.shape[0]
    if get16(c.p + 4) != MAGIC:
        raise ProtocolError(f"TTHeader: magic is {get16(c.p + 4):#06x}, not 0x1000")
    if <Py_ssize_t>get32(c.p) + 4 != packet.shape[0]:
        raise ProtocolError(f"TTHeader: LENGTH {get32(c.p)} does not fit a packet of {packet.shape[0]} bytes")
    header = read_header(&c)
    return header, (<const char*>c.p)[: c.end - c.p]


def dumps(Header header not None, bytes payload=b""):
    """Encode `header` before `payload`. EncodeError when an info does not fit."""
    cdef WriteBuffer out = WriteBuffer()
    start = begin_header(out, header.seqid, header.flags, header.ints, header.strings, NULL, header.transforms)
    out.append(<const char*>payload, len(payload))
    end_header(out, start, 0)
    return out.take()

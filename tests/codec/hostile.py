"""Messages that nobody should send, and what a server's protocol makes of each."""

from __future__ import annotations

import random
import struct

from codec.errors import ApplicationErrorType, ProtocolErrorKind
from tests.codec.thrift_wire import CALL, echo_args, field, framed, text, thrift, ttheader

_CALL = thrift("echo", CALL, 1, echo_args())
_HUGE = 2**31 - 1


def _length(n: int) -> bytes:
    return struct.pack("!I", n & 0xFFFFFFFF)


def _deep(kind: int, body: bytes, levels: int) -> bytes:
    return field(kind, 1, b"") + body * levels


def _claims(framing: str) -> dict[str, bytes]:
    """Calls whose bodies claim more than is there."""
    wrap = framed if framing == "framed" else bytes
    claim = struct.pack("!i", _HUGE)
    bodies = {
        "a list of 2^31-1 bytes": field(15, 1, b"\x03" + claim),
        "a list of 2^31-1 structs": field(15, 1, b"\x0c" + claim),
        "a set of 2^31-1 strings": field(14, 1, b"\x0b" + claim),
        "a map of 2^31-1 pairs": field(13, 1, b"\x08\x0c" + claim),
        "an unknown list of 2^31-1 structs": field(15, 99, b"\x0c" + claim),
        "an unknown list of 2^31-1 lists": field(15, 99, b"\x0f" + claim),
        "a string of 2^31-1 bytes": field(12, 1, field(11, 1, claim)),
        "an unknown string of 2^31-1 bytes": field(11, 99, claim),
        "a list of -1": field(15, 1, b"\x0a" + _length(-1)),
        "a map of -1": field(13, 2, b"\x0b\x08" + _length(-1)),
        "a string of -1": field(12, 1, field(11, 1, _length(-1))),
        "a map with types 0": field(13, 2, b"\0\0" + _length(5)),
        "a list of lists, 10 000 deep": field(15, 9, (b"\x0f" + _length(1)) * 10_000),
        "structs, 10 000 deep": field(12, 9, b"") * 10_000 + b"\0" * 10_001,
        "a type that does not exist": field(5, 1, b"") + b"\0" * 100,
        "type 255": field(255, 1, b"") + b"\0" * 100,
    }
    return {
        f"{framing}: {name}": wrap(thrift(method, CALL, 1, body))
        for name, body in bodies.items()
        for method in [method_for(name)]
    }


def method_for(name: str) -> str:
    """The method whose arguments make the claim one about a known field."""
    if "unknown" in name or "deep" in name or "type" in name:
        return "echo"
    if "list" in name:
        return "total"
    if "map" in name:
        return "tree"
    return "echo"


_BAD = ProtocolErrorKind.BAD_VERSION
_DATA = ProtocolErrorKind.INVALID_DATA
_SIZE = ProtocolErrorKind.SIZE_LIMIT
_NEGATIVE = ProtocolErrorKind.NEGATIVE_SIZE

REFUSED: dict[str, tuple[bytes, ProtocolErrorKind]] = {
    "HTTP GET": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", _BAD),
    "HTTP POST": (b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", _BAD),
    "TLS hello": (bytes.fromhex("1603010200010001fc0303") + bytes(500), _BAD),
    "TLS hello, short": (bytes.fromhex("160301007b010000770303") + bytes(200), _BAD),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", _BAD),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", _BAD),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", _BAD),
    "JSON": (b'{"jsonrpc": "2.0", "method": "echo"}', _BAD),
    "zeros": (bytes(100), _BAD),
    "ones": (b"\xff" * 100, _BAD),
    "noise": (random.Random(7).randbytes(1000), _BAD),
    "Kitex Protobuf without a frame": (bytes.fromhex("90010001000000044563686f000000070a026869"), _NEGATIVE),
    "THeader": (bytes.fromhex("000000300fff000000000001") + bytes(40), _BAD),
    "frame of 2 GiB, old head": (_length(_HUGE) + thrift("echo", CALL, 1, echo_args(), strict=False), _SIZE),
    "frame of -1, old head": (_length(-1) + thrift("echo", CALL, 1, echo_args(), strict=False), _NEGATIVE),
    "frame of 2 GiB, half a head": (_length(_HUGE) + _CALL[:7], _SIZE),
    "frame of 0": (_length(0) + _CALL, _DATA),
    "frame of 1": (_length(1) + _CALL, _DATA),
    "frame that ends in the head": (_length(15) + _CALL, _DATA),
    "frame without a method name": (framed(thrift("", CALL, 1, b"\0")), _DATA),
    "method name of 1 MiB": (framed(thrift("a" * (1 << 20), CALL, 1, b"\0")), _SIZE),
    "method name of 2 GiB": (framed(b"\x80\x01\x00\x01" + _length(_HUGE) + bytes(20)), _SIZE),
    "method name of -1": (framed(b"\x80\x01\x00\x01" + _length(-1) + bytes(20)), _NEGATIVE),
    "buffered method name of 2 GiB": (b"\x80\x01\x00\x01" + _length(_HUGE) + bytes(20), _SIZE),
    "buffered method name of -1": (b"\x80\x01\x00\x01" + _length(-1) + bytes(20), _NEGATIVE),
    "buffered, two versions": (b"\x80\x01\x00\x01" * 10, _NEGATIVE),
    "TTHeader of 2 GiB": (ttheader(_CALL, length=_HUGE), _SIZE),
    "TTHeader of -1": (ttheader(_CALL, length=0xFFFFFFFF), _NEGATIVE),
    "TTHeader of 0": (ttheader(_CALL, length=0), _DATA),
    "TTHeader in a TTHeader": (ttheader(ttheader(_CALL)), _BAD),
    "TTHeader frame beyond the packet": (ttheader(_length(_HUGE) + _CALL), _SIZE),
    "TTHeader with 65535 words": (ttheader(_CALL, words=65535), _DATA),
    "TTHeader with no words": (ttheader(_CALL, words=0), _DATA),
    "TTHeader with 65535 pairs that are not there": (ttheader(_CALL, b"\x01\xff\xff"), _DATA),
    "TTHeader with a protocol that there is not": (ttheader(_CALL, protocol=1), _DATA),
    "TTHeader streaming": (
        bytes.fromhex("00000028 1000 0002 00000001 0005 1000 10000200090006")
        + b"stream"
        + bytes.fromhex("001b000133 0b000100000002686900"),
        _SIZE,
    ),
}
"""What ends the connection without an answer, and as what kind of ProtocolError."""

ANSWERED: dict[str, tuple[bytes, int, bool]] = {
    "frame of 2 GiB": (_length(_HUGE) + _CALL, ApplicationErrorType.PROTOCOL_ERROR, True),
    "frame of -1": (_length(-1) + _CALL, ApplicationErrorType.PROTOCOL_ERROR, True),
    "frame of 16 MiB and one byte": (_length(16 * 2**20 + 1) + _CALL, ApplicationErrorType.PROTOCOL_ERROR, True),
    **{
        name: (data, ApplicationErrorType.PROTOCOL_ERROR, framing == "buffered")
        for framing in ("framed", "buffered")
        for name, data in _claims(framing).items()
    },
    "a reply": (framed(thrift("echo", 2, 1, echo_args())), ApplicationErrorType.INVALID_MESSAGE_TYPE, False),
    "a method name of binary": (
        framed(thrift(bytes(range(256)), CALL, 1, text("x"))),
        ApplicationErrorType.UNKNOWN_METHOD,
        False,
    ),
}
"""What is answered with an exception: its type, and whether the connection ends then."""

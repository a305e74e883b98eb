"""Thrift binary over plain sockets, written down here once more: the end-to-end tests do not use weego's own codec to judge weego.

Messages are framed and strict. A struct is a list of (field id, type, value); a list value is (element type, [values]).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Self

BOOL, BYTE, DOUBLE, I16, I32, I64, STRING, STRUCT, MAP, SET, LIST = 2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15
CALL, REPLY, EXCEPTION, ONEWAY = 1, 2, 3, 4
VERSION_1: Final = 0x80010000
PATIENCE: Final = 30.0

Field = tuple[int, int, Any]


def value(kind: int, given: Any) -> bytes:
    """One value."""
    match kind:
        case 2 | 3:
            return struct.pack("!b", given)
        case 4:
            return struct.pack("!d", given)
        case 6:
            return struct.pack("!h", given)
        case 8:
            return struct.pack("!i", given)
        case 10:
            return struct.pack("!q", given)
        case 11:
            raw = given.encode() if isinstance(given, str) else given
            return struct.pack("!i", len(raw)) + raw
        case 12:
            return fields(*given)
        case 14 | 15:
            element, items = given
            return struct.pack("!bi", element, len(items)) + b"".join(value(element, item) for item in items)
    raise ValueError(kind)


def fields(*given: Field) -> bytes:
    """A struct."""
    return b"".join(struct.pack("!bh", kind, number) + value(kind, what) for number, kind, what in given) + b"\0"


def message(name: str, body: bytes, *, seqid: int = 1, kind: int = CALL) -> bytes:
    """A strict message without frame."""
    raw = name.encode()
    return struct.pack("!Ii", VERSION_1 | kind, len(raw)) + raw + struct.pack("!i", seqid) + body


def frame(body: bytes) -> bytes:
    """`body` with its length."""
    return struct.pack("!I", len(body)) + body


def call(name: str, *given: Field, seqid: int = 1, kind: int = CALL) -> bytes:
    """A framed call."""
    return frame(message(name, fields(*given), seqid=seqid, kind=kind))


@dataclass(frozen=True)
class Answer:
    """A message that came: its name, type, sequence id and the bytes of its struct."""

    name: str
    kind: int
    seqid: int
    body: bytes

    @property
    def text(self) -> str:
        """The result, of a method that returns a string."""
        return self.raw.decode()

    @property
    def raw(self) -> bytes:
        """The result, of a method that returns string or binary."""
        assert self.kind == REPLY, self
        kind, number, size = struct.unpack_from("!bhi", self.body)
        assert (kind, number, len(self.body)) == (STRING, 0, 7 + size + 1), self
        return self.body[7 : 7 + size]

    @property
    def number(self) -> int:
        """The result, of a method that returns i32."""
        assert self.kind == REPLY, self
        kind, number, found = struct.unpack("!bhix", self.body)
        assert (kind, number) == (I32, 0)
        return int(found)

    @property
    def error(self) -> tuple[int, str]:
        """Type number and message of an application exception."""
        assert self.kind == EXCEPTION, self
        kind, number, size = struct.unpack_from("!bhi", self.body)
        assert (kind, number) == (STRING, 1), self
        text = self.body[7 : 7 + size].decode()
        kind, number, type_number, stop = struct.unpack("!bhib", self.body[7 + size :])
        assert (kind, number, stop) == (I32, 2, 0), self
        return type_number, text


def answer(body: bytes) -> Answer:
    """The message in a frame."""
    head, size = struct.unpack_from("!Ii", body)
    assert head & 0xFFFF0000 == VERSION_1, f"not a strict message: {body[:32]!r}"
    (seqid,) = struct.unpack_from("!i", body, 8 + size)
    return Answer(body[8 : 8 + size].decode(), head & 0xFF, seqid, body[12 + size :])


# ---------------------------------------------------------------- three ways to put a message on a connection


def ttheader(body: bytes, seqid: int) -> bytes:
    """`body` behind a TTHeader without anything in it: Thrift binary, no transforms, no infos."""
    return struct.pack("!IHHiHBBH", 14 + len(body), 0x1000, 0, seqid, 1, 0, 0, 0) + body


def pack(framing: str, name: str, *given: Field, seqid: int, kind: int = CALL) -> bytes:
    """A call, buffered, framed or ttheader."""
    body = message(name, fields(*given), seqid=seqid, kind=kind)
    return {"buffered": body, "framed": frame(body), "ttheader": ttheader(body, seqid)}[framing]


def cut(framing: str, got: bytearray) -> bytes | None:
    """Take the first whole message off `got`; None while it is not all there."""
    if framing == "buffered":
        end = end_of_message(got)
        start = 0
    else:
        if len(got) < 4:
            return None
        end, start = struct.unpack_from("!I", got)[0] + 4, 4
        if len(got) < end:
            return None
        if framing == "ttheader":
            magic, _, _, words = struct.unpack_from("!HHiH", got, 4)
            assert magic == 0x1000, bytes(got[:16])
            start = 14 + 4 * words
    if end is None:
        return None
    body = bytes(got[start:end])
    del got[:end]
    return body


def end_of_message(got: bytearray) -> int | None:
    """Where a message without frame ends, if its struct has only strings and numbers; None if it has not come yet."""
    sizes = {BOOL: 1, BYTE: 1, DOUBLE: 8, I16: 2, I32: 4, I64: 8}
    try:
        (size,) = struct.unpack_from("!i", got, 4)
        at = 12 + size
        while True:
            kind = got[at]
            if kind == 0:
                return at + 1
            at += 3
            if kind == STRING:
                at += 4 + struct.unpack_from("!i", got, at)[0]
            else:
                at += sizes[kind]
            if at > len(got):
                return None
    except (IndexError, struct.error):
        return None


class Closed(ConnectionError):
    """The server ended the connection; `got` is what came of the frame."""

    def __init__(self, got: bytes) -> None:
        super().__init__(f"the server closed the connection after {got[:64]!r}")
        self.got = got


class Wire:
    """One framed connection."""

    def __init__(self, address: str, *, receive_buffer: int = 0) -> None:
        is_unix = address.startswith("unix://")
        self.socket = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        self.seqids = count(1)
        try:
            if is_unix:
                self.socket.connect(address.removeprefix("unix://"))
                return
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            self.socket.connect((host, int(port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.socket.close()
            raise

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def receive(self) -> Answer:
        """The next frame."""
        (size,) = struct.unpack("!I", self.exactly(4))
        return answer(self.exactly(size))

    def call(self, name: str, *given: Field) -> Answer:
        """A call and its answer."""
        seqid = next(self.seqids)
        self.send(call(name, *given, seqid=seqid))
        found = self.receive()
        assert (found.name, found.seqid) == (name, seqid), found
        return found

    def tell(self, text: str = "?") -> tuple[int, int]:
        """Version of the code and pid of the worker that answers."""
        return told(self.call("tell", (1, STRING, text)).text, text)

    def exactly(self, size: int) -> bytes:
        """So many bytes. Closed if they do not come."""
        data = bytearray()
        while len(data) < size:
            try:
                chunk = self.socket.recv(min(size - len(data), 1 << 20))
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise Closed(bytes(data))
            data += chunk
        return bytes(data)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        data = bytearray()
        while True:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                return bytes(data)
            data += chunk

    def close(self) -> None:
        """Close, orderly."""
        self.socket.close()

    def reset(self) -> None:
        """Close with RST, which leaves no TIME_WAIT behind."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def told(text: str, expected: str) -> tuple[int, int]:
    """Version and pid in an answer of `tell` or `wait`."""
    head, _, rest = text.partition(": ")
    assert rest == expected, f"{text!r} is no answer to {expected!r}"
    version, pid = head.split()
    return int(version), int(pid)

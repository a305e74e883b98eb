"""Frames by hand, a server of ours to feed them to, and what it answered."""

from __future__ import annotations

import struct
from typing import NamedTuple

import hpack

from codec.buffer import ReadBuffer
from codec.h2.connection import BufferSink, H2Connection, Stream
from codec.h2.errors import H2Error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"x"), (b"te", b"trailers")]


class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", data[3:9])
        found.append(Frame(kind, flags, stream, data[9 : 9 + size]))
        assert len(found[-1].payload) == size
        data = data[9 + size :]
    return found


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


class Peer:
    """A client by hand before a server of ours."""

    def __init__(self, *, start: bool = True, **options: int) -> None:
        self.server = H2Connection(**options)
        self.sink = BufferSink()
        self.server.begin(self.sink)
        self.buffer = ReadBuffer()
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.next = 1
        if start:
            self.send(PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK))
            self.answers()

    def send(self, data: bytes) -> list[Stream | H2Connection]:
        """Feed bytes; returns who had news. Raises H2Error as the server does."""
        self.buffer.write(data)
        found: list[Stream | H2Connection] = []
        while True:
            before = len(self.buffer)
            news = self.server.feed(self.buffer)
            found += news
            if not news or len(self.buffer) == before == 0:
                return found

    def answers(self) -> list[Frame]:
        return frames(self.sink.take())

    def request(self, *, end: bool = True, extra: list[tuple[bytes, bytes]] | None = None, fields: list[tuple[bytes, bytes]] | None = None) -> bytes:
        """HEADERS of a new stream."""
        block = self.encoder.encode((fields or REQUEST) + (extra or []))
        data = frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), self.next, block)
        self.next += 2
        return data

    def goaway(self) -> tuple[int, bytes]:
        """The code and text of the GOAWAY that must be the last answer."""
        last = self.answers()[-1]
        assert last.type == GOAWAY, last
        return int.from_bytes(last.payload[4:8], "big"), last.payload[8:]


def refused(peer: Peer, data: bytes) -> H2Error:
    """Feed what must end the connection."""
    try:
        for _ in range(3):
            peer.send(data)
            data = b""
    except H2Error as error:
        code, _ = peer.goaway()
        assert code == error.h2_code
        return error
    raise AssertionError(f"the connection goes on: {peer.answers()}")

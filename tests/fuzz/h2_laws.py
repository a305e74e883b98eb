"""What holds for any bytes given to HTTP/2 and HPACK."""

from __future__ import annotations

from codec.buffer import ReadBuffer
from codec.h2.connection import BufferSink, H2Connection
from codec.h2.errors import H2Error
from codec.h2.hpack import Decoder, Encoder
from tests.codec.h2.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    REQUEST,
    RST,
    SETTINGS,
    WINDOW,
    frame,
    u32,
)

# Header blocks as our encoder and the `hpack` package write them.
ANSWER = [(b":status", b"200"), (b"content-type", b"application/grpc")]
BLOCKS = [Encoder().encode_block(list(fields)) for fields in (REQUEST, ANSWER, [*REQUEST, (b"x-key", b"value" * 20)])]
# Beginnings of connections as a client and as a server write them.
FROM_CLIENTS = [
    PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK) + frame(HEADERS, END_HEADERS, 1, BLOCKS[0]) + frame(DATA, END_STREAM, 1, b"\0\0\0\0\2hi"),
    PREFACE + frame(SETTINGS, 0, 0, b"\0\4" + u32(70000)) + frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCKS[2]) + frame(RST, 0, 1, u32(8)),
    PREFACE + frame(SETTINGS) + frame(PING, 0, 0, b"12345678") + frame(WINDOW, 0, 0, u32(1000)) + frame(HEADERS, 0, 3, BLOCKS[0][:5])
    + frame(9, END_HEADERS, 3, BLOCKS[0][5:]),
]  # fmt: skip
FROM_SERVERS = [
    frame(SETTINGS) + frame(SETTINGS, ACK) + frame(HEADERS, END_HEADERS, 1, BLOCKS[1]) + frame(DATA, END_STREAM, 1, b"\0\0\0\0\2hi"),
    frame(SETTINGS, 0, 0, b"\0\3" + u32(1)) + frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCKS[1]) + frame(7, 0, 0, u32(1) + u32(0) + b"bye"),
    frame(SETTINGS) + frame(WINDOW, 0, 1, u32(1000)) + frame(RST, 0, 1, u32(7)) + frame(PING, ACK, 0, b"12345678"),
]


def hpack_law(data: bytes) -> None:
    """Fields or H2Error; what was decoded can be encoded, and comes back the same."""
    try:
        fields = Decoder().decode_block(data)
    except H2Error:
        return
    pairs = [(field.name, field.value) for field in fields]
    back = Decoder().decode_block(Encoder().encode_block(list(pairs)))
    assert [(field.name, field.value) for field in back] == pairs


def h2_law(is_client: bool, data: bytes, cut: int) -> None:
    """News or H2Error, whatever comes and wherever it is cut; our client has a request under way."""
    protocol, sink, buffer = H2Connection(is_client), BufferSink(), ReadBuffer()
    protocol.begin(sink)
    try:
        if is_client:
            protocol.open(list(REQUEST), True)
        for piece in (data[:cut], data[cut:]):
            buffer.write(piece)
            while protocol.feed(buffer):
                pass
    except H2Error:
        pass
    sink.take()

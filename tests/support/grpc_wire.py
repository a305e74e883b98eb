"""A gRPC client by hand, over our own HTTP/2 engine and a blocking socket: for what no well-behaved client does."""

from __future__ import annotations

import socket
import ssl
import time
from types import TracebackType
from typing import Any, ClassVar, Self

from codec.buffer import ReadBuffer
from codec.grpc import GrpcConnection, GrpcStream, message_text, metadata_pairs
from codec.h2.connection import BufferSink
from tests.support.grpc_echo import NAME, Reply
from tests.support.net import PATIENCE, target_of


class Closed(Exception):
    """The server has closed the connection."""


class GrpcWire:
    """One connection. Blocks; so it is not for a thread that runs the server's hub. With `context` set, by TLS to "localhost"."""

    context: ClassVar[ssl.SSLContext | None] = None

    def __init__(self, address: str, *, window: int = 1 << 20) -> None:
        family, target = target_of(address)
        self.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(target)
        if self.context is not None:
            self.socket = self.context.wrap_socket(self.socket, server_hostname="localhost")
        self.protocol = GrpcConnection(True, stream_window=window)
        self.sink = BufferSink()
        self.protocol.begin(self.sink)
        self.buffer = ReadBuffer()
        self.closed = False

    def flush(self) -> None:
        """Send what the protocol has written."""
        data = self.sink.take()
        if data:
            self.socket.sendall(data)

    def pump(self, timeout: float = PATIENCE) -> None:
        """Send, and read once."""
        self.flush()
        self.socket.settimeout(timeout)
        data = self.socket.recv(1 << 16)
        if not data:
            self.closed = True
            raise Closed
        self.buffer.write(data)
        while self.protocol.feed(self.buffer):
            pass
        self.flush()

    def open(self, method: str = "Say", *, end: bool = False, fields: list[tuple[bytes, bytes]] | None = None, **extra: str) -> GrpcStream:
        """Begin a call. `extra` are further fields, with "_" for "-"; `fields` replace all of them."""
        path = method if method.startswith("/") else f"/{NAME}/{method}"
        made = fields or [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"test"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *((name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in extra.items()),
        ]
        stream = self.protocol.open(made, end)
        assert isinstance(stream, GrpcStream)
        self.flush()
        return stream

    def send(self, stream: GrpcStream, data: bytes, *, end: bool = False) -> None:
        """Send bytes as they are."""
        self.protocol.send(stream, data, end)
        self.flush()

    def until(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            self.pump()

    def finish(self, stream: GrpcStream) -> tuple[int, str]:
        """Read until the stream has ended; its status and text. A reset is ``(-1, code)``."""
        self.until(lambda: not stream.is_open)
        if stream.trailers is None and stream.reset_code > 0:
            return -1, str(stream.reset_code)
        said = {field.name: field.value for field in (stream.headers or []) + (stream.trailers or [])}
        return int(said.get(b"grpc-status", b"-2")), message_text(said.get(b"grpc-message", b""))

    def call(self, method: str = "Say", *messages: Any, **extra: str) -> tuple[int, str, list[Any]]:
        """A whole call: status, text, replies."""
        stream = self.open(method, **extra)
        for message in messages:
            stream.write_message(message.SerializeToString())
        self.send(stream, b"", end=True)
        status, text = self.finish(stream)
        return status, text, replies(stream)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def replies(stream: GrpcStream) -> list[Any]:
    """The messages that came, uncompressed ones."""
    found = []
    while (payload := stream.next_message()) is not None:
        assert isinstance(payload, bytes)
        found.append(Reply.FromString(payload))
    return found


def said(stream: GrpcStream) -> dict[str, str]:
    """Metadata and trailers of an answer."""
    return dict(metadata_pairs((stream.headers or []) + (stream.trailers or [])))


def prefixed(payload: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A message by hand."""
    return bytes([flag]) + (len(payload) if length is None else length).to_bytes(4, "big") + payload

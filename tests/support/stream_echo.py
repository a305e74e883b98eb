"""A Thrift service with all kinds of streams, as `weego gen` writes it, by hand; and a client of frames for what no well-behaved one does."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from codec.buffer import ReadBuffer
from codec.ttstream import Frame, StreamMethod, StreamProtocol, dumps, exception_payload, read_exception
from tests.support.net import PATIENCE, target_of
from weego import stub

META, HEADER, DATA, TRAILER, RST = 1, 2, 3, 4, 5


class Request(stub.Struct):
    __slots__ = ("action", "body", "count", "message")
    message: str
    body: bytes
    count: int
    action: str

    def __init__(self, *, message: str = "", body: bytes = b"", count: int = 0, action: str = "") -> None:
        self.message = message
        self.body = body
        self.count = count
        self.action = action


class Reply(stub.Struct):
    __slots__ = ("body", "count", "message")
    message: str
    body: bytes
    count: int

    def __init__(self, *, message: str = "", body: bytes = b"", count: int = 0) -> None:
        self.message = message
        self.body = body
        self.count = count


class Refused(stub.IdlException):
    __slots__ = ("why",)
    why: str

    def __init__(self, *, why: str = "") -> None:
        self.why = why


class Talk(stub.Service):
    def say(self, req: Request) -> Reply:
        raise stub.unimplemented("Talk", "say")

    def watch(self, req: Request) -> Iterator[Reply]:
        raise stub.unimplemented("Talk", "watch")

    def collect(self, req: Iterator[Request]) -> Reply:
        raise stub.unimplemented("Talk", "collect")

    def chat(self, req: Iterator[Request]) -> Iterator[Reply]:
        raise stub.unimplemented("Talk", "chat")

    def words(self, text: Iterator[str]) -> Iterator[str]:
        raise stub.unimplemented("Talk", "words")


class TalkClient(stub.Client):
    def say(self, req: Request, *, timeout: float | None = None) -> Reply:
        result: Reply = self._invoke(TALK.methods["say"], (req,), timeout)
        return result

    def watch(self, req: Request, *, timeout: float | None = None) -> stub.ServerStream[Reply]:
        stream: stub.ServerStream[Reply] = self._stream(TALK.methods["watch"], (req,), timeout)
        return stream

    def collect(self, *, timeout: float | None = None) -> stub.ClientStream[Request, Reply]:
        stream: stub.ClientStream[Request, Reply] = self._stream(TALK.methods["collect"], (), timeout)
        return stream

    def chat(self, *, timeout: float | None = None) -> stub.BidiStream[Request, Reply]:
        stream: stub.BidiStream[Request, Reply] = self._stream(TALK.methods["chat"], (), timeout)
        return stream

    def words(self, *, timeout: float | None = None) -> stub.BidiStream[str, str]:
        stream: stub.BidiStream[str, str] = self._stream(TALK.methods["words"], (), timeout)
        return stream


stub.define(
    Request, stub.Field(1, "message", stub.STRING), stub.Field(2, "body", stub.BINARY), stub.Field(3, "count", stub.I32),
    stub.Field(4, "action", stub.STRING),
)  # fmt: skip
stub.define(Reply, stub.Field(1, "message", stub.STRING), stub.Field(2, "body", stub.BINARY), stub.Field(3, "count", stub.I32))
stub.define(Refused, stub.Field(1, "why", stub.STRING))


def _method(name: str, *, client: bool = False, server: bool = False) -> stub.MethodSpec:
    return stub.MethodSpec(
        name,
        args=(stub.Field(1, "req", stub.StructType(Request)),),
        result=stub.StructType(Reply),
        throws=(stub.Field(1, "refused", stub.StructType(Refused)),),
        client_streaming=client,
        server_streaming=server,
    )


TALK = stub.ServiceSpec(
    "Talk",
    (
        _method("say"),
        _method("watch", server=True),
        _method("collect", client=True),
        _method("chat", client=True, server=True),
        stub.MethodSpec("words", args=(stub.Field(1, "text", stub.STRING),), result=stub.STRING, client_streaming=True, server_streaming=True),
    ),
)
Talk.__spec__ = TalkClient.__spec__ = TALK
METHODS = {name: StreamMethod(spec) for name, spec in TALK.methods.items()}


class TalkService(Talk):
    """Answers what it is asked. `actions` are done first: by the request's `action`, with the request."""

    def __init__(self, **actions: Callable[[Any], Any]) -> None:
        self.actions = actions

    def _act(self, req: Request) -> Any:
        return self.actions[req.action](req) if req.action in self.actions else None

    def say(self, req: Request) -> Reply:
        self._act(req)
        return Reply(message=req.message, body=req.body)

    def watch(self, req: Request) -> Iterator[Reply]:
        for number in range(req.count):
            self._act(req)
            yield Reply(message=req.message, body=req.body, count=number)

    def collect(self, req: Iterator[Request]) -> Reply:
        count, size, last = 0, 0, ""
        for each in req:
            self._act(each)
            count += 1
            size += len(each.body)
            last = each.message
        return Reply(message=f"{size} {last}", count=count)

    def chat(self, req: Iterator[Request]) -> Iterator[Reply]:
        for each in req:
            self._act(each)
            yield Reply(message=each.message, body=each.body, count=each.count)

    def words(self, text: Iterator[str]) -> Iterator[str]:
        yield from text


class Closed(Exception):
    """The server has closed the connection."""


class StreamWire:
    """One connection. Blocks; so it is not for a thread that runs the server's hub."""

    def __init__(self, address: str, *, receive_buffer: int = 0) -> None:
        family, target = target_of(address)
        self.socket = socket.socket(family)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(target)
        self.protocol = StreamProtocol()
        self.buffer = ReadBuffer()
        self.frames: list[Frame] = []
        self._sid = 0

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def open(
        self, method: str = "chat", *requests: Request, end: bool = False, service: str | None = "Talk", sid: int = 0,
        ints: dict[int, str] | None = None, **strings: str,
    ) -> int:
        """Begin a stream, with these requests, and `end` it; its id."""
        if not sid:
            self._sid += 1
            sid = self._sid
        named = {"isn": service} if service is not None else {}
        parts = [dumps(HEADER, sid, method, ints=ints, strings={**named, **strings})]
        parts += [METHODS[method].request_frame((each,), sid) for each in requests]
        if end:
            parts.append(dumps(TRAILER, sid, method))
        self.send(*parts)
        return sid

    def data(self, sid: int, request: Request, method: str = "chat") -> None:
        self.send(METHODS[method].request_frame((request,), sid))

    def end(self, sid: int, method: str = "chat") -> None:
        self.send(dumps(TRAILER, sid, method))

    def reset(self, sid: int, reason: int = 12007, text: str = "no more", path: str = "", method: str = "chat") -> None:
        payload = exception_payload(method, sid, reason, text) if reason else b""
        self.send(dumps(RST, sid, method, strings={"ttscp": path} if path else None, payload=payload))

    def pump(self, timeout: float = PATIENCE) -> None:
        """Read once."""
        self.socket.settimeout(timeout)
        data = self.socket.recv(1 << 16)
        if not data:
            raise Closed
        self.buffer.write(data)
        self.frames += self.protocol.feed(self.buffer)

    def next_frame(self, sid: int | None = None) -> Frame:
        """The next frame, of this stream or of any."""
        while True:
            for frame in self.frames:
                if sid is None or frame.sid == sid:
                    self.frames.remove(frame)
                    return frame
            self.pump()

    def reply(self, sid: int, method: str = "chat") -> Any:
        """The next message of a stream, behind its Header if that comes first."""
        frame = self.next_frame(sid)
        if frame.type == HEADER:
            frame = self.next_frame(sid)
        assert frame.type == DATA, frame
        assert frame.payload is not None
        return METHODS[method].reply_value(frame.payload)

    def finish(self, sid: int, method: str = "chat") -> tuple[list[Any], dict[str, str], tuple[int, str] | None]:
        """Read until the stream has ended: messages, the Trailer's strings, and the exception in it."""
        found: list[Any] = []
        while True:
            frame = self.next_frame(sid)
            if frame.type == DATA:
                assert frame.payload is not None
                found.append(METHODS[method].reply_value(frame.payload))
            elif frame.type in (TRAILER, RST):
                assert frame.header is not None
                return found, frame.header.strings, read_exception(frame.payload) if frame.payload else None

    def call(self, method: str, *requests: Request) -> tuple[list[Any], dict[str, str], tuple[int, str] | None]:
        """A whole stream."""
        return self.finish(self.open(method, *requests, end=True), method)

    def at_end(self) -> bool:
        """Wait for the end of the connection. True for FIN, False for a reset."""
        try:
            while True:
                self.pump()
        except Closed:
            return True
        except ConnectionResetError:
            return False

    def vanish(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

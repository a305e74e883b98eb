"""A service to speak to, and its messages put together by hand, byte by byte: the second opinion on what weego writes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from codec.buffer import ReadBuffer, WriteBuffer
from codec.thrift import Reply, Request, Route, ThriftClientProtocol, ThriftServerProtocol
from tests.codec.schemas import Node, NotFound, Point
from weego import stub

CALL, REPLY, EXCEPTION, ONEWAY = 1, 2, 3, 4


class Message(stub.Struct):
    __slots__ = ("message",)

    def __init__(self, *, message: str = "") -> None:
        self.message = message


stub.define(Message, stub.Field(1, "message", stub.STRING))

HELLO = stub.ServiceSpec(
    "Hello",
    (
        stub.MethodSpec(
            "echo",
            args=(stub.Field(1, "req", stub.StructType(Message)),),
            result=stub.StructType(Message),
            throws=(stub.Field(1, "missing", stub.StructType(NotFound)),),
        ),
        stub.MethodSpec("ping", args=(), result=None),
        stub.MethodSpec("notify", args=(stub.Field(1, "text", stub.STRING),), result=None, oneway=True),
        stub.MethodSpec("total", args=(stub.Field(1, "numbers", stub.List(stub.I64)),), result=stub.I64),
        stub.MethodSpec(
            "tree",
            args=(
                stub.Field(1, "root", stub.StructType(Node)),
                stub.Field(2, "names", stub.Map(stub.STRING, stub.I32)),
            ),
            result=stub.StructType(Node),
        ),
        stub.MethodSpec(
            "near",
            args=(
                stub.Field(-1, "points", stub.Set(stub.StructType(Point))),
                stub.Field(3, "data", stub.BINARY, stub.REQUIRED),
            ),
            result=stub.List(stub.StructType(Point)),
        ),
    ),
)
OTHER = stub.ServiceSpec("Other", (stub.MethodSpec("only_here", args=(), result=stub.STRING),))


def routes_of(*specs: stub.ServiceSpec) -> tuple[dict[bytes, Route], dict[str, dict[bytes, Route]]]:
    """What ThriftServerProtocol wants."""
    services = {spec.name: {m.wire_name: Route(m) for m in spec.methods.values()} for spec in specs}
    routes: dict[bytes, Route] = {}
    for methods in services.values():
        for name, route in methods.items():
            routes.setdefault(name, route)
    return routes, services


ROUTES, SERVICES = routes_of(HELLO, OTHER)


def server(max_message: int = 16384000) -> ThriftServerProtocol:
    return ThriftServerProtocol(ROUTES, SERVICES, max_message)


def route(name: str) -> Route:
    return ROUTES[name.encode()]


# ---------------------------------------------------------------- bytes by hand


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!i", len(raw)) + raw


def field(kind: int, number: int, value: bytes) -> bytes:
    return struct.pack("!Bh", kind, number) + value


def message_struct(value: str) -> bytes:
    return field(11, 1, text(value)) + b"\0"


def echo_args(value: str = "hi") -> bytes:
    return field(12, 1, message_struct(value)) + b"\0"


def echo_result(value: str = "hi") -> bytes:
    return field(12, 0, message_struct(value)) + b"\0"


def application_exception(message: str, type: int) -> bytes:
    return field(11, 1, text(message)) + field(8, 2, struct.pack("!i", type)) + b"\0"


def thrift(name: str | bytes, type: int, seqid: int, body: bytes, *, strict: bool = True) -> bytes:
    """A message alone, with a head of the new or the old form."""
    if strict:
        return struct.pack("!I", 0x80010000 | type) + text(name) + struct.pack("!i", seqid) + body
    return text(name) + struct.pack("!bi", type, seqid) + body


def framed(message: bytes) -> bytes:
    return struct.pack("!I", len(message)) + message


def pairs(block: int, items: Iterable[tuple[int | str | bytes, str | bytes]]) -> bytes:
    """One info block of string or int-keyed pairs."""
    items = list(items)
    out = struct.pack("!BH", block, len(items))
    for key, value in items:
        out += struct.pack("!H", key) if isinstance(key, int) else short_text(key)
        out += short_text(value)
    return out


def short_text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def ttheader(
    payload: bytes,
    *blocks: bytes,
    seqid: int = 7,
    flags: int = 0,
    protocol: int = 0,
    transforms: bytes = b"",
    words: int | None = None,
    length: int | None = None,
) -> bytes:
    """A TTHeader packet; `words` and `length` override what is true."""
    info = bytes((protocol, len(transforms))) + transforms + b"".join(blocks)
    info += bytes(-len(info) % 4)
    rest = struct.pack("!HHiH", 0x1000, flags, seqid, len(info) // 4 if words is None else words) + info + payload
    return struct.pack("!I", len(rest) if length is None else length) + rest


FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "buffered": lambda message: message,
    "framed": framed,
    "ttheader": lambda message: ttheader(message, pairs(1, [("isn", "Hello")]), pairs(16, [(9, "echo")])),
    "ttheader-framed": lambda message: ttheader(framed(message), pairs(1, [("isn", "Hello")])),
}
"""The four framings, by weego's names for them."""

SHAPES = [(name, True) for name in FRAMINGS] + [("buffered", False), ("framed", False)]
"""Framings, and whether the head is of the new form."""


def shaped(shape: tuple[str, bool], name: str | bytes, type: int, seqid: int, body: bytes) -> bytes:
    framing, strict = shape
    return FRAMINGS[framing](thrift(name, type, seqid, body, strict=strict))


# ---------------------------------------------------------------- feeding


def feed(protocol: ThriftServerProtocol | ThriftClientProtocol, *parts: bytes) -> list[Any]:
    """The messages that come out when `parts` arrive one after the other."""
    data = ReadBuffer()
    out: list[Any] = []
    for part in parts:
        data.write(part)
        out += protocol.feed(data)
    assert len(data) == 0, f"{len(data)} bytes were left over"
    return out


def receive(data: bytes, max_message: int = 16384000) -> Request:
    """The one request in `data`."""
    [request] = feed(server(max_message), data)
    assert isinstance(request, Request)
    return request


def answer(reply: bytes, method: str = "echo", seqid: int = 1, framing: str = "framed") -> Reply:
    """What a client that called `method` makes of `reply`."""
    protocol = waiting((method, seqid), framing=framing)
    [found] = feed(protocol, reply)
    assert isinstance(found, Reply)
    return found


def waiting(*calls: tuple[str, int], framing: str = "framed") -> ThriftClientProtocol:
    """A client that has made `calls` and waits for their answers."""
    protocol = ThriftClientProtocol(framing)
    for method, seqid in calls:
        protocol.write_call(route(method), ARGUMENTS[method], seqid, WriteBuffer())
    return protocol


def written(write: Any, *args: Any) -> bytes:
    """What `write(*args, out)` appends."""
    out = WriteBuffer()
    write(*args, out)
    return out.take()


TREE = Node(name="root", next=Node(name="next"), children=[Node(name="a", children=[Node(name="b")]), Node(name="c")])
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "echo": (Message(message="hi"),),
    "ping": (),
    "notify": ("news",),
    "total": ([1, -2, 3],),
    "tree": (TREE, {"one": 1, "two": 2}),
    "near": ({Point(x=1, y=2), Point(x=3)}, b"\xff\x00"),
    "only_here": (),
}
RESULTS: dict[str, Any] = {
    "echo": Message(message="hi"),
    "ping": None,
    "total": 2,
    "tree": TREE,
    "near": [Point(x=1, y=2)],
    "only_here": "here",
}


def facts(request: Request) -> tuple[Any, ...]:
    """All that a Request says, to be compared."""
    error = None if request.error is None else (type(request.error), request.error.type, request.error.message)
    return (
        request.name,
        request.type,
        request.seqid,
        request.framing_name,
        request.strict,
        request.header,
        request.args,
        error,
        request.fatal,
        request.size,
    )

"""The attack table of Thrift and TTHeader, TH-01 to TH-16, a test each, against a server in this program.

tests/e2e/test_hostile.py does much of it against workers under a master, with bystanders; tests/codec has the decoders by themselves.
"""

from __future__ import annotations

import random
import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from codec import ttheader
from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import ApplicationError, ProtocolError, ProtocolErrorKind
from codec.thrift import Reply, Route, ThriftClientProtocol
from tests.codec.hostile import ANSWERED, REFUSED
from tests.codec.schemas import Node, one
from tests.codec.thrift_wire import CALL, REPLY, echo_args, feed, field, framed, server, text, thrift
from tests.support.echo_stub import ECHO, Echo, EchoClient, Request, Response
from tests.support.net import records, served, wait_until, without_hub
from weego import stub

CALLS = {method.name: Route(method) for method in ECHO.methods.values()}


class EchoService(Echo):
    """Does what the action says, some of which no handler should."""

    def echo(self, req: Request) -> Any:
        match req.action:
            case "raise":
                raise RuntimeError("on purpose")
            case "exit":
                raise SystemExit(3)
            case "kill":
                raise gevent.GreenletExit
            case "base":
                raise BaseException("on purpose")
            case "wrong":
                return 5
            case "big":
                return Response(message="x" * int(req.message))
        return Response(message=req.message)


class Wire:
    """A bare connection."""

    def __init__(self, server: Any, receive_buffer: int = 0) -> None:
        host, _, port = server.addresses[0].removeprefix("tcp://").rpartition(":")
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(20)
        self.sock.connect((host, int(port)))
        self.protocol = ThriftClientProtocol("framed")
        self.input = ReadBuffer()
        self.seqid = 0

    def call(self, method: str = "echo", **request: str) -> None:
        self.seqid += 1
        out = WriteBuffer()
        self.protocol.write_call(CALLS[method], (Request(**request),), self.seqid, out)
        self.sock.sendall(out.take())

    def reply(self) -> Reply:
        while True:
            found: list[Reply] = self.protocol.feed(self.input)
            if found:
                return found[0]
            data = self.sock.recv(65536)
            assert data, "the connection was closed"
            self.input.write(data)

    def ended(self) -> bool:
        """Does the server close, perhaps after an exception?"""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.sock.close()


@contextmanager
def attacked(**limits: Any) -> Iterator[tuple[Any, Callable[..., Wire]]]:
    """A server, and what connects to it. Afterwards it must still serve."""
    wires: list[Wire] = []

    def connect(**options: Any) -> Wire:
        wires.append(Wire(server, **options))
        return wires[-1]

    with records(), served(EchoService(), **limits) as server:
        try:
            yield server, connect
            with EchoClient(server.addresses[0]) as client:
                assert client.echo(Request(message="still here")).message == "still here"
        finally:
            for wire in wires:
                wire.close()


@without_hub
def test_th_01_frame_lengths() -> None:
    with attacked() as (_, connect):
        for length in (0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0, 3):
            wire = connect()
            wire.sock.sendall(struct.pack("!I", length) + b"\x80\x01\x00\x01" + bytes(20))
            assert wire.ended(), hex(length)
    tracemalloc.start()
    for length in (0x7FFFFFFF, 0xFFFFFFFF):
        [request] = feed(server(), struct.pack("!I", length) + thrift("echo", CALL, 1, b"\0"))
        assert request.fatal
    assert tracemalloc.get_traced_memory()[1] < 65536
    tracemalloc.stop()


def test_th_02_container_sizes() -> None:
    claim = struct.pack("!i", 2**31 - 1)
    for kind in (b"\x03", b"\x0c", b"\x0b", b"\x0f"):
        with pytest.raises(ProtocolError) as caught:
            one(stub.List(stub.I64)).__plan__.loads(field(15, 99, kind + claim) + bytes(10))
        assert caught.value.kind is ProtocolErrorKind.SIZE_LIMIT
    empty = one(stub.List(stub.StructType(one(stub.List(stub.I32))))).__plan__
    with pytest.raises(ProtocolError, match="more memory"):
        empty.loads(field(15, 1, b"\x0c" + struct.pack("!i", 3_000_000)) + bytes(3_000_001))


@without_hub
def test_th_03_negative_sizes_and_no_types() -> None:
    minus = struct.pack("!i", -1)
    bodies = [field(12, 1, field(11, 1, minus)), field(15, 9, b"\x0a" + minus), field(13, 9, b"\0\0" + struct.pack("!i", 5))]
    with attacked() as (_, connect):
        wire = connect()
        for body in bodies:
            wire.protocol.write_call(CALLS["echo"], (Request(),), 5, WriteBuffer())
            wire.sock.sendall(framed(thrift("echo", CALL, 5, body + bytes(10))))
            error = wire.reply().error
            assert isinstance(error, ApplicationError)
            assert error.type == 7


def test_th_04_nesting() -> None:
    for body in (field(12, 9, b"") * 10_000, field(15, 9, b"") + (b"\x0f" + struct.pack("!i", 1)) * 10_000):
        with pytest.raises(ProtocolError, match="64 levels") as caught:
            Node.__plan__.loads(body + bytes(20_000))
        assert caught.value.kind is ProtocolErrorKind.DEPTH_LIMIT
    with pytest.raises(ProtocolError, match="deeper than 64"):
        Node.__plan__.loads(field(12, 2, b"") * 10_000)


def test_th_05_long_varints() -> None:
    for head in ("16", "f6"):
        with pytest.raises(ProtocolError, match="longer than 64 bits"):
            one(stub.I64).__plan__.loads(bytes.fromhex(head) + b"\x80" * 11 + b"\0", compact=True)


@without_hub
def test_th_06_structure() -> None:
    """Unknown types, no STOP, bytes behind the end, fields twice: an error or what the specification says, and the next call is answered."""
    twice = field(12, 1, field(11, 2, text("a")) + field(11, 2, text("b")) + b"\0") + b"\0"
    with attacked() as (_, connect):
        wire = connect()
        for body, wanted in ((field(5, 9, b"") + b"\0", 7), (echo_args("x")[:-2], 7), (echo_args("x") + b"behind", None), (twice, None)):
            wire.protocol.write_call(CALLS["echo"], (Request(),), 5, WriteBuffer())
            wire.sock.sendall(framed(thrift("echo", CALL, 5, body)))
            reply = wire.reply()
            assert getattr(reply.error, "type", None) == wanted, reply
            if body is twice:
                assert reply.value == Response(message="b")
        wire.call(message="in step")
        assert wire.reply().value == Response(message="in step")


def test_th_07_bait_for_endless_loops() -> None:
    for kind in (1, 5, 7, 9, 17, 127, 255):
        for body in (field(kind, 9, b""), field(15, 9, bytes((kind,)) + struct.pack("!i", 2**31 - 1))):
            with pytest.raises(ProtocolError):
                Node.__plan__.loads(body + bytes(100))


def test_th_08_headers() -> None:
    call = thrift("echo", CALL, 1, echo_args())
    whole = ttheader.dumps(ttheader.Header(1), call)
    bad = {
        "longer than its packet": whole[:12] + b"\xff\xff" + whole[14:],
        "no place for a protocol": whole[:12] + b"\0\0" + whole[14:],
        "transforms that are not there": whole[:15] + b"\xff" + whole[16:],
        "65 535 pairs that are not there": struct.pack("!IHHiHBBBH", 18 + len(call), 0x1000, 0, 1, 2, 0, 0, 1, 0xFFFF) + bytes(3) + call,
    }
    for what, packet in bad.items():
        fixed = struct.pack("!I", len(packet) - 4) + packet[4:]
        with pytest.raises(ProtocolError):
            feed(server(), fixed)
            pytest.fail(what)


@without_hub
def test_th_09_method_names() -> None:
    with attacked() as (server_, connect):
        wire = connect()
        wire.sock.sendall(framed(thrift(b"x" * 2**20, CALL, 1, b"\0")))
        assert wire.ended()
        wire = connect()
        for name in (b"\xff\xfe", b"nope"):
            wire.protocol.write_call(CALLS["echo"], (Request(),), 5, WriteBuffer())
            wire.sock.sendall(framed(thrift(name, CALL, 5, b"\0")))
            reply = wire.reply()
            assert (reply.seqid, getattr(reply.error, "type", None)) == (5, 1)
        wire.sock.sendall(framed(thrift("nope", 4, 6, b"\0")))
        wire.call(message="after")
        assert wire.reply().value == Response(message="after")
        assert server_.serving.dispatcher.inflight == 0


@without_hub
def test_th_10_sequence_ids_and_types() -> None:
    with attacked() as (_, connect):
        wire = connect()
        wire.protocol.write_call(CALLS["echo"], (Request(),), 5, WriteBuffer())
        wire.sock.sendall(framed(thrift("echo", REPLY, 5, b"\0")))
        assert getattr(wire.reply().error, "type", None) == 2
        # The same id twice under way on a connection of any order: each call is answered.
        out = WriteBuffer()
        shared = ThriftClientProtocol("ttheader")
        shared.shared = True
        for message in ("a", "b"):
            shared.write_call(CALLS["echo"], (Request(message=message),), 9, out)
        wire = connect()
        wire.sock.sendall(out.take())
        data = b""
        while data.count(b"\x80\x01\x00\x02") < 2:
            data += wire.sock.recv(4096)


@without_hub
def test_th_11_requests_without_reading_replies() -> None:
    """The server stops reading once a megabyte of answers waits; nothing is lost when the client reads."""
    with attacked() as (server_, connect):
        wire = connect(receive_buffer=4096)
        calls = 400
        wire.sock.setblocking(False)
        out = WriteBuffer()
        for number in range(calls):
            wire.protocol.write_call(CALLS["echo"], (Request(action="big", message="20000"),), number + 1, out)
        rest = memoryview(out.take())

        def push() -> bool:
            nonlocal rest
            try:
                rest = rest[wire.sock.send(rest) :]
            except BlockingIOError:
                return server_.serving.dispatcher.requests < calls
            return not rest

        wait_until(push, "the calls to be sent, or the server to stop reading")
        wait_until(lambda: server_.serving.dispatcher.requests * 20_000 > 2**20, "a megabyte of answers")
        [connection] = server_.serving.dispatcher.connections
        assert server_.serving.dispatcher.requests * 20_000 < 6 * 2**20, "it went on"
        wire.sock.setblocking(True)
        wire.sock.settimeout(20)
        answered = 0
        while answered < calls:
            if rest:
                wire.sock.setblocking(False)
                push()
                wire.sock.setblocking(True)
                wire.sock.settimeout(20)
            assert wire.reply().error is None
            answered += 1
        assert connection.is_open


@without_hub
def test_th_12_slowloris() -> None:
    """A message must be whole in time, and a byte now and then buys none."""
    with attacked(frame_timeout=0.3, idle_timeout=0.5) as (_, connect):
        trickling, silent, headless = connect(), connect(), connect()
        headless.sock.sendall(b"\0\0")
        message = framed(thrift("echo", CALL, 1, echo_args("x" * 10_000)))
        trickling.sock.setblocking(False)
        sent = 0

        def closed() -> bool:
            nonlocal sent
            try:
                sent += trickling.sock.send(message[sent : sent + 1])
                return trickling.sock.recv(1) == b""
            except BlockingIOError:
                return False
            except (ConnectionError, OSError):
                return True

        wait_until(closed, "the trickling connection to be closed")
        assert sent < len(message)
        assert silent.ended()
        assert headless.ended()


@without_hub
def test_th_13_a_slow_reader() -> None:
    with attacked(write_timeout=0.3) as (server_, connect):
        wire = connect(receive_buffer=2048)
        wire.call(action="big", message="8000000")
        other = connect()
        other.call(message="beside")
        assert other.reply().value == Response(message="beside")
        wait_until(lambda: len(server_.serving.dispatcher.connections) == 1, "the slow reader to be given up")


@without_hub
def test_th_14_idle_connections() -> None:
    """They hold no buffers: what the allocator gives for a thousand is little. (20 000 of them: tests/e2e/test_memory.py.)"""
    with attacked() as (server_, connect):
        wires = [connect() for _ in range(200)]
        for wire in wires[:20]:
            wire.call(message="x" * 50_000)
            assert wire.reply().error is None
        wait_until(lambda: server_.serving.connections == 200)
        assert all(connection.unread == 0 for connection in server_.serving.dispatcher.connections)


def test_th_15_mutated_bytes() -> None:
    """A taste; tests/codec/test_thrift_fuzz.py has more, and tests/fuzz/million.py a million for each decoder."""
    from tests.fuzz.million import mutated, targets

    dice = random.Random(15)
    for law, seeds in targets().values():
        for _ in range(300):
            data = mutated(dice, seeds)
            law(data, dice.randrange(len(data) + 1))
    assert REFUSED
    assert ANSWERED


@without_hub
def test_th_16_handlers_that_misbehave() -> None:
    with attacked() as (server_, connect):
        wire = connect()
        for action in ("raise", "wrong", "exit", "kill", "base"):
            wire.call(action=action)
            error = wire.reply().error
            assert isinstance(error, ApplicationError), action
            assert error.type == 6, action
            wire.call(message=action)
            assert wire.reply().value == Response(message=action)
        assert server_.serving.dispatcher.errors == 5

"""The extension points, by the examples of docs/extending.md themselves."""

from __future__ import annotations

import json
import lzma
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import weego
from codec import compression, ttheader
from codec.buffer import WriteBuffer
from codec.errors import ProtocolError, ResourceExhausted, UsageError
from codec.thrift import ThriftClientProtocol
from tests.codec.thrift_wire import feed, receive, route, server
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.need import ROOT
from tests.support.net import read_frame, records, served, with_hub, without_hub
from weego import extend
from weego.server import Server


class EchoService(Echo):
    def echo(self, req: Request) -> Response:
        if req.message == "boom":
            raise RuntimeError("boom")
        if req.message == "full":
            raise ResourceExhausted("full")
        return Response(message=req.message)

    def note(self, req: Request) -> None:
        pass


def example(heading: str) -> dict[str, Any]:
    """What the first block of code under a heading of docs/extending.md defines."""
    text = (ROOT / "docs" / "extending.md").read_text()
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    code = re.findall(r"```python\n(.*?)```", part, re.DOTALL)[0]
    names: dict[str, Any] = {
        "extend": extend, "weego": weego, "json": json, "lzma": lzma, "Server": Server, "EchoService": EchoService,
        "EchoClient": EchoClient, "regions": [], "address": "tcp://127.0.0.1:1",
    }  # fmt: skip
    exec(compile(code, "docs/extending.md", "exec"), names)
    return names


@contextmanager
def nothing_stays_registered() -> Iterator[None]:
    """The tables of protocols and compressors are the process's."""
    protocols, named, numbered = list(extend._protocols), dict(compression._by_name), dict(compression._by_transform)
    try:
        yield
    finally:
        extend._protocols[:] = protocols
        for table, before in ((compression._by_name, named), (compression._by_transform, numbered)):
            table.clear()
            table.update(before)  # type: ignore[call-overload]


def connected(server: Any) -> socket.socket:
    host, _, port = server.addresses[0].removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), 20)


def line(wire: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n"):
        more = wire.recv(4096)
        if not more:
            break
        data += more
    return data.decode()


# ---- protocols


@without_hub
def test_a_protocol_of_ones_own_beside_thrift_on_one_port() -> None:
    with nothing_stays_registered():
        example("A protocol with its detector")
        with served(EchoService()) as server:
            with connected(server) as wire:
                for part in (b"CA", b"LL echo h", b"i\nCALL echo there\nCALL nope x\n"):
                    wire.sendall(part)
                said = ""
                while said.count("\n") < 3:
                    said += wire.recv(4096).decode()
                assert said.splitlines() == ["OK hi", "OK there", "ERR unknown method nope (service Echo) [UNIMPLEMENTED, peer]"]
                with records() as logged:
                    wire.sendall(b"CALL echo boom\n")
                    assert line(wire).startswith("ERR boom")
                assert [record.getMessage() for record in logged] == ["Echo.echo: the handler failed"]
                wire.sendall(b"CALL echo full\n")
                assert "full" in line(wire)
            with EchoClient(server.addresses[0]) as client:
                assert client.echo(Request(message="thrift")).message == "thrift"
            dispatcher = server.serving.dispatcher
            assert (dispatcher.requests, dispatcher.errors) == (6, 3)


@without_hub
def test_a_protocol_that_fails_ends_its_connection_and_nothing_else() -> None:
    with nothing_stays_registered():

        @extend.register_protocol
        class Broken(extend.ServerProtocol):
            @classmethod
            def detect(cls, head: bytes) -> bool | None:
                return head.startswith(b"!")

            def receive(self, data: bytes) -> extend.Incoming | None:
                if data[1:2] == b"0":
                    return extend.Incoming(size=0, method="echo")
                if data[1:2] == b"x":
                    raise RuntimeError("a bug")
                return None

            def answer(self, *_: Any) -> bytes:
                return b""

            refuse = answer

        with served(EchoService(), max_message=1024) as server, records() as logged:
            for what in (b"!0", b"!x", b"!" + b"." * 2000):
                with connected(server) as wire:
                    wire.sendall(what)
                    assert wire.recv(1) == b""
            with EchoClient(server.addresses[0]) as client:
                assert client.echo(Request(message="still here")).message == "still here"
        assert any("receive failed" in record.getMessage() for record in logged)


def test_misuse() -> None:
    with pytest.raises(UsageError, match="subclass"):
        extend.register_protocol(object)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="two bytes"):
        extend.header_protocol(type("Bad", (extend.PayloadCodec,), {"magic": b"x", **dict.fromkeys(("read_args", "write_result", "write_error"))})())


# ---- payload codecs


@without_hub
def test_a_payload_codec_in_a_ttheader() -> None:
    with nothing_stays_registered():
        codec = example("A payload codec")["Json"]()
        with served(EchoService()) as server:
            with connected(server) as wire:
                packet = extend.header_call(codec, "Echo", "echo", b'{"req": {"message": "hi"}}', seqid=5, RPC_PERSIST_x="y")
                wire.sendall(packet[:3])
                wire.sendall(packet[3:])
                header, payload = ttheader.loads(read_frame(wire))
                assert (header.seqid, header.ints, payload) == (5, {22: "2"}, b'JS{"message": "hi"}')
                for method, service, body, said in (
                    ("nope", "Echo", b"{}", "unknown method nope"),
                    ("echo", "Nobody", b"{}", "unknown service Nobody"),
                    ("echo", "Echo", b"{", "no JSON"),
                ):
                    wire.sendall(extend.header_call(codec, service, method, body))
                    header, payload = ttheader.loads(read_frame(wire))
                    assert header.ints == {22: "3"}
                    assert said in payload.decode()
            with EchoClient(server.addresses[0], framing="ttheader") as client:
                assert client.echo(Request(message="thrift")).message == "thrift"


# ---- metadata


@without_hub
def test_metadata_handlers_on_both_sides() -> None:
    names = example("Metadata handlers")
    carrying = extend.carrying(names["Region"]())
    with (
        served(EchoService(), middleware=[carrying]) as server,
        EchoClient(server.addresses[0], framing="ttheader", middleware=[carrying]) as client,
    ):
        client.echo(Request(message="hi"))
        with records(), pytest.raises(weego.ApplicationError):
            client.echo(Request(message="boom"))
    assert names["regions"] == [(True, "eu"), (False, "eu")] * 2


# ---- compressors


def test_a_compressor_of_ones_own_both_ways_of_waiting() -> None:
    text = "a text that says the same again and again. " * 2000
    for where in (with_hub, without_hub):

        def run() -> None:
            with nothing_stays_registered():
                example("Compressors")
                for name in ("lzma", "zlib"):
                    with (
                        served(EchoService()) as server,
                        EchoClient(server.addresses[0], framing="ttheader", compression=name, checksum=True) as client,
                        EchoClient(server.addresses[0], framing="ttheader", compression=name, pool="shared") as sharing,
                    ):
                        assert client.echo(Request(message=text)).message == text
                        assert sharing.echo(Request(message=text)).message == text
                        [connection, *_] = server.serving.dispatcher.connections
                        assert connection.bytes_in < 3000
                        assert connection.bytes_out < 3000

        where(run)()


def call_of(compression_name: str, framing: str = "ttheader") -> bytes:
    out = WriteBuffer()
    ThriftClientProtocol(framing, compression=compression_name).write_call(route("total"), ([1] * 5000,), 7, out)
    return out.take()


@pytest.mark.parametrize("framing", ["ttheader", "ttheader-framed", "ttheader-compact", "ttheader-framed-compact"])
def test_compressed_payloads_are_answered_in_kind(framing: str) -> None:
    packet = call_of("zlib", framing)
    assert len(packet) < 500
    request = receive(packet)
    assert (request.args, request.framing_name) == (([1] * 5000,), framing)
    out = WriteBuffer()
    server().write_reply(request, 5000, out)
    reply = out.take()
    assert ttheader.loads(reply)[0].transforms == b"\x01"
    client = ThriftClientProtocol(framing, compression="zlib")
    client.write_call(route("total"), ([1],), 7, WriteBuffer())
    assert feed(client, reply)[0].value == 5000


def test_a_bomb_does_not_go_off() -> None:
    """TH-08: what is decompressed counts against the limit of a message, and no more than that is made."""
    bomb = zlib.compress(bytes(30_000_000))
    for data, said in ((bomb, "more than 65536 bytes"), (bomb[:50], "does not end"), (b"noise, noise", "incorrect header")):
        packet = ttheader.dumps(_header(b"\x01"), data)
        with pytest.raises(ProtocolError, match=said):
            feed(server(65536), packet)


def test_transforms_that_nobody_knows() -> None:
    """A payload that is plain all the same is taken, as Kitex takes it; another one cannot be read."""
    plain = ttheader.loads(call_of(""))[1]
    assert receive(ttheader.dumps(_header(b"\x33"), plain)).args == ([1] * 5000,)
    with pytest.raises(ProtocolError, match="unknown transform 51"):
        feed(server(), ttheader.dumps(_header(b"\x33"), b"\x00\x01\x02\x03" * 4))


def _header(transforms: bytes) -> ttheader.Header:
    header = ttheader.Header(7)
    header.transforms = transforms
    return header


def test_compressors_that_do_not_fit() -> None:
    with nothing_stays_registered():
        with pytest.raises(UsageError, match="1 to 255"):
            extend.register_compressor(extend.Compressor("x", 0, bytes, lambda data, most: data))
        with pytest.raises(UsageError, match="zlib has the transform id 1"):
            extend.register_compressor(extend.Compressor("x", 1, bytes, lambda data, most: data))
        again = extend.Compressor("zlib", 2, bytes, lambda data, most: data)
        assert extend.register_compressor(again) is again
    with pytest.raises(UsageError, match="unknown compressor"):
        EchoClient("tcp://127.0.0.1:1", framing="ttheader", compression="lzo")
    with pytest.raises(UsageError, match="choose framing"):
        EchoClient("tcp://127.0.0.1:1", compression="zlib")



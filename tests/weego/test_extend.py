"""The extension points, by the examples of docs/extending.md themselves."""

from __future__ import annotations

import json
import lzma
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

import weego
from codec import compression, grpc_compression, payload, ttheader
from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import (
    BusinessError,
    Code,
    DeadlineExceeded,
    EncodeError,
    ProtocolError,
    ResourceExhausted,
    UsageError,
)
from codec.thrift import PayloadClientProtocol, Route, ThriftClientProtocol
from tests.codec.thrift_wire import feed, receive, route, server
from tests.interop import grpc_service
from tests.support.echo_stub import ECHO, Echo, EchoClient, NotFound, Request, Response
from tests.support.need import ROOT
from tests.support.net import read_frame, records, served, wait_until, with_hub, without_hub
from weego import extend
from weego.extend_front import UserProtocol
from weego.server import Server


@pytest.fixture(scope="module")
def grpc_stubs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


class EchoService(Echo):
    def echo(self, req: Request) -> Response:
        if req.message == "boom":
            raise RuntimeError("boom")
        if req.message == "full":
            raise ResourceExhausted("full")
        if req.message == "no":
            raise BusinessError(404, "not here", {"why": "gone"})
        if req.message == "wait":
            released.wait(20)
        return Response(message=req.message)

    def boom(self, req: Request) -> Response:
        raise NotFound(what=req.message)

    def note(self, req: Request) -> None:
        noted.append(req.message)


noted: list[str] = []
released = threading.Event()


def example(heading: str, number: int = 0, **given: Any) -> dict[str, Any]:
    """What a block of code under a heading of docs/extending.md defines: the first, or that of this number from 0. It sees what is `given`."""
    text = (ROOT / "docs" / "extending.md").read_text()
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    code = re.findall(r"```python\n(.*?)```", part, re.DOTALL)[number]
    names: dict[str, Any] = {
        "extend": extend, "weego": weego, "json": json, "lzma": lzma, "Server": Server, "EchoService": EchoService,
        "EchoClient": EchoClient, "regions": [], "Request": Request, "address": "tcp://127.0.0.1:1", **given,
    }  # fmt: skip
    exec(compile(code, "docs/extending.md", "exec"), names)
    return names


@contextmanager
def nothing_stays_registered() -> Iterator[None]:
    """The tables of protocols and compressors are the process's."""
    protocols, named, numbered = list(extend._protocols), dict(compression._by_name), dict(compression._by_transform)
    codecs, encodings = dict(payload._by_name), dict(grpc_compression._METHODS)
    try:
        yield
    finally:
        extend._protocols[:] = protocols
        for table, before in (
            (compression._by_name, named), (compression._by_transform, numbered), (payload._by_name, codecs), (grpc_compression._METHODS, encodings),
        ):  # fmt: skip
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


class Sized(extend.ServerProtocol):
    """Four bytes of length, and a text of that length."""

    asked: ClassVar[list[int]] = []

    @classmethod
    def detect(cls, head: bytes) -> bool | None:
        return True

    def receive(self, data: bytes) -> extend.Incoming | int | None:
        self.asked.append(len(data))
        if len(data) < 4:
            return 4
        size = 4 + int.from_bytes(data[:4], "big")
        if len(data) < size:
            return size
        return extend.Incoming(size=size, method="echo", args=lambda spec: [Request(message=data[4:size].decode())])

    def answer(self, call: Any, spec: Any, value: Any, metadata: Any) -> bytes:
        return extend.framed(value.message.encode())

    refuse = answer


def feed_bytes(protocol: Any, data: bytes) -> list[Any]:
    """One byte at a time."""
    found, buffer = [], ReadBuffer()
    for at in range(len(data)):
        buffer.write(data[at : at + 1])
        found += protocol.feed(buffer)
    return found


def test_a_long_message_that_comes_byte_by_byte_is_looked_at_a_few_times() -> None:
    Sized.asked.clear()
    data = extend.framed(b"x" * 2**20)
    [one, two] = feed_bytes(UserProtocol(Sized(), 2**21), data + extend.framed(b"and another"))
    assert one.args(None)[0].message == "x" * 2**20
    assert two.args(None)[0].message == "and another"
    assert sum(Sized.asked) < len(data) + 100, "what is handed over is copied"
    with nothing_stays_registered():
        codec = type("Own", (extend.PayloadCodec,), {"magic": b"#~", **dict.fromkeys(("read_args", "write_result", "write_error"))})()
        rules = extend.header_protocol(codec)()
        data = extend.header_call(codec, "Echo", "echo", b"x" * 2**20)
        asked = []
        rules.receive = lambda data: asked.append(len(data)) or type(rules).receive(rules, data)  # type: ignore[method-assign,func-returns-value]
        assert len(feed_bytes(UserProtocol(rules, 2**21), data)) == 1
        assert sum(asked) < len(data) + 100


def test_a_message_that_will_be_too_long_is_refused_at_once_and_rules_that_wait_for_nothing_too() -> None:
    buffer = ReadBuffer()
    buffer.write((1000).to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match="larger than the limit of 900"):
        UserProtocol(Sized(), 900).feed(buffer)
    rules = Sized()
    rules.receive = len  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="has 4 bytes and waits for 4"):
        UserProtocol(rules, 900).feed(buffer)


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


@without_hub
def test_a_payload_codec_is_found_behind_a_long_header() -> None:
    """The first call of a connection may bring a lot of metadata; the codec's magic stands behind it."""
    with nothing_stays_registered():
        codec = example("A payload codec")["Json"]()
        packet = extend.header_call(codec, "Echo", "echo", b'{"req": {"message": "hi"}}', **{f"RPC_TRANSIT_{n}": "x" * 1000 for n in range(50)})
        assert [extend.protocols()[-1].detect(packet[:size]) for size in (5, 14, 300, 51_000)] == [None, None, None, True]
        with served(EchoService()) as server, connected(server) as wire:
            wire.sendall(packet[:400])
            wire.sendall(packet[400:])
            assert ttheader.loads(read_frame(wire))[1] == b'JS{"message": "hi"}'


JSON_CLIENTS = [{}, {"pool": "shared"}, {"pool": "shared", "shared_connections": 3}]


@pytest.mark.parametrize("options", JSON_CLIENTS)
@pytest.mark.parametrize("where", [with_hub, without_hub])
def test_a_client_made_from_stubs_with_a_payload_codec(where: Any, options: dict[str, Any]) -> None:
    @where
    def run() -> None:
        noted.clear()
        with nothing_stays_registered():
            example("A payload codec")
            seen: list[Any] = []

            class Seeing(extend.MetadataHandler):
                def received(self, call: Any, metadata: Any) -> None:
                    remaining = call.remaining is not None and 0 < call.remaining < 20
                    seen.append((call.caller, call.log_id, call.carried, metadata.get("region"), remaining))

            class Sending(extend.MetadataHandler):
                def sending(self, call: Any, metadata: dict[str, str]) -> None:
                    metadata["region"] = "eu"

            with (
                served(EchoService(), middleware=[extend.carrying(Seeing())]) as server,
                EchoClient(server.addresses[0], payload="json", caller="shop", middleware=[extend.carrying(Sending())], **options) as client,
                EchoClient(server.addresses[0], framing="ttheader") as thrift,
            ):
                with weego.metainfo.persistent({"LANE": "blue"}), weego.metainfo.log_id("log-1"):
                    assert client.echo(Request(message="hi \u2603"), timeout=15) == Response(message="hi \u2603")
                assert seen == [("shop", "log-1", {"RPC_PERSIST_LANE": "blue"}, "eu", True)]
                assert thrift.echo(Request(message="thrift")).message == "thrift"
                with pytest.raises(NotFound) as thrown:
                    client.boom(Request(message="this"))
                assert thrown.value.what == "this"
                with pytest.raises(BusinessError) as refused:
                    client.echo(Request(message="no"))
                assert (refused.value.status, refused.value.message, refused.value.extra) == (404, "not here", {"why": "gone"})
                with pytest.raises(ResourceExhausted, match="full"):
                    client.echo(Request(message="full"))
                with records(), pytest.raises(weego.ApplicationError, match="boom"):
                    client.echo(Request(message="boom"))
                with pytest.raises(weego.ApplicationError, match="does not implement it") as unimplemented:
                    client.get_item(Request(message="x"))
                assert unimplemented.value.code is weego.Code.UNIMPLEMENTED
                with weego.metainfo.values({f"NAME_{number}": "long" * 100 for number in range(20)}):
                    assert client.echo(Request(message="many infos")).message == "many infos"
                client.note(Request(message="noted"))
                for number in range(50):
                    assert client.echo(Request(message=str(number))).message == str(number)
                wait_until(lambda: noted == ["noted"], "the oneway call")
                large = "x" * 300_000
                assert client.echo(Request(message=large)).message == large

    run()


@without_hub
def test_a_payload_codecs_calls_end_at_their_deadline() -> None:
    with nothing_stays_registered():
        example("A payload codec")
        released.clear()
        with served(EchoService()) as server, EchoClient(server.addresses[0], payload="json", heartbeat=0.1) as client:
            assert client._channel.hearts() is None  # type: ignore[attr-defined]
            try:
                with pytest.raises(DeadlineExceeded):
                    client.echo(Request(message="wait"), timeout=0.05)
            finally:
                released.set()
            assert client.echo(Request(message="again"), timeout=15).message == "again"


@without_hub
def test_the_two_examples_together() -> None:
    with nothing_stays_registered():
        names = example("A payload codec")
        with served(EchoService()) as server:
            assert example("A payload codec", 1, **{**names, "server": server})["answer"] == Response(message="hi")


@pytest.mark.parametrize("options", JSON_CLIENTS[:2])
@pytest.mark.parametrize("where", [with_hub, without_hub])
def test_a_payload_codec_that_fails_fails_that_call_alone(where: Any, options: dict[str, Any]) -> None:
    @where
    def run() -> None:
        with nothing_stays_registered():
            base = example("A payload codec")["Json"]

            class Moody(base):  # type: ignore[misc]
                def write_args(self, spec: Any, args: Any) -> Any:
                    if args[0].message == "unwritable":
                        raise KeyError("a bug")
                    return "text" if args[0].message == "no bytes" else super().write_args(spec, args)

                def read_result(self, spec: Any, data: bytes) -> Any:
                    if b"unreadable" in data:
                        raise KeyError("a bug")
                    if b"no json" in data:
                        return super().read_result(spec, b"{")
                    return super().read_result(spec, data)

                def read_error(self, spec: Any, data: bytes) -> Any:
                    return "no exception"

            extend.register_payload_codec(Moody())
            with served(EchoService()) as server, EchoClient(server.addresses[0], payload="json", max_message=100_000, **options) as client:
                for message, error, said in (
                    ("unwritable", EncodeError, "could not write the arguments: KeyError"),
                    ("no bytes", EncodeError, "gave str, not bytes"),
                    ("x" * 100_000, EncodeError, "more than the limit of 100000"),
                    ("unreadable", ProtocolError, "could not read the answer of echo: KeyError"),
                    ("no json", ProtocolError, "no JSON"),
                    ("full", ProtocolError, "read_error gave str"),
                ):
                    with pytest.raises(error, match=said):
                        client.echo(Request(message=message))
                    assert client.echo(Request(message="fine")).message == "fine"
                dispatcher = server.serving.dispatcher
                assert len(dispatcher.connections) == 1

    run()


@without_hub
def test_answers_that_a_payload_codec_cannot_take() -> None:
    """What a strange peer may say ends the call with an error that says what is wrong."""
    with nothing_stays_registered():
        codec = example("A payload codec")["Json"]()
        for packet, said in (
            (lambda seqid: ttheader.dumps(ttheader.Header(seqid), b"XX{}"), "begins with b'XX'"),
            (lambda seqid: ttheader.dumps(ttheader.Header(seqid), b""), "begins with b''"),
            (lambda seqid: ttheader.dumps(ttheader.Header(seqid + 1), b"JS{}"), "which no call waits for"),
            (lambda seqid: b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a TTHeader packet"),
            (lambda seqid: b"\x7f\xff\xff\xff\x10\x00\x00\x00", "larger than the limit"),
            (lambda seqid: ttheader.dumps(ttheader.Header(seqid, strings={"biz-status": "x"}), b"JS"), "business status"),
        ):
            protocol = PayloadClientProtocol(codec)
            protocol.write_call(Route(ECHO.methods["echo"]), (Request(message="hi"),), 7, WriteBuffer())
            try:
                [reply] = feed(protocol, packet(7))
                assert said in str(reply.error)
            except ProtocolError as error:
                assert said in str(error)
        protocol = PayloadClientProtocol(codec)
        protocol.write_call(Route(ECHO.methods["echo"]), (Request(message="hi"),), 7, WriteBuffer())
        answer, got = ttheader.dumps(ttheader.Header(7), b'JS{"message": "hi"}'), ReadBuffer()
        values = []
        for part in (answer[:5], answer[5:20], answer[20:]):
            got.write(part)
            values += [reply.value for reply in protocol.feed(got)]
        assert values == [Response(message="hi")]


def test_what_a_client_with_a_payload_codec_is_refused() -> None:
    target = "tcp://127.0.0.1:1"
    with nothing_stays_registered():
        codec = example("A payload codec")["Json"]
        for options, said in (
            ({"payload": "xml"}, "unknown payload codec 'xml'; there are: json"),
            ({"payload": "json", "framing": "framed"}, "choose framing"),
            ({"payload": "json", "framing": "ttheader-framed"}, "choose framing"),
            ({"payload": "json", "protocol": "compact"}, "choose framing"),
            ({"payload": "json", "checksum": True}, "brings its own"),
            ({"payload": "json", "compression": "zlib"}, "brings its own"),
        ):
            with pytest.raises(UsageError, match=said):
                EchoClient(target, **options)  # type: ignore[arg-type]
        extend.register_payload_codec(type("Half", (ServerOnly,), {"name": "half", "magic": b"HF"})())
        with pytest.raises(UsageError, match="half is for servers only: a client needs its write_args, read_result, read_error"):
            EchoClient(target, payload="half")
        for facts, said in (
            ({"name": "other", "magic": b"JS"}, "json has the magic"),
            ({"name": "", "magic": b"xx"}, "needs a name"),
            ({"name": "a", "magic": b"\x80\x01"}, "Thrift or Kitex Protobuf"),
            ({"name": "a", "magic": b"\x90\x01"}, "Thrift or Kitex Protobuf"),
            ({"name": "a", "magic": b"\x82\x21"}, "Thrift or Kitex Protobuf"),
            ({"name": "a", "magic": "JS"}, "two bytes"),
        ):
            with pytest.raises(UsageError, match=said):
                extend.register_payload_codec(type("Bad", (ServerOnly,), facts)())
        before = len(extend.protocols())
        extend.register_payload_codec(codec())  # again: one takes the other's place
        assert len(extend.protocols()) == before


class ServerOnly(extend.PayloadCodec):
    def read_args(self, *_: Any) -> Any:
        return ()

    def write_result(self, *_: Any) -> bytes:
        return b""

    write_error = write_result


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


@pytest.mark.parametrize("decorate", [with_hub, without_hub])
def test_a_compressor_of_ones_own_on_grpc(decorate: Callable[[Callable[[], None]], Callable[[], None]], grpc_stubs: Any) -> None:
    t = grpc_stubs

    @decorate
    def run() -> None:
        with nothing_stays_registered():
            made: list[int] = []

            def compress(data: bytes) -> bytes:
                made.append(len(data))
                return lzma.compress(data)

            names = example("Compressors")
            extend.register_compressor(extend.Compressor("lzma", 0x40, compress, names["decompress"]))
            asked: list[str | None] = []

            class Service(type(grpc_service.service(t))):  # type: ignore[misc]
                def unary_call(self, request: Any) -> Any:
                    call = weego.current()
                    assert call is not None
                    asked.append(call.request_compression)
                    call.compression = "lzma"
                    return super().unary_call(request)

            with (
                served(Service()) as server,
                t.TestServiceClient(server.addresses[0], timeout=20, compression="lzma", max_message=1_000_000) as client,
                t.TestServiceClient(server.addresses[0], timeout=20) as plain,
            ):
                grpc_service.large_unary(t, client)
                [connection] = server.serving.dispatcher.connections
                assert max(connection.bytes_in, connection.bytes_out) < 10_000
                grpc_service.ping_pong(t, client)
                grpc_service.large_unary(t, plain)
                assert asked == ["lzma", None]
                assert len([size for size in made if size > 300_000]) == 2  # the answers
                wrong: list[tuple[Callable[[bytes], bytes], str]] = [
                    (lambda data: lzma.compress(data)[:-9], "not the lzma it is said to be"),
                    (lambda data: lzma.compress(bytes(30_000_000)), "more than"),
                ]
                for packed, said in wrong:
                    extend.register_compressor(extend.Compressor("lzma", 0x40, packed, names["decompress"]))
                    with pytest.raises(weego.RpcError, match=said) as refused:
                        client.unary_call(grpc_service.large(t))
                    assert refused.value.code is Code.INTERNAL

    run()


def test_names_that_grpc_cannot_carry() -> None:
    with nothing_stays_registered():
        for name in ("", "a,b", "Br", "a b", "identity", "ä", "x" * 41):
            with pytest.raises(UsageError, match="gRPC takes a name"):
                extend.register_compressor(extend.Compressor(name, 0x41, bytes, lambda data, most: data))
            assert name not in compression._by_name


def test_what_a_decompressor_raises_is_a_mistake_of_the_message() -> None:
    def decompress(data: bytes, most: int) -> bytes:
        raise LookupError("no such table")

    with nothing_stays_registered():
        extend.register_compressor(extend.Compressor("odd", 0x42, bytes, decompress))
        with pytest.raises(ProtocolError, match="odd: no such table"):
            feed(server(), ttheader.dumps(_header(b"\x42"), b"x" * 20))
        with pytest.raises(ProtocolError, match="not the odd it is said to be: no such table"):
            grpc_compression.decompress("odd", b"x", 100)


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



"""TTHeaderStreaming between weego and Kitex, built from its own sources, in both directions, and the bytes that Kitex writes."""

from __future__ import annotations

import importlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import weego
from codec.buffer import ReadBuffer
from codec.errors import ApplicationError, BusinessError, DeadlineExceeded
from codec.ttstream import Frame, StreamMethod, StreamProtocol, dumps, read_exception
from tests.support import kitex_stream
from tests.support.net import Peer, wait_until, with_hub, without_hub
from tests.support.service import App, Server, generate

# The first test waits for the build; what may hang has its own bound.
pytestmark = pytest.mark.timeout(600)

# The service that kitex_stream/main.go has, too.
SERVICE_CODE = """\
import weego
from gen.talk import Refused, Reply, Request, Talk, TalkClient


class Service(Talk):
    def __init__(self) -> None:
        self.ends = []

    def say(self, req):
        if req.action == "ends":
            return Reply(message="\\n".join(self.ends), count=len(self.ends))
        return Reply(message=req.message, body=req.body)

    def act(self, req):
        call = weego.current()
        if req.action == "fail":
            raise RuntimeError(req.message)
        if req.action == "refuse":
            raise weego.BusinessError(4711, req.message, {"shelf": "7"})
        if req.action == "declared":
            raise Refused(why=req.message, code=7)
        if req.action == "metadata":
            call.send_metadata["head"] = "ключ"
            call.trailers["tail"] = "t"

    def note(self, error):
        self.ends.append(f"{type(error).__name__} {error.reason} {' -> '.join(error.path)}")

    def facts(self):
        facts = {"caller": weego.current().caller}
        facts |= {"transient " + name: value for name, value in weego.metainfo.get_all().items()}
        return facts | {"persistent " + name: value for name, value in weego.metainfo.get_all_persistent().items()}

    def watch(self, req):
        try:
            for number in range(req.count):
                yield Reply(message=req.message, body=req.body, count=number)
            if req.action == "linger":
                import time

                time.sleep(60)
            self.act(req)
        except weego.Cancelled as error:
            self.note(error)
            raise

    def collect(self, requests):
        count, size, last = 0, 0, ""
        for req in requests:
            self.act(req)
            count += 1
            size += len(req.body)
            last = req.message
        return Reply(message=f"{size} {last}", count=count)

    def chat(self, requests):
        try:
            for req in requests:
                self.act(req)
                if req.action == "relay":
                    # It stays open: Kitex's server may see the end of a connection before what came on it.
                    self.behind = TalkClient(req.message)
                    with self.behind.chat() as stream:
                        stream.send(Request(message="on"))
                        yield Reply(message=next(stream).message)
                        for each in stream:
                            yield each
                yield Reply(message=req.message, body=req.body, count=req.count, facts=self.facts() if req.action == "facts" else {})
        except weego.Cancelled as error:
            self.note(error)
            raise
"""

# Run by tests of their own.
OTHER_CHECKS = ["cascade", "abandoned", "steady"]
CHECKS = [
    "say",
    "watch",
    "collect",
    "chat",
    "empty",
    "large",
    "many",
    "crossing",
    "metadata",
    "metainfo",
    "failure",
    "business",
    "declared",
    "unknown-method",
    "unreadable",
    "cancel",
    "timeout",
]


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Before anything else is started, or a skip with the reason."""
    kitex_stream.talk()


@pytest.fixture(scope="module")
def kitex_server() -> Iterator[str]:
    with kitex_stream.server() as address:
        yield address


@pytest.fixture(scope="module")
def weego_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    app = App(tmp_path_factory.mktemp("kitex") / "app", idl=kitex_stream.IDL.read_text(), idl_name="talk.thrift", code=SERVICE_CODE)
    with app.serve(allow=[": the handler failed"]) as server:
        yield server


# ---- Kitex calls weego -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_kitex_calls_weego(weego_server: Server, check: str) -> None:
    kitex_stream.call(weego_server.address, check)


def test_all_checks_of_the_kitex_client_are_run() -> None:
    assert sorted(kitex_stream.checks()) == sorted(CHECKS + OTHER_CHECKS)


def test_a_connection_that_ends_is_told_to_the_handler(weego_server: Server) -> None:
    kitex_stream.call(weego_server.address, "abandoned")
    with talk_client(weego_server.address) as client:
        wait_until(lambda: "Cancelled 12013" in client.say(types().Request(action="ends")).message)


def test_a_cancellation_goes_through_weego_to_kitex(weego_server: Server, kitex_server: str) -> None:
    """Kitex's client, weego's server, whose handler is a client of Kitex's: the last one sees the path."""
    kitex_stream.call(weego_server.address, "cascade", relay=kitex_server)


def test_kitex_keeps_talking_while_weego_reloads(tmp_path: Path) -> None:
    """Its one connection goes to the new workers between two streams; none fails."""
    app = App(tmp_path / "app", idl=kitex_stream.IDL.read_text(), idl_name="talk.thrift", code=SERVICE_CODE)
    with app.serve() as server, kitex_stream.calling(server.address, "steady") as client:
        client.wait_for("^talking$")
        for _ in range(3):
            server.reload_ok()
        client.signal(signal.SIGTERM)
        assert client.wait() == 0, client.output
        assert int(client.wait_for(r"^streams (\d+)$")[1]) > 0


# ---- weego calls Kitex -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """What `weego gen` makes of talk.thrift."""
    folder = tmp_path_factory.mktemp("weego")
    generate(kitex_stream.IDL, folder / "weego_kitex_stream")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("weego_kitex_stream.talk")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(autouse=True)
def _known(stubs: ModuleType) -> None:
    """So that `types` may be asked anywhere."""


def types() -> Any:
    return sys.modules["weego_kitex_stream.talk"]


def talk_client(address: str, **options: Any) -> Any:
    return types().TalkClient(address, **{"timeout": 30.0, "caller": "weego-client", **options})


BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


@BOTH
def test_weego_talks_with_kitex(kitex_server: str, decorate: Decorator) -> None:
    t = types()

    def run() -> None:
        with talk_client(kitex_server) as client:
            assert client.say(t.Request(message="é")).message == "é"
            with client.watch(t.Request(message="日本語", count=1000)) as stream:
                assert [(each.count, each.message) for each in stream] == [(number, "日本語") for number in range(1000)]
            with client.collect() as sending:
                for _ in range(1000):
                    sending.send(t.Request(message="x", body=bytes(100)))
                assert sending.result() == t.Reply(message="100000 x", count=1000)
            with client.chat() as talk:
                for number in range(1000):
                    talk.send(t.Request(count=number))
                    assert next(talk).count == number
                for number in range(1000):
                    talk.send(t.Request(count=number))
                talk.close_send()
                assert [each.count for each in talk] == list(range(1000))
            with client.chat() as talk:
                for _ in range(5):
                    talk.send(t.Request(body=b"weego " * 500_000))
                    assert next(talk).body == b"weego " * 500_000
            assert client.collect().result().count == 0
            assert list(client.watch(t.Request())) == []

    decorate(run)()


@BOTH
def test_metadata_and_metainfo_with_kitex(kitex_server: str, decorate: Decorator) -> None:
    t = types()

    def run() -> None:
        with talk_client(kitex_server) as client:
            with weego.metainfo.values({"near": "n"}), weego.metainfo.persistent({"far": "f"}), client.chat() as talk:
                talk.send(t.Request(action="metadata"))
                assert talk.metadata == [("head", "ключ")]
                talk.send(t.Request(action="facts"))
                next(talk)
                facts = next(talk).facts
                assert (facts["transient near"], facts["persistent far"]) == ("n", "f")
                talk.close_send()
                assert list(talk) == []
                assert talk.trailers == [("tail", "t")]

    decorate(run)()


@BOTH
def test_errors_of_kitex(kitex_server: str, decorate: Decorator) -> None:
    t = types()

    def endings(client: Any, action: str, message: str) -> Iterator[BaseException]:
        request = t.Request(action=action, message=message, count=1)
        for begin in (lambda: client.watch(request), client.collect, client.chat):
            stream = begin()
            with pytest.raises(Exception) as caught:
                if stream.stream.method.client_streaming:
                    stream.send(request)
                if stream.stream.method.server_streaming:
                    list(stream)
                else:
                    stream.result()
            yield caught.value

    def run() -> None:
        with talk_client(kitex_server) as client:
            for error in endings(client, "refuse", "sold out"):
                assert isinstance(error, BusinessError)
                assert (error.status, error.message, error.extra) == (4711, "sold out", {"shelf": "7"})
            for error in endings(client, "fail", "it failed"):
                assert isinstance(error, ApplicationError)
                assert (error.type, error.message) == (6, "biz error: it failed")
            for error in endings(client, "declared", "no"):
                assert isinstance(error, ApplicationError), "Kitex has no way to tell which"
                assert error.type == 6

    decorate(run)()


@BOTH
def test_kitex_is_told_who_cancels(kitex_server: str, decorate: Decorator) -> None:
    t = types()

    def run() -> None:
        with talk_client(kitex_server) as client:

            def ended(words: str) -> bool:
                return words in client.say(t.Request(action="ends")).message

            with client.chat() as talk:
                talk.send(t.Request())
                next(talk)
            wait_until(lambda: ended("code=12007] [server-side stream] [canceled path: weego-client] the caller has given the stream up"))
            with client.watch(t.Request(action="linger", count=1), timeout=0.3) as stream, pytest.raises(DeadlineExceeded):
                list(stream)
            wait_until(lambda: ended("code=12015] [server-side stream] [canceled path: weego-client]"))

    decorate(run)()


@with_hub
def test_64_streams_on_one_connection_to_kitex() -> None:
    import gevent

    t = types()
    with kitex_stream.server() as address, talk_client(address, max_idle=1) as client:
        talks = [client.chat() for _ in range(64)]
        for number in range(10):
            for index, talk in enumerate(talks):
                talk.send(t.Request(count=index * 100 + number))
            for index, talk in enumerate(talks):
                assert next(talk).count == index * 100 + number

        def converse(talk: Any) -> None:
            for number in range(50):
                talk.send(t.Request(count=number))
                assert next(talk).count == number
            talk.close_send()
            assert list(talk) == []

        gevent.joinall([gevent.spawn(converse, talk) for talk in talks], raise_error=True)
        [statistics] = client.statistics()
        assert (statistics.idle, statistics.reused) == (1, 63)


def test_kitex_never_answers_what_it_does_not_know(kitex_server: str) -> None:
    """So a weego client needs a deadline, as Kitex's do."""

    @with_hub
    def run() -> None:
        with types().ElsewhereClient(kitex_server, timeout=0.3) as client, pytest.raises(DeadlineExceeded):
            next(client.nowhere())

    run()


# ---- the bytes ---------------------------------------------------------------------------------------------------------


def test_the_frames_of_kitexs_client() -> None:
    """What tests/codec/test_ttstream.py has, from a Kitex that lives."""
    sent: list[Frame] = []

    def behave(sock: socket.socket, number: int) -> None:
        protocol, buffer = StreamProtocol(), ReadBuffer()
        while len(sent) < 2:
            buffer.write(sock.recv(65536))
            sent.extend(protocol.feed(buffer))
        sid = sent[0].sid
        sock.sendall(
            dumps(2, sid, "chat", strings={"head": "ключ"})
            + dumps(3, sid, "chat", payload=b"\0")
            + dumps(4, sid, "chat", strings={"tail": "t"})
        )
        sock.recv(65536)

    with Peer(behave) as peer:
        kitex_stream.call(peer.address, "metadata")
    head, data = sent
    assert head.header is not None
    assert (head.type, head.header.strings, head.header.ints) == (2, {"isn": "Talk"}, {9: "chat", 27: "2"})
    assert (head.header.flags, head.header.protocol_id, head.payload) == (2, 0x10, b"")
    assert (data.type, data.header, data.sid) == (3, None, head.sid)
    assert StreamMethod(types().Talk.__spec__.methods["chat"]).request_args(data.payload or b"")[0].action == "metadata"


def test_the_frames_of_kitexs_server(kitex_server: str) -> None:
    protocol, buffer, found = StreamProtocol(), ReadBuffer(), []
    host, _, port = kitex_server.removeprefix("tcp://").rpartition(":")
    method = StreamMethod(types().Talk.__spec__.methods["chat"])
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(
            dumps(2, -7, "chat", strings={"isn": "Talk"})
            + method.request_frame((types().Request(message="hi"),), -7)
            + method.request_frame((types().Request(action="fail", message="it failed"),), -7)
        )
        while len(found) < 3:
            buffer.write(sock.recv(65536))
            found += protocol.feed(buffer)
    head, data, end = found
    assert (head.type, data.type, end.type) == (2, 3, 4)
    assert {frame.sid for frame in found} == {-7}
    assert head.header is not None
    assert (head.header.strings, head.header.ints) == ({}, {9: "chat", 27: "2"})
    assert method.reply_value(data.payload or b"").message == "hi"
    assert read_exception(end.payload or b"") == (6, "biz error: it failed")

"""gRPC clients against servers that do what a test wants: GOAWAY, resets, limits, silence. What good servers see is in tests/interop/test_grpc.py."""

from __future__ import annotations

import select
import socket
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import weego
from codec.buffer import ReadBuffer
from codec.errors import (
    Cancelled,
    ClosedError,
    DeadlineExceeded,
    ProtocolError,
    ResourceExhausted,
    RpcError,
    StatusError,
    Unavailable,
    UsageError,
)
from codec.grpc import GrpcConnection, GrpcStream
from codec.h2.connection import BufferSink
from governance import metainfo
from tests.interop import grpc_service
from tests.support import need
from tests.support.net import PATIENCE, Peer, served, wait_until, with_hub, without_hub

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]
HEAD = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK = [(b"grpc-status", b"0")]
H2_CANCEL, REFUSED_STREAM, INTERNAL_ERROR = 8, 7, 2


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


class Conversation:
    """One connection of a server, driven by a test in a thread."""

    def __init__(self, sock: socket.socket, **options: Any) -> None:
        self.sock = sock
        self.h2 = GrpcConnection(False, **options)
        self.sink = BufferSink()
        self.h2.begin(self.sink)
        self.input = ReadBuffer()
        self.asked: list[GrpcStream] = []

    def flush(self) -> None:
        self.sock.sendall(self.sink.take())

    def turn(self, seconds: float = PATIENCE) -> bool:
        """Send what is to be sent, take in what comes. False at the end."""
        self.flush()
        if not select.select([self.sock], [], [], seconds)[0]:
            return True
        data = self.sock.recv(65536)
        if not data:
            return False
        self.input.write(data)
        for each in self.h2.feed(self.input):
            if isinstance(each, GrpcStream) and each not in self.asked:
                self.asked.append(each)
        self.flush()
        return True

    def request(self, number: int = 0) -> GrpcStream:
        """Stream `number`, once its request is whole."""
        while len(self.asked) <= number or not self.asked[number].remote_done:
            assert self.turn(), "the client closed the connection"
        return self.asked[number]

    def answer(self, stream: GrpcStream, payload: bytes = b"", trailers: Any = OK) -> None:
        self.h2.respond(stream, HEAD)
        stream.write_message(payload)
        self.h2.respond(stream, trailers, True)
        self.flush()

    def rest(self) -> None:
        """Serve until the client closes."""
        try:
            while self.turn():
                pass
        except (OSError, ProtocolError):
            pass


def peer(behave: Callable[[Conversation, int], None], **options: Any) -> Peer:
    def run(sock: socket.socket, number: int) -> None:
        behave(Conversation(sock, **options), number)

    return Peer(run)


def answers(c: Conversation, number: int) -> None:
    done = 0
    while c.turn():
        while len(c.asked) > done and c.asked[done].remote_done:
            c.answer(c.asked[done])
            done += 1


# ---- transparent repetition ------------------------------------------------------------------------------------------


@BOTH
def test_a_call_that_the_leaving_server_did_not_look_at_is_repeated(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            if number == 0:
                c.answer(c.request(0))
                c.request(1)
                # GOAWAY whose last stream is the first one.
                c.sock.sendall(b"\0\0\x08\x07\0\0\0\0\0" + b"\0\0\0\x01" + b"\0\0\0\0")
            else:
                answers(c, number)
            c.rest()

        with peer(behave) as server, t.TestServiceClient(server.address, timeout=20) as client:
            for _ in range(3):
                client.empty_call(t.Empty())
            assert server.accepted == 2

    run()


@BOTH
def test_a_refused_stream_is_repeated_a_few_times(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            for at in range(3):
                c.h2.reset(c.request(at), REFUSED_STREAM)
                c.flush()
            c.answer(c.request(3))
            for at in range(4, 20):
                c.h2.reset(c.request(at), REFUSED_STREAM)
                c.flush()

        server = peer(behave)
        with t.TestServiceClient(server.address, timeout=20) as client:
            client.empty_call(t.Empty())
            with pytest.raises(Unavailable, match="did not take the call") as caught:
                client.empty_call(t.Empty())
            assert caught.value.sent is False
        server.failures.clear()
        for thread in server._threads:
            thread.join(PATIENCE)
        server.failures.clear()
        server.close()

    run()


@BOTH
def test_goodbye_lets_the_calls_under_way_finish(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            stream = c.request(0)
            if number == 0:
                c.h2.shut_down()
                c.turn()
            c.answer(stream)
            answers(c, number)

        with peer(behave) as server, t.TestServiceClient(server.address, timeout=20) as client:
            for _ in range(3):
                client.empty_call(t.Empty())
            assert server.accepted == 2

    run()


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("fields", "kind", "code", "text"),
    [
        ([(b":status", b"503"), (b"content-type", b"text/html")], Unavailable, "UNAVAILABLE", "HTTP status 503"),
        ([(b":status", b"404")], StatusError, "UNIMPLEMENTED", "HTTP status 404"),
        ([(b":status", b"418")], StatusError, "UNKNOWN", "HTTP status 418"),
        ([(b":status", b"200"), (b"content-type", b"text/html")], StatusError, "UNKNOWN", "content type 'text/html': is it a gRPC server"),
        ([(b":status", b"200")], StatusError, "UNKNOWN", "no content type"),
        ([*HEAD], StatusError, "UNKNOWN", "no grpc-status"),
        ([*HEAD, (b"grpc-status", b"x")], StatusError, "INTERNAL", "is no number"),
        ([*HEAD, (b"grpc-status", b"99")], StatusError, "UNKNOWN", ""),
        ([*HEAD, (b"grpc-status", b"5"), (b"grpc-message", b"gone%20away")], StatusError, "NOT_FOUND", "gone away"),
        ([*HEAD, (b"grpc-status", b"8"), (b"grpc-message", b"full")], ResourceExhausted, "RESOURCE_EXHAUSTED", "full"),
        ([*HEAD, (b"grpc-status", b"4")], DeadlineExceeded, "DEADLINE_EXCEEDED", ""),
        ([*HEAD, (b"grpc-status", b"14")], Unavailable, "UNAVAILABLE", ""),
        ([*HEAD, (b"grpc-status", b"0")], ProtocolError, "UNIMPLEMENTED", "all is well and sent no answer"),
    ],
)
def test_answers_of_headers_alone(
    t: Any, decorate: Decorator, fields: Any, kind: type[RpcError], code: str, text: str
) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            c.h2.respond(c.request(0), fields, True)
            c.flush()
            c.rest()

        with peer(behave) as server, t.TestServiceClient(server.address, timeout=20) as client:
            with pytest.raises(kind) as caught:
                client.empty_call(t.Empty())
            assert type(caught.value) is kind
            assert caught.value.code.name == code
            assert text in caught.value.message
            assert caught.value.instance == server.address

    run()


@BOTH
@pytest.mark.parametrize("how", ["after_header", "during_data", "after_data"])
def test_resets(t: Any, decorate: Decorator, how: str) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            stream = c.request(0)
            c.h2.respond(stream, HEAD)
            if how == "during_data":
                c.h2.send(stream, b"\0\0\0\0\x05ab")
            elif how == "after_data":
                stream.write_message(b"")
            c.h2.reset(stream, INTERNAL_ERROR)
            c.flush()
            c.rest()

        with peer(behave) as server, t.TestServiceClient(server.address, timeout=20) as client:
            with pytest.raises(StatusError, match="reset the call: INTERNAL_ERROR") as caught:
                client.empty_call(t.Empty())
            assert caught.value.code.name == "INTERNAL"

    run()


@BOTH
def test_a_connection_that_breaks_during_calls(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            if number == 1:
                c.request(0)
                c.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
                c.rest()
            elif number == 0:
                c.request(0)

        with peer(behave) as server, t.TestServiceClient(server.address, timeout=20) as client:
            with pytest.raises(Unavailable, match="no answer from") as caught:
                client.empty_call(t.Empty())
            assert caught.value.sent is True
            with pytest.raises((ProtocolError, Unavailable)):
                client.empty_call(t.Empty())

    run()


@BOTH
def test_limits_of_messages(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
        packed = bomb.compress(bytes(10_000_000)) + bomb.flush()

        def behave(c: Conversation, number: int) -> None:
            c.h2.respond(c.request(0), HEAD)
            c.h2.send(c.asked[0], b"\0\xff\xff\xff\xff")
            c.flush()
            stream = c.request(1)
            c.h2.respond(stream, [*HEAD, (b"grpc-encoding", b"gzip")])
            stream.write_message(packed, True)
            c.h2.respond(stream, OK, True)
            c.flush()
            c.h2.respond(c.request(2), HEAD)
            c.asked[2].write_message(b"x", True)
            c.h2.respond(c.asked[2], OK, True)
            c.h2.respond(c.request(3), HEAD)
            c.h2.send(c.asked[3], b"\x07\0\0\0\0")
            c.h2.respond(c.request(4), HEAD)
            c.h2.send(c.asked[4], b"\0\0\0\0\x05ab", True)
            c.rest()

        with peer(behave) as server, t.TestServiceClient(server.address, timeout=20, max_message=1_000_000) as client:
            with pytest.raises(ResourceExhausted, match="longer than the limit"):
                client.empty_call(t.Empty())
            with pytest.raises(ResourceExhausted, match="once it is decompressed"):
                client.empty_call(t.Empty())
            with pytest.raises(ProtocolError, match="the encoding is not given"):
                client.empty_call(t.Empty())
            with pytest.raises(ProtocolError, match="no compressed-flag"):
                client.empty_call(t.Empty())
            with pytest.raises((ProtocolError, StatusError)):
                client.empty_call(t.Empty())
            assert server.accepted == 1

    run()


# ---- time ------------------------------------------------------------------------------------------------------------


@BOTH
def test_a_deadline_resets_the_stream(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        told = threading.Event()

        def behave(c: Conversation, number: int) -> None:
            stream = c.request(0)
            while not stream.reset_by_peer and c.turn():
                pass
            assert stream.reset_code == H2_CANCEL
            told.set()
            c.rest()

        with peer(behave) as server, t.TestServiceClient(server.address) as client:
            with pytest.raises(DeadlineExceeded, match=r"no answer from .* in time"):
                client.empty_call(t.Empty(), timeout=0.05)
            wait_until(told.is_set)

    run()


@BOTH
def test_a_silent_peer_is_asked_and_given_up(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            c.request(0)
            while c.sock.recv(1000):  # PINGs, which nobody answers
                pass

        with peer(behave) as server, t.TestServiceClient(server.address, keepalive_time=0.05, keepalive_timeout=0.05) as client:
            with pytest.raises(Unavailable, match=r"has not answered a PING for 0.05 s"):
                client.empty_call(t.Empty(), timeout=20)

    run()


@BOTH
def test_a_slow_peer_that_answers_its_pings_is_waited_for(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            stream = c.request(0)
            for _ in range(6):
                c.turn(0.05)
            c.answer(stream)
            c.rest()

        with peer(behave) as server, t.TestServiceClient(server.address, keepalive_time=0.04, keepalive_timeout=5) as client:
            client.empty_call(t.Empty(), timeout=20)

    run()


@BOTH
def test_wait_for_ready(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with t.TestServiceClient(f"tcp://127.0.0.1:{port}") as impatient, pytest.raises(Unavailable):
            impatient.empty_call(t.Empty(), timeout=20)
        with t.TestServiceClient(f"tcp://127.0.0.1:{port}", wait_for_ready=True) as patient:
            with pytest.raises((Unavailable, DeadlineExceeded)):
                patient.empty_call(t.Empty(), timeout=0.1)
            servers: list[Peer] = []

            def later() -> None:
                servers.append(Peer(lambda sock, number: answers(Conversation(sock), number), port=port))

            timer = threading.Timer(0.1, later)
            timer.start()
            patient.empty_call(t.Empty(), timeout=20)
            timer.join()
        servers[0].close()

    run()


# ---- many calls ------------------------------------------------------------------------------------------------------


@with_hub
def test_calls_share_a_connection_and_keep_to_its_limit(t: Any) -> None:
    most = 0

    def behave(c: Conversation, number: int) -> None:
        nonlocal most
        done = 0
        while c.turn(0.02):
            most = max(most, len(c.h2.streams))
            if len(c.asked) > done and c.asked[done].remote_done:
                c.answer(c.asked[done])
                done += 1

    with peer(behave, max_streams=3) as server, t.TestServiceClient(server.address, timeout=20, max_idle=1) as client:
        client.empty_call(t.Empty())  # the peer's limit is known now
        calls = [gevent.spawn(client.empty_call, t.Empty()) for _ in range(20)]
        gevent.joinall(calls, raise_error=True)
        assert server.accepted == 1
        assert most <= 3
        late = [gevent.spawn(client.empty_call, t.Empty(), timeout=0.03) for _ in range(20)]
        gevent.joinall(late)  # all of them: what is under way when the hub ends is never closed
        with pytest.raises(DeadlineExceeded):
            for each in late:
                each.get()


@with_hub
def test_more_connections_when_one_is_full(t: Any) -> None:
    def behave(c: Conversation, number: int) -> None:
        done = 0
        while c.turn(0.02):
            if len(c.asked) > done and c.asked[done].remote_done:
                c.answer(c.asked[done])
                done += 1

    with peer(behave, max_streams=1) as server, t.TestServiceClient(server.address, timeout=20, max_idle=3) as client:
        client.empty_call(t.Empty())
        gevent.joinall([gevent.spawn(client.empty_call, t.Empty()) for _ in range(20)], raise_error=True)
        assert 1 < server.accepted <= 3


@with_hub
def test_a_killed_greenlet_cancels_its_call(t: Any) -> None:
    told = threading.Event()

    def behave(c: Conversation, number: int) -> None:
        stream = c.request(0)
        while not stream.reset_by_peer and c.turn():
            pass
        told.set()
        answers(c, number)

    with peer(behave) as server, t.TestServiceClient(server.address) as client:
        call = gevent.spawn(client.empty_call, t.Empty())
        wait_until(lambda: server.accepted == 1)
        gevent.sleep(0.05)
        call.kill()
        wait_until(told.is_set)


@BOTH
def test_who_waits_for_a_message_of_a_call_that_another_gives_up_waits_no_more(t: Any, decorate: Any) -> None:
    @decorate
    def run() -> None:
        ended: list[str] = []

        def behave(c: Conversation, number: int) -> None:
            while c.turn():  # it says nothing, and does not close
                pass

        with peer(behave) as server, t.TestServiceClient(server.address) as client:
            call = client.full_duplex_call()

            def wait() -> None:
                try:
                    next(call)
                except Cancelled:
                    ended.append("cancelled")

            waiting = gevent.spawn(wait) if decorate is with_hub else threading.Thread(target=wait)
            waiting.start()
            wait_until(lambda: server.accepted == 1)
            (gevent.sleep if decorate is with_hub else time.sleep)(0.1)
            call.cancel()
            waiting.join()
            assert ended == ["cancelled"]

    run()


@with_hub
def test_idle_connections_are_closed(t: Any) -> None:
    with peer(answers) as server, t.TestServiceClient(server.address, timeout=20, idle_timeout=0.05) as client:
        client.empty_call(t.Empty())
        wait_until(lambda: client.statistics()[0].idle == 0)
        client.empty_call(t.Empty())
        assert server.accepted == 2


@without_hub
def test_threads_share_a_client(t: Any) -> None:
    with served(grpc_service.service(t)) as server, t.TestServiceClient(server.addresses[0], timeout=20) as client:
        failures: list[BaseException] = []

        def calls() -> None:
            try:
                for case in ("large_unary", "ping_pong", "client_streaming"):
                    grpc_service.CASES[case](t, client)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=calls) for _ in range(10)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not failures


# ---- streams ---------------------------------------------------------------------------------------------------------


@without_hub
def test_one_thread_sends_and_another_receives(t: Any) -> None:
    with served(grpc_service.service(t)) as server, t.TestServiceClient(server.addresses[0], timeout=60) as client:
        stream = client.full_duplex_call()

        def send() -> None:
            for _ in range(200):
                stream.send(grpc_service.ping(t, 20_000, 10_000))
            stream.close_send()

        sender = threading.Thread(target=send)
        sender.start()
        assert [len(each.payload.body) for each in stream] == [10_000] * 200
        sender.join()
        wait_until(lambda: client.statistics()[0].idle == 1)


@with_hub
def test_one_greenlet_sends_and_another_receives(t: Any) -> None:
    with served(grpc_service.service(t)) as server, t.TestServiceClient(server.addresses[0], timeout=60) as client:
        stream = client.full_duplex_call()

        def send() -> None:
            for _ in range(200):
                stream.send(grpc_service.ping(t, 20_000, 10_000))
            stream.close_send()

        sender = gevent.spawn(send)
        assert [len(each.payload.body) for each in stream] == [10_000] * 200
        sender.get()


@BOTH
def test_who_sends_waits_for_a_peer_that_does_not_read(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(c: Conversation, number: int) -> None:
            while not c.asked:
                c.turn(0.05)
            threading.Event().wait(0.2)
            c.rest()

        with peer(behave) as server, t.TestServiceClient(server.address) as client:
            with client.full_duplex_call(timeout=0.3) as stream, pytest.raises(DeadlineExceeded):
                for _ in range(1000):
                    stream.send(grpc_service.ping(t, 100_000, 1))

    run()


@BOTH
def test_misuse_of_streams(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with served(grpc_service.service(t)) as server, t.TestServiceClient(server.addresses[0], timeout=20) as client:
            with client.full_duplex_call() as stream:
                stream.close_send()
                with pytest.raises(UsageError, match="after close_send"):
                    stream.send(grpc_service.ping(t, 1, 1))
            with pytest.raises(Cancelled):
                next(stream)
            once = client.streaming_output_call(t.StreamingOutputCallRequest())
            with pytest.raises(UsageError, match="takes one request"):
                once.send(t.StreamingOutputCallRequest())
            assert list(once) == []
            assert list(once) == []

    run()


@BOTH
def test_compression(t: Any, decorate: Decorator) -> None:
    need.module("zstandard")

    @decorate
    def run() -> None:
        with served(grpc_service.service(t)) as server:
            for name in ("gzip", "deflate", "zstd", "identity"):
                with t.TestServiceClient(server.addresses[0], timeout=20, compression=name) as client:
                    grpc_service.large_unary(t, client)
                    grpc_service.ping_pong(t, client)
                    wanted = grpc_service.large(t, response_compressed=t.BoolValue(value=True))
                    assert len(client.unary_call(wanted).payload.body) == 314159
        with pytest.raises(UsageError, match="unknown compression 'lzma'"):
            t.TestServiceClient("tcp://127.0.0.1:1", compression="lzma")

    run()


@BOTH
def test_metainfo_goes_along_and_persists(t: Any, decorate: Decorator) -> None:
    """As Kitex maps it (`pkg/transmeta/http2.go`): rpc-persist- passes through a service, rpc-transit- ends there."""

    @decorate
    def run() -> None:
        seen: list[tuple[dict[str, str], dict[str, str], str, str]] = []
        onward: list[Any] = []

        class Middle(type(grpc_service.service(t))):  # type: ignore[misc]
            def empty_call(self, request: Any) -> Any:
                call = weego.current()
                assert call is not None
                seen.append((metainfo.get_all_persistent(), metainfo.get_all(), call.log_id, call.caller))
                if len(seen) == 1:
                    onward[0].empty_call(request)
                return t.Empty()

        with served(Middle()) as server, t.TestServiceClient(server.addresses[0], timeout=20, caller="shop") as client:
            with t.TestServiceClient(server.addresses[0], timeout=20) as second:
                onward.append(second)
                with metainfo.persistent({"TENANT": "acme"}), metainfo.values({"SHARD_KEY": "7"}), metainfo.log_id("0815"):
                    client.empty_call(t.Empty())
        assert seen == [({"TENANT": "acme"}, {"SHARD_KEY": "7"}, "0815", "shop"), ({"TENANT": "acme"}, {}, "0815", "")]

    run()


@BOTH
def test_a_closed_client(t: Any, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with peer(answers) as server:
            client = t.TestServiceClient(server.address, timeout=20)
            client.empty_call(t.Empty())
            client.close()
            with pytest.raises(ClosedError):
                client.empty_call(t.Empty())

    run()



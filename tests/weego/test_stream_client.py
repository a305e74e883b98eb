"""Streams of Thrift clients, with gevent and in threads, against weego's server and against servers that do what a test wants."""

from __future__ import annotations

import gc
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest

import weego
from codec.buffer import ReadBuffer
from codec.errors import (
    ApplicationError,
    BusinessError,
    Cancelled,
    ClosedError,
    DeadlineExceeded,
    EncodeError,
    ProtocolError,
    ResourceExhausted,
    RpcError,
    Unavailable,
    UnknownMethod,
    UsageError,
)
from codec.stream_errors import Reason, path_of
from codec.ttstream import Frame, StreamProtocol, dumps, exception_payload, read_exception
from governance.policy import ClientPolicy
from tests.support.certs import Certificates
from tests.support.net import Peer, records, served, wait_until, with_hub, without_hub
from tests.support.stream_echo import (
    DATA,
    HEADER,
    META,
    METHODS,
    RST,
    TRAILER,
    Refused,
    Reply,
    Request,
    Talk,
    TalkClient,
    TalkService,
)  # fmt: skip
from weego import stub
from weego.serving import StreamOptions

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


def against(service: object, use: Callable[[TalkClient], Any], *, client: dict[str, Any] | None = None, **options: Any) -> Any:
    with served(service, **options) as server, TalkClient(server.addresses[0], **(client or {})) as made:
        return use(made)


# ---- against our own server --------------------------------------------------------------------------------------------


@BOTH
def test_streams_of_all_kinds(decorate: Decorator) -> None:
    def use(client: TalkClient) -> None:
        assert client.say(Request(message="plain")).message == "plain"
        with client.watch(Request(message="w", body=bytes(1000), count=500)) as stream:
            assert [each.count for each in stream] == list(range(500))
        with client.collect() as sending:
            for number in range(300):
                sending.send(Request(message=str(number), body=bytes(number)))
            assert sending.result() == Reply(message="44850 299", count=300)
        with client.chat() as talk:
            for number in range(50):
                talk.send(Request(count=number))
                assert next(talk).count == number
            for number in range(1000):
                talk.send(Request(count=number))
            talk.close_send()
            assert [each.count for each in talk] == list(range(1000))
            with pytest.raises(StopIteration):
                next(talk)
        with client.words() as words:
            words.send("word")
            assert next(words) == "word"
        assert client.collect().result() == Reply(message="0 ")
        with client.chat() as talk:
            talk.send(Request(body=bytes(3_000_000)))
            assert len(next(talk).body) == 3_000_000

    decorate(lambda: against(TalkService(), use))()


@BOTH
def test_metadata_both_ways(decorate: Decorator) -> None:
    seen: list[Any] = []

    def note(_: Request) -> None:
        call = weego.current()
        assert call is not None
        seen.append((call.caller, call.log_id, weego.metainfo.get("near"), weego.metainfo.get_persistent("far"), call.metadata["key"]))
        call.send_metadata["head"] = "ключ"
        call.trailers["tail"] = "t"

    def add(next_: Any) -> Any:
        def handler(call: Any, args: Any) -> Any:
            call.send_metadata["key"] = "v"
            return next_(call, args)

        return handler

    def use(client: TalkClient) -> None:
        with weego.metainfo.values({"near": "n"}), weego.metainfo.persistent({"far": "f"}), weego.metainfo.log_id("id"), client.chat() as talk:
            talk.send(Request(action="note"))
            assert talk.metadata == [("head", "ключ")]  # type: ignore[attr-defined]
            assert talk.trailers == []  # type: ignore[attr-defined]
            talk.close_send()
            assert len(list(talk)) == 1
            assert talk.trailers == [("tail", "t")]  # type: ignore[attr-defined]

    decorate(lambda: against(TalkService(note=note), use, client={"caller": "front", "middleware": [add]}))()
    assert seen == [("front", "id", "n", "f", "v")]


@BOTH
def test_what_handlers_raise(decorate: Decorator) -> None:
    def fail(error: BaseException) -> Callable[[Any], None]:
        def act(_: Any) -> None:
            raise error

        return act

    service = TalkService(
        business=fail(BusinessError(4711, "sold out", {"shelf": "7"})),
        declared=fail(Refused(why="no")),
        full=fail(ResourceExhausted("too much")),
        bug=fail(ValueError("bug")),
    )

    def use(client: TalkClient) -> None:
        for begin in (client.collect, client.chat):
            for action, kind in (("business", BusinessError), ("declared", Refused), ("full", ResourceExhausted), ("bug", ApplicationError)):
                with begin() as stream, pytest.raises(kind) as caught:
                    stream.send(Request(action=action))
                    if begin == client.collect:
                        stream.result()  # type: ignore[attr-defined]
                    else:
                        next(stream)  # type: ignore[call-overload]
                if isinstance(caught.value, BusinessError):
                    assert (caught.value.status, caught.value.message, caught.value.extra) == (4711, "sold out", {"shelf": "7"})
                if isinstance(caught.value, Refused):
                    assert caught.value.why == "no"
                else:
                    assert caught.value.instance
        stream = client._stream(Unknown.methods["nope"], (), None)
        with pytest.raises(UnknownMethod):
            next(stream)
        with pytest.raises(UnknownMethod):
            next(stream)

    with records():
        decorate(lambda: against(service, use))()


Unknown = stub.ServiceSpec(
    "Talk",
    (
        stub.MethodSpec(
            "nope", args=Talk.__spec__.methods["chat"].args, result=Talk.__spec__.methods["chat"].result, client_streaming=True, server_streaming=True
        ),
    ),
)


class Watched(TalkService):
    """Notes how its handlers end, and keeps a client to another server for `relay`."""

    def __init__(self, behind: str = "") -> None:
        super().__init__()
        self.ends: list[Any] = []
        self.running = 0
        self.behind = behind

    def chat(self, req: Iterator[Request]) -> Iterator[Reply]:
        self.running += 1
        try:
            for each in req:
                if each.action == "relay":
                    with TalkClient(self.behind) as client, client.chat() as talk:
                        talk.send(Request())
                        yield next(talk)
                        next(talk)
                yield Reply(count=each.count)
        except BaseException as error:
            self.ends.append((type(error).__name__, getattr(error, "path", None), getattr(error, "reason", None)))
            raise
        finally:
            self.running -= 1


@BOTH
def test_a_stream_that_is_cancelled(decorate: Decorator) -> None:
    service = Watched()

    def use(client: TalkClient) -> None:
        talk = client.chat()
        talk.send(Request(count=1))
        assert next(talk).count == 1
        talk.cancel()
        talk.cancel()
        with pytest.raises(Cancelled):
            next(talk)
        with pytest.raises(Cancelled):
            talk.send(Request())
        with client.chat() as talk:
            talk.send(Request(count=2))
            assert next(talk).count == 2
        talk = client.chat()
        talk.send(Request(count=3))
        assert next(talk).count == 3
        del talk
        wait_until(lambda: len(service.ends) == 3)

    decorate(lambda: against(service, use, client={"caller": "front"}))()
    assert service.ends == [("Cancelled", ("front",), Reason.BUSINESS_CANCEL)] * 3


@with_hub
def test_a_greenlet_that_is_killed_gives_its_stream_up() -> None:
    service = Watched()

    def use(client: TalkClient) -> None:
        greenlet = gevent.spawn(lambda: next(client.chat()))
        wait_until(lambda: service.running == 1)
        greenlet.kill()
        wait_until(lambda: [end[0] for end in service.ends] == ["Cancelled"])

    against(service, use)


@without_hub
def test_a_cancellation_goes_down_the_chain_with_its_path() -> None:
    last = Watched()
    with served(last) as behind:
        first = Watched(behind.addresses[0])

        def use(client: TalkClient) -> None:
            with client.chat() as talk:
                talk.send(Request(action="relay"))
                next(talk)
            wait_until(lambda: len(last.ends) == 1 and len(first.ends) == 1)

        against(first, use, client={"caller": "front"})
    assert first.ends == [("Cancelled", ("front",), Reason.BUSINESS_CANCEL)]
    assert last.ends == [("Cancelled", ("front", "Talk"), Reason.BUSINESS_CANCEL)]


@BOTH
def test_deadlines(decorate: Decorator) -> None:
    service = Watched()

    def use(client: TalkClient) -> None:
        for use_ in (next, lambda talk: talk.metadata and next(talk), lambda talk: [*talk]):
            talk = client.chat(timeout=0.1)
            with pytest.raises(DeadlineExceeded) as caught:
                use_(talk)
                next(talk)
            assert caught.value.elapsed is not None
            with pytest.raises(DeadlineExceeded):
                next(talk)
        wait_until(lambda: service.running == 0)
        with client.chat(timeout=60) as talk:
            talk.send(Request())
            next(talk)

    decorate(lambda: against(service, use))()


@BOTH
def test_misuse(decorate: Decorator) -> None:
    def use(client: TalkClient) -> None:
        with client.chat() as talk:
            with pytest.raises(EncodeError, match="expected Request"):
                talk.send("text")  # type: ignore[arg-type]
            with pytest.raises(EncodeError, match="limit"):
                talk.send(Request(body=bytes(200_000)))
            talk.send(Request(message="still fine"))
            assert next(talk).message == "still fine"
            talk.close_send()
            talk.close_send()
            with pytest.raises(UsageError, match="after close_send"):
                talk.send(Request())
        with client.watch(Request(count=1)) as stream, pytest.raises(UsageError, match="one request"):
            stream.send(Request())  # type: ignore[attr-defined]
        with pytest.raises(EncodeError):
            client.watch(Request(count="one"))  # type: ignore[arg-type]
        assert repr(talk)

    decorate(lambda: against(TalkService(), use, client={"max_message": 100_000}))()


@with_hub
def test_many_streams_share_a_connection() -> None:
    service = TalkService(wait=lambda _: gevent.sleep(0.001))

    def use(client: TalkClient) -> None:
        def one(number: int) -> None:
            with client.chat() as talk:
                for index in range(20):
                    talk.send(Request(count=number * 100 + index, action="wait" if index % 5 == 0 else ""))
                    assert next(talk).count == number * 100 + index

        gevent.joinall([gevent.spawn(one, number) for number in range(30)], raise_error=True)
        [statistics] = client.statistics()
        assert (statistics.idle, statistics.reused) == (1, 29)
        gevent.joinall([gevent.spawn(one, number) for number in range(64)], raise_error=True)
        assert client.statistics()[0].idle == 2, "a second one for those beyond 32"

    against(service, use)


@without_hub
def test_threads_have_connections_of_their_own_and_use_them_again() -> None:
    def use(client: TalkClient) -> None:
        def one(number: int) -> None:
            for _ in range(5):
                with client.chat() as talk:
                    talk.send(Request(count=number))
                    assert next(talk).count == number
                    talk.close_send()
                    assert list(talk) == []

        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [statistics] = client.statistics()
        assert 1 <= statistics.idle <= 8
        assert statistics.reused >= 32

    against(TalkService(), use)


@without_hub
def test_one_thread_sends_and_another_receives() -> None:
    def use(client: TalkClient) -> None:
        with client.chat() as talk:

            def send() -> None:
                for number in range(2000):
                    talk.send(Request(count=number, body=bytes(2000)))
                talk.close_send()

            thread = threading.Thread(target=send)
            thread.start()
            assert [each.count for each in talk] == list(range(2000))
            thread.join()

    against(TalkService(), use)


@BOTH
def test_who_sends_waits_for_a_slow_handler(decorate: Decorator) -> None:
    go = threading.Event()

    class Slow(TalkService):
        def collect(self, req: Iterator[Request]) -> Reply:
            while not go.is_set():
                gevent.sleep(0.01)
            return super().collect(req)

    def use(client: TalkClient) -> None:
        sending = client.collect(timeout=0.5)
        sent = 0
        with pytest.raises(DeadlineExceeded):
            while True:
                sending.send(Request(body=bytes(100_000)))
                sent += 1
        assert sent < 900, "the kernel may keep 36 MB; 256 KiB of ours and 1 MB of theirs"
        go.set()

    decorate(lambda: against(Slow(), use, streaming=StreamOptions(max_queued=1_000_000)))()


@BOTH
def test_who_does_not_read_stops_the_server(decorate: Decorator) -> None:
    made: list[int] = []

    def use(client: TalkClient) -> None:
        stream = client.watch(Request(action="count", body=bytes(50_000), count=3000))
        next(stream)
        before = -1
        while before != len(made):
            before = len(made)
            with pytest.raises(AssertionError):
                wait_until(lambda: False, patience=0.3)
        assert len(made) < 2500, "the kernel may keep 32 MB and more for the two sockets; the bounds are 4 MiB and 256 KiB of ours"
        assert sum(1 for _ in stream) == 2999

    decorate(lambda: against(TalkService(count=lambda _: made.append(1)), use))()


@BOTH
def test_with_tls(decorate: Decorator, tmp_path: Any) -> None:
    certificates = Certificates(tmp_path)

    def use(client: TalkClient) -> None:
        with client.chat() as talk:
            for number in range(100):
                talk.send(Request(count=number, body=bytes(5000)))
            talk.close_send()
            assert [each.count for each in talk] == list(range(100))

    decorate(lambda: against(TalkService(), use, tls=certificates.server(), client={"tls": certificates.client()}))()


@BOTH
def test_a_server_that_cannot_be_reached(decorate: Decorator) -> None:
    def run() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            with TalkClient(f"tcp://127.0.0.1:{sock.getsockname()[1]}") as client, pytest.raises(Unavailable) as caught:
                client.chat()
            assert not caught.value.sent

    decorate(run)()


@BOTH
def test_a_client_that_is_closed(decorate: Decorator) -> None:
    def use(client: TalkClient) -> None:
        with client.chat() as talk:
            talk.send(Request(count=1))
            client.close()
            assert next(talk).count == 1, "streams under way finish"
        with pytest.raises(ClosedError):
            client.chat()

    decorate(lambda: against(TalkService(), use))()


@without_hub
def test_a_child_makes_its_own_connections() -> None:
    def use(client: TalkClient) -> None:
        with client.chat() as talk:
            talk.send(Request(count=1))
            next(talk)
            child = os.fork()
            if child == 0:
                try:
                    with client.chat() as own:
                        own.send(Request(count=7))
                        os._exit(next(own).count)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            talk.send(Request(count=2))
            assert next(talk).count == 2

    against(TalkService(), use)


# ---- against servers that do what a test wants --------------------------------------------------------------------------


class Conversation:
    """One connection of a server, driven by a test in a thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.protocol = StreamProtocol()
        self.buffer = ReadBuffer()
        self.frames: list[Frame] = []

    def frame(self) -> Frame:
        while not self.frames:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError
            self.buffer.write(data)
            self.frames += self.protocol.feed(self.buffer)
        return self.frames.pop(0)

    def opened(self) -> int:
        """The id of the stream that the next Header opens."""
        while (frame := self.frame()).type != HEADER:
            pass
        return frame.sid

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def rest(self) -> list[Frame]:
        found = []
        try:
            while True:
                found.append(self.frame())
        except (ConnectionError, TimeoutError):
            return found


def peer(behave: Callable[[Conversation, int], None]) -> Peer:
    return Peer(lambda sock, number: behave(Conversation(sock), number))


def reply(sid: int, **facts: Any) -> bytes:
    return METHODS["chat"].reply_frame(Reply(**facts), sid)


@BOTH
def test_the_peer_resets_a_stream(decorate: Decorator) -> None:
    def behave(c: Conversation, number: int) -> None:
        for reason, path in ((12007, "A,B"), (12015, ""), (0, "")):
            sid = c.opened()
            payload = exception_payload("chat", sid, reason, "why") if reason else b""
            c.send(reply(sid, count=1), dumps(RST, sid, "chat", strings={"ttscp": path} if path else None, payload=payload))
        c.rest()

    def run() -> None:
        with peer(behave) as server, TalkClient(server.address) as client:
            for kind, path in ((Cancelled, ("A", "B")), (DeadlineExceeded, ()), (Cancelled, ())):
                talk = client.chat()
                assert next(talk).count == 1
                with pytest.raises(kind) as caught:
                    next(talk)
                assert getattr(caught.value, "path", ()) == path
                with pytest.raises(kind):
                    talk.send(Request())

    decorate(run)()


@BOTH
def test_peers_that_break_rules(decorate: Decorator) -> None:
    def behave(c: Conversation, number: int) -> None:
        sid = c.opened()
        c.send(dumps(HEADER, sid, "chat"), dumps(HEADER, sid, "chat"))
        sid = c.opened()
        c.send(dumps(DATA, sid, "chat", payload=b"\x0b\0\1\xff"))
        sid = c.opened()
        c.send(dumps(DATA, sid, "chat", payload=bytes(200_000)))
        sid = c.opened()
        c.send(dumps(TRAILER, sid, "chat"), dumps(DATA, sid, "chat"), dumps(RST, 99, "chat"), dumps(META, 0, "", strings={"a": "b"}))
        sid = c.opened()
        c.send(reply(sid), reply(sid), dumps(TRAILER, sid, "chat"))
        sid = c.opened()
        c.send(b"HTTP/1.1 200 OK\r\n\r\n")
        c.rest()

    def run() -> None:
        with peer(behave) as server, TalkClient(server.address, max_message=100_000) as client:
            with pytest.raises(ProtocolError, match="second Header"):
                next(client.chat())
            with pytest.raises(ProtocolError, match=r"Reply\.message"):
                next(client.chat())
            with pytest.raises(ResourceExhausted, match="longer than the limit"):
                next(client.chat())
            with pytest.raises(ProtocolError, match="sent no answer"):
                client.collect().result()
            with pytest.raises(ProtocolError, match="more than one answer"):
                client.collect().result()
            with pytest.raises(ProtocolError, match="magic"):
                next(client.chat())

    decorate(run)()


@BOTH
def test_a_connection_that_breaks(decorate: Decorator) -> None:
    def behave(c: Conversation, number: int) -> None:
        sid = c.opened()
        if number == 0:
            c.send(reply(sid, count=1))
            return
        c.send(reply(sid, count=2), dumps(TRAILER, sid, "chat"))
        c.rest()

    def run() -> None:
        with peer(behave) as server, TalkClient(server.address) as client:
            talk = client.chat()
            assert next(talk).count == 1
            with pytest.raises(Unavailable, match=r"closed by the peer|broke"):
                next(talk)
            assert [each.count for each in client.chat()] == [2]

    decorate(run)()


@BOTH
def test_a_peer_that_leaves_gets_no_further_streams(decorate: Decorator) -> None:
    """By its goodbye, or by the word in a Trailer."""

    def behave(c: Conversation, number: int) -> None:
        sid = c.opened()
        if number == 0:
            c.send(reply(sid, count=0), dumps(META, 0, "", strings={"crrst": "1"}))
            assert c.frame().type == DATA
            c.send(reply(sid, count=1), dumps(TRAILER, sid, "chat"))
        elif number == 1:
            c.send(reply(sid, count=2), dumps(TRAILER, sid, "chat", strings={"crrst": "1"}))
        else:
            gone = exception_payload("chat", sid, Reason.TRANSPORT_CLOSING, "leaving")
            c.send(dumps(TRAILER, sid, "chat", strings={"crrst": "1"}, payload=gone))
        assert [frame.type for frame in c.rest()] == [TRAILER], "it closes when its stream has ended"

    def run() -> None:
        with peer(behave) as server, TalkClient(server.address) as client:
            talk = client.chat()
            assert next(talk).count == 0
            with pytest.raises(AssertionError):
                wait_until(lambda: False, patience=0.1)
            other = client.chat()
            assert [each.count for each in other] == [2]
            talk.send(Request())
            assert [each.count for each in talk] == [1]
            with pytest.raises(Unavailable, match="leaving") as caught:
                next(client.chat())
            assert not caught.value.sent
            assert server.accepted == 3

    decorate(run)()


@without_hub
def test_what_a_client_sends() -> None:
    sent: list[Frame] = []

    def behave(c: Conversation, number: int) -> None:
        sent.extend(c.frame() for _ in range(3))
        sid = sent[0].sid
        c.send(reply(sid))
        sent.extend(c.rest())

    with peer(behave) as server, TalkClient(server.address, caller="front", timeout=5.0) as client:
        with client.chat() as talk:
            talk.send(Request(message="a"))
            talk.send(Request(message="b"))
            next(talk)
    head, first, second, reset, end = sent
    assert [frame.type for frame in sent] == [HEADER, DATA, DATA, RST, TRAILER]
    assert head.header is not None
    assert head.header.strings == {"isn": "Talk"}
    assert 4000 < int(head.header.ints.pop(12)) <= 5000
    assert head.header.ints == {3: "front", 6: "Talk", 9: "chat", 27: "2"}
    assert METHODS["chat"].request_args(second.payload or b"") == (Request(message="b"),)
    assert reset.header is not None
    assert path_of(reset.header.strings) == ("front",)
    assert read_exception(reset.payload or b"")[0] == Reason.BUSINESS_CANCEL
    assert end.payload == b""
    assert first.header is None


@with_hub
def test_a_stream_that_nobody_reads_is_given_up_for_the_others() -> None:
    def behave(c: Conversation, number: int) -> None:
        unread, other = c.opened(), c.opened()
        c.send(*[reply(unread, body=bytes(90_000))] * 50, reply(other, message="late"))
        while not any(frame.type == RST and frame.sid == unread for frame in [c.frame()]):
            pass
        c.rest()

    with peer(behave) as server, TalkClient(server.address, max_message=100_000, max_idle=1) as client:
        unread, other = client.chat(), client.chat()
        link: Any
        [link] = next(iter(client._transports.values()))._links[server.address]  # type: ignore[attr-defined]
        wait_until(lambda: link.is_paused)
        gevent.sleep(0.1)
        link.look_for_stalls(0.05)
        assert next(other).message == "late"
        with pytest.raises(ResourceExhausted, match="nobody read"):
            list(unread)
        other.cancel()


@with_hub
def test_in_the_loop_nothing_may_wait() -> None:
    def use(client: TalkClient) -> None:
        with client.chat() as talk:
            talk.send(Request())
            next(talk)
            done = gevent.event.AsyncResult()

            def in_the_hub() -> None:
                try:
                    next(talk)
                except RpcError as error:
                    done.set(error)
                except UsageError as error:
                    done.set(error)

            gevent.get_hub().loop.run_callback(in_the_hub)
            assert isinstance(done.get(timeout=10), UsageError)

    against(TalkService(), use)


@with_hub
def test_a_storm_leaves_nothing_behind() -> None:
    """Streams that end in every way at once, on a few connections: afterwards nothing is counted, waits or is open."""

    def fail(_: Request) -> None:
        raise Refused(why="no")

    def use(client: TalkClient) -> None:
        dice = random.Random(5)

        def whole() -> None:
            with client.chat() as talk:
                for _ in range(20):
                    talk.send(Request(body=bytes(500)))
                talk.close_send()
                assert len(list(talk)) == 20

        def refused() -> None:
            with client.chat() as talk, pytest.raises(Refused):
                talk.send(Request(action="fail"))
                list(talk)

        def cancelled() -> None:
            talk = client.chat()
            talk.send(Request(action="wait"))
            talk.cancel()

        def dropped() -> None:
            next(client.watch(Request(count=1000, body=bytes(1000))))

        def late() -> None:
            with pytest.raises(DeadlineExceeded), client.chat(timeout=dice.random() * 0.01) as talk:
                while True:
                    talk.send(Request(action="wait"))
                    next(talk)

        def killed() -> None:
            with gevent.Timeout(dice.random() * 0.01, False), client.chat() as talk:
                while True:
                    talk.send(Request(action="wait"))
                    next(talk)

        whole()
        kinds = [whole, refused, cancelled, dropped, late, killed]
        for _ in range(10):
            gevent.joinall([gevent.spawn(dice.choice(kinds)) for _ in range(40)], raise_error=True)

    service = TalkService(fail=fail, wait=lambda _: gevent.sleep(0.002))
    with served(service) as server, TalkClient(server.addresses[0]) as client:
        use(client)
        dispatcher = server.serving.dispatcher
        wait_until(lambda: dispatcher.inflight == 0)
        for connection in dispatcher.connections:
            wait_until(lambda p=connection.protocol: (len(p.streams), p.running, p.waiting, p.queued) == (0, 0, 0, 0))  # type: ignore[misc]
        [transport] = client._transports.values()
        links = [link for links in transport._links.values() for link in links]  # type: ignore[attr-defined]
        assert [(link.streams, link.queued, link.is_paused) for link in links] == [(0, 0, False)] * len(links)


@BOTH
def test_streams_through_the_policies(decorate: Decorator) -> None:
    """More in test_governed_streams."""

    def use(client: TalkClient) -> None:
        with client.chat() as talk:
            talk.send(Request(count=1))
            assert next(talk).count == 1
        [facts] = [each for each in weego.client.governance() if each["calls"]]
        assert [(call["method"]) for call in facts["calls"]] == ["chat"]

    decorate(lambda: against(TalkService(), use, client={"policy": ClientPolicy()}))()


@BOTH
def test_the_collector_finds_a_stream_in_the_middle_of_a_frame(decorate: Decorator) -> None:
    """What ends it must not be written into the frame of another stream of that connection, nor wait for a lock that is held."""
    service = Watched()

    def use(client: TalkClient) -> None:
        with client.chat() as talk:
            for number in range(20):
                lost: Any = [client.chat()]
                lost[0].send(Request(count=1))
                next(lost[0])
                lost.append(lost)  # a cycle: only the collector ends it
                del lost
                before = gc.get_threshold()
                gc.set_threshold(1)
                try:
                    talk.send(Request(count=number, body=bytes(100), message="x" * number))
                finally:
                    gc.set_threshold(*before)
                assert next(talk).count == number
        gc.collect()
        wait_until(lambda: service.running == 0)

    decorate(lambda: against(service, use, client={"caller": "front"}))()
    assert {end[0] for end in service.ends} == {"Cancelled"}
    assert {end[2] for end in service.ends} <= {Reason.BUSINESS_CANCEL, Reason.CONNECTION_CLOSED}

"""TTHeaderStreaming served: all kinds of streams, metadata, deadlines, cancellation, bounds, and what hostile peers are told."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest

import weego
from codec.errors import BusinessError, Cancelled, Code
from codec.stream_errors import THROWS, Reason
from codec.ttstream import dumps
from tests.support.net import records, served, wait_until, without_hub
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
    StreamWire,
    Talk,
    TalkService,
)  # fmt: skip
from weego import stub
from weego.serving import StreamOptions


def against(service: object, use: Callable[[StreamWire], Any], **options: Any) -> Any:
    """Serve `service` in a thread of its own and call it from this one."""
    with served(service, **options) as server, StreamWire(server.addresses[0]) as wire:
        return use(wire)


def acting(**actions: Callable[[Any], Any]) -> TalkService:
    return TalkService(**actions)


# ---- the kinds of streams ----------------------------------------------------------------------------------------------


@without_hub
def test_streams_of_all_kinds() -> None:
    def use(wire: StreamWire) -> None:
        assert wire.call("say", Request(message="é", body=b"x")) == ([Reply(message="é", body=b"x")], {}, None)
        found, strings, error = wire.call("watch", Request(message="w", body=bytes(20_000), count=50))
        assert ([each.count for each in found], strings, error) == (list(range(50)), {}, None)
        found, _, error = wire.call("collect", *(Request(message=str(n), body=bytes(n)) for n in range(300)))
        assert (found, error) == ([Reply(message="44850 299", count=300)], None)
        found, _, error = wire.call("chat", *(Request(count=n) for n in range(1000)))
        assert ([each.count for each in found], error) == (list(range(1000)), None)
        assert wire.call("collect") == ([Reply(message="0 ")], {}, None)
        assert wire.call("chat") == ([], {}, None)
        assert wire.call("watch", Request()) == ([], {}, None)
        big = Request(body=bytes(3_000_000))
        assert len(wire.call("chat", big)[0][0].body) == 3_000_000

    against(acting(), use)


@without_hub
def test_the_frames_of_an_answer() -> None:
    def use(wire: StreamWire) -> None:
        sid = wire.open("chat", Request(message="a"), Request(message="b"), end=True)
        frames = [wire.next_frame() for _ in range(4)]
        assert [(frame.sid, frame.type) for frame in frames] == [(sid, HEADER), (sid, DATA), (sid, DATA), (sid, TRAILER)]
        assert [frame.method for frame in frames if frame.header is not None] == ["chat", "chat"]
        sid = wire.open("chat", end=True, sid=-7)
        assert [(frame.sid, frame.type) for frame in (wire.next_frame(), wire.next_frame())] == [(-7, HEADER), (-7, TRAILER)]

    against(acting(), use)


@without_hub
def test_a_conversation_goes_back_and_forth() -> None:
    def use(wire: StreamWire) -> None:
        sid = wire.open("chat")
        for number in range(20):
            wire.data(sid, Request(count=number))
            assert wire.reply(sid).count == number
        wire.end(sid)
        assert wire.finish(sid) == ([], {}, None)

    against(acting(), use)


@without_hub
def test_streams_of_other_things_than_structs() -> None:
    def use(wire: StreamWire) -> None:
        sid = wire.open("words")
        wire.send(METHODS["words"].request_frame(("word",), sid), dumps(TRAILER, sid, "words"))
        assert wire.finish(sid, "words") == (["word"], {}, None)

    against(acting(), use)


@without_hub
def test_many_streams_at_a_time_on_one_connection() -> None:
    def use(wire: StreamWire) -> None:
        sids = [wire.open("chat") for _ in range(64)]
        for number in range(5):
            for sid in sids:
                wire.data(sid, Request(count=sid * 10 + number, action="wait" if sid % 2 else ""))
        for sid in sids:
            wire.end(sid)
        for sid in reversed(sids):
            found, _, error = wire.finish(sid)
            assert ([each.count for each in found], error) == ([sid * 10 + number for number in range(5)], None)

    against(acting(wait=lambda _: gevent.sleep(0.01)), use)


@without_hub
def test_other_protocols_on_the_same_port() -> None:
    from tests.support.stream_echo import TalkClient

    with served(acting()) as server:
        with TalkClient(server.addresses[0], framing="ttheader") as client, StreamWire(server.addresses[0]) as wire:
            assert client.say(Request(message="unary")).message == "unary"
            assert wire.call("chat", Request(message="stream"))[0] == [Reply(message="stream")]
            say = Talk.__spec__.methods["say"]
            with pytest.raises(weego.UnknownMethod):  # a method that streams is not there for calls
                client._invoke(stub.MethodSpec("chat", args=say.args, result=say.result), (Request(),), None)


@without_hub
def test_the_first_frame_may_come_byte_by_byte() -> None:
    def use(wire: StreamWire) -> None:
        first = dumps(HEADER, 1, "chat", strings={"isn": "Talk"}) + METHODS["chat"].request_frame((Request(message="slow"),), 1)
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in first:
            wire.send(bytes([byte]))
        wire.end(1)
        assert wire.finish(1) == ([Reply(message="slow")], {}, None)

    against(acting(), use)


# ---- metadata and errors -----------------------------------------------------------------------------------------------


@without_hub
def test_metadata_both_ways() -> None:
    seen: list[Any] = []

    def note(_: Any) -> None:
        call = weego.current()
        assert call is not None
        seen.append((call.metadata.pairs(), call.caller, call.log_id, call.protocol, call.method, call.service))
        seen.append((weego.metainfo.get("near"), weego.metainfo.get_persistent("far")))
        call.send_metadata["head"] = "ключ"
        call.trailers["tail"] = "t"

    def use(wire: StreamWire) -> None:
        ints = {3: "front", 2: "id"}
        sid = wire.open("chat", Request(action="note"), end=True, ints=ints, key="v", RPC_TRANSIT_near="n", RPC_PERSIST_far="f")
        head = wire.next_frame()
        assert head.header is not None
        assert (head.type, head.header.strings) == (HEADER, {"head": "ключ"})
        assert wire.finish(sid)[1:] == ({"tail": "t"}, None)

    against(acting(note=note), use)
    pairs, *facts = seen[0]
    assert pairs == [("isn", "Talk"), ("key", "v"), ("RPC_TRANSIT_near", "n"), ("RPC_PERSIST_far", "f")]
    assert facts == ["front", "id", "ttheader-streaming", "chat", "Talk"]
    assert seen[1] == ("n", "f")


@without_hub
def test_metadata_that_cannot_travel_is_an_error_of_the_server() -> None:
    def wrong(req: Request) -> None:
        call = weego.current()
        assert call is not None
        (call.trailers if req.count else call.send_metadata)["x"] = "x" * 70_000

    def use(wire: StreamWire) -> None:
        for count in (0, 1):
            _, strings, error = wire.call("collect", Request(action="wrong", count=count))
            assert error is not None
            assert (strings, error[0], "65535" in error[1]) == ({}, 6, True)
        assert wire.call("chat")[2] is None

    with records():
        against(acting(wrong=wrong), use)


@without_hub
def test_what_handlers_raise() -> None:
    def fail(error: BaseException) -> Callable[[Any], None]:
        def act(_: Any) -> None:
            raise error

        return act

    service = acting(
        business=fail(BusinessError(4711, "sold out", {"shelf": "7"})),
        declared=fail(Refused(why="no")),
        known=fail(weego.ApplicationError("mine", 99)),
        full=fail(weego.ResourceExhausted("too much")),
        bug=fail(ValueError("bug")),
    )

    def use(wire: StreamWire) -> None:
        for method in ("collect", "chat"):
            found, strings, error = wire.call(method, Request(action="business"))
            assert (found, error) == ([], None)
            assert strings == {"biz-status": "4711", "biz-message": "sold out", "biz-extra": '{"shelf": "7"}'}
            _, strings, error = wire.call(method, Request(action="declared"))
            assert error is not None
            assert (error[0], "biz error" in error[1]) == (6, True)
            with pytest.raises(Refused) as caught:
                METHODS[method].spec.result_plan.loads(base64.b64decode(strings[THROWS]))
            assert caught.value.why == "no"
            assert wire.call(method, Request(action="known"))[2] == (99, "mine")
            assert wire.call(method, Request(action="full"))[2] == (6, "RESOURCE_EXHAUSTED: too much")
            with records() as lines:
                assert wire.call(method, Request(action="bug"))[2] == (6, "biz error: ValueError: bug")
            assert [line.exc_info is not None for line in lines] == [True]

    against(service, use)


@without_hub
def test_an_error_after_messages() -> None:
    class Half(TalkService):
        def watch(self, req: Request) -> Iterator[Reply]:
            yield Reply(message="one")
            raise weego.BusinessError(7, "the rest is gone")

    def use(wire: StreamWire) -> None:
        found, strings, error = wire.call("watch", Request())
        assert (found, strings["biz-status"], error) == ([Reply(message="one")], "7", None)

    against(Half(), use)


@without_hub
def test_what_does_not_fit_the_idl() -> None:
    class Wrong(TalkService):
        def watch(self, req: Request) -> Iterator[Reply]:
            return 7  # type: ignore[return-value]

        def collect(self, req: Iterator[Request]) -> Reply:
            return None  # type: ignore[return-value]

        def chat(self, req: Iterator[Request]) -> Iterator[Reply]:
            yield Reply(count="seven")  # type: ignore[arg-type]

    def use(wire: StreamWire) -> None:
        for method, words in (("watch", "not iterable"), ("collect", "does not fit the IDL"), ("chat", "Reply.count")):
            error = wire.call(method, Request())[2]
            assert error is not None
            assert words in error[1]

    with records():
        against(Wrong(), use)


@without_hub
def test_unknown_methods_and_services_are_answered() -> None:
    """Kitex's server leaves its caller waiting."""

    def use(wire: StreamWire) -> None:
        for method, service, kind in (("nope", "Talk", 1), ("chat", "Nope", None), ("nope", "Nope", 20), ("nope", None, 1), ("", "Talk", 1)):
            sid = wire.open(method, service=service, end=True)
            error = wire.finish(sid)[2]
            assert (error and error[0]) == kind, "a method that only one service has is found under any name"
        assert wire.call("chat")[2] is None

    against(acting(), use)


# ---- deadlines and cancellation ----------------------------------------------------------------------------------------


class Watched(TalkService):
    """Notes how its handlers end."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[Any] = []
        self.running = 0
        self.begun = gevent.event.Event()

    def chat(self, req: Iterator[Request]) -> Iterator[Reply]:
        self.running += 1
        try:
            for each in req:
                yield Reply(count=each.count)
        except BaseException as error:
            call = weego.current()
            assert call is not None
            self.ends.append((type(error).__name__, call.cancelled, getattr(error, "path", None), getattr(error, "reason", None)))
            raise
        finally:
            self.running -= 1

    def watch(self, req: Request) -> Iterator[Reply]:
        self.running += 1
        try:
            yield Reply()
            gevent.sleep(60)
        finally:
            self.ends.append("closed")
            self.running -= 1


@without_hub
def test_the_callers_timeout_is_kept() -> None:
    service = Watched()

    def use(wire: StreamWire) -> None:
        for method in ("chat", "watch"):
            sid = wire.open(method, *([Request()] if method == "watch" else []), ints={12: "50"})
            error = wire.finish(sid)[2]
            assert error is not None
            assert (error[0], error[1].startswith("DEADLINE_EXCEEDED: ")) == (6, True)
        for odd in ("x", "-5", "0", "9" * 30):
            sid = wire.open("chat", end=True, ints={12: odd})
            assert wire.finish(sid)[2] is None
        wait_until(lambda: service.running == 0)

    against(service, use)
    assert service.ends == [("DeadlineExceeded", False, None, None), "closed"]


@without_hub
def test_a_handler_is_told_who_cancelled_and_why() -> None:
    service = Watched()

    def use(wire: StreamWire) -> None:
        sid = wire.open("chat", Request(count=1))
        assert wire.reply(sid).count == 1
        wire.reset(sid, 12007, "enough", "A,B")
        wait_until(lambda: service.ends == [("Cancelled", True, ("A", "B"), 12007)])
        sid = wire.open("watch", Request())
        wire.reply(sid, "watch")
        wire.reset(sid, 0)
        wait_until(lambda: service.running == 0)
        wire.reset(999)
        assert wire.call("say", Request(message="still here"))[0] == [Reply(message="still here")]
        assert not wire.frames, "nothing follows an Rst"

    against(service, use)


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_connection_that_ends_cancels_its_streams(how: str) -> None:
    @without_hub
    def run() -> None:
        service = Watched()

        def use(wire: StreamWire) -> None:
            sid = wire.open("chat", Request(count=1))
            wire.reply(sid)
            wire.open("watch")
            wire.close() if how == "fin" else wire.vanish()
            wait_until(lambda: service.ends == [("Cancelled", True, (), Reason.CONNECTION_CLOSED)])

        against(service, use)

    run()


@without_hub
def test_the_client_can_end_its_side_with_an_error() -> None:
    service = Watched()

    def use(wire: StreamWire) -> None:
        sid = wire.open("chat", Request(count=1))
        wire.reply(sid)
        wire.send(dumps(TRAILER, sid, "chat", strings={"biz-status": "5", "biz-message": "no"}))
        assert wire.finish(sid)[1]["biz-status"] == "5"

    against(service, use)
    assert service.ends[0][0] == "BusinessError"


# ---- bounds ------------------------------------------------------------------------------------------------------------


@without_hub
def test_a_handler_that_streams_waits_for_a_peer_that_does_not_read() -> None:
    made: list[int] = []

    def use(wire: StreamWire) -> None:
        sid = wire.open("watch", Request(action="count", body=bytes(10_000), count=2000), end=True)
        before = -1
        while before != len(made):
            before = len(made)
            time.sleep(0.3)
        assert len(made) < 1500, "the buffers of sockets and 256 KiB of ours"
        found, _, error = wire.finish(sid)
        assert (len(found), len(made), error) == (2000, 2000, None)

    with served(acting(count=lambda _: made.append(1))) as server, StreamWire(server.addresses[0], receive_buffer=65536) as wire:
        use(wire)


@without_hub
def test_a_peer_that_sends_waits_for_a_handler_that_does_not_read() -> None:
    go = gevent.event.Event()

    class Slow(TalkService):
        def collect(self, req: Iterator[Request]) -> Reply:
            while not go.is_set():
                gevent.sleep(0.01)
            return super().collect(req)

    with served(Slow(), streaming=StreamOptions(max_queued=1_000_000)) as server, StreamWire(server.addresses[0]) as wire:
        sid = wire.open("collect")
        frame = METHODS["collect"].request_frame((Request(body=bytes(100_000)),), sid)
        wire.socket.settimeout(1)
        left = memoryview(frame * 1000)
        with pytest.raises(TimeoutError):
            while left:
                left = left[wire.socket.send(left) :]
        assert len(left) > 50_000_000, "the kernel may keep 36 MB"
        [connection] = server.serving.dispatcher.connections
        assert connection.protocol.queued < 1_300_000
        go.set()
        wire.socket.settimeout(20)
        wire.send(left)
        wire.end(sid, "collect")
        assert wire.finish(sid, "collect")[0] == [Reply(message="100000000 ", count=1000)]


@without_hub
def test_a_stream_that_holds_up_the_others_is_ended() -> None:
    class Stuck(TalkService):
        def collect(self, req: Iterator[Request]) -> Reply:
            gevent.sleep(60)
            return Reply()

    with served(Stuck(), streaming=StreamOptions(max_queued=100_000), write_timeout=0.3) as server, StreamWire(server.addresses[0]) as wire:
        stuck = wire.open("collect", *[Request(body=bytes(50_000))] * 3)
        other = wire.open("chat", Request(message="late"), end=True)
        error = wire.finish(stuck, "collect")[2]
        assert error is not None
        assert error[1].startswith("RESOURCE_EXHAUSTED: the handler took none")
        assert wire.finish(other) == ([Reply(message="late")], {}, None)


@without_hub
def test_no_more_streams_than_allowed() -> None:
    service = Watched()
    with served(service, streaming=StreamOptions(max_streams=3)) as server, StreamWire(server.addresses[0]) as wire:
        sids = [wire.open("chat"), wire.open("chat"), wire.open("watch")]
        error = wire.finish(wire.open("chat"))[2]
        assert error == (6, "RESOURCE_EXHAUSTED: 3 streams are under way on this connection, its limit")
        wire.reset(sids[2])
        assert wire.call("chat")[2] is None
        wire.end(sids[0])
        wire.finish(sids[0])
        sid = wire.open("watch", Request())
        wire.reply(sid, "watch")


@without_hub
def test_a_cancelled_handler_counts_until_it_has_returned() -> None:
    go = gevent.event.Event()

    class Stubborn(TalkService):
        def chat(self, req: Iterator[Request]) -> Iterator[Reply]:
            yield Reply()
            while not go.is_set():
                try:
                    gevent.sleep(0.01)
                except Cancelled:
                    pass

    with served(Stubborn(), streaming=StreamOptions(max_streams=2)) as server, StreamWire(server.addresses[0]) as wire:
        for _ in range(2):
            sid = wire.open("chat")
            wire.reply(sid)
            wire.reset(sid)
        error = wire.finish(wire.open("chat"))[2]
        assert error is not None
        assert error[1].startswith("RESOURCE_EXHAUSTED")
        go.set()
        wait_until(lambda: server.serving.dispatcher.inflight == 0)
        assert wire.call("say", Request())[2] is None


@without_hub
def test_the_servers_concurrency_is_bounded_too() -> None:
    with served(Watched(), max_concurrency=1) as server, StreamWire(server.addresses[0]) as wire:
        sid = wire.open("chat", Request())
        wire.reply(sid)
        error = wire.finish(wire.open("chat"))[2]
        assert error is not None
        assert "already serves 1 calls" in error[1]


@without_hub
def test_a_request_that_never_comes() -> None:
    with served(acting(), frame_timeout=0.3) as server, StreamWire(server.addresses[0]) as wire:
        error = wire.finish(wire.open("watch"))[2]
        assert error == (6, "DEADLINE_EXCEEDED: no request came within 0.3 s")
        assert wire.call("chat")[2] is None


@without_hub
def test_idle_connections_end_and_busy_ones_do_not() -> None:
    with served(Watched(), idle_timeout=0.3) as server, StreamWire(server.addresses[0]) as wire:
        sid = wire.open("chat", Request())
        wire.reply(sid)
        time.sleep(0.8)
        wire.data(sid, Request(count=2))
        assert wire.reply(sid).count == 2
        wire.end(sid)
        wire.finish(sid)
        assert wire.at_end()


# ---- hostile input -----------------------------------------------------------------------------------------------------


def error_of(wire: StreamWire, sid: int, method: str = "chat") -> tuple[int, str]:
    error = wire.finish(sid, method)[2]
    assert error is not None
    return error


@without_hub
def test_broken_rules_within_a_stream_end_that_stream() -> None:
    service = Watched()

    def use(wire: StreamWire) -> None:
        def begun() -> int:
            sid = wire.open("chat", Request())
            wire.reply(sid)
            return sid

        other = begun()
        sid = begun()
        wire.open("chat", sid=sid)
        assert error_of(wire, sid)[0] == Reason.UNEXPECTED_HEADER
        for behind in (METHODS["chat"].request_frame((Request(),), 100), dumps(TRAILER, 100, "chat")):
            wire.open("collect", sid=100)
            wire.end(100)
            wire.finish(100, "collect")
            wire.open("watch", Request(), sid=100, end=True)
            wire.reply(100, "watch")
            wire.send(behind)
            assert error_of(wire, 100)[0] == Reason.ILLEGAL_OPERATION
        sid = wire.open("watch", Request(), Request())
        assert "a second one came" in error_of(wire, sid, "watch")[1]
        sid = wire.open("watch", end=True)
        assert error_of(wire, sid, "watch") == (7, "watch takes one request, none came")
        sid = begun()
        wire.send(dumps(DATA, sid, "chat", payload=b"\x0b\0\1\xff"))
        kind, text = error_of(wire, sid)
        assert (kind, "chat: " in text) == (7, True)
        sid = wire.open("watch")
        wire.send(dumps(DATA, sid, "watch", payload=b"garbage"))
        assert error_of(wire, sid, "watch")[0] == 7
        # To nobody.
        for kind in (META, DATA, TRAILER, RST):
            wire.send(dumps(kind, 4711, "chat"), dumps(kind, 0, "chat"))
        wire.send(dumps(HEADER, 0, "chat"), dumps(META, other, "chat", strings={"a": "b"}))
        wire.end(other)
        assert wire.finish(other) == ([], {}, None)
        wait_until(lambda: service.running == 0)

    against(service, use)


@without_hub
def test_a_message_over_the_limit_ends_its_stream() -> None:
    def use(wire: StreamWire) -> None:
        other = wire.open("chat", Request(message="x"))
        assert wire.reply(other).message == "x"
        sid = wire.open("chat")
        wire.send(dumps(DATA, sid, "chat", payload=bytes(200_000)))
        kind, text = error_of(wire, sid)
        assert (kind, text.startswith("RESOURCE_EXHAUSTED: a message of")) == (6, True)
        wire.send(dumps(DATA, 4711, "chat", payload=bytes(200_000)))
        wire.data(other, Request(message="y"))
        assert wire.reply(other).message == "y"
        wire.end(other)
        assert wire.finish(other)[2] is None
        sid = wire.open("watch", Request(count=1, body=bytes(90_000), action="grow"))
        assert "longer than the limit" in error_of(wire, sid, "watch")[1]

    def grow(req: Request) -> None:
        req.body = bytes(110_000)

    with records():
        against(acting(grow=grow), use, max_message=100_000)


BAD = {
    "another magic": b"\0\0\0\x10\x20\0\0\2" + bytes(12),
    "no streaming flag": b"\0\0\0\x10\x10\0\0\0" + bytes(12),
    "a negative length": b"\xff\xff\xff\xf0\x10\0\0\2" + bytes(12),
    "infos longer than the frame": b"\0\0\0\x10\x10\0\0\2\0\0\0\1\0\xff" + bytes(6),
    "no type": dumps(DATA, 1, "chat").replace(b"\x00\x1b\x00\x013", b"\x00\x1c\x00\x013"),
    "a type that is none": dumps(DATA, 1, "chat").replace(b"\x00\x1b\x00\x013", b"\x00\x1b\x00\x016"),
    "a transform": dumps(DATA, 1, "chat")[:15] + b"\1\1" + dumps(DATA, 1, "chat")[17:],
    "another protocol": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
}


@pytest.mark.parametrize("what", BAD)
def test_bytes_that_are_no_frames_end_the_connection(what: str) -> None:
    """Its streams are told why first."""

    @without_hub
    def run() -> None:
        service = Watched()

        def use(wire: StreamWire) -> None:
            sid = wire.open("chat", Request())
            wire.reply(sid)
            wire.send(BAD[what])
            assert error_of(wire, sid)[0] == Reason.ILLEGAL_FRAME
            assert wire.at_end()
            wait_until(lambda: service.running == 0)

        with records() as lines:
            against(service, use)
        assert len([line for line in lines if "closing the connection" in line.getMessage()]) == 1

    run()


# ---- counted, logged, wrapped -------------------------------------------------------------------------------------------


@without_hub
def test_streams_are_counted_and_logged() -> None:
    with records("weego.access") as lines, served(acting(), access_log=True) as server, StreamWire(server.addresses[0]) as wire:
        wire.call("chat", Request(message="x"))
        wire.finish(wire.open("nope", end=True))
        dispatcher = server.serving.dispatcher
        wait_until(lambda: dispatcher.inflight == 0)
        assert (dispatcher.requests, dispatcher.errors) == (2, 1)
        wait_until(lambda: len(lines) == 2)
    first, second = (line.getMessage() for line in lines)
    assert "Talk.chat OK" in first
    assert lines[0].protocol == "ttheader-streaming"  # type: ignore[attr-defined]
    assert f"nope {Code.UNIMPLEMENTED.name}" in second


@without_hub
def test_middleware_sees_streams() -> None:
    seen: list[str] = []

    def middleware(next_: Any) -> Any:
        def handler(call: Any, args: Any) -> Any:
            seen.append(f"{call.method} {type(args[0]).__name__}")
            return next_(call, args)

        return handler

    def use(wire: StreamWire) -> None:
        wire.call("chat", Request())
        wire.call("watch", Request())

    against(acting(), use, middleware=[middleware])
    assert seen == ["chat Requests", "watch Request"]


@without_hub
def test_the_servers_own_time_limit() -> None:
    service = Watched()

    def use(wire: StreamWire) -> None:
        assert error_of(wire, wire.open("chat"))[1].startswith("DEADLINE_EXCEEDED")

    against(service, use, timeout=0.1)


# ---- leaving -----------------------------------------------------------------------------------------------------------


@without_hub
def test_a_server_that_stops_finishes_its_streams_and_says_goodbye() -> None:
    service = Watched()
    with served(service) as server, StreamWire(server.addresses[0]) as wire:
        sid = wire.open("chat", Request())
        wire.reply(sid)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        goodbye = wire.next_frame(0)
        assert goodbye.header is not None
        assert (goodbye.type, goodbye.header.strings) == (META, {"crrst": "1"})
        crossed = wire.open("say", Request(message="on its way"))
        assert wire.finish(crossed, "say")[0] == [Reply(message="on its way")]
        time.sleep(1.2)  # a second is given to what was on its way
        found, strings, error = wire.finish(wire.open("chat"))
        assert (found, strings, error) == ([], {"crrst": "1"}, (Reason.TRANSPORT_CLOSING, "this server is leaving; connect again"))
        wire.data(sid, Request(count=5))
        assert wire.reply(sid).count == 5
        wire.end(sid)
        assert wire.finish(sid) == ([], {"crrst": "1"}, None)
        assert wire.at_end()
        stopping.join()


@without_hub
def test_other_bounds_from_now_on() -> None:
    with served(Watched()) as server, StreamWire(server.addresses[0]) as wire:
        wire.reply(wire.open("chat", Request()))
        serving = server.serving
        serving.follow(serving.limits, None, StreamOptions(max_streams=1, max_queued=5000))
        assert error_of(wire, wire.open("chat"))[1].startswith("RESOURCE_EXHAUSTED: 1 streams")
        serving.follow(serving.limits)
        assert (serving.streams.max_streams, serving.streams.max_queued) == (1, 5000)

"""gRPC served: the four kinds of call, metadata, deadlines, cancellation, compression, statuses; and GR-01 to GR-07."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import gevent.event
import pytest

import weego
from codec.errors import BusinessError, Code, StatusError
from codec.grpc import binary_value, find_field
from governance.memory import Memory
from tests.support.certs import Certificates
from tests.support.grpc_echo import Echo, EchoService, Reply, Request
from tests.support.grpc_wire import Closed, GrpcWire, prefixed, replies, said
from tests.support.net import records, served, wait_until, with_hub, without_hub
from weego import config
from weego.governed_config import ServerGovernance
from weego.routes import ServiceError, inline, thread

ACCEPTED, DETAILS = 15, 18


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(autouse=True, params=["cleartext", "tls"])
def secured(request: pytest.FixtureRequest, certs: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this file, without TLS and with it."""
    if request.param == "tls":
        monkeypatch.setattr(GrpcWire, "context", certs.stdlib())
        monkeypatch.setitem(globals(), "served", partial(served, tls=certs.server()))


def against(service: object, use: Callable[[GrpcWire], Any], **options: Any) -> Any:
    """Serve `service` in a thread of its own and call it from this one."""
    with served(service, **options) as server, GrpcWire(server.addresses[0]) as wire:
        return use(wire)


def acting(**actions: Callable[[Any], Any]) -> EchoService:
    return EchoService(**actions)


# ---- the four kinds ----------------------------------------------------------------------------------------------------


@without_hub
def test_unary() -> None:
    def use(wire: GrpcWire) -> None:
        for _ in range(3):
            assert wire.call("Say", Request(message="é", body=b"x" * 10)) == (0, "", [Reply(message="é", body=b"x" * 10)])
        big = Request(body=bytes(3_000_000))
        status, _, found = wire.call("Say", big)
        assert (status, len(found[0].body)) == (0, 3_000_000)
        stream = wire.open("Say")
        wire.send(stream, prefixed(Request(message="once").SerializeToString()), end=True)
        assert wire.finish(stream) == (0, "")
        assert [field.name for field in stream.headers or ()] == [b":status", b"content-type"]
        assert [(field.name, field.value) for field in stream.trailers or ()] == [(b"grpc-status", b"0")]

    against(EchoService(), use)


@without_hub
def test_streams_of_either_side() -> None:
    def use(wire: GrpcWire) -> None:
        status, _, found = wire.call("Watch", Request(message="w", body=bytes(20_000), count=50))
        assert (status, [reply.count for reply in found]) == (0, list(range(50)))
        status, _, found = wire.call("Collect", *(Request(message=str(n), body=bytes(n)) for n in range(300)))
        assert (status, found) == (0, [Reply(message="44850 299", count=300)])
        status, _, found = wire.call("Chat", *(Request(count=n) for n in range(300)))
        assert [reply.count for reply in found] == list(range(300))
        assert wire.call("Collect") == (0, "", [Reply(message="0 ")])
        assert wire.call("Chat") == (0, "", [])
        assert wire.call("Watch", Request()) == (0, "", [])

    against(EchoService(), use)


@without_hub
def test_a_conversation_goes_back_and_forth() -> None:
    def use(wire: GrpcWire) -> None:
        stream = wire.open("Chat")
        for number in range(20):
            stream.write_message(Request(count=number).SerializeToString())
            wire.until(lambda: stream.messages)
            assert [reply.count for reply in replies(stream)] == [number]
        assert stream.is_open
        wire.send(stream, b"", end=True)
        assert wire.finish(stream) == (0, "")

    against(EchoService(), use)


@without_hub
def test_a_handler_that_streams_waits_for_a_peer_that_does_not_read() -> None:
    made: list[int] = []

    def use(wire: GrpcWire) -> None:
        stream = wire.open("Watch")
        stream.write_message(Request(action="count", body=bytes(10_000), count=1000).SerializeToString())
        wire.send(stream, b"", end=True)
        wire.until(lambda: stream.messages)
        with pytest.raises(TimeoutError):
            while True:
                wire.pump(timeout=0.5)
        assert len(made) < 300, "a window of 1 MiB is about 100 messages"
        count = 0
        while stream.is_open or stream.messages:
            count += len(replies(stream))
            if stream.is_open:
                wire.pump()
        assert (count, len(made)) == (1000, 1000)

    against(acting(count=lambda _: made.append(1)), use)


@without_hub
def test_limits_see_streams_from_their_beginning_to_their_end() -> None:
    """Kitex's limiters do not see gRPC's streams."""
    go = gevent.event.Event()
    tight = ServerGovernance(
        config.Governance(limit=(config.Limit(name="one", concurrency=1, method="Watch"), config.Limit(name="few", rate=0.001, burst=2.0, method="Chat"))), Memory()
    )

    def wait(_: Any) -> None:
        while not go.is_set():
            gevent.sleep(0.01)

    def use(wire: GrpcWire) -> None:
        first = wire.open("Watch")
        wire.send(first, prefixed(Request(count=1, action="wait").SerializeToString()), end=True)
        wait_until(lambda: tight.snapshot()["limits"][0]["current"] == 1)
        status, message, _ = wire.call("Watch", Request(count=1))
        assert (status, "limit one, 1 calls at one time" in message) == (Code.RESOURCE_EXHAUSTED, True)
        go.set()
        assert wire.finish(first) == (0, "")
        assert wire.call("Watch", Request(count=1))[0] == 0
        assert [wire.call("Chat", Request())[0] for _ in range(3)] == [0, 0, Code.RESOURCE_EXHAUSTED]

    against(acting(wait=wait), use, governance=tight)


@without_hub
def test_a_peer_that_sends_waits_for_a_handler_that_does_not_read() -> None:
    go = gevent.event.Event()

    class Slow(EchoService):
        def collect(self, requests: Iterator[Any]) -> Any:
            while not go.is_set():
                gevent.sleep(0.01)
            return super().collect(requests)

    def use(wire: GrpcWire) -> None:
        stream = wire.open("Collect")
        for _ in range(500):
            stream.write_message(Request(body=bytes(10_000)).SerializeToString())
        with pytest.raises(TimeoutError):
            while True:
                wire.pump(timeout=0.5)
        assert stream.queued > 3_000_000, "the window of a stream, 1 MiB, and no more has left"
        go.set()
        wire.send(stream, b"", end=True)
        assert wire.finish(stream) == (0, "")
        assert replies(stream)[0].count == 500

    against(Slow(), use)


@without_hub
def test_what_the_handler_writes_through_another_greenlet_is_not_mixed_up() -> None:
    class Both(EchoService):
        """Reads in one greenlet and answers in another, as bidirectional services do."""

        def chat(self, requests: Iterator[Any]) -> Iterator[Any]:
            import gevent.queue

            queue: Any = gevent.queue.Queue()

            def read() -> None:
                for request in requests:
                    queue.put(request)
                queue.put(StopIteration)

            gevent.spawn(read)
            for request in queue:
                yield Reply(count=request.count)

    def use(wire: GrpcWire) -> None:
        status, _, found = wire.call("Chat", *(Request(count=n) for n in range(100)))
        assert (status, [reply.count for reply in found]) == (0, list(range(100)))

    against(Both(), use)


@without_hub
def test_many_calls_at_a_time_on_one_connection() -> None:
    def use(wire: GrpcWire) -> None:
        streams = [wire.open("Say") for _ in range(60)]
        for number, stream in enumerate(streams):
            stream.write_message(Request(message=str(number), action="wait" if number % 2 else "").SerializeToString(), end=True)
        for number, stream in enumerate(streams):
            assert wire.finish(stream) == (0, "")
            assert replies(stream)[0].message == str(number)

    against(acting(wait=lambda _: gevent.sleep(0.05)), use)


# ---- metadata ----------------------------------------------------------------------------------------------------------


@without_hub
def test_metadata_both_ways() -> None:
    seen: list[Any] = []

    def note(_: Any) -> None:
        call = weego.current()
        assert call is not None
        seen.append((call.metadata.pairs(), call.caller, call.log_id, call.protocol, call.method))
        call.send_metadata.update({"x-head": ["a", "b"], "y-bin": b"\0\xff", "RPC_PERSIST_KEY": "k"})
        call.trailers.update({"x-tail": "t", "z-bin": b"\1"})

    def use(wire: GrpcWire) -> None:
        status, _, _ = wire.call(
            "Say", Request(action="note"), x_key="value", d_bin="AAE,Ag", rpc_transit_some_key="v", source_service="front", stream_log_id="id"
        )
        assert status == 0
        stream = wire.open("Say")
        stream.write_message(Request(action="note").SerializeToString(), end=True)
        wire.finish(stream)
        names = [(field.name, field.value) for field in stream.headers or ()]
        assert names[2:] == [(b"x-head", b"a"), (b"x-head", b"b"), (b"y-bin", b"AP8"), (b"rpc-persist-key", b"k")]
        assert [field.name for field in stream.trailers or ()] == [b"grpc-status", b"x-tail", b"z-bin"]
        assert said(stream)["RPC_PERSIST_KEY"] == "k"
        assert binary_value(said(stream)["z-bin"]) == b"\1"

    against(acting(note=note), use)
    pairs, caller, log_id, protocol, method = seen[0]
    assert [pair for pair in pairs if pair[0] not in ("source-service", "stream-log-id")] == [
        ("x-key", "value"), ("d-bin", "AAE="), ("d-bin", "Ag=="), ("RPC_TRANSIT_SOME_KEY", "v"),
    ]  # fmt: skip
    assert (caller, log_id, protocol, method) == ("front", "id", "grpc", "Say")


@without_hub
def test_metadata_that_cannot_travel_is_an_error_of_the_server() -> None:
    def wrong(request: Any) -> None:
        call = weego.current()
        assert call is not None
        if request.count:
            call.trailers["grpc-status"] = "0"
        else:
            call.send_metadata["x"] = "é"

    def use(wire: GrpcWire) -> None:
        for count in (0, 1):
            status, text, _ = wire.call("Say", Request(action="wrong", count=count))
            assert (status, "cannot be sent" in text or "does not fit" in text) == (Code.INTERNAL, True)
        assert wire.call("Say", Request())[0] == 0

    with records() as lines:
        against(acting(wrong=wrong), use)
    assert any("ASCII" in line.getMessage() for line in lines)


# ---- statuses ----------------------------------------------------------------------------------------------------------


@without_hub
def test_what_handlers_raise_is_a_status() -> None:
    from google.protobuf import any_pb2, wrappers_pb2

    def fail(error: BaseException) -> Callable[[Any], None]:
        def act(_: Any) -> None:
            raise error

        return act

    detail = wrappers_pb2.StringValue(value="why")
    service = acting(
        status=fail(StatusError(Code.NOT_FOUND, "no ☕ %", [detail])),
        business=fail(BusinessError(4711, "sold out", {"shelf": "7"})),
        coded=fail(BusinessError(1, "no", code=Code.ABORTED)),
        bug=fail(ValueError("bug")),
    )

    def use(wire: GrpcWire) -> None:
        stream = wire.open("Say")
        stream.write_message(Request(action="status").SerializeToString(), end=True)
        assert wire.finish(stream) == (Code.NOT_FOUND, "no ☕ %")
        assert stream.trailers is None, "trailers only"
        raw = find_field(stream.headers or [], DETAILS)
        assert raw is not None
        again = StatusError(5, status_details=binary_value(raw.decode()))
        packed = any_pb2.Any()
        packed.Pack(detail)
        assert list(again.details) == [packed]

        stream = wire.open("Say")
        stream.write_message(Request(action="business").SerializeToString(), end=True)
        assert wire.finish(stream) == (Code.INTERNAL, "sold out"), "as Kitex sends it"
        assert (said(stream)["biz-status"], said(stream)["biz-extra"]) == ("4711", '{"shelf":"7"}')
        assert wire.call("Say", Request(action="coded"))[0] == Code.ABORTED
        with records() as lines:
            assert wire.call("Say", Request(action="bug")) == (Code.UNKNOWN, "ValueError: bug", [])
        assert [line.exc_info is not None for line in lines] == [True]
        status, text, found = wire.call("Watch", Request(action="status", count=3))
        assert (status, text, found) == (Code.NOT_FOUND, "no ☕ %", [])

    against(service, use)


@without_hub
def test_an_error_after_messages_comes_in_the_trailers() -> None:
    class Half(EchoService):
        def watch(self, request: Any) -> Iterator[Any]:
            yield Reply(message="one")
            raise StatusError(Code.DATA_LOSS, "the rest is gone")

    def use(wire: GrpcWire) -> None:
        assert wire.call("Watch", Request()) == (Code.DATA_LOSS, "the rest is gone", [Reply(message="one")])

    against(Half(), use)


@without_hub
def test_what_does_not_fit_the_idl_is_internal() -> None:
    class Wrong(EchoService):
        def say(self, request: Any) -> Any:
            return "a string"

        def watch(self, request: Any) -> Iterator[Any]:
            return 7  # type: ignore[return-value]

        def collect(self, requests: Iterator[Any]) -> Any:
            return None

    def use(wire: GrpcWire) -> None:
        assert wire.call("Say", Request())[0] == Code.INTERNAL
        assert wire.call("Collect")[0] == Code.INTERNAL
        assert wire.call("Watch", Request())[0] == Code.UNKNOWN

    with records():
        against(Wrong(), use)


@without_hub
def test_unknown_services_and_methods_are_unimplemented() -> None:
    def use(wire: GrpcWire) -> None:
        for path, words in (
            ("/no.Such/Say", "unknown service no.Such"),
            ("/weego.test.v1.Echo/Nope", "unknown method"),
            ("/nothing", "unknown service"),
            ("Chat", "does not implement it"),
        ):
            status, text, _ = wire.call(path, Request())
            assert (status, words in text) == (Code.UNIMPLEMENTED, True), text
        assert wire.call("/Echo/Say", Request(message="x"))[0] == Code.UNIMPLEMENTED, "it exists, as Kitex looks it up: by its last name"

    against(Echo(), use)


@without_hub
def test_what_is_no_grpc_is_told_so_in_http() -> None:
    def use(wire: GrpcWire) -> None:
        head = [(b":scheme", b"http"), (b":path", b"/weego.test.v1.Echo/Say"), (b":authority", b"x")]
        for fields, status in (
            ([(b":method", b"GET"), *head], b"405"),
            ([(b":method", b"POST"), *head, (b"content-type", b"application/json")], b"415"),
            ([(b":method", b"POST"), *head, (b"content-type", b"application/grpcx")], b"415"),
        ):
            stream = wire.open(fields=fields, end=True)
            wire.until(lambda s=stream: not s.is_open)
            assert (stream.headers or [])[0].value == status
        assert wire.call("Say", Request())[0] == 0

    against(EchoService(), use)


# ---- deadlines and cancellation ----------------------------------------------------------------------------------------


class Watched(EchoService):
    """Notes how its handlers end."""

    def __init__(self) -> None:
        super().__init__(sleep=self.sleep)
        self.ends: list[str] = []
        self.running = 0

    def sleep(self, _: Any) -> None:
        self.running += 1
        try:
            gevent.sleep(60)
        except BaseException as error:
            call = weego.current()
            assert call is not None
            self.ends.append(f"{type(error).__name__} {call.cancelled}")
            raise
        finally:
            self.running -= 1

    def watch(self, request: Any) -> Iterator[Any]:
        self.running += 1
        try:
            yield Reply()
            gevent.sleep(60)
        finally:
            self.ends.append("closed")
            self.running -= 1


@without_hub
def test_gr_07_a_deadline_shorter_than_the_handler() -> None:
    service = Watched()

    def use(wire: GrpcWire) -> None:
        for timeout, words in (("50m", "the deadline passed"), ("1n", "deadline")):
            status, text, _ = wire.call("Say", Request(action="sleep"), grpc_timeout=timeout)
            assert (status, words in text) == (Code.DEADLINE_EXCEEDED, True)
        assert wire.call("Watch", Request(), grpc_timeout="50m")[0] == Code.DEADLINE_EXCEEDED
        assert wire.call("Chat", grpc_timeout="5S")[0] == 0
        wait_until(lambda: service.running == 0)

    against(service, use)
    assert service.ends[0] == "DeadlineExceeded False"
    assert service.ends[-1] == "closed"


@without_hub
def test_the_handler_sees_its_deadline() -> None:
    left: list[float | None] = []

    def note(_: Any) -> None:
        call = weego.current()
        assert call is not None
        left.append(call.remaining)

    def use(wire: GrpcWire) -> None:
        wire.call("Say", Request(action="note"), grpc_timeout="1H")
        wire.call("Say", Request(action="note"))
        wire.call("Say", Request(action="note"), grpc_timeout="99999999H")

    against(acting(note=note), use)
    assert left[0] is not None
    assert 3500 < left[0] <= 3600
    assert left[1] is None
    assert left[2] is None or left[2] > 1e9


@without_hub
def test_a_caller_that_gives_up_is_told_to_the_handler() -> None:
    service = Watched()

    def use(wire: GrpcWire) -> None:
        one, two, three = wire.open("Say"), wire.open("Watch"), wire.open("Collect")
        one.write_message(Request(action="sleep").SerializeToString(), end=True)
        two.write_message(Request().SerializeToString(), end=True)
        wire.flush()
        wait_until(lambda: service.running == 2)
        wire.until(lambda: two.messages)
        for stream in (one, two, three):
            wire.protocol.reset(stream)
        wire.flush()
        wait_until(lambda: service.running == 0)
        assert sorted(service.ends) == ["Cancelled True", "closed"]
        assert wire.call("Say", Request())[0] == 0

    with served(service) as server:
        with GrpcWire(server.addresses[0]) as wire:
            use(wire)
        wait_until(lambda: server.serving.dispatcher.inflight == 0)


@without_hub
def test_a_connection_that_breaks_cancels_its_calls() -> None:
    service = Watched()
    with served(service) as server:
        with GrpcWire(server.addresses[0]) as wire:
            for _ in range(5):
                wire.open("Say").write_message(Request(action="sleep").SerializeToString(), end=True)
            wire.flush()
            wait_until(lambda: service.running == 5)
        wait_until(lambda: service.running == 0)
        assert service.ends == ["Cancelled True"] * 5
        wait_until(lambda: server.serving.dispatcher.inflight == 0)
        assert server.serving.connections == 0


@without_hub
def test_gr_06_a_storm_of_cancelled_calls_leaves_nothing() -> None:
    import random

    rng = random.Random(6)
    service = acting(nap=lambda _: gevent.sleep(rng.random() * 0.005))
    with served(service) as server:
        left = 10_000
        while left:
            with GrpcWire(server.addresses[0]) as wire:
                try:
                    while left:
                        batch = [wire.open(rng.choice(("Say", "Watch", "Chat"))) for _ in range(min(left, 20))]
                        for stream in batch:
                            stream.write_message(Request(action="nap", count=3).SerializeToString(), end=rng.random() < 0.8)
                        wire.flush()
                        left -= len(batch)
                        for stream in batch:
                            wire.protocol.reset(stream)
                        wire.flush()
                except (Closed, OSError):
                    continue  # told to calm down: another connection
        dispatcher = server.serving.dispatcher
        wait_until(lambda: dispatcher.inflight == 0 and server.serving.connections == 0)
        with GrpcWire(server.addresses[0]) as wire:
            assert wire.call("Say", Request(message="alive"))[0] == 0


# ---- messages that are not what they should be -------------------------------------------------------------------------


@without_hub
def test_gr_01_a_length_that_is_too_much() -> None:
    def use(wire: GrpcWire) -> None:
        for length in (4 * 2**20 + 1, 2**32 - 1):
            stream = wire.open("Say")
            wire.send(stream, prefixed(b"x" * 100, length=length), end=True)
            status, text = wire.finish(stream)
            assert (status, "limit of 4194304" in text) == (Code.RESOURCE_EXHAUSTED, True)
        stream = wire.open("Collect")  # a stream is told at once, not at its end
        wire.send(stream, prefixed(b"x", length=2**31))
        assert wire.finish(stream)[0] == Code.RESOURCE_EXHAUSTED
        assert wire.call("Say", Request())[0] == 0

    against(EchoService(), use)


@without_hub
def test_gr_02_a_gzip_bomb() -> None:
    bomb = gzip.compress(bytes(64 * 2**20))

    def use(wire: GrpcWire) -> None:
        stream = wire.open("Say", grpc_encoding="gzip")
        wire.send(stream, prefixed(bomb, 1), end=True)
        status, text = wire.finish(stream)
        assert (status, "decompressed" in text) == (Code.RESOURCE_EXHAUSTED, True)

    against(EchoService(), use)


@without_hub
def test_gr_03_compression_that_was_not_announced_or_is_not_known() -> None:
    message = Request(message="x").SerializeToString()

    def use(wire: GrpcWire) -> None:
        for fields, data, expected in (
            ({}, prefixed(gzip.compress(message), 1), Code.INTERNAL),
            ({"grpc_encoding": "identity"}, prefixed(gzip.compress(message), 1), Code.INTERNAL),
            ({"grpc_encoding": "gzip"}, prefixed(b"not gzip", 1), Code.INTERNAL),
            ({"grpc_encoding": "gzip"}, prefixed(gzip.compress(message)[:-3], 1), Code.INTERNAL),
            ({"grpc_encoding": "snappy"}, prefixed(message), Code.UNIMPLEMENTED),
            ({}, prefixed(message, 2), Code.INTERNAL),
        ):
            stream = wire.open("Say", **fields)
            wire.send(stream, data, end=True)
            assert wire.finish(stream)[0] == expected, (fields, data)
            if expected == Code.UNIMPLEMENTED:
                assert b"gzip" in (find_field(stream.headers or [], ACCEPTED) or b"")

    against(EchoService(), use)


@without_hub
def test_compression_both_ways() -> None:
    def squeeze(request: Any) -> None:
        call = weego.current()
        assert call is not None
        call.compression = request.message or None

    def use(wire: GrpcWire) -> None:
        for encoding, read in (("gzip", gzip.decompress), ("deflate", zlib.decompress), ("snappy", None)):
            request = Request(message=encoding, body=bytes(10_000), action="squeeze").SerializeToString()
            stream = wire.open("Say", grpc_encoding="gzip", grpc_accept_encoding="identity, deflate,gzip,snappy")
            wire.send(stream, prefixed(gzip.compress(request), 1), end=True)
            assert wire.finish(stream) == (0, "")
            payload = stream.next_message()
            if read is None:
                assert isinstance(payload, bytes), "what we do not know is not used"
            else:
                assert isinstance(payload, tuple)
                assert len(payload[0]) < 200
                assert Reply.FromString(read(payload[0])).body == bytes(10_000)
                assert find_field(stream.headers or [], 14) == encoding.encode()
        stream = wire.open("Say")
        wire.send(stream, prefixed(Request(message="gzip", action="squeeze").SerializeToString()), end=True)
        assert wire.finish(stream) == (0, "")
        assert isinstance(stream.next_message(), bytes), "the caller did not say that it can read it"

    against(acting(squeeze=squeeze), use)


@pytest.mark.parametrize("timeout", ["", "1", "S", "-1S", "123456789S", "1.5S", "1s", "9999999999H", "1 S", "0x1S"])
@without_hub
def test_gr_04_timeouts_that_are_none(timeout: str) -> None:
    def use(wire: GrpcWire) -> None:
        status, text, _ = wire.call("Say", Request(), grpc_timeout=timeout)
        assert (status, "grpc-timeout" in text) == (Code.INTERNAL, True)
        assert wire.call("Say", Request(), grpc_timeout="0n")[0] == Code.DEADLINE_EXCEEDED
        assert wire.call("Say", Request(), grpc_timeout="99999999S")[0] == 0

    against(EchoService(), use)


@without_hub
def test_gr_05_requests_that_are_not_whole() -> None:
    message = prefixed(Request(message="x").SerializeToString())

    def use(wire: GrpcWire) -> None:
        for data in (b"", message[:3], message[:-1], message + message, message + b"\0", prefixed(b"\xff\xff")):
            stream = wire.open("Say")
            wire.send(stream, data, end=True)
            assert wire.finish(stream)[0] == Code.INTERNAL, data
        stream = wire.open("Say", end=True)
        assert wire.finish(stream)[0] == Code.INTERNAL
        for method in ("Collect", "Chat"):
            stream = wire.open(method)
            wire.send(stream, message + message[:4], end=True)
            assert wire.finish(stream)[0] == Code.INTERNAL
        assert wire.call("Say", Request())[0] == 0

    against(EchoService(), use)


# ---- the stack of a real call ------------------------------------------------------------------------------------------


@without_hub
def test_middleware_limits_counters_and_the_access_log() -> None:
    around: list[str] = []

    def noting(handler: Any) -> Any:
        def wrapped(call: Any, args: Any) -> Any:
            around.append(f"{call.service}.{call.method}")
            return handler(call, args)

        return wrapped

    hold = gevent.event.Event()
    service = acting(hold=lambda _: wait_gently(hold))
    with served(service, middleware=[noting], max_concurrency=2) as server:
        with GrpcWire(server.addresses[0]) as wire:
            streams = [wire.open("Say") for _ in range(3)]
            for stream in streams:
                stream.write_message(Request(action="hold").SerializeToString(), end=True)
            status, text = wire.finish(streams[2])
            assert (status, "its limit" in text) == (Code.RESOURCE_EXHAUSTED, True)
            hold.set()
            assert [wire.finish(stream)[0] for stream in streams[:2]] == [0, 0]
            wire.call("Watch", Request(count=2))
            wire.call("/no.Such/M", Request())
        dispatcher = server.serving.dispatcher
        wait_until(lambda: dispatcher.inflight == 0)
        assert (dispatcher.requests, dispatcher.errors) == (5, 2)
    assert around == ["Echo.Say", "Echo.Say", "Echo.Watch"]


def wait_gently(event: Any) -> None:
    while not event.is_set():
        gevent.sleep(0.01)


@without_hub
def test_a_handler_in_a_thread_or_inline() -> None:
    import threading

    class Mixed(EchoService):
        @thread
        def say(self, request: Any) -> Any:
            return Reply(message=str(threading.get_native_id()))

    class Quick(EchoService):
        @inline
        def say(self, request: Any) -> Any:
            return Reply(message="inline")

    assert against(Quick(), lambda wire: wire.call("Say", Request()))[2][0].message == "inline"
    status, _, found = against(Mixed(), lambda wire: wire.call("Say", Request()))
    assert status == 0
    assert int(found[0].message) != threading.get_native_id()


def test_services_that_cannot_be_served() -> None:
    class Threaded(EchoService):
        @thread
        def chat(self, requests: Iterator[Any]) -> Iterator[Any]:
            yield Reply()

    class Yielding(EchoService):
        def say(self, request: Any) -> Any:
            yield Reply()

    class Async(EchoService):
        async def say(self, request: Any) -> Any:
            return Reply()

    for cls, words in ((Threaded, "it cannot be thread"), (Yielding, "answers once"), (Async, "coroutine")):
        with pytest.raises(ServiceError, match=words):
            weego.Server([cls()], listen="tcp://127.0.0.1:0").start()


@with_hub
def test_thrift_and_grpc_on_one_port(certs: Certificates) -> None:
    from tests.support.echo_stub import Echo as ThriftEcho
    from tests.support.echo_stub import EchoClient
    from tests.support.echo_stub import Request as ThriftRequest
    from tests.support.echo_stub import Response as ThriftResponse

    class Thrift(ThriftEcho):
        def echo(self, req: ThriftRequest) -> ThriftResponse:
            return ThriftResponse(message=req.message)

    class Named(EchoService):
        __spec__ = type(Echo.__spec__)("GrpcEcho", Echo.__spec__.own_methods, full_name="weego.test.v1.Echo", kind="protobuf")

    secure = GrpcWire.context is not None
    with weego.Server([Thrift(), Named()], listen="tcp://127.0.0.1:0", tls=certs.server() if secure else None) as server:
        with EchoClient(server.addresses[0], tls=certs.client() if secure else None) as client:
            assert client.echo(ThriftRequest(message="thrift")).message == "thrift"
        pool = gevent.get_hub().threadpool

        def call() -> Any:
            with GrpcWire(server.addresses[0]) as wire:
                return wire.call("Say", Request(message="grpc"))

        assert pool.apply(call) == (0, "", [Reply(message="grpc")])
        pool.kill()

"""Streams of both kinds through the policies of a client: what counts is how they end, and their messages have times of their own."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from codec.errors import Code, DeadlineExceeded, ResourceExhausted, Unavailable
from governance.limiter import LimitRule
from governance.policy import BreakerPolicy, ClientPolicy, Policy
from tests.interop import grpc_service
from tests.support.net import Peer, served, wait_until, with_hub, without_hub
from tests.support.stream_echo import Request, TalkClient, TalkService
from weego import config, settings
from weego.governed_config import client_settings

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
KINDS = pytest.mark.parametrize("kind", ["thrift", "grpc"])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


@pytest.fixture(autouse=True)
def _nothing_counted_before() -> Iterator[None]:
    """Breakers of one name are one breaker: each test has its own memory."""
    before = settings.known()
    settings.remember(settings.Known())
    yield
    settings.remember(before)


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


class Talking:
    """A client of a server of either kind; `open` begins a stream that echoes, of which `ask` is one message."""

    def __init__(self, client: Any, kind: str, t: Any) -> None:
        self.client = client
        self.method = "chat" if kind == "thrift" else "FullDuplexCall"
        self.open: Callable[..., Any] = client.chat if kind == "thrift" else client.full_duplex_call
        self.ask: Callable[..., Any] = lambda size=1: Request(body=bytes(size)) if kind == "thrift" else grpc_service.ping(t, size, 1)

    @property
    def governed(self) -> Any:
        return self.client._governed

    @property
    def codes(self) -> dict[int, int]:
        codes: dict[int, int] = self.governed.meters[self.method].snapshot()["codes"]
        return codes

    @property
    def judged(self) -> list[tuple[int, int]]:
        """Successes and failures, of the method's breaker and of the instance's."""
        breakers = [self.governed.breakers[self.method], *self.governed.attempts.breakers.values()]
        return [(found["successes"], found["failures"]) for found in (each.snapshot() for each in breakers)]

    @property
    def busy(self) -> int:
        return sum(each["busy"] for each in self.governed.balancer.snapshot())


@contextlib.contextmanager
def talking(kind: str, t: Any, **policy: Any) -> Iterator[Talking]:
    made = ClientPolicy(Policy(retry=None, **policy), ejection=None)
    service = TalkService() if kind == "thrift" else grpc_service.service(t)
    with served(service) as server:
        cls = TalkClient if kind == "thrift" else t.TestServiceClient
        with cls(server.addresses[0], policy=made, timeout=20) as client:
            yield Talking(client, kind, t)


@BOTH
@KINDS
def test_a_stream_counts_when_it_is_over(t: Any, decorate: Decorator, kind: str) -> None:
    @decorate
    def run() -> None:
        with talking(kind, t) as talk:
            with talk.open() as stream:
                stream.send(talk.ask())
                next(stream)
                assert (talk.busy, talk.codes, talk.judged) == (1, {}, [(0, 0), (0, 0)])
                stream.close_send()
                assert list(stream) == []
            assert (talk.busy, talk.codes, talk.judged) == (0, {Code.OK: 1}, [(1, 0), (1, 0)])
            # Left in the middle: the server has answered, so it is well.
            with talk.open() as stream:
                stream.send(talk.ask())
                next(stream)
            assert (talk.busy, talk.codes, talk.judged) == (0, {Code.OK: 1, Code.CANCELLED: 1}, [(2, 0), (2, 0)])
            # Given up before there was any answer: that says nothing.
            stream = talk.open()
            stream.cancel()
            assert (talk.busy, talk.codes[Code.CANCELLED], talk.judged) == (0, 2, [(2, 0), (2, 0)])
            stream = talk.open()
            assert talk.busy == 1
            del stream
            gc.collect()
            assert (talk.busy, talk.codes[Code.CANCELLED], talk.judged) == (0, 3, [(2, 0), (2, 0)])

    run()


@BOTH
@KINDS
def test_the_time_for_a_message(t: Any, decorate: Decorator, kind: str) -> None:
    @decorate
    def run() -> None:
        with talking(kind, t, recv_timeout=0.05) as talk:
            stream = talk.open(timeout=20)
            assert stream.recv_timeout == 0.05
            stream.recv_timeout = 0.0
            stream.send(talk.ask())
            next(stream)
            stream.recv_timeout = 0.05
            with pytest.raises(DeadlineExceeded, match=rf"{talk.method} at tcp://.* no message within 0.05 s \(recv_timeout\)") as caught:
                next(stream)
            assert caught.value.elapsed is not None
            with pytest.raises(DeadlineExceeded):
                next(stream)
            assert (talk.busy, talk.codes, talk.judged) == (0, {Code.DEADLINE_EXCEEDED: 1}, [(0, 1), (0, 1)])
            # The deadline of the whole stream still holds, and says so: this side or the server.
            stream = talk.open(timeout=0.05)
            stream.recv_timeout = 20.0
            with pytest.raises(DeadlineExceeded) as caught:
                next(stream)
            assert "recv_timeout" not in str(caught.value)
            with talk.open() as stream:
                stream.recv_timeout = 20.0
                stream.send(talk.ask())
                next(stream)

    run()


@BOTH
@KINDS
def test_the_time_of_an_attempt_is_not_that_of_a_stream(t: Any, decorate: Decorator, kind: str) -> None:
    @decorate
    def run() -> None:
        with talking(kind, t, attempt_timeout=0.05) as talk, talk.open() as stream:
            for _ in range(2):
                stream.send(talk.ask())
                next(stream)
                time.sleep(0.1)
            stream.close_send()
            assert list(stream) == []

    run()


@BOTH
@KINDS
def test_the_time_to_send_a_message(t: Any, decorate: Decorator, kind: str) -> None:
    go = threading.Event()

    def silent(sock: Any, number: int) -> None:
        go.wait(20)

    @decorate
    def run() -> None:
        policy = ClientPolicy(Policy(retry=None, send_timeout=0.1), ejection=None)
        cls = TalkClient if kind == "thrift" else t.TestServiceClient
        with Peer(silent) as peer, cls(peer.address, policy=policy) as client:
            talk = Talking(client, kind, t)
            with pytest.raises(DeadlineExceeded), talk.open() as stream:
                for _ in range(2000):
                    stream.send(talk.ask(100_000))
            assert (talk.busy, talk.codes, talk.judged) == (0, {Code.DEADLINE_EXCEEDED: 1}, [(0, 1), (0, 1)])
            go.set()

    run()
    go.clear()


@BOTH
@KINDS
def test_a_connection_that_breaks_under_a_stream_opens_the_breaker(t: Any, decorate: Decorator, kind: str) -> None:
    @decorate
    def run() -> None:
        policy = ClientPolicy(Policy(retry=None, breaker=BreakerPolicy(error_rate=0.0, consecutive=1)), ejection=None)
        cls = TalkClient if kind == "thrift" else t.TestServiceClient
        with Peer(lambda sock, number: sock.recv(1)) as peer, cls(peer.address, policy=policy, timeout=20) as client:
            talk = Talking(client, kind, t)
            stream = talk.open()
            with pytest.raises(Unavailable):
                next(stream)
            assert (talk.busy, talk.codes, talk.judged) == (0, {Code.UNAVAILABLE: 1}, [(0, 1), (0, 1)])
            assert talk.governed.breakers[talk.method].state == "open"

    run()


@BOTH
@KINDS
def test_a_stream_holds_its_place_under_a_limit_until_it_is_over(t: Any, decorate: Decorator, kind: str) -> None:
    @decorate
    def run() -> None:
        with talking(kind, t, limits=(LimitRule("one", concurrency=1),)) as talk:
            with talk.open() as stream:
                stream.send(talk.ask())
                next(stream)
                with pytest.raises(ResourceExhausted, match="limit one"):
                    talk.open()
            with talk.open() as stream:
                stream.send(talk.ask())
                next(stream)
            wait_until(lambda: talk.busy == 0)

    run()


def test_the_times_of_a_table() -> None:
    method = config.Method(send_timeout=config.Duration(3))
    table = config.Client(target="tcp://a:1", recv_timeout=config.Duration(1), send_timeout=config.Duration(2), method={"chat": method})
    policy = client_settings("talk", table, "me").policy
    assert (policy.default.recv_timeout, policy.default.send_timeout) == (1.0, 2.0)
    assert (policy.of("chat").recv_timeout, policy.of("chat").send_timeout) == (1.0, 3.0)

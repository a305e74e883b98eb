"""Peers that vanish without a word are found out before a call meets them: heartbeats on idle connections, between weego and weego, with those that
know no heartbeats, and through a proxy that stops passing anything on. Kitex: tests/interop/test_kitex.py."""

from __future__ import annotations

import gc
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import weego
from codec import ttheader
from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import DeadlineExceeded, Unavailable, UsageError
from codec.thrift import HEARTBEAT_CALL, Route, ThriftClientProtocol, ThriftServerProtocol
from poller.liveness import probe_every
from tests.support.echo_stub import ECHO, Echo, EchoClient, Request, Response
from tests.support.net import Peer, read_frame, records, served, wait_until, with_hub, without_hub
from weego.heartbeat import MOST_UNANSWERED, Hearts

# Seconds between heartbeats here. Nothing below depends on how long one really takes.
EVERY = 0.1
HEARTBEAT = 6
IN = pytest.mark.parametrize("where", [with_hub, without_hub], ids=["gevent", "threads"])
POOLS = pytest.mark.parametrize("pool", ["exclusive", "shared"])


class EchoService(Echo):
    def echo(self, req: Request) -> Response:
        if req.action == "slow":
            import gevent

            gevent.sleep(float(req.message))
        return Response(message=req.message)


class Proxy:
    """Passes bytes on in both directions, in a thread, until it is `frozen`: then it keeps its connections open and says nothing, as a host that is
    gone or a firewall that forgot."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.frozen = threading.Event()
        self.passed = 0
        self.accepted = 0
        self._ends: dict[socket.socket, socket.socket] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def _run(self) -> None:
        lost: set[socket.socket] = set()  # those that were there when it froze stay so
        while not self._stop.is_set():
            if self.frozen.is_set():
                lost |= set(self._ends)
            ready, _, _ = select.select([self._listener, *(set(self._ends) - lost)], [], [], 0.005)
            for sock in ready:
                if sock is self._listener:
                    near, _ = sock.accept()
                    far = socket.create_connection(self._target, 20)
                    self._ends |= {near: far, far: near}
                    self.accepted += 1
                elif sock in self._ends and not self.frozen.is_set():
                    self._pass(sock)
        for sock in [self._listener, *self._ends]:
            sock.close()

    def _pass(self, sock: socket.socket) -> None:
        other = self._ends[sock]
        try:
            data = sock.recv(65536)
            if data:
                self.passed += len(data)
                other.sendall(data)
                return
        except OSError:
            pass
        for end in (sock, other):
            self._ends.pop(end).close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def client_of(address: str, pool: str = "exclusive", **options: Any) -> EchoClient:
    return EchoClient(address, **{"framing": "ttheader", "pool": pool, "heartbeat": EVERY, "timeout": 20.0, **options})


def idle(client: EchoClient) -> int:
    return client.statistics()[0].idle


# ---------------------------------------------------------------- a peer that answers


@IN
@POOLS
@pytest.mark.parametrize("framing", ["ttheader", "ttheader-framed"])
def test_a_peer_that_answers_stays(where: Callable[..., Any], pool: str, framing: str) -> None:
    def run() -> None:
        with served(EchoService()) as server, Proxy(server.addresses[0]) as proxy, client_of(proxy.address, pool, framing=framing) as client:
            client.echo(Request(message="a"))
            before = proxy.passed
            wait_until(lambda: proxy.passed > before + 200, "the third heartbeat")
            wait_until(lambda: idle(client) == 1, "the end of a heartbeat")
            assert client.statistics()[0].dead == 0
            assert client.echo(Request(message="b")).message == "b"
            # A call that comes while an idle connection is asked takes a fresh one.
            assert proxy.accepted == 1 if pool == "shared" else proxy.accepted <= 2
            assert server.serving.dispatcher.requests == 2  # no handler heard of it

    where(run)()


@IN
def test_it_makes_no_connection_younger(where: Callable[..., Any]) -> None:
    """One that nobody uses is closed at its time, however often its peer says that it is there."""

    def run() -> None:
        with served(EchoService()) as server, client_of(server.addresses[0], idle_timeout=4 * EVERY) as client:
            client.echo(Request())
            wait_until(lambda: client.statistics()[0].timed_out == 1 or idle(client) == 0, "its end")
            assert client.statistics()[0].dead == 0

    where(run)()


@IN
def test_over_tls(where: Callable[..., Any], tmp_path: Path) -> None:
    from tests.support.certs import Certificates

    certs = Certificates(tmp_path)

    def run() -> None:
        for pool in ("exclusive", "shared"):
            with (
                served(EchoService(), tls=certs.server()) as server,
                Proxy(server.addresses[0]) as proxy,
                client_of(proxy.address, pool, tls=certs.client()) as client,
            ):
                client.echo(Request(message="a"))
                before = proxy.passed
                wait_until(lambda before=before, proxy=proxy: proxy.passed > before + 300, "heartbeats")  # type: ignore[misc]
                assert client.echo(Request(message="b")).message == "b"
                assert client.statistics()[0].dead == 0

    where(run)()


# ---------------------------------------------------------------- a peer that has vanished


@IN
@POOLS
def test_a_peer_that_falls_silent_is_known_before_a_call_meets_it(where: Callable[..., Any], pool: str) -> None:
    def run() -> None:
        with served(EchoService()) as server, Proxy(server.addresses[0]) as proxy, client_of(proxy.address, pool) as client:
            client.echo(Request(message="a"))
            proxy.frozen.set()
            wait_until(lambda: client.statistics()[0].dead == 1 and idle(client) == 0, "the end of its connection")
            proxy.frozen.clear()  # for new connections
            assert client.echo(Request(message="b")).message == "b"
            assert proxy.accepted >= 2

    with records("weego.client") as lines:
        where(run)()
    assert any("did not answer a heartbeat" in line.getMessage() for line in lines)


@IN
def test_all_idle_connections_to_it_go_at_once(where: Callable[..., Any]) -> None:
    def run() -> None:
        with served(EchoService()) as server, Proxy(server.addresses[0]) as proxy, client_of(proxy.address) as client:
            from tests.weego.test_sharing import together

            together([lambda: client.echo(Request(action="slow", message="0.2")) for _ in range(4)])
            wait_until(lambda: idle(client) == 4, "four idle connections")
            proxy.frozen.set()
            wait_until(lambda: client.statistics()[0].dead == 4, "the end of its connections")
            assert idle(client) == 0

    where(run)()


@IN
def test_calls_under_way_on_a_shared_connection_hear_of_it_too(where: Callable[..., Any]) -> None:
    """A call without a deadline would wait for ever."""

    def run() -> None:
        from tests.weego.test_sharing import together

        with served(EchoService()) as server, Proxy(server.addresses[0]) as proxy, client_of(proxy.address, "shared", timeout=None) as client:
            client.echo(Request(message="a"))
            before = proxy.passed
            wait_until(lambda: proxy.passed > before + 200, "an answered heartbeat")

            def freeze() -> None:
                wait_until(lambda: server.serving.dispatcher.inflight == 1)
                proxy.frozen.set()

            slow, _ = together([lambda: client.echo(Request(action="slow", message="2")), freeze])
            assert isinstance(slow, Unavailable)
            assert "heartbeat" in slow.message
            assert slow.sent

    where(run)()


# ---------------------------------------------------------------- peers that know no heartbeats


def other(heartbeat: Callable[[socket.socket, bytes], bool], seen: list[int]) -> Callable[[socket.socket, int], None]:
    """A server of its own kind: `heartbeat(connection, frame)` says whether it goes on after one."""

    def behave(connection: socket.socket, _: int) -> None:
        protocol = ThriftServerProtocol({b"echo": Route(ECHO.methods["echo"])}, {})
        while frame := read_frame(connection):
            data = ReadBuffer()
            data.write(frame)
            [request] = protocol.feed(data)
            seen.append(request.type)
            out = WriteBuffer()
            if request.type == HEARTBEAT:
                if not heartbeat(connection, frame):
                    return
                continue
            protocol.write_reply(request, Response(message="other"), out)
            connection.sendall(out.take())

    return behave


def refuses(connection: socket.socket, frame: bytes) -> bool:
    """As a server that answers with an exception and goes on."""
    seqid = ttheader.loads(frame)[0].seqid
    protocol = ThriftServerProtocol({}, {})
    data, out = ReadBuffer(), WriteBuffer()
    data.write(frame)
    [request] = protocol.feed(data)
    protocol.write_failure(request, 2, "unknown message type", out)
    assert seqid == request.seqid
    connection.sendall(out.take())
    return True


OTHERS = {"closes": lambda connection, frame: False, "says nothing": lambda connection, frame: True, "refuses": refuses}


@IN
@POOLS
@pytest.mark.parametrize("kind", list(OTHERS))
def test_who_knows_no_heartbeats_is_soon_left_alone(where: Callable[..., Any], pool: str, kind: str) -> None:
    seen: list[int] = []

    def run() -> None:
        peer = Peer(other(OTHERS[kind], seen))
        try:
            with client_of(peer.address, pool) as client:
                for number in range(1, MOST_UNANSWERED + 1):
                    assert client.echo(Request()).message == "other"
                    wait_until(lambda number=number: client.statistics()[0].dead >= number and idle(client) == 0, "its end")  # type: ignore[misc]
                    assert seen.count(HEARTBEAT) == number
                client.echo(Request())
                pause(6 * EVERY)
                assert idle(client) == 1
                assert client.echo(Request()).message == "other"
                assert seen.count(HEARTBEAT) == MOST_UNANSWERED
        finally:
            peer.close()

    with records("weego.client") as lines:
        where(run)()
    assert sum("answers no heartbeats" in line.getMessage() for line in lines) == 1
    assert not [line for line in lines if line.levelno > logging.WARNING]


def pause(seconds: float) -> None:
    """For what must not happen."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until)


class Still:
    """A connection to ask."""

    address = "tcp://a:1"


class Answer:
    error = None


def test_one_answer_is_enough_to_be_asked_for_ever() -> None:
    outcomes: list[Any] = [Answer(), *[DeadlineExceeded("late")] * 5, Answer()]

    def beat(connection: Any, deadline: float) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    hearts = Hearts(1.0, beat, lambda answer: False)
    assert hearts.wanted(Still.address)
    assert not hearts.answers(Still.address)
    found = [hearts.ask(Still()) for _ in range(7)]
    assert found == ["alive", *["silent"] * 5, "alive"]
    assert hearts.wanted(Still.address)
    assert hearts.answers(Still.address)


def test_a_peer_that_leaves_is_not_kept() -> None:
    assert Hearts(1.0, lambda connection, deadline: Answer(), lambda answer: True).ask(Still()) == "refused"


# ---------------------------------------------------------------- threads and their end


def beating() -> int:
    """Threads that ask."""
    return sum(thread.name == "weego-heartbeat" for thread in threading.enumerate())


@without_hub
def test_the_thread_ends_with_what_it_watches() -> None:
    with served(EchoService()) as server:
        before = beating()
        client = client_of(server.addresses[0], idle_timeout=3 * EVERY)
        for _ in range(2):  # and begins anew
            client.echo(Request())
            assert beating() == before + 1
            wait_until(lambda: beating() == before, "the end of the thread")
        client.echo(Request())
        client.close()
        wait_until(lambda: beating() == before, "the end of the thread")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@without_hub
def test_a_client_that_nobody_holds_takes_its_thread_along() -> None:
    with served(EchoService()) as server:
        before = beating()
        client = client_of(server.addresses[0])
        client.echo(Request())
        assert beating() == before + 1
        del client
        gc.collect()
        wait_until(lambda: beating() == before, "the end of the thread")


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("framing", ["framed", "ttheader"])
def test_the_kernel_asks_as_often(framing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr("weego.thrift_channel.probe_every", lambda fd, seconds: told.append(seconds))

    def run() -> None:
        with served(EchoService()) as server, client_of(server.addresses[0], framing=framing, heartbeat=7) as client:
            client.echo(Request())

    without_hub(run)()
    assert told == [7.0]


@pytest.mark.parametrize(("seconds", "wanted"), [(10, (10, 3, 20_000)), (0.1, (1, 1, 5_000)), (600, (600, 200, 30_000))])
def test_what_the_kernel_is_told(seconds: float, wanted: tuple[int, ...]) -> None:
    with socket.socket() as sock:
        probe_every(sock.fileno(), seconds)
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT)
        assert tuple(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names) == wanted
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize("value", [-1, 0.01, True, "10s", float("nan"), float("inf")])
def test_wrong_intervals(value: Any) -> None:
    with pytest.raises(UsageError, match=r"heartbeat must be a number of seconds, 0\.1 or more"):
        EchoClient("tcp://127.0.0.1:1", heartbeat=value)


def test_the_configuration_has_it(tmp_path: Path) -> None:
    conf = tmp_path / "client.toml"
    conf.write_text('[client.echo]\ntarget = "tcp://127.0.0.1:1"\nframing = "ttheader"\nheartbeat = "10s"\n')
    weego.configure(str(conf))
    try:
        with EchoClient("service://echo") as client:
            assert client._channel.hearts().interval == 10.0  # type: ignore[attr-defined]
    finally:
        from weego.settings import Known, remember

        remember(Known())


@pytest.mark.parametrize("framing", ["buffered", "framed", "ttheader", "ttheader-framed"])
def test_its_bytes(framing: str) -> None:
    """Message type 6 around an empty struct; TTHeader says MsgType 6 too."""
    protocol, out = ThriftClientProtocol(framing), WriteBuffer()
    protocol.write_call(HEARTBEAT_CALL, (), 9, out)
    message = b"\x80\x01\x00\x06\x00\x00\x00\x09heartbeat\x00\x00\x00\x09\x00"
    found = out.take()
    if framing.startswith("ttheader"):
        header, found = ttheader.loads(found)
        assert (header.seqid, header.ints) == (9, {22: "6"})
    assert found == (message if not framing.endswith("framed") else len(message).to_bytes(4, "big") + message)

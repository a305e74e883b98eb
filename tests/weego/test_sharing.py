"""Many calls at a time on one connection: a weego client and a weego server, and peers that answer as a test wants. Kitex: tests/interop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gevent
import pytest

import weego
from codec import ttheader
from codec.buffer import WriteBuffer
from codec.errors import ApplicationError, ClosedError, DeadlineExceeded, RpcError, Unavailable, UsageError
from codec.thrift import Route, ThriftServerProtocol
from poller.tls import TLS
from tests.support.certs import Certificates
from tests.support.echo_stub import ECHO, Echo, EchoClient, Request, Response
from tests.support.net import Peer, read_frame, served, wait_until, with_hub, without_hub


class EchoService(Echo):
    """ "slow" waits for that many seconds, in a greenlet; "boom" fails."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.cancelled = threading.Event()
        self.most = self.now = 0

    def echo(self, req: Request) -> Response:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if req.action == "slow":
                gevent.sleep(float(req.message))
            if req.action == "boom":
                raise RuntimeError("boom")
            if req.action == "watch":
                call = weego.current()
                assert call is not None
                for _ in range(2000):
                    if call.cancelled:
                        self.cancelled.set()
                        break
                    gevent.sleep(0.01)
        finally:
            self.now -= 1
        return Response(message=req.message)

    def note(self, req: Request) -> None:
        self.notes.append(req.message)


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make the calls at once, in greenlets where this thread has a hub and in threads else; results or exceptions."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return error

    from gevent._hub_local import get_hub_if_exists

    if get_hub_if_exists() is not None:
        greenlets = [gevent.spawn(outcome, call) for call in calls]
        gevent.joinall(greenlets)
        return [each.value for each in greenlets]
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(outcome, calls))


def both(test: Callable[[], None]) -> Any:
    """Run a test with a hub and without one."""

    @pytest.mark.parametrize("where", [with_hub, without_hub], ids=["gevent", "threads"])
    def run(where: Any) -> None:
        where(test)()

    run.__doc__ = test.__doc__
    return run


def both_over_tls(test: Callable[[Certificates], None]) -> Any:
    """The same with certificates."""

    @pytest.mark.parametrize("where", [with_hub, without_hub], ids=["gevent", "threads"])
    def run(where: Any, tmp_path: Path) -> None:
        where(test)(Certificates(tmp_path))

    run.__doc__ = test.__doc__
    return run


def shared(address: str, **options: Any) -> EchoClient:
    options.setdefault("framing", "ttheader")
    return EchoClient(address, pool="shared", timeout=20.0, **options)


@both
def test_many_calls_on_one_connection() -> None:
    service = EchoService()
    with served(service) as server, shared(server.addresses[0]) as client:
        calls = [lambda n=n: client.echo(Request(message=str(n))).message for n in range(40)]
        for _ in range(5):
            assert together(calls) == [str(n) for n in range(40)]
        assert server.serving.accepted == 1


@both
def test_answers_come_in_any_order() -> None:
    """A slow call does not hold up the quick ones behind it."""
    service = EchoService()
    with served(service) as server, shared(server.addresses[0], framing="ttheader-framed") as client:
        order: list[str] = []

        def call(action: str, message: str) -> None:
            client.echo(Request(action=action, message=message))
            order.append(message)

        client.echo(Request())
        together([lambda: call("slow", "1.0"), *(lambda n=n: call("", str(n)) for n in range(5))])
        assert order[-1] == "1.0"
        assert service.most > 1
        assert server.serving.accepted == 1


@both
def test_each_call_gets_its_own_outcome() -> None:
    with served(EchoService()) as server, shared(server.addresses[0], protocol="compact", checksum=True) as client:
        good = [lambda n=n: client.echo(Request(message=str(n))).message for n in range(10)]
        bad = [lambda: client.echo(Request(action="boom"))] * 5
        outcomes = together([*good, *bad])
        assert outcomes[:10] == [str(n) for n in range(10)]
        assert all(isinstance(each, ApplicationError) for each in outcomes[10:])


@both
def test_a_deadline_leaves_the_connection_to_the_others() -> None:
    service = EchoService()
    with served(service) as server, shared(server.addresses[0]) as client:
        outcomes = together(
            [
                lambda: client.echo(Request(action="slow", message="0.6"), timeout=0.05),
                lambda: client.echo(Request(action="slow", message="0.6")).message,
            ]
        )
        assert isinstance(outcomes[0], DeadlineExceeded)
        assert outcomes[1] == "0.6"
        assert client.echo(Request(message="after")).message == "after"
        assert server.serving.accepted == 1


@both
def test_oneway_calls_share_too() -> None:
    service = EchoService()
    with served(service) as server, shared(server.addresses[0]) as client:
        for n in range(20):
            client.note(Request(message=str(n)))
        wait_until(lambda: len(service.notes) == 20)
        assert server.serving.accepted == 1


@both
def test_several_connections_in_turn() -> None:
    with served(EchoService()) as server, shared(server.addresses[0], shared_connections=3) as client:
        together([lambda: client.echo(Request())] * 12)
        assert server.serving.accepted == 3
        assert sum(each.idle for each in client.statistics()) == 3


# ---- the connection ends


def reply_to(packet: bytes, *, reset: bool = False) -> bytes:
    """The answer a server gives to an echo call on TTHeader."""
    routes = {method.wire_name: Route(method) for method in ECHO.methods.values()}
    protocol = ThriftServerProtocol(routes)
    [request] = _feed(protocol, packet)
    out = WriteBuffer()
    protocol.write_reply(request, Response(message=request.args[0].message), out, {"crrst": "1"} if reset else None)
    return out.take()


def _feed(protocol: ThriftServerProtocol, packet: bytes) -> list[Any]:
    from codec.buffer import ReadBuffer

    data = ReadBuffer()
    data.write(packet)
    return protocol.feed(data)


def goodbye() -> bytes:
    out = WriteBuffer()
    ThriftServerProtocol({}).write_goodbye(out)
    return out.take()


def test_the_goodbye_is_kitexs() -> None:
    """wire-protocols 14.8: the control frame of a mux server that is going away."""
    assert goodbye() == bytes.fromhex(
        "0000002b 1000 0000 00000000 0004 0000 01 0001 0005 6372727374 0001 31 00 80010002 00000004 6e6f6e65 00000000 00"
    )


@both
def test_calls_carry_the_flag_that_allows_any_order() -> None:
    seen: list[int] = []

    def behave(connection: socket.socket, number: int) -> None:
        while packet := read_frame(connection):
            seen.append(ttheader.loads(packet)[0].flags)
            connection.sendall(reply_to(packet))

    with Peer(behave) as peer:
        with shared(peer.address) as client, EchoClient(peer.address, framing="ttheader") as plain:
            client.echo(Request())
            plain.echo(Request())
    assert seen == [1, 0]


@both
def test_all_calls_under_way_hear_of_the_end() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        for _ in range(3):
            read_frame(connection)

    with Peer(behave) as peer, shared(peer.address) as client:
        outcomes = together([lambda: client.echo(Request())] * 3)
        assert all(isinstance(each, Unavailable) and each.sent for each in outcomes), outcomes
        assert len({id(each) for each in outcomes}) == 3


@both
def test_a_peer_that_says_goodbye_gets_no_more_calls() -> None:
    """In a frame of its own, while a call is under way: the call is finished there, the next one goes elsewhere."""
    say, wait = threading.Event(), threading.Event()

    def behave(connection: socket.socket, number: int) -> None:
        packet = read_frame(connection)
        if number == 0:
            assert say.wait(20)
            connection.sendall(goodbye())
            assert wait.wait(20)
        connection.sendall(reply_to(packet))
        assert read_frame(connection) == b""

    with Peer(behave) as peer, shared(peer.address) as client:

        def open_connections() -> int:
            return sum(each.idle for each in client.statistics())

        def second() -> str:
            wait_until(lambda: open_connections() == 1)
            say.set()
            # The goodbye is read while the first call waits.
            wait_until(lambda: open_connections() == 0)
            try:
                return client.echo(Request(message="second")).message
            finally:
                wait.set()

        def first() -> str:
            return client.echo(Request(message="first")).message

        assert together([first, second]) == ["first", "second"]
        assert peer.accepted == 2


@both
def test_crrst_beside_an_answer_is_obeyed() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        connection.sendall(reply_to(read_frame(connection), reset=True))
        assert read_frame(connection) == b""

    with Peer(behave) as peer, shared(peer.address) as client:
        for n in range(3):
            assert client.echo(Request(message=str(n))).message == str(n)
        assert peer.accepted == 3


@both
def test_a_connection_that_ended_idle_is_replaced() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        connection.sendall(reply_to(read_frame(connection)))

    with Peer(behave) as peer, shared(peer.address) as client:
        client.echo(Request())
        wait_until(lambda: sum(each.idle for each in client.statistics()) == 0)
        client.echo(Request())


@both
def test_late_and_strange_answers_are_dropped() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        late = read_frame(connection)
        packet = read_frame(connection)
        connection.sendall(reply_to(late) + reply_to(late) + reply_to(packet))
        assert read_frame(connection) == b""

    with Peer(behave) as peer, shared(peer.address) as client:
        with pytest.raises(DeadlineExceeded):
            client.echo(Request(), timeout=0.05)
        assert client.echo(Request(message="mine")).message == "mine"
        assert peer.accepted == 1


@both
def test_closing_the_client_during_calls() -> None:
    with served(EchoService()) as server:
        client = shared(server.addresses[0])
        client.echo(Request())

        def close() -> None:
            time.sleep(0.1) if _is_thread() else gevent.sleep(0.1)
            client.close()

        outcomes = together([lambda: client.echo(Request(action="slow", message="0.5")).message, close])
        assert outcomes[0] == "0.5"
        with pytest.raises(ClosedError):
            client.echo(Request())


def _is_thread() -> bool:
    from gevent._hub_local import get_hub_if_exists

    return get_hub_if_exists() is None


# ---- the server


@without_hub
def test_a_server_that_stops_asks_its_sharing_clients_to_go() -> None:
    with served(EchoService()) as server, shared(server.addresses[0]) as client:
        client.echo(Request())
        stopper = threading.Thread(target=server.stop)
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(lambda: client.echo(Request(action="slow", message="0.5")).message)
            wait_until(lambda: server.serving.dispatcher.inflight == 1)
            stopper.start()
            assert slow.result() == "0.5"
        stopper.join()
        with pytest.raises(RpcError):
            client.echo(Request())


@without_hub
def test_calls_of_a_connection_that_breaks_are_cancelled() -> None:
    service = EchoService()
    with served(service) as server:
        client = shared(server.addresses[0])
        with ThreadPoolExecutor(2) as threads:
            watching = [threads.submit(client.echo, Request(action="watch"), timeout=10.0) for _ in range(2)]
            wait_until(lambda: server.serving.dispatcher.inflight == 2)
            for connection in list(server.serving.dispatcher.connections):
                server.serving.hub.loop.run_callback_threadsafe(connection.close)
            for each in watching:
                with pytest.raises(Unavailable):
                    each.result()
        assert service.cancelled.wait(20)
        client.close()


@without_hub
def test_without_the_flag_a_connection_is_served_in_order() -> None:
    """A client that pipelines and says nothing of any order gets its answers in the order of its calls."""
    service = EchoService()
    with served(service) as server:
        host, _, port = server.addresses[0].removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), 20) as wire:
            from codec.thrift import ThriftClientProtocol

            protocol = ThriftClientProtocol("ttheader")
            out = WriteBuffer()
            route = Route(ECHO.methods["echo"])
            protocol.write_call(route, (Request(action="slow", message="0.2"),), 1, out)
            protocol.write_call(route, (Request(message="quick"),), 2, out)
            wire.sendall(out.take())
            assert [ttheader.loads(read_frame(wire))[0].seqid for _ in range(2)] == [1, 2]
        assert service.most == 1


@without_hub
def test_a_heartbeat_is_answered_in_every_framing_without_a_handler() -> None:
    from codec.buffer import ReadBuffer
    from codec.thrift import FRAMINGS, ThriftClientProtocol

    with served(EchoService()) as server:
        host, _, port = server.addresses[0].removeprefix("tcp://").rpartition(":")
        for framing in FRAMINGS:
            with socket.create_connection((host, int(port)), 20) as wire:
                protocol, out, data = ThriftClientProtocol(framing), WriteBuffer(), ReadBuffer()
                protocol.write_heartbeat(9, out)
                wire.sendall(out.take())
                replies: list[Any] = []
                while not replies:
                    data.write(wire.recv(4096))
                    replies = protocol.feed(data)
                assert (replies[0].seqid, replies[0].value, replies[0].error) == (9, None, None)
        assert server.serving.dispatcher.requests == 0


@both_over_tls
def test_over_tls(certs: Certificates) -> None:
    """Large answers and small ones, out of order, from many threads or greenlets; tickets that come by themselves are no end of a connection."""
    service = EchoService()
    with served(service, tls=certs.server()) as server, shared(server.addresses[0], tls=certs.client()) as client:
        for size in (10, 200_000):
            calls = [lambda n=n, size=size: client.echo(Request(message=str(n) * size)).message for n in range(10)]
            assert together(calls) == [str(n) * size for n in range(10)]
        slow, quick = together(
            [
                lambda: client.echo(Request(action="slow", message="0.3")).message,
                lambda: [client.echo(Request(message="quick")).message for _ in range(20)],
            ]
        )
        assert (slow, set(quick)) == ("0.3", {"quick"})
        time.sleep(0.05)
        assert client.echo(Request(message="later")).message == "later"
        assert server.serving.accepted == 1


@both_over_tls
def test_a_tls_peer_that_ends_is_seen_before_the_next_call(certs: Certificates) -> None:
    service = EchoService()
    with served(service, tls=certs.server()) as server:
        with shared(server.addresses[0], tls=certs.client()) as client:
            client.echo(Request())
            for connection in list(server.serving.dispatcher.connections):
                server.serving.hub.loop.run_callback_threadsafe(connection.close)
            wait_until(lambda: client.statistics()[0].idle == 0)
            assert client.echo(Request(message="again")).message == "again"
            assert server.serving.accepted == 2


@both_over_tls
def test_a_tls_peer_that_is_not_to_be_trusted(certs: Certificates) -> None:
    with served(EchoService(), tls=certs.server()) as server:
        stranger = TLS(ca=certs.path("stranger-ca"))
        with shared(server.addresses[0], tls=stranger) as client, pytest.raises(Unavailable, match="certificate is not to be trusted"):
            client.echo(Request())


# ---- misuse


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="choose framing"):
        EchoClient("tcp://127.0.0.1:1", pool="shared")
    with pytest.raises(UsageError, match="unknown pool"):
        EchoClient("tcp://127.0.0.1:1", framing="ttheader", pool="mux")
    with pytest.raises(UsageError, match="shared_connections"):
        EchoClient("tcp://127.0.0.1:1", framing="ttheader", pool="shared", shared_connections=0)

"""One call at a time over one connection, both kinds: with the hub and blocking."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from codec.errors import ClosedError, DeadlineExceeded, EncodeError, ProtocolError, Unavailable, UsageError
from codec.thrift import Route
from poller.address import parse
from poller.clock import monotonic
from poller.dialer import connect_with_hub
from poller.loop import loop_of
from tests.support.echo_stub import ECHO, Request
from tests.support.net import Peer, answer_to, echo_forever, read_frame, wait_until, with_hub
from weego.exchange import Exchange

ECHO_ROUTE = Route(ECHO.methods["echo"])
NOTE_ROUTE = Route(ECHO.methods["note"])


def exchange_with(peer: Peer, ended: Callable[[Exchange], None] | None = None) -> Exchange:
    hub = gevent.get_hub()
    fd = connect_with_hub(parse(peer.address), monotonic() + 20, hub)
    return Exchange(loop_of(hub), fd, peer.address, on_closed=ended)


def call(exchange: Exchange, seqid: int = 1, seconds: float = 20, message: Any = "x") -> str:
    reply = exchange.call(ECHO_ROUTE, (Request(message=message),), seqid, monotonic() + seconds if seconds else 0.0)
    assert reply is not None
    if reply.error is not None:
        raise reply.error
    return str(reply.value.message)


@with_hub
def test_calls_one_after_the_other() -> None:
    with Peer(echo_forever) as peer:
        exchange = exchange_with(peer)
        for seqid in range(1, 100):
            assert call(exchange, seqid) == "0"
            assert exchange.is_reusable
            assert exchange.is_alive()
        assert call(exchange, 100, 0) == "0"  # without a deadline
        assert len(loop_of(gevent.get_hub()).timers) == 0
        assert exchange.call(NOTE_ROUTE, (Request(),), 101, 0.0) is None
        with pytest.raises(EncodeError):
            call(exchange, 102, message=3)
        assert exchange.is_reusable
        assert "idle" in repr(exchange)
        exchange.close()
        exchange.close()
        assert not exchange.is_alive()
        with pytest.raises(Unavailable, match="was closed") as caught:
            call(exchange)
        assert caught.value.sent is False


@with_hub
def test_the_end_of_an_idle_connection_is_told_once() -> None:
    closing = threading.Event()

    def behave(connection: socket.socket, number: int) -> None:
        connection.sendall(answer_to(read_frame(connection), "x"))
        closing.wait(20)

    ended: list[Exchange] = []
    with Peer(behave) as peer:
        exchange = exchange_with(peer, ended.append)
        call(exchange)
        closing.set()
        wait_until(lambda: ended == [exchange])
        assert not exchange.is_alive()
        exchange.close()
    assert len(ended) == 1


@with_hub
def test_a_close_from_another_greenlet_ends_the_call_and_both_go_on() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        read_frame(connection)
        read_frame(connection)

    with Peer(behave) as peer:
        exchange = exchange_with(peer)
        calling = gevent.spawn(call, exchange)
        wait_until(lambda: exchange.connection.bytes_out > 0)
        exchange.close()  # and this greenlet comes back from it
        with pytest.raises(ClosedError, match="closed during the call"):
            calling.get(timeout=20)


@with_hub
def test_what_breaks_the_rules_is_over_before_the_caller_hears_of_it() -> None:
    """Were the connection still open then, the caller's next call would take it and wait for ever."""

    def behave(connection: socket.socket, number: int) -> None:
        read_frame(connection)
        connection.sendall(b"no message at all, by any rule")
        read_frame(connection)

    with Peer(behave) as peer:
        exchange = exchange_with(peer)
        with pytest.raises(ProtocolError):
            call(exchange)
        assert not exchange.is_reusable
        with pytest.raises(Unavailable):
            call(exchange, 2)
        exchange.close()


@with_hub
def test_a_deadline_and_a_timeout_of_the_caller() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        while read_frame(connection):
            pass

    with Peer(behave) as peer:
        late = exchange_with(peer)
        with pytest.raises(DeadlineExceeded):
            call(late, seconds=0.02)
        assert not late.is_alive()
        interrupted = exchange_with(peer)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
            call(interrupted)
        assert not interrupted.is_alive()
        assert not interrupted.is_reusable
        assert len(loop_of(gevent.get_hub()).timers) == 0


@with_hub
def test_a_call_from_a_callback_of_the_hub_says_why_it_cannot_be() -> None:
    found: list[BaseException] = []
    with Peer(echo_forever) as peer:
        exchange = exchange_with(peer)

        def in_the_hub() -> None:
            try:
                call(exchange)
            except BaseException as error:
                found.append(error)

        gevent.get_hub().loop.run_callback(in_the_hub)
        wait_until(lambda: bool(found))
        assert isinstance(found[0], UsageError)
        assert "make the call from a greenlet" in str(found[0])
        assert call(exchange) == "0"
        exchange.close()


@with_hub
def test_a_long_call_that_the_peer_takes_slowly() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        begin.wait(20)
        connection.sendall(answer_to(read_frame(connection), "got it"))
        read_frame(connection)

    begin = threading.Event()
    with Peer(behave) as peer:
        exchange = exchange_with(peer)
        calling = gevent.spawn(call, exchange, message="x" * 15_000_000)  # more than the kernel takes on both sides
        wait_until(lambda: exchange.connection.bytes_out > 0)
        assert exchange.connection.bytes_out < 15_000_000
        begin.set()
        assert calling.get(timeout=20) == "got it"
        assert exchange.connection.bytes_out > 15_000_000
        exchange.close()


@with_hub
def test_a_bare_greenlet_that_fails_after_its_answer_takes_nobody_along() -> None:
    from tests.support.net import records

    together = threading.Barrier(2)

    def behave(connection: socket.socket, number: int) -> None:
        frame = read_frame(connection)
        together.wait(20)
        connection.sendall(answer_to(frame, str(number)))
        read_frame(connection)

    with Peer(behave) as peer, records() as log:
        exchanges = [exchange_with(peer) for _ in range(2)]

        def fail() -> None:
            call(exchanges[0])
            raise ValueError("after the answer")

        gevent.spawn_raw(fail)
        other = gevent.spawn(call, exchanges[1])
        assert other.get(timeout=20) in {"0", "1"}
        wait_until(lambda: any("waking" in record.getMessage() for record in log))
        for exchange in exchanges:
            exchange.close()



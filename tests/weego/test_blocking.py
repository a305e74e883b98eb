"""One call at a time over one blocking connection. What both kinds share is in tests/weego/test_client.py."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from codec.errors import DeadlineExceeded, EncodeError, ProtocolError, Unavailable
from codec.thrift import Route
from poller.address import parse
from poller.clock import monotonic
from poller.dialer import connect_blocking
from tests.support.echo_stub import ECHO, Request
from tests.support.net import Peer, answer_to, echo_forever, read_frame, without_hub
from weego.blocking import BlockingExchange

ECHO_ROUTE = Route(ECHO.methods["echo"])


def exchange_with(peer: Peer) -> BlockingExchange:
    return BlockingExchange(connect_blocking(parse(peer.address), monotonic() + 20), peer.address)


def call(exchange: BlockingExchange, seqid: int = 1, seconds: float = 20, message: Any = "x") -> str:
    reply = exchange.call(ECHO_ROUTE, (Request(message=message),), seqid, monotonic() + seconds if seconds else 0.0)
    assert reply is not None
    return str(reply.value.message)


@without_hub
def test_calls_one_after_the_other() -> None:
    with Peer(echo_forever) as peer:
        exchange = exchange_with(peer)
        for seqid in range(1, 50):
            assert call(exchange, seqid) == "0"
            assert exchange.is_reusable
            assert exchange.is_alive()
        assert call(exchange, 50, 0) == "0"
        with pytest.raises(EncodeError):
            call(exchange, 51, message=3)
        assert exchange.is_reusable
        assert "open" in repr(exchange)
        exchange.close()
        exchange.close()
        assert "closed" in repr(exchange)
        assert not exchange.is_alive()
        with pytest.raises(Unavailable, match="was closed") as caught:
            call(exchange)
        assert caught.value.sent is False


@without_hub
def test_an_answer_in_pieces_and_a_long_call() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        answer = answer_to(read_frame(connection), "in pieces")
        for byte in answer:
            connection.sendall(bytes([byte]))
        read_frame(connection)

    with Peer(behave) as peer:
        exchange = exchange_with(peer)
        assert call(exchange, message="x" * 3_000_000) == "in pieces"
        exchange.close()


@without_hub
def test_every_failure_closes_the_connection() -> None:
    def behave(connection: socket.socket, number: int) -> None:
        frame = read_frame(connection)
        if number == 0:
            connection.sendall(b"no message at all, by any rule")
        elif number == 1:
            connection.sendall(answer_to(frame, "cut")[:-2])
            return
        read_frame(connection)

    with Peer(behave) as peer:
        for kind in (ProtocolError, Unavailable, DeadlineExceeded):
            exchange = exchange_with(peer)
            with pytest.raises(kind) as caught:
                call(exchange, seconds=0.1 if kind is DeadlineExceeded else 20)
            assert caught.value.instance == peer.address
            assert not exchange.is_alive()
            assert not exchange.is_reusable

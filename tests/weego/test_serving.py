"""One process's share of serving: limits, and leaving without losing a call."""

from __future__ import annotations

import os
import resource
import socket
import time

import gevent
import gevent.event
import gevent.socket
import pytest

from poller.connection import Connection
from tests.support.echo_stub import Echo, Request, Response
from tests.support.net import encode, records, wait_until, with_hub
from weego.serving import RESERVED_FDS, Serving, ServingLimits, clamp_connections


class Service(Echo):
    def __init__(self) -> None:
        self.entered = gevent.event.Event()
        self.release = gevent.event.Event()

    def echo(self, req: Request) -> Response:
        if req.action == "hold":
            self.entered.set()
            self.release.wait()
        return Response(message=req.message)


def connect(serving: Serving) -> gevent.socket.socket:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    serving.take(ours.detach())
    found = gevent.socket.socket(fileno=theirs.detach())
    found.settimeout(20)
    return found


@with_hub
def test_a_drain_answers_what_is_on_its_way_and_then_closes() -> None:
    service = Service()
    serving = Serving([service])
    idle, busy, partial = (connect(serving) for _ in range(3))
    busy.sendall(encode(Request(action="hold", message="held")))
    data = encode(Request(message="late"))
    partial.sendall(data[:10])
    service.entered.wait(20)
    wait_until(lambda: sum(c.unread for c in serving.dispatcher.connections) == 10)
    serving.drain()
    assert idle.recv(1) == b""
    assert not serving.wait_drained(time.monotonic() + 0.05)
    partial.sendall(data[10:])
    assert b"late" in partial.recv(1000)
    assert partial.recv(1) == b""
    service.release.set()
    assert b"held" in busy.recv(1000)
    assert busy.recv(1) == b""
    assert serving.wait_drained(time.monotonic() + 20)
    assert serving.connections == 0
    serving.close()
    for each in (idle, busy, partial):
        each.close()


@with_hub
def test_a_drain_gives_connections_away_between_two_messages() -> None:
    service = Service()
    serving, other = Serving([service]), Serving([Service()])
    busy, partial, refused = (connect(serving) for _ in range(3))
    busy.sendall(encode(Request(action="hold", message="held")) + encode(Request(message="pipelined")))
    data = encode(Request(message="split"))
    partial.sendall(data[:10])
    service.entered.wait(20)
    wait_until(lambda: sum(c.unread for c in serving.dispatcher.connections) >= 10 + 20)
    asked = 0

    is_over = False

    def give(connection: Connection) -> bool:
        nonlocal asked
        asked += 1
        if asked == 1 or is_over:
            return False  # it is asked again
        assert connection.is_between
        fd, unread = connection.detach()
        serving.dispatcher.forget(connection)
        other.take(fd, unread)
        return True

    serving.drain(give)
    service.release.set()
    assert serving.wait_drained(time.monotonic() + 20)
    assert asked >= 4
    partial.sendall(data[10:])
    assert b"split" in partial.recv(1000)
    answers = b""
    while b"pipelined" not in answers:
        answers += busy.recv(1000)
    assert answers.index(b"held") < answers.index(b"pipelined")
    refused.sendall(encode(Request(message="in the end")))
    assert b"in the end" in refused.recv(1000)
    # A connection that comes back after the end of the drain is one to wait for again.
    is_over = True
    serving.take(connect_fd(returned := socket.socketpair()))
    assert not serving.wait_drained(time.monotonic() + 0.001)
    returned[1].close()
    for each in (serving, other):
        each.close()
    for each in (busy, partial, refused):
        each.close()


def connect_fd(pair: tuple[socket.socket, socket.socket]) -> int:
    pair[0].setblocking(False)
    return pair[0].detach()


@with_hub
def test_an_idle_connection_with_a_call_on_its_way_is_not_closed() -> None:
    serving = Serving([Service()])
    peer = connect(serving)
    serving.drain()
    peer.sendall(encode(Request(message="just in time")))
    assert b"just in time" in peer.recv(1000)
    assert serving.wait_drained(time.monotonic() + 20)
    serving.close()
    peer.close()


@with_hub
def test_what_cannot_be_taken_is_closed() -> None:
    serving = Serving([Service()])
    reader, writer = os.pipe()
    regular = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(OSError, match="not permitted"):
        serving.take(regular)  # epoll refuses it
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(regular)
    os.close(reader)
    os.close(writer)
    assert serving.connections == 0
    serving.close()


def test_the_limit_of_connections_fits_the_limit_of_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        room = clamp_connections(None)
        assert room == hard - RESERVED_FDS or hard == resource.RLIM_INFINITY
        assert clamp_connections(10) == 10
        with records() as log:
            assert clamp_connections(room + 1) == room
        assert "does not fit the limit" in log[0].getMessage()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_defaults() -> None:
    limits = ServingLimits()
    assert (limits.idle_timeout, limits.frame_timeout, limits.write_timeout) == (600, 30, 30)
    assert limits.max_message == 16 * 2**20


@with_hub
def test_a_lame_server_asks_its_peers_to_go_and_serves_on() -> None:
    serving = Serving([Service()])
    peer = connect(serving)
    peer.sendall(encode(Request(message="before"), framing="ttheader"))
    assert b"crrst" not in peer.recv(1000)
    serving.announce_leaving(on=True)
    peer.sendall(encode(Request(message="meanwhile"), framing="ttheader"))
    answer = peer.recv(1000)
    assert b"crrst" in answer
    assert b"meanwhile" in answer
    assert serving.connections == 1
    serving.announce_leaving(on=False)
    peer.sendall(encode(Request(message="after"), framing="ttheader"))
    assert b"crrst" not in peer.recv(1000)
    peer.close()
    serving.close()


@with_hub
def test_some_connections_are_given_away_those_idle_longest_first() -> None:
    serving, other = Serving([Service()]), Serving([Service()])
    peers = [connect(serving) for _ in range(5)]
    for number, peer in enumerate(peers):
        peer.sendall(encode(Request(message=f"first {number}")))
        assert b"first" in peer.recv(1000)
    given = []

    def give(connection: Connection) -> bool:
        fd, unread = connection.detach()
        serving.dispatcher.forget(connection)
        other.take(fd, unread)
        given.append(fd)
        return True

    assert serving.give_some(3, give) == 3
    assert (serving.connections, other.connections) == (2, 3)
    for number, peer in enumerate(peers):
        peer.sendall(encode(Request(message=f"second {number}")))
        assert f"second {number}".encode() in peer.recv(1000)
    serving.drain()
    assert serving.give_some(3, give) == 0, "who leaves gives all, in another way"
    for peer in peers:
        peer.close()
    for each in (serving, other):
        each.close()


@with_hub
def test_limits_that_change_hold_at_once() -> None:
    serving = Serving([Service()], limits=ServingLimits(max_concurrency=5, idle_timeout=100.0))
    serving.follow(ServingLimits(max_concurrency=7, max_connections=9, max_message=2048, idle_timeout=0.2))
    assert (serving.dispatcher.max_concurrency, serving.max_connections) == (7, 9)
    peer = connect(serving)
    wait_until(lambda: serving.connections == 0, "the idle connection to be closed")
    assert peer.recv(1) == b""
    peer.close()
    serving.close()

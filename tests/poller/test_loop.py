"""The loop: who is ready, turn by turn."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator

import gevent
import pytest

from codec.thrift import ThriftServerProtocol
from poller.connection import Connection, Limits, Receiver
from poller.loop import Loop, loop_of
from tests.support.echo_stub import Echo, Request, Response
from tests.support.leaks import descriptors
from tests.support.net import encode, wait_until, with_hub
from weego.routes import build, inline
from weego.thrift_front import thrift_dispatcher

NO_LIMITS = Limits()


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    made = Loop()
    yield made
    for member in made.pollables():
        member.close()  # type: ignore[attr-defined]
    made.close()


def connect(loop: Loop, limits: Limits = NO_LIMITS) -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Connection(loop, ours.detach(), ThriftServerProtocol({}, {}, 1000), Receiver(), limits), theirs


def test_members_come_and_go(loop: Loop) -> None:
    pairs = [connect(loop) for _ in range(200)]
    assert loop.members == 200
    assert set(loop.pollables()) == {connection for connection, _ in pairs}
    for connection, theirs in pairs[:100]:
        connection.close()
        theirs.close()
    assert loop.members == 100
    for _, theirs in pairs[100:]:
        theirs.close()
    loop.run_once()
    assert loop.members == 0
    assert all(not connection.is_open for connection, _ in pairs)


def test_a_batch_is_bounded_and_nobody_is_forgotten(loop: Loop) -> None:
    pairs = [connect(loop) for _ in range(400)]
    loop.run_once()
    for _, theirs in pairs:
        theirs.sendall(b"\x00\x00")  # the beginning of something
    loop.run_once()
    assert sum(connection.bytes_in > 0 for connection, _ in pairs) == 256
    loop.run_once()
    assert all(connection.bytes_in == 2 for connection, _ in pairs)
    for _, theirs in pairs:
        theirs.close()


def test_an_event_of_a_closed_connection_does_not_hit_the_next_owner_of_its_number(loop: Loop) -> None:
    """Both events are in one batch: while the first is served, the second's connection is closed and its number taken by another."""
    taken: list[Connection] = []
    next_owner, next_peer = socket.socketpair()
    next_owner.setblocking(False)

    class Service(Echo):
        @inline
        def echo(self, req: Request) -> Response:
            number = second.fd
            second.close()
            os.dup2(next_owner.fileno(), number)
            taken.append(Connection(loop, number, ThriftServerProtocol({}, {}, 1000), Receiver(), NO_LIMITS))
            return Response()

    dispatcher = thrift_dispatcher(loop, *build([Service()]))
    listening = socket.create_server(("127.0.0.1", 0))
    pairs = []
    for _ in range(2):
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
        ours.setblocking(False)
        pairs.append((dispatcher.connect(ours.detach(), NO_LIMITS), theirs))
    (_, first_peer), (second, second_peer) = pairs
    loop.run_once()
    first_peer.sendall(encode(Request()))
    # A reset, which would end the new connection if it were taken for its own.
    second_peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    second_peer.close()
    turns = loop.turns
    loop.run_once(20)
    assert (loop.turns, len(taken)) == (turns + 1, 1)
    assert taken[0].is_open
    next_peer.sendall(b"\x00\x00\x00")
    loop.run_once(20)
    assert taken[0].bytes_in == 3
    for each in (first_peer, listening, next_owner, next_peer):
        each.close()


def test_run_once_waits_for_the_kernel_or_a_timer(loop: Loop) -> None:
    connection, theirs = connect(loop)
    loop.run_once()
    fired: list[int] = []
    loop.call_later(0.01, lambda: fired.append(1))
    for _ in range(100):
        loop.run_once(20)
        if fired:
            break
    assert fired == [1]
    theirs.sendall(b"\x00")
    loop.run_once(20)
    assert connection.bytes_in == 1
    theirs.close()


def test_run_once_looks_at_time_limits(loop: Loop) -> None:
    loop.set_sweep_interval(0.01)
    connection, theirs = connect(loop, Limits(idle_timeout=0.02))
    wait_until(lambda: loop.run_once(0.005) is None and not connection.is_open)  # type: ignore[func-returns-value]
    theirs.close()
    with pytest.raises(ValueError, match="positive"):
        loop.set_sweep_interval(0)


def test_close_leaves_members_open_and_happens_once() -> None:
    loop = Loop()
    connection, theirs = connect(loop)
    loop.close()
    loop.close()
    assert connection.is_open
    connection.close()
    assert not connection.is_open
    theirs.close()
    assert "0 members" in repr(loop)


def test_a_child_closes_its_copies_and_leaves_the_parents_epoll_alone(loop: Loop) -> None:
    connection, theirs = connect(loop)
    loop.run_once()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            left = descriptors()
            gone = connection.fd == -1 and loop.epoll == -1 and loop.members == 0
            bad = [what for what in left.values() if "eventpoll" in what]
            os.write(writer, f"{gone} {bad}".encode())
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 1000) == b"True []"
    os.close(reader)
    os.close(writer)
    theirs.sendall(b"\x00\x00")
    loop.run_once(20)
    assert connection.bytes_in == 2
    theirs.close()
    loop.run_once(20)
    assert not connection.is_open


@with_hub
def test_a_hub_has_one_loop_which_keeps_it_going_only_while_it_has_members() -> None:
    hub = gevent.get_hub()
    loop = loop_of(hub)
    assert loop_of(hub) is loop
    gevent.wait(timeout=20)  # returns: the loop alone is nothing to wait for
    connection, theirs = connect(loop)
    assert gevent.wait(timeout=0.01) is False
    theirs.sendall(b"\x00")
    wait_until(lambda: connection.bytes_in == 1)
    theirs.close()
    wait_until(lambda: not connection.is_open)
    gevent.wait(timeout=20)
    loop.close()
    assert loop_of(hub) is not loop


@with_hub
def test_the_epoll_descriptor_is_quiet_once_the_events_are_taken() -> None:
    loop = loop_of(gevent.get_hub())
    connection, theirs = connect(loop)
    theirs.sendall(b"\x00" * 3)
    wait_until(lambda: connection.bytes_in == 3)
    before = loop.turns
    for _ in range(20):
        gevent.sleep(0)
    assert loop.turns - before <= 1
    poll = select.epoll()
    poll.register(loop.epoll, select.EPOLLIN)
    assert poll.poll(0) == []
    poll.close()
    connection.close()
    theirs.close()

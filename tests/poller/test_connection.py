"""One connection, without a server around it: giving the socket away, names of peers, limits in time. What needs a server is in
tests/weego/test_server.py."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from codec.errors import Unavailable
from codec.thrift import ThriftServerProtocol
from poller.connection import Connection, Limits, Receiver, format_address, has_ended
from poller.loop import Loop
from tests.support.echo_stub import Echo, Request, Response
from tests.support.net import Wire, encode, wait_until
from weego.dispatch import Dispatcher
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


class Service(Echo):
    @inline
    def echo(self, req: Request) -> Response:
        return Response(message=req.message)


def pair() -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    return ours.detach(), theirs


def connect(loop: Loop, limits: Limits = NO_LIMITS) -> tuple[Connection, socket.socket]:
    fd, theirs = pair()
    return Connection(loop, fd, ThriftServerProtocol({}, {}, 1000), Receiver(), limits), theirs


def serve(loop: Loop, limits: Limits = NO_LIMITS) -> tuple[Dispatcher, Connection, socket.socket]:
    dispatcher = thrift_dispatcher(loop, *build([Service()]))
    fd, theirs = pair()
    return dispatcher, dispatcher.connect(fd, limits), theirs


def test_every_split_of_a_message_is_one_message(loop: Loop) -> None:
    dispatcher, connection, theirs = serve(loop)
    data = encode(Request(message="in two"))
    for cut in range(1, len(data)):
        theirs.sendall(data[:cut])
        loop.run_once(20)
        assert connection.unread == cut
        theirs.sendall(data[cut:])
        loop.run_once(20)
        assert connection.unread == 0
        assert theirs.recv(1000).endswith(b"in two\x00\x00")
    assert dispatcher.requests == len(data) - 1
    theirs.close()


def test_it_is_given_away_between_two_messages_with_the_bytes_read_so_far(loop: Loop) -> None:
    other = Loop()
    dispatcher, connection, theirs = serve(loop)
    data = encode(Request(message="handed over"))
    for cut in (0, 1, 5, len(data) - 1):
        theirs.sendall(data[:cut])
        loop.run_once()
        assert connection.is_between
        fd, read = connection.detach()
        dispatcher.forget(connection)
        assert read == data[:cut]
        assert not connection.is_open
        theirs.sendall(data[cut:])  # waits in the kernel: the new owner has no event for it
        loop.run_once()
        assert loop.members == 0
        with pytest.raises(RuntimeError, match="in the middle of something"):
            connection.detach()
        next_dispatcher = thrift_dispatcher(other, *build([Service()]))
        moved = next_dispatcher.connect(fd, NO_LIMITS, read)
        other.run_once()
        other.run_once()
        assert theirs.recv(1000).endswith(b"handed over\x00\x00")
        fd, read = moved.detach()
        assert read == b""
        connection = dispatcher.connect(fd, NO_LIMITS)
    theirs.close()
    other.close()


def test_pipelined_calls_that_were_read_go_along(loop: Loop) -> None:
    dispatcher = thrift_dispatcher(loop, *build([Service()]))
    fd, theirs = pair()
    data = encode(Request(message="one"), 1) + encode(Request(message="two"), 2) + encode(Request(message="three"), 3)[:9]
    connection = dispatcher.connect(fd, NO_LIMITS, data)
    loop.run_once()
    assert dispatcher.requests == 2
    assert connection.unread == 9
    answers = theirs.recv(10_000)
    assert answers.index(b"one") < answers.index(b"two")
    theirs.close()


def test_close_soon_lets_the_output_leave_first(loop: Loop) -> None:
    dispatcher, connection, theirs = serve(loop)
    theirs.sendall(encode(Request(message="last")))
    loop.run_once(20)
    connection.close_soon()
    assert theirs.recv(1000).endswith(b"last\x00\x00")
    assert theirs.recv(1) == b""
    assert not dispatcher.connections
    theirs.close()


@pytest.mark.parametrize("limit", ["idle", "frame"])
def test_limits_in_time(loop: Loop, limit: str) -> None:
    limits = Limits(**{f"{limit}_timeout": 0.001})
    connection, theirs = connect(loop, limits)
    theirs.sendall(b"\x00\x00\x00")
    loop.run_once(20)
    wait_until(lambda: loop.sweep_members() is None and not connection.is_open)  # type: ignore[func-returns-value]
    theirs.close()


def test_the_limit_of_a_message_counts_from_its_first_byte(loop: Loop) -> None:
    connection, theirs = connect(loop, Limits(frame_timeout=0.05))
    data = encode(Request(message="x" * 500))

    def trickle() -> bool:
        nonlocal sent
        if connection.is_open:
            theirs.sendall(data[sent : sent + 1])
            sent = min(sent + 1, len(data) - 2)
            loop.run_once()
            loop.sweep_members()
        return not connection.is_open

    sent = 0
    wait_until(trickle)
    theirs.close()


def test_output_that_nobody_takes(loop: Loop) -> None:
    dispatcher, connection, theirs = serve(loop, Limits(write_timeout=0.01))
    theirs.sendall(b"".join(encode(Request(message="x" * 4000), number) for number in range(1, 20)))
    while loop.run_once() is None and connection.unread == 0 and dispatcher.requests < 19:  # type: ignore[func-returns-value]
        pass
    theirs.setblocking(False)

    def push() -> bool:
        try:
            theirs.send(encode(Request(message="y" * 60_000)))
        except (BlockingIOError, BrokenPipeError):
            pass
        loop.run_once()
        loop.sweep_members()
        return not connection.is_open

    wait_until(push)
    assert not dispatcher.connections
    theirs.close()


def test_names_of_peers(loop: Loop) -> None:
    assert format_address(("127.0.0.1", 80)) == "tcp://127.0.0.1:80"
    assert format_address(("::1", 80, 0, 0)) == "tcp://[::1]:80"
    assert format_address("/run/x") == "unix:///run/x"
    assert format_address(b"\0abstract") == "unix://\0abstract"
    connection, theirs = connect(loop)
    assert connection.peer == "unix://"
    assert "fd" in repr(connection)
    connection.close()
    assert "closed" in repr(connection)
    theirs.close()
    never_named, theirs = connect(loop)
    never_named.close()
    assert never_named.peer == "unknown"
    theirs.close()


def test_the_name_and_the_error_of_a_peer_need_no_descriptor(loop: Loop) -> None:
    import resource

    listening = socket.create_server(("127.0.0.1", 0))
    wire = Wire(f"tcp://127.0.0.1:{listening.getsockname()[1]}")
    ours, _ = listening.accept()
    ours.setblocking(False)
    connection = Connection(loop, ours.detach(), ThriftServerProtocol({}, {}, 1000), Receiver(), NO_LIMITS)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert connection.peer.startswith("tcp://127.0.0.1:")
        wire.reset()
        wait_until(lambda: loop.run_once() is None and not connection.is_open)  # type: ignore[func-returns-value]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    listening.close()


def test_has_ended() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    assert not has_ended(ours.fileno())
    theirs.send(b"x")
    assert has_ended(ours.fileno())  # what nobody asked for
    ours.recv(1)
    theirs.close()
    assert has_ended(ours.fileno())
    ours.close()
    listening = socket.create_server(("127.0.0.1", 0))
    wire = Wire(f"tcp://127.0.0.1:{listening.getsockname()[1]}")
    ours, _ = listening.accept()
    wire.reset()
    wait_until(lambda: has_ended(ours.fileno()))
    ours.close()
    listening.close()


def test_the_error_of_a_socket(loop: Loop) -> None:
    connection, theirs = connect(loop)
    assert isinstance(connection.socket_error(), Unavailable)
    theirs.close()


def test_many_connections_leave_no_memory(loop: Loop) -> None:
    import gc

    def round_trip() -> None:
        _, connection, theirs = serve(loop)
        theirs.sendall(encode(Request(message="m")) + struct.pack("!I", 100))
        loop.run_once(20)
        theirs.recv(1000)
        theirs.close()
        loop.run_once(20)
        assert not connection.is_open

    for _ in range(20):
        round_trip()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(500):
        round_trip()
    gc.collect()
    assert len(gc.get_objects()) - before < 50

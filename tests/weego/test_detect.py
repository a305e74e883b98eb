"""Which protocol a connection speaks: by its first bytes, however they come."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from poller.connection import Connection, Limits
from poller.loop import Loop
from tests.support.echo_stub import Echo, Request, Response
from tests.support.net import encode
from weego.detect import DetectFront, Detector, PrefixDetector
from weego.dispatch import Dispatcher
from weego.routes import build, inline
from weego.thrift_front import ThriftFront


class Named(Echo):
    def __init__(self, name: str) -> None:
        self.name = name

    @inline
    def echo(self, req: Request) -> Response:
        return Response(message=f"{self.name}: {req.message}")


class Framed(Detector):
    """A detector as a user writes it: Thrift in frames, by its version at the fifth byte."""

    seen: list[bytes]

    def matches(self, head: bytes) -> bool | None:
        self.seen.append(head)
        return head[4:6] == b"\x80\x01" if len(head) >= 6 else None


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    made = Loop()
    yield made
    for member in made.pollables():
        member.close()  # type: ignore[attr-defined]
    made.close()


@pytest.fixture
def dispatcher(loop: Loop) -> Dispatcher:
    made = Dispatcher(loop)

    def front(name: str) -> ThriftFront:
        return ThriftFront(made, *build([Named(name)]))

    framed = Framed("framed", front("by frame"))
    framed.seen = []
    table = [PrefixDetector("strict", front("by prefix"), b"\x80\x01\x00\x01", b"PRI * "), framed, Detector("rest", front("the rest"))]
    made.entrance = DetectFront(made, table)
    return made


def connect(dispatcher: Dispatcher, limits: Limits | None = None) -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    return dispatcher.connect(ours.detach(), limits or Limits()), theirs


@pytest.mark.parametrize(("framing", "who"), [("buffered", b"by prefix: "), ("framed", b"by frame: "), ("ttheader", b"the rest: ")])
def test_the_first_detector_that_knows_the_bytes_has_the_connection(loop: Loop, dispatcher: Dispatcher, framing: str, who: bytes) -> None:
    data = encode(Request(message="x"), framing=framing)
    for cut in range(1, 9):
        connection, theirs = connect(dispatcher)
        theirs.sendall(data[:cut])
        loop.run_once(0.02)
        theirs.sendall(data[cut:])
        loop.run_once(0.02)
        assert who in theirs.recv(1000)
        theirs.sendall(data * 2)  # and keeps it
        loop.run_once(0.02)
        assert theirs.recv(1000).count(who) == 2
        connection.close()
        theirs.close()
    assert dispatcher.requests == 8 * 3
    assert not dispatcher.connections


def test_what_came_along_with_a_hand_over_is_looked_at_too(loop: Loop, dispatcher: Dispatcher) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    dispatcher.connect(ours.detach(), Limits(), encode(Request(message="x")))
    loop.run_once(0.02)
    assert b"by frame: x" in theirs.recv(1000)
    theirs.close()


def test_a_peer_that_sends_too_little_to_tell_is_not_waited_for(loop: Loop, dispatcher: Dispatcher) -> None:
    limits = Limits(frame_timeout=0.001)  # the shorter of it and the detector's own five seconds
    _, silent = connect(dispatcher, limits)
    connection, slow = connect(dispatcher, limits)
    slow.sendall(b"\x80")
    loop.run_once(0.02)
    while connection.is_open:
        loop.run_once(0.002)
        loop.sweep_members()
    assert slow.recv(10) == b""
    assert len(dispatcher.connections) == 1, "one that never said a word is idle, not slow"
    silent.close()
    slow.close()


def test_a_table_and_a_prefix_need_something_in_them(loop: Loop, dispatcher: Dispatcher) -> None:
    with pytest.raises(ValueError, match="at least one"):
        DetectFront(dispatcher, [])
    assert dispatcher.entrance is not None
    for wrong in ((), (b"",)):
        with pytest.raises(ValueError, match="non-empty"):
            PrefixDetector("x", dispatcher.entrance, *wrong)

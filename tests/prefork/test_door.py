"""The door by itself: what a visitor may do, and that none can hold up the loop or the others."""

import errno
import socket
import time

import pytest

from prefork import door as door_module
from prefork.application import Listen
from prefork.door import MAX_REQUEST_BYTES, MAX_VISITORS, Door
from prefork.listeners import bind, resolve
from prefork.loop import Loop
from tests.prefork.harness import PATIENCE


class Parrot(Door):
    """Repeats lines; some words mean something."""

    def __init__(self, loop):
        super().__init__(loop)
        self.held = []

    def serve(self, visitor, request):
        match request:
            case b"hold":
                self.hold(visitor)
                self.held.append(visitor)
            case b"huge":
                self.answer(visitor, b"x" * 4_000_000 + b"\n", last=False)
            case b"bye":
                self.answer(visitor, b"bye\n", last=True)
            case b"fail":
                raise RuntimeError("on purpose")
            case _:
                self.answer(visitor, request + b"\n", last=False)

    def refuse(self, visitor):
        self.answer(visitor, b"too long\n", last=True)


class Room:
    def __init__(self):
        self.loop = Loop()
        self.loop._is_running = True  # the test makes the turns
        self.door = Parrot(self.loop)
        self.open("tcp://127.0.0.1:0")
        self.clients = []

    def open(self, address):
        listen = Listen(address)
        self.door.open(bind(listen, resolve(listen)))

    def enter(self):
        host, port = self.door.listener.actual.removeprefix("tcp://").split(":")
        client = socket.create_connection((host, int(port)), timeout=10)
        client.setblocking(False)
        self.clients.append(client)
        return client

    def turn(self, times=5):
        """Some turns of the loop; none waits for long."""
        for _ in range(times):
            self.loop.after(0.0005, lambda: None)
            self.loop._turn()

    def hear(self, client, lines=1):
        """What arrives, so many lines of it; None is the end."""
        data = b""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.turn(1)
            try:
                chunk = client.recv(1 << 20)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return None
            if not chunk:
                return data or None
            data += chunk
            if data.count(b"\n") == lines:
                return data
        raise AssertionError("nothing came")

    def close(self):
        for client in self.clients:
            client.close()
        self.door.close()
        self.loop.close()


@pytest.fixture
def room(no_leaks):
    room = Room()
    yield room
    room.close()


def test_a_request_in_pieces_and_several_in_one(room):
    client = room.enter()
    client.send(b"he")
    room.turn()
    client.send(b"llo\n")
    assert room.hear(client) == b"hello\n"
    client.send(b"one\ntwo\nthr")
    assert room.hear(client, 2) == b"one\ntwo\n"
    client.send(b"ee\n")
    assert room.hear(client) == b"three\n"


def test_the_last_answer_arrives_whole_before_the_end(room):
    client = room.enter()
    client.send(b"bye\nmore that nobody reads\n" + b"y" * 5000)
    assert room.hear(client) == b"bye\n"
    assert room.hear(client) is None
    client.close()
    room.turn()
    assert not room.door._visitors


def test_a_request_too_long_is_refused(room):
    client = room.enter()
    client.send(b"x" * (MAX_REQUEST_BYTES + 1))
    assert room.hear(client) == b"too long\n"
    assert room.hear(client) is None
    other = room.enter()
    other.send(b"x" * (MAX_REQUEST_BYTES - 1) + b"\n")
    assert len(room.hear(other)) == MAX_REQUEST_BYTES


def test_an_answer_larger_than_the_socket_takes_its_time(room):
    # Else the kernel may grow the buffer until the whole answer fits; what is accepted inherits this.
    room.door.listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    client = room.enter()
    client.send(b"huge\nnext\n")
    room.turn()
    (visitor,) = room.door._visitors.values()
    assert visitor.unsent
    data = room.hear(client, 2)
    assert data.endswith(b"next\n")
    assert len(data) == 4_000_000 + 1 + len("next\n")


def test_a_full_room_lets_the_newest_in_and_the_oldest_go(room):
    held = room.enter()
    held.send(b"hold\n")
    room.turn()
    idle = [room.enter() for _ in range(MAX_VISITORS - 1)]
    room.turn(20)
    assert len(room.door._visitors) == MAX_VISITORS
    newest = room.enter()
    newest.send(b"still here?\n")
    assert room.hear(newest) == b"still here?\n"
    assert len(room.door._visitors) == MAX_VISITORS
    assert room.hear(idle[0]) is None
    room.door.answer_held(room.door.held[0], b"at last\n")
    assert room.hear(held) == b"at last\n"


def test_nobody_stays_without_a_request(room, monkeypatch):
    monkeypatch.setattr(door_module, "REQUEST_SECONDS", -1.0)
    monkeypatch.setattr(door_module, "SWEEP_SECONDS", 0.0)
    silent = room.enter()
    assert room.hear(silent) is None
    assert not room.door._visitors
    assert not room.door._is_sweeping, "an idle master has no timers"


def test_who_waits_for_us_may_stay_and_may_hang_up(room, monkeypatch):
    monkeypatch.setattr(door_module, "REQUEST_SECONDS", -1.0)
    monkeypatch.setattr(door_module, "SWEEP_SECONDS", 0.0)
    waiting = room.enter()
    waiting.send(b"hold\n")
    room.turn(20)
    assert len(room.door._visitors) == 1
    waiting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # so that close is a reset
    waiting.close()
    room.turn(20)
    assert not room.door._visitors
    room.door.answer_held(room.door.held[0], b"too late\n")


def test_requests_behind_a_held_one_are_served_after_it(room):
    client = room.enter()
    client.send(b"hold\nnext\n")
    room.turn()
    room.door.answer_held(room.door.held[0], b"first\n")
    assert room.hear(client, 2) == b"first\nnext\n"


def test_a_mistake_costs_one_visitor(room, caplog):
    client, other = room.enter(), room.enter()
    client.send(b"fail\n")
    assert room.hear(client) is None
    assert "on purpose" in caplog.text
    other.send(b"fine\n")
    assert room.hear(other) == b"fine\n"


def test_out_of_descriptors_it_pauses_and_goes_on(room, monkeypatch, caplog):
    monkeypatch.setattr(door_module, "SWEEP_SECONDS", 0.0)

    class Empty:
        def __init__(self, listener):
            self.actual, self.fileno, self.close = listener.actual, listener.fileno, listener.close
            self.sock = self

        def _accept(self):
            raise OSError(errno.EMFILE, "Too many open files")

    client = room.enter()
    client.send(b"patience\n")
    real = room.door.listener
    room.door.listener = empty = Empty(real)
    room.loop._turn()
    assert "cannot accept: Too many open files" in caplog.text
    empty.sock = real.sock
    assert room.hear(client) == b"patience\n"


def test_moving_closes_the_old_address_and_keeps_who_is_inside(room):
    client = room.enter()
    client.send(b"hello\n")
    assert room.hear(client) == b"hello\n"
    before = room.door.listener.actual
    room.open("tcp://127.0.0.1:0")
    assert room.door.listener.actual != before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(before.rsplit(":", 1)[1])), timeout=10)
    client.send(b"still\n")
    assert room.hear(client) == b"still\n"
    room.door.open(None)
    assert room.door.listener is None

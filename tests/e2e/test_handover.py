"""Connections that move from one worker to the next under all that makes it hard; every framing, nobody reconnects."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.e2e.load import ALL_FRAMINGS
from tests.e2e.test_crash import KILLED, kill
from tests.e2e.wire import DOUBLE, I32, PATIENCE, STRING, Answer, Closed, answer, cut, pack, told
from tests.support import need
from tests.support.service import App, Server, until

# Open files of this process with two thousand connections, and room for everything else.
CROWD_FILES = 3000


class Wire:
    """One connection in any framing."""

    def __init__(self, address: str, framing: str, *, receive_buffer: int = 0) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.framing = framing
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, int(port)))
        self.got = bytearray()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, name: str, *given: tuple[int, int, object], seqid: int = 1) -> None:
        self.send(pack(self.framing, name, *given, seqid=seqid))

    def receive(self) -> Answer:
        while (body := cut(self.framing, self.got)) is None:
            try:
                chunk = self.socket.recv(1 << 20)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise Closed(bytes(self.got))
            self.got += chunk
        return answer(body)

    def tell(self, text: str = "?", *, seqid: int = 1) -> tuple[int, int]:
        self.ask("tell", (1, STRING, text), seqid=seqid)
        found = self.receive()
        assert found.seqid == seqid
        return told(found.text, text)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextmanager
def one_of_each(server: Server, *, receive_buffer: int = 0) -> Iterator[list[Wire]]:
    """A connection in each framing."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Wire(server.address, framing, receive_buffer=receive_buffer)) for framing in ALL_FRAMINGS
        ]


def upgrade(app: App, server: Server, version: int) -> None:
    app.write_version(version)
    server.reload_ok()


def renewed(wire: Wire, version: int) -> None:
    until(lambda: wire.tell()[0] == version, f"code {version}")


# ---------------------------------------------------------------- hard to cut


def test_half_a_frame_of_one_mebibyte(app: App) -> None:
    """What is read of it is too much to hand over: the old worker keeps the connection until the message is whole."""
    data = bytes(range(256)) * 4096
    with app.serve() as server, one_of_each(server) as wires:
        requests = [pack(wire.framing, "blob", (1, STRING, data), seqid=9) for wire in wires]
        half = len(data) // 2
        for wire, request in zip(wires, requests, strict=True):
            wire.send(request[:half])
        upgrade(app, server, 2)
        for wire, request in zip(wires, requests, strict=True):
            wire.send(request[half:-1])
        upgrade(app, server, 3)
        for wire, request in zip(wires, requests, strict=True):
            wire.send(request[-1:])
            found = wire.receive()
            assert (found.seqid, found.raw == data) == (9, True), wire.framing
            renewed(wire, 3)


def test_a_hundred_requests_pipelined_over_a_reload(app: App) -> None:
    with app.serve(workers=2) as server, one_of_each(server) as wires:
        ends = []
        for wire in wires:
            requests = b"".join(
                pack(wire.framing, "wait", (1, DOUBLE, 0.01), (2, STRING, f"number {n}"), seqid=n) for n in range(1, 101)
            )
            wire.send(requests[:-7])
            ends.append(requests[-7:])
        upgrade(app, server, 2)
        for wire, end in zip(wires, ends, strict=True):
            wire.send(end)
            for number in range(1, 101):
                found = wire.receive()
                assert found.seqid == number
                told(found.text, f"number {number}")
            renewed(wire, 2)


def test_slow_readers_with_unsent_output(app: App) -> None:
    size = 4 << 20
    with app.serve() as server, one_of_each(server, receive_buffer=4096) as wires:
        for wire in wires:
            wire.ask("make", (1, I32, size), seqid=5)
        old = server.worker()
        for wire in wires:
            until(lambda wire=wire: has_answer(wire), "the answer to begin")  # type: ignore[misc]
        upgrade(app, server, 2)
        assert old in server.remember(), "the old worker stays until its output is taken"
        for wire in wires:
            found = wire.receive()
            assert (found.seqid, found.raw == bytes(range(256)) * (size // 256)) == (5, True), wire.framing
            renewed(wire, 2)
        until(lambda: old not in server.remember(), "the old worker to go")


def test_who_is_still_draining_when_the_next_reload_comes_hands_over_to_the_newest(app: App) -> None:
    """Found by the half of a mebibyte: those it could give to were leaving themselves, and it kept the connection to its deadline."""
    with app.serve() as server, Wire(server.address, "framed") as wire:
        wire.ask("wait", (1, DOUBLE, 4.0), (2, STRING, "long"))
        until(lambda: connections(server.worker()) == 1, "the worker to have it")
        old = server.worker()
        upgrade(app, server, 2)
        upgrade(app, server, 3)
        assert told(wire.receive().text, "long") == (1, old)
        renewed(wire, 3)
        until(lambda: len(server.family()) == 2, "only the loader and the worker to be left")


# ---------------------------------------------------------------- many at once


@pytest.fixture
def crowd(app: App) -> Iterator[tuple[Server, list[Wire]]]:
    """Two thousand connections, all framings, idle; each has been answered once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < CROWD_FILES:
        if hard < CROWD_FILES:
            need.missing(f"room for {CROWD_FILES} open files (the hard limit is {hard})", "ulimit -Hn 8192")
        resource.setrlimit(resource.RLIMIT_NOFILE, (CROWD_FILES, hard))
    with app.serve(workers=2, allow=KILLED) as server, ExitStack() as stack:
        wires = [stack.enter_context(Wire(server.address, ALL_FRAMINGS[n % 3])) for n in range(2000)]
        for wire in wires:
            wire.ask("tell", (1, STRING, "hello"))
        for wire in wires:
            assert wire.receive().text.endswith("hello")
        yield server, wires


def test_two_thousand_connections_at_once(app: App, crowd: tuple[Server, list[Wire]]) -> None:
    server, wires = crowd
    old = server.workers()
    # Some have asked and not been answered, some are in the middle of a question, most are idle.
    for wire in wires[::10]:
        wire.ask("wait", (1, DOUBLE, 0.2), (2, STRING, "patience"), seqid=3)
    question = {framing: pack(framing, "tell", (1, STRING, "halves"), seqid=4) for framing in ALL_FRAMINGS}
    for wire in wires[1::10]:
        wire.send(question[wire.framing][:20])
    upgrade(app, server, 2)
    until(lambda: not set(old) & set(server.remember()), "the old workers to go")
    for wire in wires[1::10]:
        wire.send(question[wire.framing][20:])
    for wire in wires[::10]:
        told(wire.receive().text, "patience")
    for wire in wires[1::10]:
        assert told(wire.receive().text, "halves")[0] == 2
    for number, wire in enumerate(wires):
        assert wire.tell(seqid=number)[0] == 2
    assert "adopted" not in server.log, "nothing to say about what goes well"


# ---------------------------------------------------------------- somebody dies in the middle of it


def survivors(wires: list[Wire]) -> list[Wire]:
    """Who still has a connection; every answer is right, and there is one for each question at most."""
    alive = []
    for number, wire in enumerate(wires):
        try:
            wire.tell(f"question {number}", seqid=number)
        except (Closed, BrokenPipeError, ConnectionResetError) as error:
            assert getattr(error, "got", b"") == b"", "half an answer"
        else:
            alive.append(wire)
    return alive


def test_the_giver_is_killed_in_the_middle_of_it(app: App, crowd: tuple[Server, list[Wire]]) -> None:
    server, wires = crowd
    victim, other = server.workers()
    given = [wire for wire in wires if wire.tell()[1] == victim]
    app.write_version(2)
    server.mark()
    server.signal(signal.SIGHUP)
    server.wait_for("reload done")
    os.kill(victim, signal.SIGKILL)
    until(lambda: not {victim, other} & set(server.remember()), "both old workers to go")
    alive = survivors(wires)
    # All of the other's are there; of the victim's those that it had given away or offered.
    lost = set(map(id, wires)) - set(map(id, alive))
    assert lost <= set(map(id, given))
    for wire in alive:
        assert wire.tell()[0] == 2
    upgrade(app, server, 3)


def test_a_taker_is_killed_in_the_middle_of_it(app: App, crowd: tuple[Server, list[Wire]]) -> None:
    server, wires = crowd
    old = server.workers()
    app.write_version(2)
    server.mark()
    server.signal(signal.SIGHUP)
    server.wait_for("reload done")
    fresh = until(lambda: set(server.workers()) - set(old), "a new worker")
    kill(fresh.pop())
    until(lambda: not set(old) & set(server.remember()), "the old workers to go")
    until(lambda: len(server.workers()) == 2, "a replacement")
    # Only what it had adopted can be lost, which is half at most and some; the server is as good as new.
    alive = survivors(wires)
    assert len(alive) >= len(wires) // 4
    for wire in alive:
        assert wire.tell()[0] == 2
    with Wire(server.address, "framed") as newcomer:
        assert newcomer.tell()[0] == 2


def test_a_taker_that_never_acknowledges(app: App) -> None:
    """The only new worker is stopped as it gets ready. Its offers go to the one that takes its place, long before somebody ends it."""
    allow = [r"is late: (stopped|starved)"]
    with app.serve(server='graceful_timeout = "25s"', allow=allow) as server, ExitStack() as stack:
        wires = [stack.enter_context(Wire(server.address, ALL_FRAMINGS[n % 3])) for n in range(60)]
        for wire in wires:
            wire.tell()
        (old,) = server.workers()
        app.write_version(2)
        server.mark()
        server.signal(signal.SIGHUP)
        fresh = int(server.wait_for(r"worker 0 gen 2 \(pid (\d+)\) is ready")[1])
        os.kill(fresh, signal.SIGSTOP)
        try:
            server.wait_for("reload done")
            # Whatever it had adopted before the stop waits with it; all others have somebody who answers, and the old worker goes.
            until(lambda: old not in server.remember(), "the old worker to go")
            held = connections(fresh)
            for wire in wires:
                wire.ask("tell", (1, STRING, "who"))
            until(lambda: len(wires) - sum(has_answer(wire) for wire in wires) <= held, "answers on all others")
        finally:
            os.kill(fresh, signal.SIGCONT)
        # It goes on, finds itself replaced, and leaves what it has to its successor: nobody has reconnected.
        for wire in wires:
            assert told(wire.receive().text, "who")[0] == 2
        until(lambda: len(server.family()) == 2, "only the loader and the worker to be left")
        for wire in wires:
            assert wire.tell()[1] == server.worker()


def has_answer(wire: Wire) -> bool:
    """Whether there is something to be read."""
    return bool(select.select([wire.socket], [], [], 0)[0])


def connections(pid: int) -> int:
    """Established TCP connections of a process."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(pid).net_connections("tcp"))

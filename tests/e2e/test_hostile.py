"""Peers that mean harm or speak another language: they get a clear error or a closed connection, and nobody else feels it.

One server takes all of it while a few well-behaved connections go on beside; each attack is over before the next begins.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.load import Load
from tests.e2e.wire import (
    BOOL,
    CALL,
    EXCEPTION,
    I32,
    I64,
    LIST,
    MAP,
    REPLY,
    SET,
    STRING,
    STRUCT,
    VERSION_1,
    Answer,
    Closed,
    Wire,
    answer,
    call,
    fields,
    frame,
    message,
    value,
)
from tests.support.service import App, Server, memory, until

# What a worker may grow by in the course of an attack: its own work, and nothing like what the peer declared.
GROWTH = 48 << 20
HUGE = 2**31 - 1
DEEP = 10_000


@dataclass
class Target:
    """The server under attack, its bystanders, and what its worker was at the start."""

    server: Server
    load: Load
    worker: int

    def check(self) -> None:
        """Still the same worker, and the bystanders have not noticed."""
        assert self.server.workers() == [self.worker]
        answered = self.load.answered
        until(lambda: self.load.answered > answered + 20 or self.load.failures, "the bystanders to be served")
        assert not self.load.failures


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    app = App(tmp_path_factory.mktemp("hostile") / "app")
    with app.serve() as server, Load(server.address, connections=8, idle=2, pace=0.02, newcomers=5) as load:
        yield Target(server, load, server.worker())
        assert not load.failures


@contextlib.contextmanager
def attack(target: Target) -> Iterator[Wire]:
    """A connection to misbehave on; afterwards the server must be as before."""
    before = memory(target.worker)
    with Wire(target.server.address) as wire:
        yield wire
    target.check()
    after = memory(target.worker)
    assert after["rss"] < before["rss"] + GROWTH, (before, after)
    assert after["peak"] < before["peak"] + GROWTH, (before, after)


def verdict(target: Target, wire: Wire) -> Answer | None:
    """What the server has to say to what was sent: an application exception, or None when it closed the connection and logged why."""
    host, port = wire.socket.getsockname()
    try:
        head = wire.exactly(4)
        found = (
            answer(head + wire.rest())
            if head[:2] == b"\x80\x01"
            else answer(wire.exactly(struct.unpack("!I", head)[0]))
        )
    except Closed as error:
        assert error.got == b""
        until(lambda: f"{host}:{port}: " in target.server.log, "a line in the log that says why")
        return None
    assert found.kind == EXCEPTION, found
    assert found.error[1], "an error without words"
    return found


# ---------------------------------------------------------------- sizes that lie


def declared(kind: int, size: int) -> bytes:
    """The struct of `tree`'s arguments, whose numbers claim to be so many of that type, and then three more bytes."""
    return struct.pack("!bhbhbi", STRUCT, 1, LIST, 3, kind, size) + b"\0\0\0"


HEAD = struct.pack("!Ii", VERSION_1 | CALL, 4) + b"tell"
TREE = struct.pack("!Ii", VERSION_1 | CALL, 4) + b"tree" + struct.pack("!i", 1)
LIES = {
    "frame of 2 GiB": struct.pack("!I", HUGE) + HEAD,
    "frame of 1 GiB": struct.pack("!I", 1 << 30) + HEAD,
    "frame of 17 MiB": struct.pack("!I", 17 << 20) + HEAD,
    "frame of -1": struct.pack("!i", -1) + HEAD,
    "frame of -2 GiB": struct.pack("!i", -(2**31)) + HEAD,
    "list of 2^31-1": frame(TREE + declared(I64, HUGE)),
    "list of 2^31-1, buffered": TREE + declared(I64, HUGE) + b"\0" * 64,
    "list of 2^31-1 structs": frame(TREE + struct.pack("!bhbhbi", STRUCT, 1, LIST, 2, STRUCT, HUGE) + b"\0" * 40),
    "list of 2^31-1 bools, unknown field": frame(TREE + struct.pack("!bhbi", LIST, 99, BOOL, HUGE) + b"\0" * 40),
    "list of -1": frame(TREE + declared(I64, -1)),
    "list of -1, buffered": TREE + declared(I64, -1) + b"\0" * 64,
    "set of 2^31-1, unknown field": frame(TREE + struct.pack("!bhbi", SET, 99, I32, HUGE) + b"\0" * 40),
    "map of 2^31-1, unknown field": frame(TREE + struct.pack("!bhbbi", MAP, 99, I32, STRING, HUGE) + b"\0" * 40),
    "map of -5, unknown field": frame(TREE + struct.pack("!bhbbi", MAP, 99, I32, STRING, -5) + b"\0" * 40),
    "string of 2^31-1": frame(HEAD + struct.pack("!ibhi", 1, STRING, 1, HUGE) + b"abc\0"),
    "string of 2^31-1, buffered": HEAD + struct.pack("!ibhi", 1, STRING, 1, HUGE) + b"abc\0",
    "string of -1": frame(HEAD + struct.pack("!ibhi", 1, STRING, 1, -1) + b"abc\0"),
    "string of -1, buffered": HEAD + struct.pack("!ibhi", 1, STRING, 1, -1) + b"abc\0",
    "string longer than its frame": frame(HEAD + struct.pack("!ibhi", 1, STRING, 1, 100) + b"abc\0"),
    "method name of 2^31-1": frame(struct.pack("!Ii", VERSION_1 | CALL, HUGE) + b"tell" * 10),
    "method name of -1": frame(struct.pack("!Ii", VERSION_1 | CALL, -1) + b"tell" * 10),
    "method name of 1 MB": frame(message("n" * 1_000_000, b"\0")),
    "unknown type": frame(TREE + struct.pack("!bh", 99, 1) + b"\0" * 40),
    "unknown type, buffered": TREE + struct.pack("!bh", 99, 1) + b"\0" * 40,
    "no end of the struct": frame(HEAD + struct.pack("!i", 1)),
    "invalid UTF-8": call("tell", (1, STRING, b"ab\xff\xfe")),
    "TTHeader larger than its packet": struct.pack("!IHHIH", 40, 0x1000, 0, 1, 0xFFFF) + b"\0" * 30,
    "TTHeader of 2 GiB": struct.pack("!IHHIH", HUGE, 0x1000, 0, 1, 4) + b"\0" * 30,
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_out_at_once(target: Target, lie: str) -> None:
    with attack(target) as wire:
        wire.send(LIES[lie])
        # The message, where there is one, has ended; nothing more is sent, and the server must not wait for what was declared.
        verdict(target, wire)


def test_invalid_utf8_is_named_by_its_field(target: Target) -> None:
    with attack(target) as wire:
        wire.send(LIES["invalid UTF-8"])
        found = verdict(target, wire)
        assert found is not None
        assert "text" in found.error[1]


# ---------------------------------------------------------------- nesting


def nest_known(depth: int) -> bytes:
    """A tree with a tree in it with a tree …, as an argument of `tree`."""
    opening = struct.pack("!bhbi", LIST, 2, STRUCT, 1)
    return fields_raw(STRUCT, 1, opening * depth + b"\0" * (depth + 1))


def fields_raw(kind: int, number: int, raw: bytes) -> bytes:
    return struct.pack("!bh", kind, number) + raw + b"\0"


NESTS = {
    "known structs": nest_known(DEEP),
    "unknown structs": fields_raw(STRUCT, 99, struct.pack("!bh", STRUCT, 1) * DEEP + b"\0" * (DEEP + 1)),
    "unknown lists": fields_raw(LIST, 99, struct.pack("!bi", LIST, 1) * DEEP + struct.pack("!bi", I32, 0)),
    "unknown maps": fields_raw(MAP, 99, struct.pack("!bbib", BOOL, MAP, 1, 1) * DEEP + struct.pack("!bbi", BOOL, BOOL, 0)),
    "unfinished lists": fields_raw(LIST, 99, struct.pack("!bi", LIST, 1) * DEEP)[:-1],
    "wide and deep": fields_raw(LIST, 99, struct.pack("!bi", LIST, HUGE) * DEEP),
}  # fmt: skip


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "buffered"])
@pytest.mark.parametrize("nest", NESTS)
def test_nesting_ten_thousand_deep(target: Target, nest: str, *, framed: bool) -> None:
    with attack(target) as wire:
        request = message("tree", NESTS[nest])
        wire.send(frame(request) if framed else request)
        if framed or nest != "unfinished lists":
            verdict(target, wire)


def test_a_reasonable_depth_is_served(target: Target) -> None:
    with attack(target) as wire:
        wire.send(frame(message("tree", nest_known(30))))
        found = wire.receive()
        assert found.kind == REPLY
        name = value(STRING, "")
        assert found.body.count(struct.pack("!bh", STRING, 1) + name) == 31


# ---------------------------------------------------------------- other languages

FOREIGN = {
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP POST": b"POST /Probe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
    "TLS": bytes.fromhex("16030100f8010000f40303") + bytes(range(200)),
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "json": b'[1,"tell",1,0,{"1":{"str":"a"}}]',
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "empty frames": b"\0\0\0\0" * 16,
    "a reply": frame(message("tell", fields((0, STRING, "a")), kind=REPLY)),
    "an exception": frame(message("tell", fields((1, STRING, "a"), (2, I32, 1)), kind=EXCEPTION)),
    "message type 200": frame(message("tell", fields((1, STRING, "a")), kind=200)),
}  # fmt: skip


@pytest.mark.parametrize("language", FOREIGN)
def test_another_language(target: Target, language: str) -> None:
    with attack(target) as wire:
        wire.send(FOREIGN[language])
        wire.socket.shutdown(socket.SHUT_WR)
        rest = wire.rest()
        if rest:
            assert answer(rest[4:]).kind == EXCEPTION


def test_compact_is_no_other_language(target: Target) -> None:
    with attack(target) as wire:
        wire.send(b"\x82\x21\x01\x04tell\x18\x01a\x00")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest().startswith(b"\x82\x41\x01\x04tell\x08\x00")  # a reply, in compact too


def test_random_bytes(target: Target) -> None:
    randomness = random.Random(20260823)
    before = memory(target.worker)
    for _ in range(300):
        with Wire(target.server.address) as wire:
            noise = randomness.randbytes(randomness.randrange(1, 3000))
            match randomness.randrange(4):
                case 0:
                    noise = frame(noise)
                case 1:
                    noise = frame(message("tree", noise))
                case 2:
                    noise = message("tree", noise)
            with contextlib.suppress(OSError):  # the server may have closed before all of it was sent
                wire.send(noise)
                wire.socket.shutdown(socket.SHUT_WR)
            wire.rest()
    target.check()
    after = memory(target.worker)
    assert after["rss"] < before["rss"] + GROWTH
    assert after["peak"] < before["peak"] + GROWTH


def test_valid_messages_with_flipped_bits(target: Target) -> None:
    randomness = random.Random(5)
    tree = fields(
        (
            1,
            STRUCT,
            [
                (1, STRING, "root"),
                (2, LIST, (STRUCT, [[(3, LIST, (I64, [1, 2, 3]))]] * 3)),
                (3, LIST, (I64, list(range(20)))),
            ],
        )
    )
    good = frame(message("tree", tree))
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(randomness.randrange(1, 4)):
            bad[randomness.randrange(len(bad))] ^= 1 << randomness.randrange(8)
        with Wire(target.server.address) as wire:
            with contextlib.suppress(OSError):
                wire.send(bytes(bad))
                wire.socket.shutdown(socket.SHUT_WR)
            wire.rest()
    target.check()


# ---------------------------------------------------------------- slow, silent, rude


def test_one_byte_at_a_time(target: Target) -> None:
    with attack(target) as wire:
        for request in (
            call("tell", (1, STRING, "slowly"), seqid=1),
            message("tell", fields((1, STRING, "slowly")), seqid=2),
        ):
            for byte in request:
                wire.send(bytes([byte]))
        assert wire.receive().text.endswith(": slowly")
        buffered = message("tell", fields((0, STRING, "")), kind=REPLY)
        found = answer(wire.exactly(len(buffered) + len(f"1 {target.worker}: slowly")))
        assert (found.seqid, found.text) == (2, f"1 {target.worker}: slowly")


def test_connect_and_say_nothing(target: Target) -> None:
    silent = [Wire(target.server.address) for _ in range(200)]
    target.check()
    for number, wire in enumerate(silent):
        (wire.reset if number % 2 else wire.close)()
    target.check()


def test_reset_in_every_phase(target: Target) -> None:
    request = call("wait", (1, 4, 0.05), (2, STRING, "x" * 5000), seqid=1)
    for cut in (0, 2, 10, len(request) // 2, len(request)):
        for _ in range(10):
            wire = Wire(target.server.address)
            wire.send(request[:cut])
            wire.reset()
    for _ in range(5):
        wire = Wire(target.server.address, receive_buffer=4096)
        wire.send(call("make", (1, I32, 4 << 20), seqid=1))
        wire.exactly(1000)
        wire.reset()
    target.check()


def test_half_close_is_answered_first(target: Target) -> None:
    with attack(target) as wire:
        wire.send(
            call("wait", (1, 4, 0.1), (2, STRING, "last words"), seqid=1) + call("tell", (1, STRING, "more"), seqid=2)
        )
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.receive().text.endswith("last words")
        assert wire.receive().text.endswith("more")
        assert wire.rest() == b""


def test_ten_thousand_requests_before_the_first_answer_is_read(target: Target) -> None:
    before = memory(target.worker)
    count, text = 10_000, "p" * 100
    requests = b"".join(call("tell", (1, STRING, text), seqid=number) for number in range(count))
    with Wire(target.server.address, receive_buffer=4096) as wire:
        wire.socket.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 2
        while sent < len(requests) and time.monotonic() < deadline:
            try:
                sent += wire.socket.send(requests[sent : sent + 65536])
            except BlockingIOError:
                time.sleep(0.01)
        target.check()
        got = bytearray()
        number = 0
        deadline = time.monotonic() + 30
        while number < count:
            assert time.monotonic() < deadline
            with contextlib.suppress(BlockingIOError):
                sent += wire.socket.send(requests[sent : sent + 65536]) if sent < len(requests) else 0
            try:
                data = wire.socket.recv(1 << 16)
                assert data
                got += data
            except BlockingIOError:
                time.sleep(0.001)
            at = 0
            while len(got) - at >= 4 and len(got) - at >= 4 + (size := struct.unpack_from("!I", got, at)[0]):
                found = answer(bytes(got[at + 4 : at + 4 + size]))
                assert found.seqid == number
                number += 1
                at += 4 + size
            del got[:at]
    assert memory(target.worker)["rss"] < before["rss"] + GROWTH


# ---------------------------------------------------------------- recoverable mistakes leave the connection usable


def test_an_unknown_method(target: Target) -> None:
    with attack(target) as wire:
        wire.send(call("nothing", (1, STRING, "x"), seqid=11))
        found = wire.receive()
        assert (found.name, found.seqid) == ("nothing", 11)
        assert found.error[0] == 1
        assert wire.tell()[1] == target.worker


def test_an_unknown_oneway_method_is_not_answered(target: Target) -> None:
    with attack(target) as wire:
        wire.send(call("nothing", (1, STRING, "x"), seqid=12, kind=4))
        assert wire.tell()[1] == target.worker


def test_unknown_fields_are_passed_over(target: Target) -> None:
    unknown = [
        (50, STRING, "?"),
        (51, LIST, (LIST, [(I32, [1, 2]), (I32, [])])),
        (52, STRUCT, [(1, I64, 5)]),
        (-7, I32, 1),
    ]
    with attack(target) as wire:
        found = wire.call("tell", *unknown, (1, STRING, "still here"))
        assert found.text.endswith(": still here")


# ---------------------------------------------------------------- time limits


def test_time_limits(app: App) -> None:
    with app.serve(limits='idle_timeout = "1s"\nframe_timeout = "500ms"') as server, Wire(server.address) as busy:
        worker = server.worker()
        with Wire(server.address) as idle, Wire(server.address) as silent, Wire(server.address) as half:
            idle.tell()
            half.send(call("tell", (1, STRING, "x" * 100))[:50])
            for wire in (idle, silent, half):
                wire.socket.settimeout(0.2)
                until(lambda w=wire: _has_ended(w, busy), "the end of a connection")  # type: ignore[misc]
        with Wire(server.address) as slow:
            # A byte now and then does not make it a message.
            request = call("tell", (1, STRING, "x" * 1000))
            ended = False
            for byte in request[:-1]:
                try:
                    slow.send(bytes([byte]))
                except OSError:
                    ended = True
                    break
                time.sleep(0.02)
                busy.tell()
            assert ended
        assert busy.tell()[1] == worker


def _has_ended(wire: Wire, busy: Wire) -> bool:
    busy.tell()
    try:
        return wire.rest() is not None
    except TimeoutError:
        return False


# ---------------------------------------------------------------- too many


def test_more_connections_than_allowed_wait_their_turn(app: App) -> None:
    with app.serve(limits="max_connections = 10") as server:
        wires = [Wire(server.address) for _ in range(10)]
        for wire in wires:
            wire.tell()
        with Wire(server.address) as eleventh:
            eleventh.send(call("echo", (1, STRING, "me too"), seqid=1))
            for wire in wires:
                wire.tell()
            wires.pop().close()
            assert eleventh.receive().text == "me too"
        for wire in wires:
            wire.tell()
            wire.close()


def test_more_calls_than_allowed_are_refused_with_a_real_error(app: App) -> None:
    with app.serve(limits="max_concurrency = 4") as server:
        wires = [Wire(server.address) for _ in range(6)]
        for wire in wires:
            wire.send(call("wait", (1, 4, 0.5), (2, STRING, "x"), seqid=1))
        answers = [wire.receive() for wire in wires]
        kinds = [each.kind for each in answers]
        assert kinds.count(REPLY) == 4
        assert kinds.count(EXCEPTION) == 2
        assert all("4" in each.error[1] for each in answers if each.kind == EXCEPTION)
        for wire in wires:
            wire.tell()
            wire.close()

"""Attacks on a served connection, cleartext and TLS: who else notices, what is left behind, what the log says.

The protocol's own part: tests/codec/h2/test_attacks.py.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import hpack
import pytest

from codec.h2.errors import ErrorCode
from tests.codec.h2.wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    Frame,
    frame,
    u32,
)
from tests.support.certs import Certificates
from tests.support.grpc_echo import NAME, EchoService, Reply, Request
from tests.support.grpc_wire import Closed, GrpcWire, prefixed
from tests.support.net import records, served, target_of, wait_until, without_hub
from weego.serving import GrpcOptions


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(autouse=True, params=["cleartext", "tls"])
def secured(request: pytest.FixtureRequest, certs: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this file, without TLS and with it."""
    if request.param == "tls":
        monkeypatch.setattr(GrpcWire, "context", certs.stdlib())
        monkeypatch.setitem(globals(), "served", partial(served, tls=certs.server()))


def connected(address: str) -> socket.socket:
    """A bare connection, TLS behind it."""
    sock = socket.create_connection(target_of(address)[1], timeout=20)
    return sock if GrpcWire.context is None else GrpcWire.context.wrap_socket(sock, server_hostname="localhost")


# ---- the table of docs/grpc.md, each attack on a connection beside one that is served --------------------------------------------


class Attacker:
    """Frames by hand, of calls of the echo service."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.next = 1

    def ask(self, *more: tuple[bytes, bytes], end: bool = True, method: bytes = b"Collect") -> bytes:
        """HEADERS of a new call."""
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/%b/%b" % (NAME.encode(), method)), (b":authority", b"x")]
        block = self.encoder.encode([*fields, (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more])
        self.next += 2
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), self.next - 2, block)


def bomb(a: Attacker) -> bytes:
    planted = a.ask((b"x", b"y" * 3000))
    return planted + frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\xbe" * 16_000)


OVERDRAWN: dict[str, tuple[str, Callable[[Attacker], bytes]]] = {
    "H2-01": ("resets", lambda a: b"".join(a.ask(end=False) + frame(RST, 0, a.next - 2, u32(8)) for _ in range(1000))),
    "H2-02": ("stream_errors", lambda a: b"".join(a.ask(end=False) + frame(WINDOW, 0, a.next - 2, u32(0)) for _ in range(1000))),
    "H2-03": ("continuations", lambda a: frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(100)) * 20),
    "H2-04": ("empty_frames", lambda a: a.ask(end=False) + frame(DATA, 0, 1) * 200),
    "H2-05": ("header_list", bomb),
    "H2-07": ("settings", lambda a: frame(SETTINGS) * 200),
    "H2-08": ("too_many_pings", lambda a: frame(PING, 0, 0, bytes(8)) * 300),
    "H2-09": ("priorities", lambda a: frame(PRIORITY, 0, 1, u32(3) + b"\0") * 400),
    "H2-10": ("window_updates", lambda a: a.ask(end=False) + frame(WINDOW, 0, 0, u32(1)) * 2000),
    "H2-12": ("small_frames", lambda a: a.ask(end=False) + frame(DATA, 0, 1, prefixed(b"", length=60_000)) + frame(DATA, 0, 1, b"x") * 400),
    "H2-17": ("overhead", lambda a: b"".join(a.ask() + frame(11, 0, 0, bytes(16_000)) * 2 for _ in range(500))),
}
BROKEN: dict[str, tuple[ErrorCode, Callable[[Attacker], bytes]]] = {
    "H2-06": (ErrorCode.COMPRESSION_ERROR, lambda a: frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x3f\xe2\x1f")),
    "H2-14": (ErrorCode.PROTOCOL_ERROR, lambda a: frame(HEADERS, END_HEADERS, 2, b"\x82")),
    "H2-14, stream 0": (ErrorCode.PROTOCOL_ERROR, lambda a: frame(HEADERS, END_HEADERS | END_STREAM, 0, b"\x82")),
}
REFUSED: dict[str, tuple[ErrorCode, Callable[[Attacker], bytes]]] = {
    "H2-13": (ErrorCode.REFUSED_STREAM, lambda a: b"".join(a.ask(end=False) for _ in range(4))),
    "H2-15": (ErrorCode.PROTOCOL_ERROR, lambda a: a.ask((b"connection", b"close"))),
}


def conversation(sock: socket.socket, data: bytes) -> bytes:
    """What the server says to `data` until it closes; not all of it, where it closes with some of `data` unread."""
    said = b""
    try:
        sock.sendall(PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK) + data)
        while more := sock.recv(65536):
            said += more
    except OSError:
        pass
    return said


def whole_frames(data: bytes) -> list[Frame]:
    """The frames that have come whole."""
    found = []
    while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
        found.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@without_hub
@pytest.mark.parametrize("case", OVERDRAWN)
def test_a_budget_is_overdrawn(case: str) -> None:
    kind, attack = OVERDRAWN[case]
    with records(), served(EchoService()) as server, GrpcWire(server.addresses[0]) as good:
        assert good.call("Say", Request())[0] == 0
        with connected(server.addresses[0]) as bad:
            conversation(bad, attack(Attacker()))
        wait_until(lambda: server.serving.grpc.abuse == {kind: 1})
        assert good.call("Say", Request())[0] == 0
        wait_until(lambda: server.serving.connections == 1 and server.serving.dispatcher.inflight == 0)


@without_hub
@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_of_the_connection_is_broken(case: str) -> None:
    code, attack = BROKEN[case]
    with records(), served(EchoService()) as server, GrpcWire(server.addresses[0]) as good:
        with connected(server.addresses[0]) as bad:
            last = whole_frames(conversation(bad, attack(Attacker())))[-1]
        assert (last.type, int.from_bytes(last.payload[4:8], "big")) == (GOAWAY, code)
        assert good.call("Say", Request())[0] == 0
        assert server.serving.grpc.abuse == {}


@without_hub
@pytest.mark.parametrize("case", REFUSED)
def test_a_rule_of_one_stream_is_broken(case: str) -> None:
    code, attack = REFUSED[case]
    with records(), served(EchoService(), grpc=GrpcOptions(max_streams=3)) as server, connected(server.addresses[0]) as bad:
        a = Attacker()
        bad.sendall(PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK) + attack(a) + frame(PING, 0, 0, b"and then"))
        said = b""
        while not any(each.type == PING for each in whole_frames(said)):
            said += bad.recv(65536)
        resets = [each for each in whole_frames(said) if each.type == RST]
        assert [(each.stream, each.payload) for each in resets] == [(a.next - 2, u32(code))]
        assert server.serving.grpc.abuse == {}


# ---- what needs more than a connection ------------------------------------------------------------------------------------------


@without_hub
def test_h2_01_handlers_of_streams_that_were_reset_count_until_they_return() -> None:
    hold = threading.Event()

    class Deaf(EchoService):
        """Cannot be interrupted while it works."""

        def say(self, request: Any) -> Any:
            while not hold.is_set():
                try:
                    gevent.sleep(0.01)
                except BaseException:
                    continue
            return Reply()

    with served(Deaf(), grpc=GrpcOptions(max_streams=5)) as server, GrpcWire(server.addresses[0]) as wire:
        for _ in range(5):
            stream = wire.open("Say")
            stream.write_message(Request().SerializeToString(), end=True)
            wire.flush()
            wait_until(lambda: server.serving.dispatcher.inflight > 0)
            wire.protocol.reset(stream)
        wire.flush()
        wait_until(lambda: server.serving.dispatcher.inflight == 5)
        assert wire.call("Say", Request())[:2] == (-1, str(int(ErrorCode.REFUSED_STREAM)))
        hold.set()
        wait_until(lambda: server.serving.dispatcher.inflight == 0)
        assert wire.call("Say", Request())[0] == 0


@without_hub
def test_h2_01_the_offender_goes_and_the_others_stay() -> None:
    with served(EchoService()) as server, GrpcWire(server.addresses[0]) as good, records() as lines:
        with GrpcWire(server.addresses[0]) as bad:
            with pytest.raises((Closed, OSError)):
                for _ in range(100_000):
                    stream = bad.open("Say")
                    bad.protocol.reset(stream)
                    bad.flush()
                bad.pump()
        assert good.call("Say", Request(message="x"))[0] == 0
        wait_until(lambda: server.serving.connections == 1)
        assert server.serving.grpc.abuse == {"resets": 1}
    told = [line.getMessage() for line in lines if "abuse" in line.getMessage()]
    assert len(told) == 1
    assert "resets" in told[0]


@without_hub
def test_the_log_is_not_flooded_by_who_comes_again_and_again() -> None:
    flood = PREFACE + frame(SETTINGS) + frame(PING, 0, 0, bytes(8)) * 300
    began = time.monotonic()
    with served(EchoService()) as server, records() as lines:
        for _ in range(20):
            with connected(server.addresses[0]) as peer:
                peer.sendall(flood)
                try:
                    while peer.recv(65536):
                        pass
                except ConnectionResetError:
                    pass
        wait_until(lambda: server.serving.grpc.abuse == {"too_many_pings": 20})
    told = [line for line in lines if "abuse" in line.getMessage()]
    assert 1 <= len(told) <= 2 + (time.monotonic() - began)


@without_hub
def test_h2_11_who_asks_and_never_reads_holds_up_only_itself() -> None:
    started: list[int] = []

    def use(server: Any) -> None:
        with GrpcWire(server.addresses[0], window=0) as bad, GrpcWire(server.addresses[0]) as good:
            streams = [bad.open("Say") for _ in range(50)]
            for stream in streams:
                stream.write_message(Request(body=bytes(200_000), action="count").SerializeToString(), end=True)
            deadline = time.monotonic() + 20
            while any(stream.queued for stream in streams) and time.monotonic() < deadline:
                bad.pump()
            wait_until(lambda: len(started) >= 5)
            assert good.call("Say", Request())[0] == 0
            assert len(started) < 20, "with 1 MiB waiting no further call starts"
            # And after a while without progress the streams are ended and their memory is free.
            bad.until(lambda: any(stream.reset_code == ErrorCode.CANCEL for stream in streams))
        wait_until(lambda: server.serving.connections == 0 and server.serving.dispatcher.inflight == 0)

    with records(), served(EchoService(count=lambda _: started.append(1)), write_timeout=1.0) as server:
        use(server)


@without_hub
def test_h2_16_a_preface_that_trickles_in_and_one_that_is_none() -> None:
    with records(), served(EchoService(), frame_timeout=0.3) as server:
        with connected(server.addresses[0]) as slow:
            slow.sendall(PREFACE[:9])
            assert slow.recv(100) == b""
        with connected(server.addresses[0]) as slow:
            slow.sendall(PREFACE + frame(SETTINGS)[:5])
            while slow.recv(1000):
                pass
        with socket.create_connection(target_of(server.addresses[0])[1], timeout=20) as wrong:
            # TLS where there is none, or none where there is.
            wrong.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" if GrpcWire.context is None else PREFACE)
            while wrong.recv(100):
                pass
        wait_until(lambda: server.serving.connections == 0)


@without_hub
def test_a_silent_peer_is_asked_and_a_dead_one_is_closed() -> None:
    options = GrpcOptions(keepalive_time=0.1, keepalive_timeout=0.3)
    with served(EchoService(), grpc=options, idle_timeout=0.2) as server:
        with GrpcWire(server.addresses[0]) as alive:
            stream = alive.open("Collect")
            for _ in range(3):
                alive.pump()  # a PING, which the protocol answers
            assert stream.is_open
            alive.send(stream, prefixed(Request().SerializeToString()), end=True)
            assert alive.finish(stream)[0] == 0
            dead = alive.open("Collect")
            assert dead.is_open
            with pytest.raises((Closed, OSError)):
                while True:  # reads, but its protocol is not asked: no answer to the PING
                    if not alive.socket.recv(65536):
                        raise Closed
        wait_until(lambda: server.serving.dispatcher.inflight == 0)

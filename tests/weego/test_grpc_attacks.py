"""Attacks on a served connection: who else notices, what is left behind, what the log says. The protocol's own part: tests/codec/h2/test_attacks.py."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import gevent
import pytest

from codec.h2.errors import ErrorCode
from tests.codec.h2.wire import PING, PREFACE, SETTINGS, frame
from tests.support.grpc_echo import EchoService, Reply, Request
from tests.support.grpc_wire import Closed, GrpcWire, prefixed
from tests.support.net import records, served, target_of, wait_until, without_hub
from weego.serving import GrpcOptions


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
            with socket.create_connection(target_of(server.addresses[0])[1], timeout=20) as peer:
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
        with socket.create_connection(target_of(server.addresses[0])[1], timeout=20) as slow:
            slow.sendall(PREFACE[:9])
            assert slow.recv(100) == b""
        with socket.create_connection(target_of(server.addresses[0])[1], timeout=20) as slow:
            slow.sendall(PREFACE + frame(SETTINGS)[:5])
            while slow.recv(1000):
                pass
        with socket.create_connection(target_of(server.addresses[0])[1], timeout=20) as wrong:
            wrong.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # TLS where there is none
            assert wrong.recv(100) == b""
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

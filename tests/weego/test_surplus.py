"""A connection more than there may be: its call is answered with the limit's name, in each protocol, and the connection ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from codec.errors import Code, ResourceExhausted
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.grpc_echo import EchoService as GrpcEcho
from tests.support.grpc_echo import Request as GrpcRequest
from tests.support.grpc_wire import GrpcWire, prefixed
from tests.support.net import Wire, served, wait_until, with_hub, without_hub
from tests.support.stream_echo import Request as StreamRequest
from tests.weego.test_extend import connected, example, line, nothing_stays_registered
from tests.weego.test_stream_server import StreamWire, Watched
from weego import serving as serving_module

LIMIT = "limit max_connections_total, 1 connections to all workers"


class Service(Echo):
    def echo(self, req: Request) -> Response:
        return Response(message=req.message)


@contextmanager
def bounded(*services: object, **options: Any) -> Iterator[Any]:
    """A server that has room for one connection."""
    with served(*services, **options) as server:
        serving = server.serving
        serving.follow(replace(serving.limits, max_connections_total=1))
        yield server


def told(wire: Wire, text: str) -> str:
    wire.send(Request(message=text))
    reply = wire.reply()
    return reply.value.message if reply.error is None else str(reply.error)


@pytest.mark.parametrize("framing", ["framed", "ttheader"])
@without_hub
def test_the_second_is_told_and_goes(framing: str) -> None:
    with bounded(Service()) as server, Wire(server.addresses[0], framing=framing) as first:
        assert told(first, "first") == "first"
        with Wire(server.addresses[0], framing=framing) as second:
            assert f"RESOURCE_EXHAUSTED: Echo.echo: {LIMIT}; try another instance or later" in told(second, "second")
            assert second.at_end()
        wait_until(lambda: server.serving.connections == 1)
        assert told(first, "again") == "again"
        first.close()
        with Wire(server.addresses[0], framing=framing) as third:
            wait_until(lambda: server.serving.dispatcher.surplus == 0)
            assert told(third, "third") == "third"
        assert server.serving.dispatcher.turned_away == 1


@without_hub
def test_who_fits_when_it_calls_stays() -> None:
    with bounded(Service()) as server, Wire(server.addresses[0]) as first, Wire(server.addresses[0]) as second:
        wait_until(lambda: server.serving.dispatcher.surplus == 1)
        first.close()
        wait_until(lambda: server.serving.connections == 1)
        assert [told(second, text) for text in ("second", "again")] == ["second", "again"]
        (connection,) = server.serving.dispatcher.connections
        assert connection.limits is server.serving.connection_limits
        assert server.serving.dispatcher.surplus == 0


@without_hub
def test_grpc_is_told_in_each_stream_and_then_by_goaway() -> None:
    with bounded(GrpcEcho()) as server, GrpcWire(server.addresses[0]) as first:
        assert first.call("Say", GrpcRequest())[0] == 0
        with GrpcWire(server.addresses[0]) as second:
            streams = [second.open("Say") for _ in range(2)]
            for stream in streams:
                second.send(stream, prefixed(GrpcRequest().SerializeToString()), end=True)
            for stream in streams:
                status, text = second.finish(stream)
                assert status == Code.RESOURCE_EXHAUSTED
                assert LIMIT in text
            wait_until(lambda: server.serving.connections == 1)
        assert first.call("Say", GrpcRequest())[0] == 0


@without_hub
def test_a_stream_of_thrift_is_told() -> None:
    with bounded(Watched()) as server, StreamWire(server.addresses[0]) as first:
        assert first.call("say", StreamRequest())[2] is None
        with StreamWire(server.addresses[0]) as second:
            error = second.finish(second.open("chat"))[2]
            assert error is not None
            assert LIMIT in error[1]
            assert second.at_end()
        assert first.call("say", StreamRequest())[2] is None


@without_hub
def test_a_protocol_of_the_users_is_told_by_its_own_refusal() -> None:
    with nothing_stays_registered():
        example("A protocol with its detector")
        with bounded(Service()) as server, connected(server) as first, connected(server) as second:
            first.sendall(b"CALL echo one\n")
            assert line(first) == "OK one\n"
            second.sendall(b"CALL echo two\n")
            assert line(second).startswith(f"ERR Echo.echo: {LIMIT}")
            assert second.recv(1) == b""
            first.sendall(b"CALL echo three\n")
            assert line(first) == "OK three\n"


@with_hub
def test_a_client_goes_elsewhere() -> None:
    with bounded(Service()) as full, served(Service()) as other, EchoClient(full.addresses, timeout=20) as first:
        assert first.echo(Request(message="first")).message == "first"
        with EchoClient(full.addresses, timeout=20) as stubborn, pytest.raises(ResourceExhausted, match=LIMIT):
            stubborn.echo(Request())
        from weego import ClientPolicy

        with EchoClient([*full.addresses, *other.addresses], timeout=20, policy=ClientPolicy(balancer="round_robin")) as second:
            assert [second.echo(Request(message=str(number))).message for number in range(4)] == list("0123")


@without_hub
def test_who_never_calls_is_shown_the_door_and_few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "SURPLUS_PATIENCE", 0.2)
    monkeypatch.setattr(serving_module, "MOST_SURPLUS", 2)
    with bounded(Service(), idle_timeout=600.0) as server, Wire(server.addresses[0]) as first:
        assert told(first, "first") == "first"
        others = [Wire(server.addresses[0]) for _ in range(3)]
        wait_until(lambda: server.serving.dispatcher.surplus == 2)
        assert server.serving.accepted == 3  # the fourth is still the kernel's
        for wire in others:
            assert wire.at_end()
            wire.close()
        assert server.serving.accepted == 4
        assert told(first, "again") == "again"

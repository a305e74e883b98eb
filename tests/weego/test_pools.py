"""The connections of a client: how many there may be, made before they are needed, closed when nobody is there any more – and what is told of them."""

from __future__ import annotations

import threading
from typing import Any

import gevent
import gevent.event
import pytest

import weego
from codec.errors import ResourceExhausted, UsageError
from governance.instance import Instance
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.grpc_echo import EchoService as GrpcEcho
from tests.support.net import Peer, echo_forever, served, wait_until, with_hub, without_hub
from weego import config, settings
from weego.client import warm_up_configured
from weego.governed_config import client_settings


class GrpcClient(weego.Client):
    __spec__ = GrpcEcho.__spec__


BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])


class Waiting(Echo):
    def __init__(self) -> None:
        self.go = threading.Event()
        self.most = self.now = 0

    @weego.thread
    def echo(self, req: Request) -> Response:
        self.now += 1
        self.most = max(self.most, self.now)
        if req.action == "wait":
            assert self.go.wait(20)
        self.now -= 1
        return Response(message=req.message)


def several(decorate: Any, count: int, run: Any) -> Any:
    if decorate is with_hub:
        greenlets = [gevent.spawn(run) for _ in range(count)]
        return lambda: gevent.joinall(greenlets, raise_error=True)
    threads = [threading.Thread(target=run) for _ in range(count)]
    for each in threads:
        each.start()
    return lambda: [each.join() for each in threads]


@BOTH
def test_no_more_connections_in_use_than_allowed(decorate: Any) -> None:
    service = Waiting()

    @decorate
    def run() -> None:
        with served(service) as server, EchoClient(server.addresses, timeout=20, max_active=2, max_waiting=3) as client:
            finish = several(decorate, 5, lambda: client.echo(Request(action="wait")))
            wait_until(lambda: sum(each.waiting for each in client.statistics()) == 3)
            (found,) = client.statistics()
            assert (found.kind, found.active, found.waiting) == ("long", 2, 3)
            with pytest.raises(ResourceExhausted, match=r"limit max_active, 2 connections to .* and 3 calls wait"):
                client.echo(Request())
            wait_until(lambda: service.now == 2)
            service.go.set()
            finish()
            (found,) = client.statistics()
            assert (found.active, found.waiting, found.refused, found.made) == (0, 0, 1, 2)
        assert service.most == 2

    run()


@BOTH
@pytest.mark.parametrize("balancer", ["round_robin", "p2c"])
def test_a_full_pool_does_not_count_against_the_instance(decorate: Any, balancer: str) -> None:
    service, breaker = Waiting(), weego.BreakerPolicy(error_rate=0.0, consecutive=1)
    policy = weego.ClientPolicy(balancer=balancer, ejection=weego.EjectionPolicy(failures=1, most_share=1.0), instance_breaker=breaker)

    @decorate
    def run() -> None:
        with served(service) as one, served(service) as two:
            addresses = [*one.addresses, *two.addresses]
            with EchoClient(addresses, policy=policy, timeout=20, max_active=1, max_waiting=0) as client:
                finish = []
                for busy in (1, 2):  # one at each instance
                    finish.append(several(decorate, 1, lambda: client.echo(Request(action="wait"))))
                    wait_until(lambda busy=busy: service.now == busy)
                for _ in range(10):
                    with pytest.raises(ResourceExhausted, match="limit max_active"):
                        client.echo(Request())
                service.go.set()
                for each in finish:
                    each()
                governed = client._governed
                assert governed is not None
                instances = governed.snapshot()["instances"]
                assert [(each["ejected"], each["breaker"]) for each in instances] == [(False, "closed")] * 2
                client.echo(Request())

    run()


@BOTH
def test_connections_are_made_before_they_are_needed(decorate: Any) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer, EchoClient(peer.address, timeout=20) as client:
            assert weego.warm_up(client, 3) == []
            wait_until(lambda: peer.accepted == 3)
            assert weego.warm_up(client, 2) == []
            client.echo(Request())
            (found,) = client.statistics()
            assert (found.idle, found.made, found.reused, peer.accepted) == (3, 3, 1, 3)

    run()


@BOTH
def test_who_cannot_be_reached_is_told(decorate: Any) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer:
            gone = f"tcp://127.0.0.1:{peer.port}"
        with Peer(echo_forever) as peer, EchoClient([gone, peer.address]) as client:
            (problem,) = weego.warm_up(client)
            assert problem.instance == gone
            assert client.statistics()[0].idle == 1

    run()


@with_hub
def test_where_calls_share_connections_one_is_enough() -> None:
    with served(Waiting()) as server, EchoClient(server.addresses, framing="ttheader", pool="shared", timeout=20) as client:
        assert weego.warm_up(client, 5) == []
        (found,) = client.statistics()
        assert (found.kind, found.idle) == ("shared", 1)
        client.echo(Request())


@BOTH
def test_connections_to_who_is_gone_are_closed(decorate: Any) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as one, Peer(echo_forever) as other:
            found = [Instance(one.address), Instance(other.address)]

            class Mine:
                interval = 0.01

                def resolve(self) -> list[Instance]:
                    return found

            with EchoClient(Mine(), timeout=20) as client:
                assert weego.warm_up(client, 2) == []
                assert client.statistics()[0].idle == 4
                found.pop()
                # Somebody has to call, that somebody looks.
                wait_until(lambda: bool(client.echo(Request())) and client.statistics()[0].idle == 2)
                assert client.statistics()[0].dropped == 2

    run()


@pytest.mark.parametrize(
    ("make", "instead"),
    [
        (lambda: EchoClient("tcp://127.0.0.1:1", max_active=2, pool="shared", framing="ttheader"), "for the connections shared_connections"),
        (lambda: GrpcClient("tcp://127.0.0.1:1", max_active=2), "for the connections max_idle"),
    ],
)
def test_connections_of_many_calls_have_no_such_bound(make: Any, instead: str) -> None:
    with pytest.raises(UsageError, match='Client: max_active = 2 bounds connections that carry a call each, .* "concurrency" .*' + instead):
        make()


@with_hub
def test_a_worker_warms_up_what_its_configuration_says() -> None:
    before = settings.known()
    with Peer(echo_forever) as peer:
        table = config.Client(target=peer.address, warm_up=2, max_active=7, min_idle=1, wait_timeout=config.Duration(3))
        settings.remember(settings.Known(clients={"echo": client_settings("echo", table, "me")}))
        try:
            with EchoClient("service://echo") as client:
                warm_up_configured()
                assert client.statistics()[0].idle == 2
                limits = client._channel.limits
                assert (limits.max_active, limits.min_idle, limits.wait_timeout) == (7, 1, 3.0)
        finally:
            settings.remember(before)


@with_hub
def test_what_a_program_can_see_of_its_clients() -> None:
    with served(Waiting()) as server, EchoClient(server.addresses, policy=weego.ClientPolicy(), timeout=20) as client:
        with EchoClient(server.addresses, max_idle=0, timeout=20) as plain:
            for each in (client, plain):
                each.echo(Request())
            seen = {(each["governance"] is None): each for each in weego.stats() if each["client"] == "EchoClient"}
            assert seen[True]["pools"][0]["kind"] == "short"
            assert seen[False]["pools"][0] == {**seen[False]["pools"][0], "kind": "long", "idle": 1, "made": 1}
            assert seen[False]["governance"]["instances"][0]["address"] == server.addresses[0]

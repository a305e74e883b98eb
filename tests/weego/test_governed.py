"""Clients with policies against servers: what is found, what is left out, what is tried again, what is refused – with and without a hub."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest

from codec.errors import Code, DeadlineExceeded, ResourceExhausted, RpcError, Unavailable, UsageError
from governance.acl import Rule
from governance.balancers.rotation import RoundRobin
from governance.errors import BreakerOpen, NoInstance
from governance.instance import Instance
from governance.memory import Memory
from governance.policy import OFF, BreakerPolicy, ClientPolicy, Policy
from governance.retry import RetryPolicy
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import Peer, answer_to, echo_forever, read_frame, records, wait_until, with_hub, without_hub
from tests.support.stream_echo import Reply, TalkClient, TalkService
from tests.support.stream_echo import Request as StreamRequest
from weego import config, governance, settings
from weego.governed_config import ServerGovernance, client_settings, configure
from weego.server import Server

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


class EchoService(Echo):
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls = 0

    def echo(self, req: Request) -> Response:
        self.calls += 1
        if req.action == "fail":
            raise RuntimeError("on purpose")
        return Response(message=self.name or req.message)


@pytest.fixture(autouse=True)
def _nothing_counted_before() -> Iterator[None]:
    """Clients of one service share what they count; those of another test are not this one's."""
    before = settings.known()
    settings.remember(settings.Known())
    yield
    settings.remember(before)


def policy(**changes: Any) -> ClientPolicy:
    return ClientPolicy(Policy(**changes))


# ---- finding -------------------------------------------------------------------------------------------------------------


@BOTH
def test_two_services_find_each_other_through_a_folder(decorate: Decorator, tmp_path: Path) -> None:
    @decorate
    def run() -> None:
        registry = f"file://{tmp_path}/registry"
        one = Server([EchoService("one")], listen=["tcp://127.0.0.1:0"], registry=registry, name="echo").start()
        with EchoClient(f"{registry}/echo", timeout=20, balancer=RoundRobin()) as client:
            wait_until(lambda: any(each.suffix != ".new" for each in (tmp_path / "registry" / "echo").glob("*")))
            assert client.echo(Request()).message == "one"
            with Server([EchoService("two")], listen=["tcp://127.0.0.1:0"], registry=registry, name="echo"):
                wait_until(lambda: {client.echo(Request()).message for _ in range(20)} == {"one", "two"})
                one.stop()
                # It was withdrawn before it stopped listening, so nothing fails, and then nobody calls it any more.
                wait_until(lambda: {client.echo(Request()).message for _ in range(20)} == {"two"})
                wait_until(lambda: [each["address"] for each in governance()[0]["instances"]] != [])
        assert not os.listdir(tmp_path / "registry" / "echo")

    run()


@without_hub
def test_nobody_there() -> None:
    with EchoClient("file:///nonexistent/registry/echo") as client, pytest.raises(NoInstance, match="no instance of Echo is known") as caught:
        client.echo(Request())
    assert caught.value.sent is False
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("file://", "does not name a folder and a service"),
        ("dns://host", "is not dns://host:port"),
        ("service://nobody", r"nobody says where 'nobody' is"),
    ],
)
def test_targets_that_mean_nothing(target: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        EchoClient(target)


@BOTH
def test_a_resolver_of_ones_own(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer:

            class Mine:
                def resolve(self) -> list[Instance]:
                    return [Instance(peer.address)]

            with EchoClient(Mine(), timeout=20) as client:
                assert client.echo(Request()).message == "0"

    run()


@BOTH
def test_dns(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer, EchoClient(f"dns://localhost:{peer.port}", timeout=20) as client:
            assert client.echo(Request()).message == "0"
        with EchoClient("dns://no.such.host.invalid:1") as client, pytest.raises(NoInstance, match="cannot resolve"):
            client.echo(Request())

    run()


# ---- again ---------------------------------------------------------------------------------------------------------------


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"tcp://127.0.0.1:{closed.getsockname()[1]}"


@BOTH
def test_who_cannot_be_reached_costs_no_failure(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with Peer(echo_forever) as peer, EchoClient([dead_address(), peer.address], policy=policy(), timeout=20) as client:
            for _ in range(20):
                client.echo(Request())
            instances = {each["address"]: each for each in governance()[0]["instances"]}
            assert len(instances) == 2

    run()


@BOTH
def test_what_may_run_twice_is_tried_again_and_else_not(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            frame = read_frame(connection)
            if number % 2:
                connection.sendall(answer_to(frame, str(number)))

        with Peer(behave) as peer:
            with EchoClient(peer.address, policy=policy(idempotent=True), timeout=20) as client:
                assert client.echo(Request()).message == "1"
        with Peer(behave) as peer:
            with EchoClient(peer.address, policy=policy(), timeout=20) as client:
                with pytest.raises(Unavailable):
                    client.echo(Request())
                assert peer.accepted == 1

    run()


@BOTH
def test_an_attempt_has_less_time_than_the_call(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            frame = read_frame(connection)
            if number:
                connection.sendall(answer_to(frame, str(number)))
            read_frame(connection)

        with Peer(behave) as peer:
            chosen = policy(idempotent=True, attempt_timeout=0.1, timeout=20)
            with EchoClient(peer.address, policy=chosen) as client:
                assert client.echo(Request()).message == "1"
                with pytest.raises(DeadlineExceeded):
                    client.echo(Request(), timeout=0)

    run()


@BOTH
def test_a_hedge_beats_a_slow_instance(decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        over = threading.Event()

        def slow(connection: socket.socket, number: int) -> None:
            read_frame(connection)
            over.wait(20)

        with Peer(slow) as late, Peer(echo_forever) as quick:
            chosen = ClientPolicy(
                Policy(idempotent=True, retry=RetryPolicy(retries=0, hedges=1, hedge_after=0.05)), balancer="round_robin"
            )
            with EchoClient([late.address, quick.address], policy=chosen, timeout=20) as client:
                for _ in range(4):
                    assert client.echo(Request()).message == "0"
                assert governance()[0]["calls"][0]["hedges"] >= 1
                over.set()
                if decorate is with_hub:
                    gevent.sleep(0.01)  # the attempts that were given up end

    run()


# ---- breakers ------------------------------------------------------------------------------------------------------------


@with_hub
def test_a_breaker_stops_the_calls() -> None:
    service = EchoService()
    with Server([service], listen=["tcp://127.0.0.1:0"]) as server:
        chosen = policy(breaker=BreakerPolicy(0.5, 10, cooling=0.2, probe_every=0.05), retry=None)
        with EchoClient(server.addresses, policy=chosen, timeout=20) as client:
            for _ in range(10):
                with pytest.raises(RpcError):
                    client.echo(Request(action="fail"))
            with pytest.raises(BreakerOpen, match=r"Echo\.echo: the breaker is open") as caught:
                client.echo(Request())
            assert caught.value.sent is False
            assert service.calls == 10
            assert governance()[0]["breakers"][0]["state"] == "open"

            def well_again() -> bool:
                try:
                    client.echo(Request())
                except BreakerOpen:
                    return False
                return bool(governance()[0]["breakers"][0]["state"] == "closed")

            wait_until(well_again)


@with_hub
def test_a_breaker_of_one_client_is_that_of_all_who_share_its_memory() -> None:
    before = settings.known()
    settings.remember(settings.Known(memory=Memory.shared()))
    try:
        with Server([EchoService()], listen=["tcp://127.0.0.1:0"]) as server:
            chosen = policy(breaker=BreakerPolicy(0.5, 10), retry=None)
            with EchoClient(server.addresses, policy=chosen) as one, EchoClient(server.addresses, policy=chosen) as other:
                for _ in range(5):
                    for client in (one, other):
                        with pytest.raises(RpcError):
                            client.echo(Request(action="fail"), timeout=20)
                for client in (one, other):
                    with pytest.raises(BreakerOpen):
                        client.echo(Request())
    finally:
        settings.remember(before)


@with_hub
def test_off_is_off() -> None:
    with Server([EchoService()], listen=["tcp://127.0.0.1:0"]) as server, EchoClient(server.addresses, policy=OFF) as client:
        client.echo(Request(), timeout=20)
        seen = governance()[0]
        assert (seen["breakers"], seen["calls"], seen["limits"]) == ([], [], [])


@with_hub
def test_a_fallback_answers_instead() -> None:
    chosen = policy(fallback=lambda call, args, error: Response(message=f"instead of {type(error).__name__}"))
    with EchoClient(dead_address(), policy=chosen) as client:
        assert client.echo(Request()).message == "instead of Unavailable"


# ---- what a server refuses -----------------------------------------------------------------------------------------------


def governed(**tables: Any) -> ServerGovernance:
    return ServerGovernance(config.Governance(**tables), Memory())


@with_hub
def test_a_limit_is_an_error_that_is_named_and_tried_elsewhere() -> None:
    strict = governed(limit=(config.Limit(name="reads", rate=0.001, burst=1.0),))
    with Server([EchoService("strict")], listen=["tcp://127.0.0.1:0"], governance=strict) as server:
        with EchoClient(server.addresses) as client:
            client.echo(Request(), timeout=20)
            with pytest.raises(ResourceExhausted, match=r"limit reads, 0\.001 calls a second; try another instance"):
                client.echo(Request(), timeout=20)
            assert strict.snapshot()["limits"][0]["refused"] == 1
        with Server([EchoService("free")], listen=["tcp://127.0.0.1:0"]) as other:
            both = [server.addresses[0], other.addresses[0]]
            with EchoClient(both, policy=policy(), timeout=20) as client:
                assert {client.echo(Request()).message for _ in range(20)} == {"free"}


@with_hub
def test_so_many_at_one_time_and_no_more() -> None:
    entered, go = gevent.event.Event(), gevent.event.Event()

    class Waiting(Echo):
        def echo(self, req: Request) -> Response:
            entered.set()
            go.wait(20)
            return Response()

    tight = governed(limit=(config.Limit(name="one", concurrency=1, method="echo"),))
    with Server([Waiting()], listen=["tcp://127.0.0.1:0"], governance=tight) as server, EchoClient(server.addresses, timeout=20) as client:
        first = gevent.spawn(client.echo, Request())
        entered.wait(20)
        with pytest.raises(ResourceExhausted, match="limit one, 1 calls at one time"):
            client.echo(Request())
        go.set()
        first.get(timeout=20)
        client.echo(Request())


@with_hub
def test_a_stream_counts_until_it_is_over() -> None:
    """Whichever way it ends: by itself, given up by the client, or by the handler's failure."""
    go = gevent.event.Event()

    class Waiting(TalkService):
        def watch(self, req: Any) -> Iterator[Any]:
            yield Reply(message=req.message)
            go.wait(20)
            if req.action == "fail":
                raise RuntimeError("on purpose")

    tight = governed(limit=(config.Limit(name="one", concurrency=1),))
    with Server([Waiting()], listen=["tcp://127.0.0.1:0"], governance=tight) as server, TalkClient(server.addresses, timeout=20) as client:
        for ending in ("", "fail", "cancel"):
            go.clear()
            stream = client.watch(StreamRequest(message="m", action=ending))
            next(stream)
            with pytest.raises(ResourceExhausted, match="limit one, 1 calls at one time"):
                list(client.watch(StreamRequest()))
            assert tight.snapshot()["limits"][0]["current"] == 1
            if ending == "cancel":
                stream.cancel()
            go.set()
            if ending == "":
                assert list(stream) == []
            elif ending == "fail":
                with records(), pytest.raises(RpcError, match="on purpose"):
                    list(stream)
            wait_until(lambda: tight.snapshot()["limits"][0]["current"] == 0)
        assert [each.message for each in client.watch(StreamRequest(message="after"))] == ["after"]


@with_hub
def test_access_rules() -> None:
    rules = (config.Rule(allow=False, methods=("boom",)), config.Rule(allow=True, callers=("friend-*",)))
    with Server([EchoService()], listen=["tcp://127.0.0.1:0"], governance=governed(rule=rules, default="deny")) as server:
        with EchoClient(server.addresses, framing="ttheader", caller="friend-1", timeout=20) as friend:
            friend.echo(Request())
            with pytest.raises(RpcError, match=r"friend-1 may not call Echo\.boom") as caught:
                friend.boom(Request())
            assert caught.value.code is Code.PERMISSION_DENIED
        with EchoClient(server.addresses, timeout=20) as stranger, pytest.raises(RpcError, match="a caller without a name may not"):
            stranger.echo(Request())


@with_hub
def test_faults_on_purpose() -> None:
    trouble = governed(fault=(config.Fault(share=1.0, code="UNAVAILABLE", method="boom"),))
    with Server([EchoService()], listen=["tcp://127.0.0.1:0"], governance=trouble) as server, EchoClient(server.addresses, timeout=20) as client:
        client.echo(Request())
        with pytest.raises(RpcError, match="a fault on purpose") as caught:
            client.boom(Request())
        assert caught.value.code is Code.UNAVAILABLE


def test_a_rule_may_ask_more() -> None:
    rule = Rule(allow=True, check=lambda call, args: args == (1,))
    from tests.governance.clock import a_call

    assert rule.fits(a_call(), (1,))
    assert not rule.fits(a_call(), (2,))


# ---- configuration -------------------------------------------------------------------------------------------------------


def test_a_table_becomes_a_policy() -> None:
    table = config.Client(
        target="tcp://h:1",
        retries=1,
        breaker=False,
        rate=5.0,
        method={"Get": config.Method(retries=0, hedges=1, hedge_after=config.Duration(0.1), breaker=True, idempotent=True)},
    )
    made = client_settings("item", table, "me").policy
    assert made.default.breaker is None
    assert made.default.retry is not None
    assert made.default.retry.retries == 1
    assert made.default.limits[0].rate == 5
    get = made.of("Get")
    assert get.retry is not None
    assert (get.retry.retries, get.retry.hedges, get.idempotent) == (0, 1, True)
    assert get.breaker is not None


@with_hub
def test_a_program_is_configured_by_a_file(tmp_path: Path) -> None:
    before = settings.known()
    with Server([EchoService()], listen=["tcp://127.0.0.1:0"]) as server:
        path = tmp_path / "client.toml"
        path.write_text(f'name = "me"\n[client.echo]\ntarget = "{server.addresses[0]}"\ntimeout = "20s"\nframing = "ttheader"\n')
        try:
            configure(str(path))
            with EchoClient("service://echo") as client:
                assert client.echo(Request(message="x")).message == "x"
        finally:
            settings.remember(before)

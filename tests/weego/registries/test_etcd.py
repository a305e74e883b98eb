"""etcd://, against a real etcd: found and announced, and every way in which etcd may be of no help."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.balancers.rotation import RoundRobin
from governance.discovery import Directory, DiscoveryError, Registration
from governance.instance import Instance
from tests.governance.clock import a_call
from tests.support.certs import Certificates
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.etcd import EtcdCluster, EtcdServer
from tests.support.net import served, wait_until, with_hub, without_hub
from tests.support.ports import free_port
from weego import ClientPolicy, keeper
from weego.announce import Announcer
from weego.registries import etcd_client
from weego.registries.etcd import EtcdRegistry, EtcdResolver, instance_of, value_of
from weego.registries.etcd_center import EtcdSource
from weego.registries.etcd_client import end_of, open_etcd, read_url
from weego.server import Server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


class EchoService(Echo):
    def __init__(self, name: str) -> None:
        self.name = name

    def echo(self, req: Request) -> Response:
        return Response(message=self.name)


Run = Callable[[Callable[[], None]], Callable[[], None]]
BOTH = pytest.mark.parametrize("run", [with_hub, without_hub], ids=["gevent", "threads"])
PREFIX = "kitex/registry-etcd"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One that stays well; each test has services of its own names."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EtcdServer]:
    """One to hurt: not started, so that what a test starts and ends is its own affair in the eyes of its leak check."""
    server = EtcdServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    left = list(etcd_client._shared._things)
    etcd_client._shared._things.clear()  # one test's failure is not the next one's
    assert left == []


def registration(service: str, port: int = 1, **more: Any) -> Registration:
    return Registration(service, Instance(f"tcp://127.0.0.1:{port}", **more), ttl=5)


class Kept:
    """A directory that is kept for the block."""

    def __init__(self, url: str) -> None:
        self.directory = Directory("it", EtcdResolver(url), RoundRobin())

    def __enter__(self) -> Kept:
        self.directory.refresh()
        keeper.keep(self.directory)
        return self

    def __exit__(self, *_: object) -> None:
        keeper.forget(self.directory)

    @property
    def ports(self) -> set[int]:
        return {int(each.address.rpartition(":")[2]) for each in self.directory.instances}


@BOTH
def test_announced_found_changed_withdrawn(run: Run, etcd: EtcdServer, request: pytest.FixtureRequest) -> None:
    service = f"basic-{request.node.callspec.id}"

    @run
    def body() -> None:
        registry = EtcdRegistry(etcd.url)
        with Kept(f"{etcd.url}/{service}") as kept:
            assert kept.directory.problem == "it knows no instance"
            registry.register(registration(service, 1, weight=20, zone="north", tags={"lane": "blue"}, started=7.5))
            wait_until(lambda: kept.ports == {1})
            (found,) = kept.directory.instances
            assert (found.weight, found.zone, dict(found.tags), found.started) == (20, "north", {"lane": "blue"}, 7.5)
            registry.register(registration(service, 2))
            wait_until(lambda: kept.ports == {1, 2})
            registry.register(registration(service, 1, weight=30))
            wait_until(lambda: any(each.weight == 30 for each in kept.directory.instances))
            changes = len(kept.directory.changes)
            registry.register(registration(service, 1, weight=30))  # a renewal is no news
            registry.withdraw(registration(service, 1))
            wait_until(lambda: kept.ports == {2})
            assert len(kept.directory.changes) == changes + 1
            registry.withdraw(registration(service, 1))  # it is not there
            registry.withdraw(registration(service, 2))
            snapshot = kept.directory.snapshot()
            assert snapshot["source"] == f"{etcd.url}/{service}"
            wait_until(lambda: kept.directory.problem == "it knows no instance")
            assert kept.ports == {2}  # it is called as long as nobody else is known
        registry.close()

    body()


@without_hub
def _layout(etcd: EtcdServer) -> None:
    registry = EtcdRegistry(f"{etcd.url}?prefix=/my/own/")
    registry.register(registration("layout", 8888, tags={"lane": "blue"}))
    wrote = json.loads(etcd.ctl("get", "--print-value-only", "/my/own/layout/127.0.0.1:8888"))
    assert wrote == {"network": "tcp", "address": "127.0.0.1:8888", "weight": 10, "tags": {"lane": "blue"}}
    registry.withdraw(registration("layout", 8888))
    assert etcd.ctl("get", "--prefix", "/my/own/") == ""
    registry.close()


def test_the_layout_is_kitexs(etcd: EtcdServer) -> None:
    _layout(etcd)


def test_values_of_others() -> None:
    assert instance_of(b'{"network":"tcp","address":"10.0.0.1:80","weight":0,"tags":null}') == Instance("tcp://10.0.0.1:80", 0)
    assert instance_of(b'{"network":"tcp","address":"[::1]:80"}') == Instance("tcp://[::1]:80", 10)
    assert instance_of(b'{"network":"tcp","address":"h:80","weight":-1}').weight == 10
    unix = Instance("unix:///run/x.sock")
    assert instance_of(value_of(unix)) == unix
    for value in (b"", b"{", b"[]", b'{"address":3}', b'{"address":"h"}', b'{"address":"h:0"}', b"[" * 20000, b"x" * 70000, b"\xff",
                  b'{"address":"h:1","weight":"x"}', b'{"address":"h:1","tags":[1]}'):  # fmt: skip
        with pytest.raises(ValueError):
            instance_of(value)


def test_what_is_no_instance_is_passed_over(etcd: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    etcd.ctl("put", f"{PREFIX}/odd/one", "nonsense")
    etcd.ctl("put", f"{PREFIX}/odd/two", '{"network":"tcp","address":"127.0.0.1:2"}')
    etcd.ctl("put", f"{PREFIX}/odder/three", '{"network":"tcp","address":"127.0.0.1:3"}')  # another service

    @without_hub
    def body() -> None:
        with caplog.at_level(logging.WARNING), Kept(f"{etcd.url}/odd") as kept:
            assert kept.ports == {2}
            etcd.ctl("put", f"{PREFIX}/odd/two", "broken")
            etcd.ctl("put", f"{PREFIX}/odd/four", '{"network":"tcp","address":"127.0.0.1:4"}')
            wait_until(lambda: kept.ports == {4})

    body()
    assert f"{PREFIX}/odd/one at {etcd.url} is no instance and is passed over" in caplog.text


@BOTH
def test_a_lease_that_is_lost_is_got_anew(run: Run, etcd: EtcdServer, request: pytest.FixtureRequest) -> None:
    service = f"lease-{request.node.callspec.id}"
    key = f"{PREFIX}/{service}/127.0.0.1:1"

    def lease() -> int:
        (found,) = json.loads(etcd.ctl("get", key, "-w", "json")).get("kvs", [{}])
        return int(found.get("lease", 0))

    @run
    def body() -> None:
        registry = EtcdRegistry(etcd.url)
        it = Registration(service, Instance("tcp://127.0.0.1:1"), ttl=1)
        registry.register(it)
        first = lease()
        registry.register(it)
        assert lease() == first  # renewed
        wait_until(lambda: etcd.ctl("get", key) == "", "the lease ends when nobody renews it")
        registry.register(it)
        second = lease()
        assert second not in (0, first)
        etcd.ctl("del", key)  # somebody's mistake
        registry.register(it)
        assert lease() == second
        etcd.ctl("put", key, "theirs")
        registry.register(it)
        assert lease() == second
        etcd.ctl("lease", "revoke", f"{second:x}")
        registry.register(it)
        assert lease() not in (0, second)
        registry.withdraw(it)
        registry.close()

    body()


@BOTH
def test_history_that_etcd_has_forgotten(run: Run, etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    service = f"compact-{request.node.callspec.id}"
    prefix = f"{PREFIX}/{service}/".encode()

    @run
    def body() -> None:
        client = open_etcd(read_url(etcd.url))
        client.put(prefix + b"1", value_of(Instance("tcp://127.0.0.1:1")))
        _, old = client.range(prefix)
        for _ in range(3):
            client.put(prefix + b"1", value_of(Instance("tcp://127.0.0.1:1")))
        etcd.ctl("compact", str(old + 3))
        with pytest.raises(DiscoveryError, match=f"forgotten what happened before its revision {old + 3}"):
            next(iter(client.watch(prefix, end_of(prefix), old)))
        client.close()
        # A resolver to which that happens lists anew: what it is told first is too old.
        listed = EtcdResolver._list
        calls = []

        def outdated(self: EtcdResolver) -> Any:
            known, revision = listed(self)
            calls.append(revision)
            return known, (revision if len(calls) > 3 else old - 1)

        monkeypatch.setattr(EtcdResolver, "_list", outdated)
        with Kept(f"{etcd.url}/{service}") as kept:
            wait_until(lambda: len(calls) > 3)
            etcd.ctl("put", f"{PREFIX}/{service}/2", '{"network":"tcp","address":"127.0.0.1:2"}')
            wait_until(lambda: kept.ports == {1, 2})

    body()


@BOTH
def test_down_at_the_start(run: Run, own: EtcdServer) -> None:
    with own:
        own.ctl("put", f"{PREFIX}/later/1", '{"network":"tcp","address":"127.0.0.1:1"}')

    @run
    def body() -> None:
        with contextlib.closing(own), Kept(f"{own.url}/later") as kept:
            assert f"etcd at tcp://127.0.0.1:{own.port}: cannot connect" in kept.directory.problem
            own.start()
            wait_until(lambda: kept.ports == {1})
            assert kept.directory.problem == ""

    body()


@BOTH
def test_frozen(run: Run, own: EtcdServer) -> None:
    own.start()
    own.ctl("put", f"{PREFIX}/it/1", '{"network":"tcp","address":"127.0.0.1:1"}')

    @run
    def body() -> None:
        registry = EtcdRegistry(f"{own.url}?timeout=300ms")
        with Kept(f"{own.url}/it?timeout=300ms") as kept:
            wait_until(lambda: kept.directory.resolver._known is not None)  # type: ignore[attr-defined]
            own.freeze()
            try:
                with pytest.raises(DiscoveryError, match="in time"):
                    registry.register(registration("it", 2))
                assert kept.ports == {1}
            finally:
                own.thaw()
            registry.register(registration("it", 2))
            wait_until(lambda: kept.ports == {1, 2})
        registry.close()

    body()


@BOTH
def test_the_next_endpoint(run: Run, etcd: EtcdServer, request: pytest.FixtureRequest) -> None:
    service = f"ends-{request.node.callspec.id}"

    @run
    def body() -> None:
        url = f"etcd://127.0.0.1:{free_port()},127.0.0.1:{etcd.port},127.0.0.1:{free_port()}"
        registry = EtcdRegistry(url)
        registry.register(registration(service))
        with Kept(f"{url}/{service}") as kept:
            assert kept.ports == {1}
            registry.register(registration(service, 2))
            wait_until(lambda: kept.ports == {1, 2})
        registry.withdraw(registration(service, 2))
        registry.close()

    body()


@BOTH
def test_users_and_passwords(run: Run, own: EtcdServer) -> None:
    own.start()
    for arguments in (
        ("user", "add", "root:secret"),
        ("user", "add", "weego:pass"),
        ("role", "add", "services"),
        ("role", "grant-permission", "--prefix=true", "services", "readwrite", f"{PREFIX}/"),
        ("user", "grant-role", "weego", "services"),
        ("user", "grant-role", "root", "root"),
        ("auth", "enable"),
    ):
        own.ctl(*arguments)
    port = own.port
    own.kill()

    @run
    def body() -> None:
        with own:
            with Kept(f"etcd://weego:pass@127.0.0.1:{port}/it") as kept:
                registry = EtcdRegistry(f"etcd://weego:pass@127.0.0.1:{port}")
                registry.register(registration("it"))
                wait_until(lambda: kept.ports == {1})
                # Its tokens do not outlive it.
                own.kill()
                own.start()
                registry.register(registration("it", 2))
                wait_until(lambda: kept.ports == {1, 2})
                registry.close()
            for login, problem in (("", "user name is empty"), ("weego:wrong@", "authentication failed, invalid user ID or password")):
                refused = EtcdResolver(f"etcd://{login}127.0.0.1:{port}/it")
                with pytest.raises(DiscoveryError, match=problem) as caught:
                    refused.resolve()
                assert "wrong" not in str(caught.value)
                refused.close()
            elsewhere = EtcdResolver(f"etcd://weego:pass@127.0.0.1:{port}/it?prefix=other")
            with pytest.raises(DiscoveryError, match="permission denied"):
                elsewhere.resolve()
            elsewhere.close()

    body()


@BOTH
def test_a_user_where_nobody_asks_for_one(run: Run, etcd: EtcdServer) -> None:
    @run
    def body() -> None:
        found = EtcdResolver(f"etcd://weego:pass@127.0.0.1:{etcd.port}/nothing")
        assert found.resolve() == []
        found.close()

    body()


@BOTH
def test_tls(run: Run, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certs")
    with EtcdServer(tmp_path, certificates=certificates) as server:

        @run
        def body() -> None:
            url = f"etcds://127.0.0.1:{server.port}"
            registry = EtcdRegistry(f"{url}?ca={certificates.path('ca')}")
            with Kept(f"{url}/it?ca={certificates.path('ca')}") as kept:
                registry.register(registration("it"))
                wait_until(lambda: kept.ports == {1})
            registry.close()
            strange = EtcdResolver(f"{url}/it?ca={certificates.path('stranger-ca')}")
            with pytest.raises(DiscoveryError, match="certificate"):
                strange.resolve()
            strange.close()

        body()


@BOTH
def test_a_watch_that_begins_while_the_resolver_is_closed_is_ended(run: Run, etcd: EtcdServer) -> None:
    """Others still have the connection, so nothing else would end it."""

    @run
    def body() -> None:
        registry = EtcdRegistry(etcd.url)
        for watching in EtcdResolver(f"{etcd.url}/ended"), EtcdSource(etcd.url, "ended"):
            found: list[Any] = []

            def publish(each: Any, watching: Any = watching, found: list[Any] = found) -> None:
                found.append(each)
                watching.close()

            watching.watch(publish)
            assert len(found) == 1
        registry.close()

    body()


@BOTH
def test_connections_are_shared_and_a_dropped_directory_is_let_go(run: Run, etcd: EtcdServer) -> None:
    @run
    def body() -> None:
        one, two = EtcdResolver(f"{etcd.url}/a"), EtcdResolver(f"{etcd.url}/b")
        assert one._etcd is two._etcd
        one.close()
        assert two.resolve() == []
        two.close()
        # Nobody closes this one. The leak check of the test's thread would see its watch.
        directory = Directory("it", EtcdResolver(f"{etcd.url}/c"), RoundRobin())
        keeper.keep(directory)
        resolver = directory.resolver
        assert isinstance(resolver, EtcdResolver)
        wait_until(lambda: resolver._known is not None)
        del directory
        wait_until(lambda: resolver._known is None)

    body()


@BOTH
def test_a_fresh_instance_gets_its_share_bit_by_bit(run: Run, etcd: EtcdServer) -> None:
    """How long an instance serves is in its key, so that all its callers warm it up alike, those that came later too."""
    hour = 3600.0

    @run
    def body() -> None:
        registry = EtcdRegistry(etcd.url)
        policy = ClientPolicy(balancer="weight_round_robin", slow_start=hour, ejection=None, instance_breaker=None)
        with served(EchoService("old")) as old, served(EchoService("new")) as new:

            def announce(server: Server, age: float) -> Registration:
                instance = Instance(server.addresses[0], started=time.time() - age)
                registry.register(Registration("warm", instance, ttl=30))
                return Registration("warm", instance, ttl=30)

            def share(client: EchoClient, calls: int) -> int:
                return [client.echo(Request(), timeout=20).message for _ in range(calls)].count("new")

            announce(old, 2 * hour)
            with EchoClient(f"{etcd.url}/warm", policy=policy) as client:
                assert share(client, 3) == 0
                # A tenth of the weight, six tenths, all of it: of eleven calls one, of sixteen six, of two one.
                for age, calls, expected in ((0.0, 11, 1), (0.55 * hour, 16, 6), (1.5 * hour, 2, 1)):
                    entry = announce(new, age)
                    governed = client._governed
                    assert governed is not None
                    wait_until(lambda entry=entry, governed=governed: entry.instance in governed.directory.instances)  # type: ignore[misc]
                    assert share(client, 10 * calls) == 10 * expected
                    with EchoClient(f"{etcd.url}/warm", policy=policy) as late:
                        assert share(late, 10 * calls) == 10 * expected
        registry.close()

    body()


def calls_without_fail(clients: list[EchoClient], heard: set[str]) -> None:
    for client in clients:
        heard.add(client.echo(Request(), timeout=20).message)


def test_calls_go_on_while_etcd_is_killed_frozen_and_flaps(own: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form of `python -m tests.chaos.registry`."""

    @with_hub
    def body() -> None:
        with (
            own,
            Server([EchoService("one")], listen=["tcp://127.0.0.1:0"], registry=own.url, name="flap") as first,
            Server([EchoService("two")], listen=["tcp://127.0.0.1:0"], registry=own.url, name="flap") as second,
            EchoClient(f"{own.url}/flap", balancer=RoundRobin()) as client,
        ):
            heard: set[str] = set()

            def both(what: str) -> None:
                heard.clear()
                wait_until(lambda: calls_without_fail([client], heard) is None and heard == {"one", "two"}, what)

            wait_until(lambda: etcd_count(own, "flap") == 2)
            both("both are found")
            for _ in range(2):
                own.kill()
                for _ in range(50):
                    calls_without_fail([client], heard)
                own.start()
            wait_until(lambda: etcd_count(own, "flap") == 2, "both are registered")
            own.freeze()
            for _ in range(50):
                calls_without_fail([client], heard)
            own.thaw()
            both("both are known after all that")
            # All is forgotten, as after a restore: they come back by themselves.
            own.ctl("del", "--prefix", "")
            for _ in range(50):
                calls_without_fail([client], heard)
            wait_until(lambda: etcd_count(own, "flap") == 2, "both are registered again")
            # And news are still heard of.
            with Server([EchoService("three")], listen=["tcp://127.0.0.1:0"], registry=own.url, name="flap"):
                heard.clear()
                wait_until(lambda: calls_without_fail([client], heard) is None and "three" in heard, "the third is found")
            second.stop()
            first.stop()
            assert etcd_count(own, "flap") == 0

    body()


def etcd_count(server: EtcdServer, service: str) -> int:
    return len(server.ctl("get", "--prefix", "--keys-only", f"{PREFIX}/{service}/").split())


@with_hub
def test_registration_that_is_killed_in_the_middle_is_taken_back() -> None:
    """A worker that stops while it announces: what etcd may have heard already is taken back."""
    import gevent

    said: list[str] = []

    class Slow:
        def register(self, registration: Registration) -> None:
            said.append("register")
            gevent.sleep(60)

        def withdraw(self, registration: Registration) -> None:
            said.append("withdraw")

    announcer = Announcer(Slow(), registration("it"))
    announcer.start()
    wait_until(lambda: said == ["register"])
    announcer.withdraw()
    assert said == ["register", "withdraw"]


@pytest.mark.slow
@BOTH
def test_a_cluster_loses_a_member_and_then_its_majority(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The least that etcd allows: how long it takes until a frozen member is given up.
    monkeypatch.setattr(etcd_client, "KEEPALIVE_TIME", 5.5)
    monkeypatch.setattr(etcd_client, "KEEPALIVE_TIMEOUT", 1.0)
    with EtcdCluster(tmp_path) as cluster:
        by_port = {member.port: member for member in cluster.members}

        @run
        def body() -> None:
            registry = EtcdRegistry(f"{cluster.url}?timeout=1s")
            with Kept(f"{cluster.url}/it?timeout=1s") as kept:
                resolver = kept.directory.resolver
                assert isinstance(resolver, EtcdResolver)
                registry.register(lasting(1))
                wait_until(lambda: kept.ports == {1} and resolver._known is not None)
                # The member that the watch is at.
                watched = resolver._etcd._watch_turn.pick(a_call())
                assert watched is not None
                by_port.pop(int(watched.address.rpartition(":")[2])).freeze()
                wait_until(lambda: _registers(registry, lasting(2)))
                wait_until(lambda: kept.ports == {1, 2}, "the watch goes on at another member", patience=40)
                # Of the two that are left one goes: nobody can say anything any more, and what is known stays.
                lost = next(iter(by_port.values()))
                lost.freeze()
                with pytest.raises(DiscoveryError):
                    registry.register(lasting(3))
                assert kept.ports == {1, 2}
                lost.thaw()
                wait_until(lambda: _registers(registry, lasting(3)))
                wait_until(lambda: kept.ports == {1, 2, 3}, patience=40)
            registry.close()

        body()
        for member in cluster.members:
            member.thaw()


def lasting(port: int) -> Registration:
    """One that outlives the test without a renewal."""
    return Registration("it", Instance(f"tcp://127.0.0.1:{port}"), ttl=120)


def _registers(registry: EtcdRegistry, it: Registration) -> bool:
    with contextlib.suppress(DiscoveryError):
        registry.register(it)
        return True
    return False

"""zookeeper://, against a real ZooKeeper: found and announced, and every way in which it may be of no help."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from codec.errors import UsageError
from governance.balancers.rotation import RoundRobin
from governance.discovery import Directory, DiscoveryError, Registration
from governance.instance import Instance
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import wait_until, with_hub, without_hub
from tests.support.zookeeper import ZooServer
from weego import keeper
from weego.registries import zookeeper
from weego.registries.zookeeper import ZookeeperRegistry, ZookeeperResolver, data_of, instance_of
from weego.server import Server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

Run = Callable[[Callable[[], None]], Callable[[], None]]
made: list[Any] = []


def all_over() -> None:
    """Sessions end by themselves after who had them is done: in a moment, or when kazoo has given up an attempt to connect to who is not there."""
    wait_until(lambda: all(each.is_over for each in made), "the end of all sessions", patience=60)


def in_hub(test: Callable[[], None]) -> Callable[[], None]:
    """With a hub that lives until all sessions have ended."""

    def body() -> None:
        test()
        all_over()

    return with_hub(body)


BOTH = pytest.mark.parametrize("run", [in_hub, without_hub], ids=["gevent", "threads"])


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooServer]:
    """One that stays well; each test has services of its own names."""
    with ZooServer(tmp_path_factory.mktemp("zoo")) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    initialize = zookeeper._Session.__init__

    def remembered(self: Any, *args: Any) -> None:
        initialize(self, *args)
        made.append(self)

    monkeypatch.setattr(zookeeper._Session, "__init__", remembered)
    made.clear()
    yield
    left = list(zookeeper._sessions._things)
    zookeeper._sessions._things.clear()
    assert left == []


@contextlib.contextmanager
def raw(zoo: ZooServer, **options: Any) -> Iterator[Any]:
    """Somebody else, with threads."""
    client = KazooClient(hosts=f"127.0.0.1:{zoo.port}", **options)
    client.start(timeout=20)
    try:
        yield client
    finally:
        client.stop()
        client.close()


def registration(service: str, port: int = 1, **more: Any) -> Registration:
    return Registration(service, Instance(f"tcp://127.0.0.1:{port}", **more), ttl=3)


class Kept:
    """A directory that is kept for the block."""

    def __init__(self, url: str) -> None:
        self.directory = Directory("it", ZookeeperResolver(url), RoundRobin())

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
def test_announced_found_changed_withdrawn(run: Run, zoo: ZooServer, request: pytest.FixtureRequest) -> None:
    service = f"basic-{request.node.callspec.id}"

    @run
    def body() -> None:
        registry = ZookeeperRegistry(zoo.url)
        with Kept(f"{zoo.url}/{service}") as kept:
            assert kept.directory.problem == "it knows no instance"
            registry.register(registration(service, 1, weight=20, zone="north", tags={"lane": "blue"}, started=7.5))
            wait_until(lambda: kept.ports == {1})
            (found,) = kept.directory.instances
            assert (found.weight, found.zone, dict(found.tags), found.started) == (20, "north", {"lane": "blue"}, 7.5)
            registry.register(registration(service, 2))
            wait_until(lambda: kept.ports == {1, 2})
            registry.register(registration(service, 1, weight=30))
            wait_until(lambda: any(each.weight == 30 for each in kept.directory.instances))
            registry.register(registration(service, 1, weight=30))
            registry.withdraw(registration(service, 1))
            wait_until(lambda: kept.ports == {2})
            registry.withdraw(registration(service, 1))
            assert kept.directory.snapshot()["source"] == f"{zoo.url}/{service}"
        registry.close()

    body()


@BOTH
def test_a_session_that_is_lost_and_a_node_that_is_anothers(run: Run, zoo: ZooServer, request: pytest.FixtureRequest) -> None:
    service = f"lost-{request.node.callspec.id}"
    path = f"/{service}/127.0.0.1:1"

    @run
    def body() -> None:
        registry = ZookeeperRegistry(zoo.url)
        it = registration(service)
        registry.register(it)
        (held,) = zookeeper._sessions._things.values()
        session = held.thing
        first = session.client.client_id
        with raw(zoo, client_id=first):  # ends the session under its owner's feet
            pass
        wait_until(lambda: session.client.client_id not in (None, first) and session.client.connected)
        registry.register(it)
        with raw(zoo) as other:
            assert other.get(path)[1].ephemeralOwner == session.client.client_id[0]
            # What an earlier process of ours left would end with that one's session.
            other.delete(path)
            other.create(path, b"{}", ephemeral=True)
            registry.register(it)
            assert other.get(path)[1].ephemeralOwner == session.client.client_id[0]
            registry.close()
            wait_until(lambda: other.exists(path) is None, "the session's end")

    body()


@without_hub
def _layout(zoo: ZooServer) -> None:
    registry = ZookeeperRegistry(f"{zoo.url}?prefix=/services/")
    registry.register(registration("layout", 8888, tags={"lane": "blue"}))
    with raw(zoo) as other:
        assert other.get("/services/layout/127.0.0.1:8888")[0] == b'{"Weight":10,"Tags":{"lane":"blue"}}'
    with pytest.raises(DiscoveryError, match=r"only tcp://host:port can"):
        registry.register(Registration("layout", Instance("unix:///x")))
    registry.close()


def test_the_layout_is_kitexs(zoo: ZooServer) -> None:
    _layout(zoo)


def test_data_of_others() -> None:
    assert instance_of("10.0.0.1:80", b'{"Weight":20,"Tags":null}') == Instance("tcp://10.0.0.1:80", 20)
    assert instance_of("[::1]:80", b"{}") == Instance("tcp://[::1]:80")
    it = Instance("tcp://h:1", 5, "north", {"a": "b"}, 3.5)
    assert instance_of("h:1", data_of(it)) == it
    for name, data in (("h", b"{}"), ("h:1", b""), ("h:1", b"[]"), ("h:1", b"[" * 20000), ("h:1", b'{"Weight":"x"}'), ("h:1", b"x" * 70000)):
        with pytest.raises(ValueError):
            instance_of(name, data)


def test_what_is_no_instance_is_passed_over(zoo: ZooServer, caplog: pytest.LogCaptureFixture) -> None:
    @without_hub
    def body() -> None:
        with raw(zoo) as other:
            other.create("/odd/strange", b"x", makepath=True)
            other.create("/odd/127.0.0.1:2", b"{}")
            with caplog.at_level(logging.WARNING), Kept(f"{zoo.url}/odd") as kept:
                assert kept.ports == {2}

    body()
    assert "/odd/strange at" in caplog.text


@BOTH
def test_users(run: Run, zoo: ZooServer, request: pytest.FixtureRequest) -> None:
    service = f"users-{request.node.callspec.id}"

    @run
    def body() -> None:
        url = f"zookeeper://me:secret@127.0.0.1:{zoo.port}"
        registry = ZookeeperRegistry(url)
        registry.register(registration(service))
        with Kept(f"{url}/{service}") as kept:
            assert kept.ports == {1}
        stranger = ZookeeperResolver(f"{zoo.url}/{service}")
        with pytest.raises(DiscoveryError, match="NoAuth"):
            stranger.resolve()
        stranger.close()
        registry.close()

    body()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("zookeeper:///x", "names no host"),
        ("zookeeper://h", "names no service"),
        ("zookeeper://h/a%2Fb", "cannot be the name of a service in ZooKeeper"),
        ("zookeeper://h/x?chroot=a", "unknown option 'chroot'"),
    ],
)
def test_wrong_urls(url: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        ZookeeperResolver(url)


def test_a_watch_that_begins_while_the_resolver_is_closed_is_ended(zoo: ZooServer) -> None:
    """By another thread; greenlets do not come in between. Others still have the session, so nothing else would end it."""

    @without_hub
    def body() -> None:
        registry = ZookeeperRegistry(zoo.url)
        registry.register(registration("ended"))
        resolver = ZookeeperResolver(f"{zoo.url}/ended")
        handler = resolver._user.session().client.handler
        makes = handler.event_object

        def event_object() -> Any:
            event = makes()
            clears = event.clear

            def clear() -> None:
                resolver.close()  # a wake-up that comes now is lost
                clears()

            event.clear = clear
            return event

        handler.event_object = event_object
        found: list[Any] = []
        resolver.watch(found.append)
        assert found == []
        with pytest.raises(DiscoveryError, match="its user is done with it"):
            resolver.resolve()
        del handler.event_object
        registry.close()

    body()


@BOTH
def test_down_at_the_start(run: Run, tmp_path: Path) -> None:
    zoo = ZooServer(tmp_path)
    with zoo:
        pass  # its port is chosen

    @run
    def body() -> None:
        registry = ZookeeperRegistry(f"{zoo.url}?timeout=200ms")
        with contextlib.closing(zoo), Kept(f"{zoo.url}/it?timeout=200ms") as kept:
            assert f"ZooKeeper at 127.0.0.1:{zoo.port}: no connection in 0.2 s" in kept.directory.problem
            with pytest.raises(DiscoveryError, match="no connection in"):
                registry.register(registration("it"))
            zoo.start()
            wait_until(lambda: _registered(registry, "it"))
            wait_until(lambda: kept.ports == {1})
            registry.close()

    body()


def _registered(registry: ZookeeperRegistry, service: str) -> bool:
    with contextlib.suppress(DiscoveryError):
        registry.register(registration(service))
        return True
    return False


class EchoService(Echo):
    def __init__(self, name: str) -> None:
        self.name = name

    def echo(self, req: Request) -> Response:
        return Response(message=self.name)


def test_calls_go_on_while_it_is_killed_and_frozen(tmp_path: Path) -> None:
    zoo = ZooServer(tmp_path)

    @in_hub
    def body() -> None:
        with (
            zoo,
            Server([EchoService("one")], listen=["tcp://127.0.0.1:0"], registry=zoo.url, name="echo") as first,
            Server([EchoService("two")], listen=["tcp://127.0.0.1:0"], registry=zoo.url, name="echo") as second,
            EchoClient(f"{zoo.url}/echo", balancer=RoundRobin(), timeout=20) as client,
        ):

            def heard() -> set[str]:
                return {client.echo(Request()).message for _ in range(10)}

            wait_until(lambda: zoo_count(zoo) == 2)
            wait_until(lambda: heard() == {"one", "two"})
            zoo.kill()
            heard()
            zoo.start()
            wait_until(lambda: zoo_count(zoo) == 2, "both are registered")
            zoo.freeze()
            heard()
            zoo.thaw()
            wait_until(lambda: heard() == {"one", "two"})
            second.stop()
            wait_until(lambda: heard() == {"one"}, "news are heard")
            first.stop()
            assert zoo_count(zoo) == 0

    body()


def zoo_count(zoo: ZooServer) -> int:
    """Instances of echo, by a client of a process's own: kazoo's threads would stop while the hub's thread waits for them."""
    import subprocess
    import sys

    code = (
        "import sys; from kazoo.client import KazooClient as K; c = K(hosts=sys.argv[1]); c.start(20)\n"
        "print(len(c.get_children('/echo')) if c.exists('/echo') else 0); c.stop()"
    )
    done = subprocess.run([sys.executable, "-c", code, f"127.0.0.1:{zoo.port}"], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)

"""nacos://, against a server that answers as Nacos' HTTP API does, v1 and v2: beats, logins, lists; and one in trouble."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from codec.errors import UsageError
from governance.discovery import DiscoveryError, Registration
from governance.instance import Instance
from tests.support.http_fake import Answer, HttpFake, Request
from tests.support.net import wait_until, without_hub
from tests.weego.registries.kept import BOTH, Kept, Run
from weego.registries import nacos
from weego.registries.nacos import NacosRegistry, NacosResolver, instance_of


class Nacos:
    """A server's state."""

    def __init__(self) -> None:
        self.hosts: dict[tuple[str, str], dict[str, Any]] = {}
        self.until: dict[tuple[str, str], float] = {}
        self.trouble: Answer | str | None = None
        self.users: dict[str, str] = {}
        self.tokens: set[str] = set()

    def __call__(self, request: Request) -> Answer | None:
        if self.trouble == "silent":
            request.wait()
            return None
        if isinstance(self.trouble, tuple):
            return self.trouble
        if request.path == "/nacos/v1/auth/login":
            form = request.form()
            if self.users.get(form["username"]) != form["password"]:
                return 403, {}, b"unknown user!"
            self.tokens.add(token := f"token-{len(self.tokens) + 1}")
            return 200, {}, {"accessToken": token, "tokenTtl": 18000, "globalAdmin": True}
        query = request.query
        if self.users and query.get("accessToken") not in self.tokens:
            return 403, {}, {"status": 403, "message": "token invalid!"}
        _, context, api, _, *what = request.path.split("/")
        assert context == "nacos"
        name = query["serviceName"].rpartition("@@")[2]
        key = (f"{query.get('namespaceId', '')}/{query['groupName']}/{name}", f"{query.get('ip')}:{query.get('port')}")
        match request.method, what:
            case "POST", ["instance"]:
                metadata = json.loads(query["metadata"])
                self.hosts[key] = {
                    "ip": query["ip"], "port": int(query["port"]), "weight": float(query["weight"]), "healthy": True, "enabled": True,
                    "ephemeral": True, "clusterName": query["clusterName"], "serviceName": f"{query['groupName']}@@{name}",
                    "metadata": metadata, "instanceHeartBeatInterval": 5000,
                }  # fmt: skip
                self.beat(key)
                data: Any = "ok"
            case "PUT", ["instance", "beat"]:
                beat = json.loads(query["beat"])
                assert beat["serviceName"] == f"{query['groupName']}@@{name}"
                known = key in self.hosts
                if known:
                    self.beat(key)
                data = {"clientBeatInterval": 5000, "code": 10200 if known else 20404, "lightBeatEnabled": True}
            case "DELETE", ["instance"]:
                self.hosts.pop(key, None)
                data = "ok"
            case "GET", ["instance", "list"]:
                found = [
                    {**host, "healthy": self.until[each] > time.monotonic()}
                    for each, host in list(self.hosts.items())
                    if each[0] == key[0] and host["clusterName"] == query.get("clusters", query.get("clusterName"))
                ]
                if query["healthyOnly"] == "true":
                    found = [host for host in found if host["healthy"]]
                data = {"name": f"{query['groupName']}@@{name}", "hosts": found, "cacheMillis": 10000, "lastRefTime": 1}
            case _:
                return 404, {}, b"not found"
        if api == "v2":
            return 200, {}, {"code": 0, "message": "success", "data": data}
        return 200, {}, b"ok" if data == "ok" else data

    def beat(self, key: tuple[str, str]) -> None:
        self.until[key] = time.monotonic() + int(self.hosts[key]["metadata"]["preserved.heart.beat.timeout"]) / 1000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Nacos, str]]:
    monkeypatch.setattr(NacosResolver, "interval", 0.05)
    state = Nacos()
    with HttpFake(state) as fake:
        yield state, f"nacos://127.0.0.1:{fake.port}"


def registration(port: int = 1, ttl: float = 5, **more: Any) -> Registration:
    return Registration("echo", Instance(f"tcp://127.0.0.1:{port}", **more), ttl=ttl)


@pytest.mark.parametrize("api", ["v1", "v2"])
@BOTH
def test_announced_found_changed_withdrawn(run: Run, server: tuple[Nacos, str], api: str) -> None:
    state, url = server

    @run
    def body() -> None:
        options = f"?api={api}&namespace=dev&group=SHOP&cluster=east"
        registry = NacosRegistry(f"{url}{options}")
        with Kept(NacosResolver(f"{url}/echo{options}")) as kept:
            assert kept.directory.problem == "it knows no instance"
            registry.register(registration(1, weight=20, zone="north", tags={"lane": "blue"}, started=7.5))
            wait_until(lambda: kept.ports == {1})
            (found,) = kept.directory.instances
            assert (found.weight, found.zone, dict(found.tags), found.started) == (20, "north", {"lane": "blue"}, 7.5)
            assert list(state.hosts) == [("dev/SHOP/echo", "127.0.0.1:1")]
            registry.register(registration(2))
            wait_until(lambda: kept.ports == {1, 2})
            registry.register(registration(2))  # a beat
            registry.register(registration(1, weight=30))
            wait_until(lambda: any(each.weight == 30 for each in kept.directory.instances))
            state.hosts.clear()  # it was restarted
            registry.register(registration(1, weight=30))
            wait_until(lambda: kept.ports == {1})
            registry.withdraw(registration(1))
            registry.register(registration(2))
            wait_until(lambda: kept.ports == {2})
        registry.close()

    body()


@BOTH
def test_who_beats_no_more(run: Run, server: tuple[Nacos, str]) -> None:
    _, url = server

    @run
    def body() -> None:
        registry, resolver = NacosRegistry(url), NacosResolver(f"{url}/echo")
        registry.register(registration(ttl=0.3))
        assert len(resolver.resolve()) == 1
        wait_until(lambda: list(resolver.resolve()) == [])
        registry.register(registration(ttl=0.3))
        assert len(resolver.resolve()) == 1
        resolver.close()
        registry.close()

    body()


@BOTH
def test_users(run: Run, server: tuple[Nacos, str]) -> None:
    state, url = server
    state.users["me"] = "p@ss"

    @run
    def body() -> None:
        mine = url.replace("//", "//me:p%40ss@")
        registry, resolver = NacosRegistry(mine), NacosResolver(f"{mine}/echo")
        registry.register(registration())
        assert len(resolver.resolve()) == 1
        assert len(state.tokens) == 2  # each has logged in once
        state.tokens.clear()  # it was restarted
        assert len(resolver.resolve()) == 1
        for wrong, text in ((url, "it answered 403: .*token invalid"), (url.replace("//", "//me:wrong@"), "403 to the login of me")):
            other = NacosResolver(f"{wrong}/echo")
            with pytest.raises(DiscoveryError, match=text) as caught:
                other.resolve()
            assert "wrong" not in str(caught.value)
        resolver.close()
        registry.close()

    body()


@BOTH
def test_a_server_in_trouble(run: Run, server: tuple[Nacos, str]) -> None:
    state, url = server

    @run
    def body() -> None:
        registry, resolver = NacosRegistry(f"{url}?timeout=200ms"), NacosResolver(f"{url}/echo?timeout=200ms")
        for trouble, text in (
            ((503, {}, b"server is STARTING now, please try again later!"), "it answered 503: server is STARTING"),
            ("silent", "no answer in time"),
            ((200, {}, b"<html>"), "its answer is not understood"),
            ((200, {}, {"hosts": 3}), "it has no hosts"),
            ((200, {}, []), "it has no hosts"),
        ):
            state.trouble = trouble  # type: ignore[assignment]
            with pytest.raises(DiscoveryError, match=text):
                resolver.resolve()
        with pytest.raises(DiscoveryError, match=r"\[\] to an instance"):
            registry.register(registration())
        second = NacosResolver(f"{url}/echo?api=v2")
        state.trouble = (200, {}, {"code": 20004, "message": "resource not found", "data": None})
        with pytest.raises(DiscoveryError, match="resource not found"):
            second.resolve()
        state.trouble = None
        registry.register(registration())
        state.trouble = (200, {}, {"code": 500})
        with pytest.raises(DiscoveryError, match="code 500 to a beat"):
            registry.register(registration())
        state.trouble = None
        with Kept(resolver) as kept:
            assert kept.ports == {1}
            state.trouble = (500, {}, b"")
            wait_until(lambda: kept.directory.problem != "")
            assert kept.ports == {1}
            state.trouble = None
            registry.register(registration(2))
            wait_until(lambda: kept.ports == {1, 2})
        registry.close()

    body()


@without_hub
def _login(state: Nacos, url: str) -> None:
    state.users["me"] = "secret"
    resolver = NacosResolver(f"{url.replace('//', '//me:secret@')}/echo")
    state.trouble = (200, {}, {"accessToken": "x"})
    with pytest.raises(DiscoveryError, match="a login without 'tokenTtl'"):
        resolver.resolve()


def test_a_login_that_is_none(server: tuple[Nacos, str]) -> None:
    _login(*server)


def test_hosts_of_others(server: tuple[Nacos, str], caplog: pytest.LogCaptureFixture) -> None:
    assert instance_of({"ip": "10.0.0.1", "port": 80, "weight": 0.5}) == Instance("tcp://10.0.0.1:80", 1)
    assert instance_of({"ip": "::1", "port": 80, "metadata": None}) == Instance("tcp://[::1]:80")
    for host in (None, {}, {"ip": "h"}, {"ip": "h", "port": 1, "weight": "x"}, {"ip": "h", "port": 1, "metadata": [1]},
                 {"ip": "h", "port": 1, "metadata": {"a": 3}}, {"ip": "h", "port": 1, "metadata": {nacos.STARTED: "x"}}):  # fmt: skip
        with pytest.raises(ValueError):
            instance_of(host)
    state, url = server
    state.trouble = (200, {}, {"hosts": [3, {"ip": "h", "port": 1}, {"ip": "off", "port": 1, "enabled": False}]})
    with caplog.at_level(logging.WARNING):
        assert list(NacosResolver(f"{url}/echo").resolve()) == [Instance("tcp://h:1")]
    assert "is passed over: it is no table with an ip" in caplog.text


@pytest.mark.parametrize(
    ("url", "text"), [("nacos:///x", "names no host"), ("nacos://h", "names no service"), ("nacos://h/x?api=v9", "'v9' is not v1 or v2")]
)
def test_wrong_urls(url: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        NacosResolver(url)
    with pytest.raises(DiscoveryError, match="only tcp://host:port can"):
        NacosRegistry("nacos://h").register(Registration("echo", Instance("unix:///x")))

"""consul://, against an agent that answers as Consul's HTTP API does: blocking queries, TTL checks; and one in trouble."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codec.errors import UsageError
from governance.discovery import DiscoveryError, Registration
from governance.instance import Instance
from tests.support.http_fake import Answer, HttpFake, Request
from tests.support.net import wait_until, without_hub
from tests.weego.registries.kept import BOTH, Kept, Run
from weego.registries import consul
from weego.registries.consul import ConsulRegistry, ConsulResolver, instance_of


class Agent:
    """An agent's state: what it is told, its index, its checks."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}
        self.good_until: dict[str, float] = {}
        self.index = 10
        self.starts = 1
        self.news = threading.Lock()
        self.trouble: Answer | str | None = None

    def __call__(self, request: Request) -> Answer | None:
        if self.trouble == "silent":
            request.wait()
            return None
        if isinstance(self.trouble, tuple):
            return self.trouble
        parts = request.path.split("/")[1:]
        match parts:
            case ["v1", "agent", "service", "register"]:
                service = request.plain()
                assert service["Weights"]["Passing"] >= 1
                with self.news:
                    self.services[service["ID"]] = service
                    self.good_until[service["ID"]] = 0  # critical until it passes
                    self.changed()
            case ["v1", "agent", "check", "pass", check]:
                name = check.removeprefix("service:")
                if name not in self.services:
                    return 404, {}, f'Unknown check ID "{check}"'.encode()
                with self.news:
                    was_good = self.is_good(name)
                    self.good_until[name] = time.monotonic() + float(self.services[name]["Check"]["TTL"][:-1])
                    if not was_good:
                        self.changed()
            case ["v1", "agent", "service", "deregister", name]:
                with self.news:
                    if self.services.pop(name, None) is None:
                        return 404, {}, b"Unknown service ID"
                    self.changed()
            case ["v1", "health", "service", name]:
                if "index" in request.query and not self.wait(request):
                    return None
                with self.news:
                    found = [self.entry(each) for key, each in self.services.items() if each["Name"] == name and self.is_good(key)]
                    return 200, {"X-Consul-Index": str(self.index)}, found
            case _:
                return 404, {}, b"Not Found"
        return 200, {}, b""

    def wait(self, request: Request) -> bool:
        """A blocking query: until the index has grown. False when the agent was restarted meanwhile: connections end then."""
        index, deadline, starts = int(request.query["index"]), time.monotonic() + float(request.query["wait"][:-1]), self.starts
        request.wait(lambda: self.index > index or time.monotonic() > deadline or self.starts != starts)
        return self.starts == starts

    def changed(self) -> None:
        self.index += 1

    def is_good(self, name: str) -> bool:
        return self.good_until[name] > time.monotonic()

    def entry(self, service: dict[str, Any]) -> dict[str, Any]:
        """As a health query shows it."""
        return {
            "Node": {"ID": "40e4a748", "Node": "foobar", "Address": "10.1.10.12", "Datacenter": "dc1"},
            "Service": {
                "ID": service["ID"], "Service": service["Name"], "Tags": service["Tags"], "Address": service["Address"],
                "Meta": service["Meta"], "Port": service["Port"], "Weights": service["Weights"],
            },
            "Checks": [{"Node": "foobar", "CheckID": service["Check"]["CheckID"], "Status": "passing"}],
        }  # fmt: skip


@pytest.fixture
def agent() -> Iterator[tuple[Agent, HttpFake]]:
    state = Agent()
    with HttpFake(state) as fake:
        yield state, fake


def registration(port: int = 1, ttl: float = 5, **more: Any) -> Registration:
    return Registration("echo", Instance(f"tcp://127.0.0.1:{port}", **more), ttl=ttl)


@BOTH
def test_announced_found_changed_withdrawn(run: Run, agent: tuple[Agent, HttpFake]) -> None:
    state, fake = agent

    @run
    def body() -> None:
        registry = ConsulRegistry(f"consul://127.0.0.1:{fake.port}")
        with Kept(ConsulResolver(f"consul://127.0.0.1:{fake.port}/echo")) as kept:
            assert kept.directory.problem == "it knows no instance"
            registry.register(registration(1, weight=20, zone="north", tags={"lane": "blue"}, started=7.5))
            wait_until(lambda: kept.ports == {1})
            (found,) = kept.directory.instances
            assert (found.weight, found.zone, dict(found.tags), found.started) == (20, "north", {"lane": "blue"}, 7.5)
            said = state.services["echo:127.0.0.1:1"]
            assert said["Tags"] == ["lane:blue"]
            assert said["Check"] == {"CheckID": "service:echo:127.0.0.1:1", "TTL": "5s", "DeregisterCriticalServiceAfter": "1m"}
            registry.register(registration(2, weight=0))
            wait_until(lambda: kept.ports == {1, 2})
            puts = sum(each.path.endswith("register") for each in fake.requests)
            registry.register(registration(2, weight=0))  # a renewal
            assert sum(each.path.endswith("register") for each in fake.requests) == puts
            registry.register(registration(1, weight=30))
            wait_until(lambda: any(each.weight == 30 for each in kept.directory.instances))
            # The agent was restarted, and has forgotten all: said anew.
            state.trouble = (503, {}, b"starting")
            with state.news:
                state.services.clear()
                state.index = 3
                state.starts += 1
            wait_until(lambda: kept.directory.problem != "")
            state.trouble = None
            registry.register(registration(1, weight=30))
            registry.register(registration(2, weight=0))
            wait_until(lambda: kept.ports == {1, 2} and state.services.keys() == {"echo:127.0.0.1:1", "echo:127.0.0.1:2"})
            registry.withdraw(registration(1))
            wait_until(lambda: kept.ports == {2})
            registry.withdraw(registration(1))
        registry.close()

    body()


@BOTH
def test_a_check_that_nobody_renews(run: Run, agent: tuple[Agent, HttpFake]) -> None:
    _, fake = agent

    @run
    def body() -> None:
        registry = ConsulRegistry(f"consul://127.0.0.1:{fake.port}")
        resolver = ConsulResolver(f"consul://127.0.0.1:{fake.port}/echo")
        registry.register(registration(1, ttl=0.2))
        assert len(resolver.resolve()) == 1
        wait_until(lambda: list(resolver.resolve()) == [])
        registry.register(registration(1, ttl=0.2))
        assert len(resolver.resolve()) == 1
        resolver.close()
        registry.close()

    body()


@BOTH
def test_an_agent_in_trouble(run: Run, agent: tuple[Agent, HttpFake]) -> None:
    state, fake = agent

    @run
    def body() -> None:
        url = f"consul://127.0.0.1:{fake.port}"
        registry, resolver = ConsulRegistry(f"{url}?timeout=200ms"), ConsulResolver(f"{url}/echo?timeout=200ms")
        for trouble, text in (
            ((500, {}, b"rpc error: No cluster leader"), "it answered 500: rpc error: No cluster leader"),
            ((403, {}, b"Permission denied"), "it answered 403: Permission denied"),
            ("silent", "no answer in time"),
            ((200, {}, b"{"), "its answer is not understood"),
            ((200, {}, {"a": 1}), "its answer is not understood: it is no list"),
            ((200, {"X-Consul-Index": "x"}, []), "its answer is not understood"),
            ((200, {}, b"[" * 100_000), "nested too deeply"),
        ):
            state.trouble = trouble  # type: ignore[assignment]
            with pytest.raises(DiscoveryError, match=f"Consul at 127.0.0.1:{fake.port}: {text}|{text}"):
                resolver.resolve()
        for trouble in ((500, {}, b"No cluster leader"), "silent"):
            state.trouble = trouble  # type: ignore[assignment]
            with pytest.raises(DiscoveryError):
                registry.register(registration())
            with pytest.raises(DiscoveryError):
                registry.withdraw(registration())
        # And then it is well.
        state.trouble = None
        registry.register(registration())
        with Kept(resolver) as kept:
            wait_until(lambda: resolver._known is not None)
            state.trouble = (500, {}, b"")
            with state.news:
                state.changed()
            wait_until(lambda: kept.directory.problem != "")
            assert kept.ports == {1}
            state.trouble = None
            registry.register(registration(2))
            wait_until(lambda: kept.ports == {1, 2})
        registry.close()

    body()


@without_hub
def _next_agent(fake: HttpFake) -> None:
    registry = ConsulRegistry(f"consul://127.0.0.1:1,127.0.0.1:{fake.port}")
    registry.register(registration())
    registry.register(registration())
    registry.close()
    with pytest.raises(DiscoveryError, match="its user is done with it"):
        registry.register(registration())


def test_the_next_agent(agent: tuple[Agent, HttpFake]) -> None:
    _next_agent(agent[1])


@without_hub
def _token(fake: HttpFake, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    resolver = ConsulResolver(f"consul://127.0.0.1:{fake.port}/echo?token_file={tmp_path}/token&dc=east")
    resolver.resolve()
    assert fake.requests[-1].headers["x-consul-token"] == "s3cret"
    assert fake.requests[-1].query["dc"] == "east"
    (tmp_path / "token").unlink()
    with pytest.raises(DiscoveryError, match="the token of Consul"):
        resolver.resolve()
    resolver.close()


def test_a_token(agent: tuple[Agent, HttpFake], tmp_path: Path) -> None:
    _token(agent[1], tmp_path)


def test_entries_of_others() -> None:
    service = {"Address": "10.0.0.1", "Port": 80}
    assert instance_of({"Service": service}) == Instance("tcp://10.0.0.1:80")
    assert instance_of({"Service": {"Port": 80, "Tags": ["a", "b:c", 3], "Meta": None}, "Node": {"Address": "::1"}}) == Instance(
        "tcp://[::1]:80", 10, "", {"b": "c"}
    )
    for entry in (None, {}, {"Service": {}}, {"Service": {**service, "Port": "x"}}, {"Service": {**service, "Tags": "x"}},
                  {"Service": {**service, "Weights": {"Passing": "many"}}}, {"Service": {**service, "Meta": {"started": "x"}}},
                  {"Service": {**service, "Meta": {"started": [1]}}}):  # fmt: skip
        with pytest.raises(ValueError):
            instance_of(entry)


def test_what_cannot_be_announced_or_read(agent: tuple[Agent, HttpFake], caplog: pytest.LogCaptureFixture) -> None:
    state, fake = agent
    registry = ConsulRegistry(f"consul://127.0.0.1:{fake.port}")
    for instance, text in ((Instance("unix:///x"), "only tcp://host:port can"), (Instance("tcp://h:1", tags={"a:b": "c"}), "first colon")):
        with pytest.raises(DiscoveryError, match=text):
            registry.register(Registration("echo", instance))
    for url in ("consul://", "consul://h"):
        with pytest.raises(UsageError, match="names no"):
            ConsulResolver(url)
    state.trouble = (200, {"X-Consul-Index": "5"}, [{"Service": {"Address": "h", "Port": 1}}, {"Service": 3}])
    with caplog.at_level(logging.WARNING):
        assert list(ConsulResolver(f"consul://127.0.0.1:{fake.port}/echo").resolve()) == [Instance("tcp://h:1")]
    assert "is passed over: it has no Service" in caplog.text
    assert consul.WAIT < 600  # the most that Consul allows

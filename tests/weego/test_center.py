"""The config centre: what is put in force, what is refused, and what happens while it is away."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from codec.errors import ResourceExhausted, UsageError
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.etcd import EtcdServer
from tests.support.net import wait_until, with_hub, without_hub
from weego import config as configuration
from weego import governed_config, settings
from weego.center import Center, Values, source_of
from weego.registries import etcd_client
from weego.server import Server

BOTH = pytest.mark.parametrize("run", [with_hub, without_hub], ids=["gevent", "threads"])


class Still:
    """A source that a test speaks for."""

    def watch(self, publish: Callable[[Values], None]) -> None:
        raise OSError("nobody there")

    def list(self) -> Values:
        return {}

    def close(self) -> None:
        pass


def whole(**tables: Any) -> configuration.Config:
    config = configuration.Config(
        server=configuration.Server(name="item", workers=2), listen=(configuration.Listen("tcp://127.0.0.1:0"),), service=()
    )
    return configuration.overlay(config, tables, "file")


def center_of(config: configuration.Config, applied: list[configuration.Config] | None = None) -> Center[configuration.Config]:
    return Center(Still(), config, (applied if applied is not None else []).append)


def test_values_over_the_file() -> None:
    applied: list[configuration.Config] = []
    base = whole(client={"stock": {"timeout": "1s", "retries": 1}}, governance={"limit": [{"name": "own", "rate": 5}]})
    center = center_of(base, applied)
    center.take({})
    assert applied == []
    center.take(
        {
            "stock/rpc_timeout": b'{"*": {"rpc_timeout_ms": 300}}',
            "other/retry": b'{"*": {"enable": false}}',
            "limit": b'{"qps_limit": 100, "connection_limit": 9}',
            "weego": b'[client.stock]\nretries = 0\n[client.stock.method.Get]\ntimeout = "200ms"\n[governance]\nshed = true\n',
        }
    )
    (fresh,) = applied
    stock = fresh.client["stock"]
    assert (stock.timeout, stock.attempt_timeout, stock.retries, stock.method["Get"].timeout) == (1.0, 0.3, 0, 0.2)
    assert fresh.client["other"].retries == 0
    assert [each.name for each in fresh.governance.limit] == ["own", "qps_limit"]
    assert fresh.governance.shed
    assert fresh.limits.max_connections_total == 9
    # What a key said goes with it; what the file says now is under the rest.
    center.take({"weego": b'{"client": {"stock": {"zone": "north"}}}'})
    center.rebase(whole(client={"stock": {"timeout": "3s"}}))
    assert applied[-1].client["stock"] == configuration.Client(timeout=configuration.Duration(3), zone="north")
    assert applied[-1].governance == configuration.Governance()
    center.take({})
    assert applied[-1] == center.config


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("weego", b"[client.stock]\nretires = 1\n", r'weego: \[client.stock\] retires: unknown key, did you mean "retries"\?'),
        ("weego", b"[client.stock]\nretries = 9\n", r"retries: 9 is not a whole number from 0 to 5"),
        ("weego", b"[client.stock]\nhedges = 1\n", "hedges need hedge_after"),
        ("weego", b'[client.stock]\ntarget = "tcp://h:1"\n', "the target of a client cannot change"),
        ("weego", b"[server]\nworkers = 1\n", "this table cannot come from a config centre; those that can are client, governance, limits"),
        ("weego", b"[governance]\nlimit = 3\n", r"write \[\[limit\]\]"),
        ("weego", b"governance = 3\n", "expected a table"),
        ("weego", b"[[governance.limit]]\nname = 'x'\n", "limits nothing"),
        ("weego", b"nonsense", "neither TOML nor JSON"),
        ("weego", b"{", "neither TOML nor JSON"),
        ("weego", b"[1]", r"weego: \[1\]: this table cannot come"),
        ("weego", b"\xff", "neither TOML nor JSON"),
        ("weego", b"#" * (1 << 21), "longer than"),
        ("limit", b'{"qps_limit": "many"}', "qps_limit is a number"),
        ("stock/retry", b'{"*": {"enable": true, "failure_policy": {"stop_policy": {"max_retry_times": 9}}}}', "9 is not a whole number from 0 to 5"),
        ("stock/unknown", b"{}", "nobody reads that; keys here are weego, limit, <service>/retry"),
        ("retry", b"{}", "nobody reads that"),
    ],
)
def test_a_bad_value_is_refused_and_the_last_good_one_stays(key: str, value: bytes, problem: str, caplog: pytest.LogCaptureFixture) -> None:
    import re

    good = {
        "weego": b"[client.stock]\nretries = 1\n", "limit": b'{"qps_limit": 7}', "stock/retry": b'{"*": {"enable": false}}',
    }  # fmt: skip
    applied: list[configuration.Config] = []
    center = center_of(whole(), applied)
    center.take(good)
    before = center.effective
    with caplog.at_level(logging.WARNING):
        center.take({**good, key: value})
        center.take({**good, key: value, "x/rpc_timeout": b"{}"})
    assert center.effective.governance == before.governance
    assert center.effective.client["stock"] == before.client["stock"]
    assert list(center.problems) == [key]
    assert re.search(problem, center.problems[key])
    assert caplog.text.count(f"the value of {key} is refused, the one before stays") == 1
    center.take(good)
    assert center.problems == {}


def test_a_cache_for_starts_while_it_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "run" / "center.json"
    first = Center(Still(), whole(), lambda _: None, cache=str(cache))
    first.take({"weego": b"[client.stock]\nretries = 0\n"})

    @with_hub
    def started() -> None:
        second = Center(Still(), whole(), lambda _: None, cache=str(cache))
        second.start(0.05)
        assert second.effective.client["stock"].retries == 0
        second.stop()
        cache.write_text("{")
        third = Center(Still(), whole(), lambda _: None, cache=str(cache))
        third.start(0.05)
        assert third.effective == third.config
        third.stop()

    with caplog.at_level(logging.WARNING):
        started()
    assert "the config centre does not answer: nobody there; going on with the values of the last time" in caplog.text
    assert "cannot use" in caplog.text
    assert "going on with the file's values" in caplog.text


@with_hub
def test_who_watched_has_ended_when_it_is_stopped() -> None:
    """The hub may end at once afterwards: what was in the middle of anything would stay as it is, and its descriptors open."""
    heard: list[str] = []

    class Waiting(Still):
        def watch(self, publish: Callable[[Values], None]) -> None:
            try:
                publish({})
                gevent.sleep(60)
            finally:
                heard.append("ended")

    center = Center(Waiting(), whole(), [].append)
    center.start(30)
    center.stop()
    assert heard == ["ended"]


def test_sources() -> None:
    with pytest.raises(UsageError, match="unknown kind of config centre; known are etcd://, etcds://"):
        source_of("mine://h", "item")
    with pytest.raises(UsageError, match="names no host"):
        source_of("etcd://", "item")
    with pytest.raises(UsageError, match="cannot be the name"):
        source_of("etcd://h", "a/b")


class EchoService(Echo):
    def echo(self, req: Request) -> Response:
        return Response(message=req.message)


@BOTH
def test_a_programs_clients_follow_etcd(run: Any, tmp_path: Path) -> None:
    """A real etcd, killed in the middle: what was said stays in force, and what is said next is heard."""
    before = settings.known()
    etcd = EtcdServer(tmp_path)

    def put(key: str, value: object) -> None:
        etcd.ctl("put", f"/KitexConfig/me/{key}", value if isinstance(value, str) else json.dumps(value))

    @run
    def body() -> None:
        with contextlib.closing(etcd), contextlib.ExitStack() as stack:
            etcd.start()
            put("Echo/degradation", {"enable": True, "percentage": 100})
            server = stack.enter_context(Server([EchoService()], listen=["tcp://127.0.0.1:0"]))
            path = tmp_path / "client.toml"
            path.write_text(
                f'name = "me"\n[config_center]\nurl = "{etcd.url}"\nwait = "20s"\n[client.Echo]\ntarget = "{server.addresses[0]}"\ntimeout = "20s"\n'
            )
            governed_config.configure(str(path))
            stack.callback(stop)
            client = stack.enter_context(EchoClient("service://Echo"))

            def is_dropped() -> bool:
                try:
                    client.echo(Request(message="x"))
                except ResourceExhausted:
                    return True
                return False

            assert is_dropped()
            put("Echo/degradation", "nonsense")
            put("weego", '[client.Echo]\nconnect_timeout = "7s"\nbalancer = "round_robin"\n')
            wait_until(lambda: client._channel.limits.connect_timeout == 7.0)
            assert is_dropped()  # the last good one
            etcd.kill()
            assert is_dropped()
            etcd.start()
            etcd.ctl("del", "/KitexConfig/me/Echo/degradation")
            wait_until(lambda: not is_dropped())
            put("Echo/rpc_timeout", {"echo": {"rpc_timeout_ms": 1500}})
            governed = client._governed
            assert governed is not None
            wait_until(lambda: governed.policy.of("echo").attempt_timeout == 1.5)

    def stop() -> None:
        assert governed_config._center is not None
        governed_config._center.stop()
        governed_config._center = None

    try:
        body()
    finally:
        settings.remember(before)
    assert len(etcd_client._shared) == 0

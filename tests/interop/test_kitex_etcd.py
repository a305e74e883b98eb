"""Services on Kitex find ours in etcd, and ours theirs: the layout is that of kitex-contrib/registry-etcd."""

from __future__ import annotations

from pathlib import Path

import pytest

from governance.discovery import Registration
from governance.instance import Instance
from tests.support import kitex_etcd
from tests.support.etcd import EtcdServer
from tests.support.net import without_hub
from weego.registries.etcd import EtcdRegistry, EtcdResolver

# The first test waits for the build of the peer.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


def test_kitex_finds_weego_and_weego_finds_kitex(tmp_path: Path) -> None:
    kitex_etcd.program()
    with EtcdServer(tmp_path) as etcd:

        @without_hub
        def body() -> None:
            registry = EtcdRegistry(etcd.url)
            ours = Registration("shop.item", Instance("tcp://127.0.0.1:7777", 30, "north", {"lane": "blue"}, 12.5))
            registry.register(ours)
            assert kitex_etcd.resolve(etcd.port, "shop.item") == [
                {"Network": "tcp", "Address": "127.0.0.1:7777", "Weight": 30, "Lane": "blue"}
            ]
            resolver = EtcdResolver(f"{etcd.url}/shop.item")
            with kitex_etcd.registered(etcd.port, "shop.item", "127.0.0.1:8888", 20, lane="green"):
                found = {each.address: each for each in resolver.resolve()}
                assert found["tcp://127.0.0.1:8888"] == Instance("tcp://127.0.0.1:8888", 20, "", {"lane": "green"})
                assert found["tcp://127.0.0.1:7777"] == ours.instance
                assert len(kitex_etcd.resolve(etcd.port, "shop.item")) == 2
            assert list(resolver.resolve()) == [ours.instance]
            registry.withdraw(ours)
            assert list(resolver.resolve()) == []
            resolver.close()
            registry.close()

        body()

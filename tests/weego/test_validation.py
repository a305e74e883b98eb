"""A server that enforces the rules of its IDL."""

from __future__ import annotations

from pathlib import Path

import pytest

import weego
from weego import dynamic

IDL = """
struct Item { 1: string name (vt.min_size = "1"), 2: i32 count (vt.ge = "0") }
service Shop { i32 put(1: Item item, 2: list<Item> more, 3: map<string, Item> named, 4: i32 plain) }
"""


def test_calls_that_break_rules_never_reach_the_handler(tmp_path: Path) -> None:
    (tmp_path / "shop.thrift").write_text(IDL)
    module = dynamic.load(tmp_path / "shop.thrift")
    served = []

    class Service(module.Shop):  # type: ignore[misc, name-defined]
        def put(self, item, more, named, plain):
            served.append(item)
            return plain

    good, bad = module.Item(name="tea"), module.Item(count=-1)
    server = weego.Server(Service(), listen="tcp://127.0.0.1:0", middleware=[weego.validate_arguments])
    with server, module.ShopClient(server.addresses[0], timeout=5.0) as client:
        assert client.put(good, [good], {"a": good}, 3) == 3
        with pytest.raises(weego.ApplicationError) as caught:
            client.put(bad, [good, bad], {"k": bad}, 3)
        assert client.put(None, [], {}, 4) == 4
    assert served == [good, None]
    assert caught.value.code == weego.Code.INVALID_ARGUMENT
    for part in (
        "invalid arguments: item.name: must have at least 1 bytes, got '' (vt.min_size)",
        "item.count: must be at least 0, got -1 (vt.ge)",
        "more[1].name",
        "named['k'].count",
    ):
        assert part in str(caught.value)


def test_each_message_of_a_stream_keeps_the_rules(tmp_path: Path) -> None:
    (tmp_path / "s.thrift").write_text(
        'struct Item { 1: i32 count (vt.ge = "0") } service S { Item collect(1: Item item) (streaming.mode = "client") }'
    )
    module = dynamic.load(tmp_path / "s.thrift")
    taken = []

    class Service(module.S):  # type: ignore[misc, name-defined]
        def collect(self, item):
            taken.extend(each.count for each in item)
            return module.Item(count=len(taken))

    server = weego.Server(Service(), listen="tcp://127.0.0.1:0", middleware=[weego.validate_arguments])
    with server, module.SClient(server.addresses[0], timeout=10.0) as client:
        with client.collect() as stream:
            stream.send(module.Item(count=1))
            assert stream.result().count == 1
        with pytest.raises(weego.RpcError, match=r"item\.count: must be at least 0, got -1"), client.collect() as stream:
            stream.send(module.Item(count=-1))
            stream.result()
    assert taken == [1]

"""Services without generated code that follow an IDL, serve Protobuf, and stream."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import weego
from tests.support.net import apart, wait_until
from weego import GenericClient, GenericException, Idl, ProtoIdl, generic_service, watch_idl
from weego.generic import RawClient

THRIFT = """
exception Gone { 1: string why }
struct Item { 1: required i64 id, 2: string name }
service Shop { Item getItem(1: i64 id) throws (1: Gone gone)  oneway void forget(1: i64 id) }
"""
PROTO = """
syntax = "proto3";
package shop.v1;
message Item { int64 id = 1; string name = 2; }
message Total { int32 count = 1; }
service Shop {
  rpc GetItem(Item) returns (Item);
  rpc Watch(Item) returns (stream Item);
  rpc Collect(stream Item) returns (Total);
  rpc Chat(stream Item) returns (stream Item);
}
"""


@pytest.fixture
def thrift(tmp_path: Path) -> Idl:
    (tmp_path / "shop.thrift").write_text(THRIFT)
    return Idl(tmp_path / "shop.thrift")


@pytest.fixture
def proto(tmp_path: Path) -> ProtoIdl:
    (tmp_path / "shop.proto").write_text(PROTO)
    return ProtoIdl(tmp_path / "shop.proto")


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers: list[weego.Server] = []

    def start(*services: Any) -> str:
        server = weego.Server(list(services), listen="tcp://127.0.0.1:0")
        apart(server.start)  # in a thread of its own, whatever this thread is: some tests keep it busy
        servers.append(server)
        return server.addresses[0]

    yield start
    for server in servers:
        server.stop()


def shop(method: str, given: Any) -> Any:
    """Serves both IDLs."""
    if method == "Collect":
        return {"count": sum(1 for _ in given)}
    if method == "Chat":
        return ({"id": each["id"], "name": "echo"} for each in given)
    if method == "Watch":
        return ({"id": str(number)} for number in range(int(given["id"])))
    if method in ("getItem", "GetItem"):
        if not int(given.get("id", 0)):
            raise GenericException("Gone", {"why": "sold"})
        return {"id": int(given["id"]), "name": f"item {given['id']}"}
    if method == "getPrice":
        return given["id"] * 100
    return None


# ---- Protobuf ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("form", ["data", "json"])
def test_protobuf_by_one_function(proto: ProtoIdl, serve: Callable[..., str], form: str, live: bool) -> None:
    import json

    def as_text(method: str, given: Any) -> Any:
        parsed = json.loads(given) if isinstance(given, str) else (json.loads(each) for each in given)
        result = shop(method, parsed)
        return json.dumps(result) if isinstance(result, dict) else (json.dumps(each) for each in result)

    address = serve(generic_service(proto, "Shop", shop if form == "data" else as_text, form=form, live=live))
    with GenericClient(address, proto, timeout=10.0) as client:
        assert client.call("shop.v1.Shop.GetItem", {"id": 7}) == {"id": "7", "name": "item 7"}
        with client.stream("Watch", {"id": 3}) as replies:
            assert list(replies) == [{}, {"id": "1"}, {"id": "2"}]
        with client.stream("Collect") as sending:
            for _ in range(4):
                sending.send({})
            assert sending.result() == {"count": 4}
        with client.stream("Chat") as both:
            both.send({"id": 5})
            assert next(both) == {"id": "5", "name": "echo"}
            both.close_send()
            assert list(both) == []
        with pytest.raises(weego.RpcError):  # what the handler raises is declared nowhere
            client.call("GetItem", {})


def test_protobuf_as_bytes(proto: ProtoIdl, serve: Callable[..., str]) -> None:
    address = serve(generic_service(proto, "shop.v1.Shop", lambda _, payload: payload, form="bytes"))
    with GenericClient(address, proto, timeout=10.0) as client:
        assert client.call("GetItem", {"id": 7}) == {"id": "7"}


def test_a_live_service_of_protobuf(proto: ProtoIdl, serve: Callable[..., str]) -> None:
    seen: list[Any] = []

    def handler(method: str, given: Any) -> Any:
        seen.append((method, given))
        return given

    address = serve(generic_service(proto, "Shop", handler, live=True))
    old = ProtoIdl(proto.path)
    with GenericClient(address, proto, timeout=10.0) as client, GenericClient(address, old, timeout=10.0) as before:
        assert client.call("GetItem", {"id": 1, "name": "x"})["name"] == "x"
        text = PROTO.replace("string name = 2;", "string title = 2;").replace("rpc Watch(Item) returns (stream Item);", "rpc Buy(Item) returns (Item);")
        Path(proto.path).write_text(text)
        proto.update()
        assert client.call("GetItem", {"id": 1, "title": "x"}) == {"id": "1", "title": "x"}
        assert client.call("Buy", {"id": 2}) == {"id": "2"}
        assert before.call("GetItem", {"id": 1, "name": "x"})["name"] == "x"  # the same bytes
        assert seen[-1] == ("GetItem", {"id": "1", "title": "x"})
        with pytest.raises(weego.RpcError) as caught, before.stream("Watch", {"id": 1}) as replies:
            next(replies)
        assert caught.value.code == weego.Code.UNIMPLEMENTED
        Path(proto.path).write_text("syntax")
        with pytest.raises(Exception, match="error"):
            proto.update()
        assert client.call("Buy", {"id": 2}) == {"id": "2"}


@pytest.mark.parametrize("at_first", ["", "rpc Watch(Item) returns (stream Item);"], ids=["no method", "another method"])
def test_a_live_service_of_protobuf_may_have_no_methods(tmp_path: Path, serve: Callable[..., str], at_first: str) -> None:
    """A server that has started with none serves those that come; one whose methods, or that itself, has gone says so as gRPC does."""
    path = tmp_path / "shop.proto"
    shop = 'syntax = "proto3"; package acme; message Item { int64 id = 1; } service Shop { %s }'
    path.write_text(shop % "rpc GetItem(Item) returns (Item);")
    caller = ProtoIdl(path)
    path.write_text(shop % at_first)
    followed = ProtoIdl(path)
    address = serve(generic_service(followed, "Shop", lambda _, given: given, live=True))
    with GenericClient(address, caller, timeout=10.0) as client:

        def refused() -> str:
            with pytest.raises(weego.RpcError) as caught:
                client.call("GetItem", {"id": 1})
            assert caught.value.code == weego.Code.UNIMPLEMENTED
            return caught.value.message

        assert refused() == "unknown method /acme.Shop/GetItem"
        path.write_text(shop % "rpc GetItem(Item) returns (Item);")
        followed.update()
        assert client.call("GetItem", {"id": 1}) == {"id": "1"}
        path.write_text((shop % "").partition("service")[0])
        followed.update()
        refused()
        path.write_text(shop % "rpc GetItem(Item) returns (Item);")
        followed.update()
        assert client.call("GetItem", {"id": 2}) == {"id": "2"}


# ---- Thrift ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["binary", "compact"])
@pytest.mark.parametrize("framing", ["framed", "ttheader"])
def test_a_live_service_of_thrift(thrift: Idl, serve: Callable[..., str], framing: str, protocol: str) -> None:
    address = serve(generic_service(thrift, "Shop", shop, live=True))
    old = Idl(thrift.path)
    options: dict[str, Any] = {"timeout": 10.0, "framing": framing, "protocol": protocol}
    with GenericClient(address, thrift, **options) as client, GenericClient(address, old, **options) as before:
        for each in (client, before):
            assert each.call("getItem", {"id": 7}) == {"id": 7, "name": "item 7"}
        with pytest.raises(weego.IdlException) as caught:
            client.call("getItem", {"id": 0})
        assert str(caught.value) == "sold" or "sold" in repr(caught.value)
        assert client.call("forget", {"id": 1}) is None
        Path(thrift.path).write_text(THRIFT.replace("oneway void forget(1: i64 id)", "i64 getPrice(1: i64 id)"))
        thrift.update()
        assert client.call("getPrice", {"id": 3}) == 300
        assert before.call("getItem", {"id": 7})["id"] == 7
        with RawClient(address, "Shop", **options) as raw, pytest.raises(weego.UnknownMethod):
            raw.call("forget", b"\x00")
        # A method that the connection called last and that is gone, and one whose arguments mean something else now.
        Path(thrift.path).write_text(THRIFT.replace("i64 id)", "string id)"))
        thrift.update()
        with pytest.raises(weego.UnknownMethod):
            before_gone = GenericClient(address, Idl.from_text("service Shop { i64 getPrice(1: i64 id) }"), **options)
            with before_gone:
                before_gone.call("getPrice", {"id": 3})
        assert client.call("getItem", {"id": "12"})["name"] == "item 12"


def test_calls_go_on_while_the_idl_changes(thrift: Idl, serve: Callable[..., str]) -> None:
    """Each call is read and written by one version of the IDL: none fails, none is mixed."""
    address = serve(generic_service(thrift, "Shop", shop, live=True))
    clients = Idl(thrift.path)
    failures: list[BaseException] = []
    done = threading.Event()

    def call() -> None:
        try:
            with GenericClient(address, clients, timeout=20.0) as client:
                while not done.is_set():
                    assert client.call("getItem", {"id": 7}) == {"id": 7, "name": "item 7"}
        except BaseException as error:
            failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for each in callers:
        each.start()
    for number in range(10):
        Path(thrift.path).write_text(THRIFT.replace("Item {", f"Item {{ 9: optional i32 extra{number}, "))
        thrift.update()
    done.set()
    for each in callers:
        each.join()
    assert failures == []


def test_a_service_that_vanishes_and_returns(thrift: Idl, serve: Callable[..., str]) -> None:
    address = serve(generic_service(thrift, "Shop", shop, live=True))
    with GenericClient(address, Idl(thrift.path), timeout=10.0) as client:
        Path(thrift.path).write_text("service Other { void x() }")
        thrift.update()
        with pytest.raises((weego.UnknownMethod, weego.UnknownService)):
            client.call("getItem", {"id": 1})
        Path(thrift.path).write_text(THRIFT)
        thrift.update()
        assert client.call("getItem", {"id": 1})["id"] == 1


def test_live_bytes(thrift: Idl, serve: Callable[..., str]) -> None:
    _, spec = thrift.method("getItem")
    item = thrift.module.Item(id=5)
    address = serve(generic_service(thrift, "Shop", lambda *_: spec.result_plan.dumps(item), form="bytes", live=True))
    with GenericClient(address, thrift, timeout=10.0) as client:
        assert client.call("getItem", {"id": 1})["id"] == 5


def test_arguments_that_are_none(thrift: Idl, serve: Callable[..., str]) -> None:
    address = serve(generic_service(thrift, "Shop", shop, live=True))
    wrong = Idl.from_text("struct Item { 1: required i64 id } service Shop { Item put(1: Item item) }")
    Path(thrift.path).write_text("struct Item { 1: required i64 id, 2: required i64 more } service Shop { Item put(1: Item item) }")
    thrift.update()
    with GenericClient(address, wrong, timeout=10.0) as client, pytest.raises(weego.ApplicationError, match="more: the required field is missing"):
        client.call("put", {"item": {"id": 1}})


def test_what_cannot_be_served(thrift: Idl, proto: ProtoIdl) -> None:
    with pytest.raises(weego.UsageError, match=r'no service "Shopp" in .*; did you mean "Shop"'):
        generic_service(thrift, "Shopp", shop)
    with pytest.raises(weego.UsageError, match='no service "v1"'):
        generic_service(proto, "v1", shop)
    with pytest.raises(weego.UsageError, match="form is"):
        generic_service(thrift, "Shop", shop, form="xml")
    streams = Idl.from_text('struct R {} service S { R watch(1: R r) (streaming.mode = "server") }')
    for options in ({"form": "bytes"}, {"live": True}):
        with pytest.raises(weego.UsageError, match=r"S\.watch streams; methods of Thrift that stream have no form as bytes"):
            generic_service(streams, "S", shop, **options)  # type: ignore[arg-type]


# ---- watching ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_watched(thrift: Idl, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "weego.idl")
    watch = watch_idl(thrift, interval=0.01)
    try:
        Path(thrift.path).write_text(THRIFT.replace("getItem", "fetchItem"))
        wait_until(lambda: "fetchItem" in thrift.services["Shop"].methods, "the new method")
        Path(thrift.path).write_text("struct {")
        wait_until(lambda: "cannot be loaded, so the old one stays" in caplog.text, "the warning")
        assert "fetchItem" in thrift.services["Shop"].methods
        Path(thrift.path).write_text(THRIFT)
        wait_until(lambda: "getItem" in thrift.services["Shop"].methods, "the old method")
    finally:
        watch.stop()
    Path(thrift.path).write_text(THRIFT.replace("getItem", "fetchItem"))
    assert "getItem" in thrift.services["Shop"].methods


def test_a_file_that_changes_while_it_is_loaded_is_loaded_once_more(thrift: Idl, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_idl(thrift, interval=3600.0)
    update = thrift.update

    def slowly() -> None:
        update()
        monkeypatch.undo()
        Path(thrift.path).write_text(THRIFT.replace("getItem", "fetchThatItem"))

    try:
        monkeypatch.setattr(thrift, "update", slowly)
        Path(thrift.path).write_text(THRIFT.replace("getItem", "fetchItem"))
        assert watch.look() is True
        assert watch.look() is True
        assert "fetchThatItem" in thrift.services["Shop"].methods
        assert watch.look() is False
    finally:
        watch.stop()


def test_included_files_are_watched_too(tmp_path: Path) -> None:
    (tmp_path / "base.thrift").write_text("struct B { 1: i32 a }")
    (tmp_path / "main.thrift").write_text('include "base.thrift"\nservice S { base.B get() }')
    idl = Idl(tmp_path / "main.thrift")
    watch = watch_idl(idl, interval=3600.0)
    try:
        assert watch.look() is False
        (tmp_path / "base.thrift").write_text("struct B { 1: i32 a, 2: i32 bb }")
        assert watch.look() is True
        assert watch.look() is False
        (tmp_path / "base.thrift").unlink()
        assert watch.look() is False
    finally:
        watch.stop()


def test_what_cannot_be_watched(thrift: Idl) -> None:
    with pytest.raises(weego.UsageError, match="has no files to watch"):
        watch_idl(Idl.from_text("service S { void x() }"))
    with pytest.raises(weego.UsageError, match="interval"):
        watch_idl(thrift, 0)


# ---- streams of Thrift -------------------------------------------------------------------------------------------------


STREAMS = """
struct R { 1: i32 n }
exception Enough { 1: string why }
service S {
    R watch(1: R r) throws (1: Enough enough) (streaming.mode = "server")
    R collect(1: R r) (streaming.mode = "client")
    R chat(1: R r) (streaming.mode = "bidirectional")
    R get(1: R r)
}
"""


def stream_handler(method: str, given: Any) -> Any:
    if method == "watch":
        return numbers(given["r"]["n"])
    if method == "collect":
        return {"n": sum(each["n"] for each in given)}
    if method == "chat":
        return ({"n": each["n"] * 2} for each in given)
    return given["r"]


def numbers(count: int) -> Iterator[dict[str, int]]:
    for number in range(count):
        if number == 5:
            raise GenericException("Enough", {"why": "five"})
        yield {"n": number}


def test_streams_of_thrift(serve: Callable[..., str]) -> None:
    idl = Idl.from_text(STREAMS)
    address = serve(generic_service(idl, "S", stream_handler))
    with GenericClient(address, idl, framing="ttheader", timeout=10.0) as client:
        assert client.call("get", {"r": {"n": 1}}) == {"n": 1}
        with client.stream("watch", {"r": {"n": 3}}) as replies:
            assert list(replies) == [{"n": 0}, {"n": 1}, {"n": 2}]
        with pytest.raises(weego.IdlException) as caught, client.stream("S.watch", {"r": {"n": 9}}) as replies:
            list(replies)
        assert "five" in repr(caught.value)
        with client.stream("collect") as sending:
            sending.send({"n": 1})
            sending.send({"n": 5})
            assert sending.result() == {"n": 6}
        with client.stream("chat") as both:
            both.send({"n": 4})
            assert next(both) == {"n": 8}
            both.close_send()
            assert list(both) == []


def test_weego_call_streams_of_thrift_by_reflection(serve: Callable[..., str]) -> None:
    from click.testing import CliRunner

    from weego.cli.call import call

    idl = Idl.from_text(STREAMS)
    service = generic_service(idl, "S", stream_handler)
    address = serve(service, weego.reflection([service]))

    def run(method: str, given: str) -> tuple[int, list[str]]:
        done = apart(lambda: CliRunner().invoke(call, [address, method, "-", "--timeout", "30s"], input=given))
        return done.exit_code, done.stdout.replace("\n", "").replace("}", "}\n").split("\n")[:-1]

    assert run("S.watch", '{"r": {"n": 2}}') == (0, ['{  "n": 0}', '{  "n": 1}'])
    assert run("S.collect", '{"n": 2} {"n": 3}') == (0, ['{  "n": 5}'])
    assert run("S.chat", '{"n": 2}\n{"n": 3}\n') == (0, ['{  "n": 4}', '{  "n": 6}'])
    assert run("S.get", '{"r": {"n": 7}}') == (0, ['{  "n": 7}'])


@pytest.mark.parametrize("live", [False, True])
def test_a_generic_service_is_found_by_reflection(proto: ProtoIdl, serve: Callable[..., str], live: bool) -> None:
    address = serve(generic_service(proto, "Shop", shop, live=live))
    seen = ProtoIdl.from_server(address)
    with GenericClient(address, seen, timeout=10.0) as client:
        assert client.call("shop.v1.Shop.GetItem", {"id": 7})["name"] == "item 7"
        if live:
            Path(proto.path).write_text(PROTO.replace("string name = 2;", "string name = 2; string more = 3;"))
            proto.update()
            seen.update()
            assert "more" in [field.name for field in seen.method("GetItem")[1].request.cls.DESCRIPTOR.fields]

"""Calls without generated code: the same answers as with it; JSON, bytes, a generic server, an IDL that changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import weego
from codec.types import StructType
from idlc import IdlError
from tests.idlc.test_corpus import corpus
from weego import dynamic
from weego.dynamic import JsonError
from weego.generic import GenericClient, Idl, RawClient
from weego.generic_server import GenericException, generic_service

IDL = """
exception Gone { 1: string why }
struct Item { 1: required i64 id, 2: string name, 3: optional list<string> tags }
service Shop {
  Item getItem(1: i64 id, 2: i32 copies = 2) throws (1: Gone gone)
  void put(1: Item item)
  oneway void forget(1: i64 id)
}
service Other { i32 put(1: i32 n) }
"""


@pytest.fixture
def idl(tmp_path: Path) -> Idl:
    (tmp_path / "shop.thrift").write_text(IDL)
    return Idl(tmp_path / "shop.thrift")


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve objects; the address."""
    servers: list[weego.Server] = []

    def serve(*services: Any) -> str:
        server = weego.Server(list(services), listen="tcp://127.0.0.1:0")
        server.start()
        servers.append(server)
        return server.addresses[0]

    yield serve
    for server in servers:
        server.stop()


def shop(idl: Idl) -> Any:
    module: Any = idl.module

    class Shop(module.Shop):  # type: ignore[misc]
        def get_item(self, id, copies):
            if id == 0:
                raise module.Gone(why="sold")
            return module.Item(id=id, name=f"item {id}", tags=["x"] * copies)

        def put(self, item):
            assert isinstance(item, module.Item)

        def forget(self, id):
            assert id == 1

    return Shop()


# ---- the client ------------------------------------------------------------------------------------------------------


def test_plain_data_in_and_out(idl: Idl, serve: Callable[..., str]) -> None:
    with GenericClient(serve(shop(idl)), idl, timeout=5.0) as client:
        assert client.call("Shop.getItem", {"id": 7}) == {"id": 7, "name": "item 7", "tags": ["x", "x"]}
        assert client.call("getItem", {"id": 7, "copies": 0}) == {"id": 7, "name": "item 7", "tags": []}
        assert client.call("Shop.put", {"item": {"id": 1}}) is None
        assert client.call("forget", {"id": 1}) is None
        assert json.loads(client.call_json("getItem", '{"id": 1, "copies": 1}')) == {"id": 1, "name": "item 1", "tags": ["x"]}
        assert client.call_json("Shop.put", b'{"item": {"id": 1}}') == "null"


def test_the_idls_exceptions_are_raised(idl: Idl, serve: Callable[..., str]) -> None:
    with GenericClient(serve(shop(idl)), idl, timeout=5.0) as client, pytest.raises(weego.IdlException) as caught:
        client.call("getItem", {"id": 0})
    assert type(caught.value).__name__ == "Gone"
    assert dynamic.to_json(StructType(type(caught.value)), caught.value) == {"why": "sold"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("Shop.getitem", {}, 'service Shop has no method "getitem"; did you mean "getItem"?'),
        ("Shup.getItem", {}, 'no service "Shup"'),
        ("put", {}, "put is a method of Shop and of Other: name the service too"),
        ("nothing", {}, 'no method "nothing"'),
        ("getItem", {"id": "x"}, "id: expected an integer for i64, got 'x'"),
        ("getItem", {"ids": 1}, 'no argument "ids"; did you mean "id"?'),
        ("Shop.put", {"item": {}}, 'required field "id" of Item is missing'),
    ],
)
def test_what_does_not_fit_is_not_sent(idl: Idl, name: str, data: dict[str, Any], message: str) -> None:
    with GenericClient("tcp://127.0.0.1:1", idl) as client, pytest.raises(weego.UsageError) as caught:
        client.call(name, data)
    assert message in str(caught.value)


def test_text_that_is_no_json(idl: Idl) -> None:
    with GenericClient("tcp://127.0.0.1:1", idl) as client:
        with pytest.raises(JsonError, match="not JSON"):
            client.call_json("getItem", "{")
        with pytest.raises(JsonError, match="nested too deeply"):
            client.call_json("getItem", "[" * 200_000)


def test_a_closed_client(idl: Idl) -> None:
    client = GenericClient("tcp://127.0.0.1:1", idl)
    client.close()
    with pytest.raises(weego.ClosedError):
        client.call("getItem", {"id": 1})


def test_streams_are_not_called(tmp_path: Path) -> None:
    streams = Idl.from_text('struct R {} service S { R watch(1: R r) (streaming.mode = "server") }')
    with GenericClient("tcp://127.0.0.1:1", streams) as client, pytest.raises(weego.UsageError, match="streams: use `stream`"):
        client.call("watch", {"r": {}})


# ---- an IDL that changes ---------------------------------------------------------------------------------------------


def test_calls_follow_an_idl_that_changes(idl: Idl, serve: Callable[..., str]) -> None:
    address = serve(shop(idl))
    with GenericClient(address, idl, timeout=5.0) as client:
        assert client.call("getItem", {"id": 1})["name"] == "item 1"
        Path(idl.path).write_text(IDL.replace("2: string name", "2: string title"))
        before = [name for name in sys.modules if name.startswith("weego_dynamic_")]
        idl.update()
        assert client.call("getItem", {"id": 1})["title"] == "item 1"
        after = [name for name in sys.modules if name.startswith("weego_dynamic_")]
        assert len(after) == len(before)  # the old modules are gone
        Path(idl.path).write_text("struct {")
        with pytest.raises(IdlError):
            idl.update()
        assert client.call("getItem", {"id": 1})["title"] == "item 1"


def test_an_idl_that_is_no_file() -> None:
    idl = Idl.from_text('include "sub/base.thrift"\nservice S extends base.B { void x() }', {"sub/base.thrift": "service B { void y() }"})
    assert sorted(idl.services["S"].methods) == ["x", "y"]
    with pytest.raises(weego.UsageError, match="lies beside it or below"):
        Idl.from_text("", {"../../x.thrift": ""})


# ---- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["framed", "buffered", "ttheader", "ttheader-framed"])
def test_bytes_in_and_out(idl: Idl, serve: Callable[..., str], framing: str) -> None:
    _, spec = idl.method("getItem")
    with RawClient(serve(shop(idl)), "Shop", framing=framing, timeout=5.0) as client:
        item = spec.result_plan.loads(client.call("getItem", spec.args_plan.dumps((7, 1))))
        assert (item.id, item.tags) == (7, ["x"])
        with pytest.raises(weego.IdlException):  # the bytes hold the declared exception
            spec.result_plan.loads(client.call("getItem", spec.args_plan.dumps((0, 1))))
        assert client.call("forget", idl.method("forget")[1].args_plan.dumps((1,)), oneway=True) == b""
        with pytest.raises(weego.EncodeError, match="not the bytes of a struct"):
            client.call("getItem", b"\x08")
        with pytest.raises(weego.UnknownMethod):
            client.call("nothing", b"\x00")


def test_a_proxy_of_bytes(idl: Idl, serve: Callable[..., str]) -> None:
    """Neither end knows that somebody stands between them who has no idea what they say."""
    with RawClient(serve(shop(idl)), "Shop", timeout=5.0) as behind:
        proxy = serve(generic_service(idl, "Shop", behind.call, form="bytes"))
        with idl.module.ShopClient(proxy, timeout=5.0) as client:
            assert client.get_item(5).name == "item 5"
            with pytest.raises(idl.module.Gone, match="sold"):
                client.get_item(0)


# ---- the server ------------------------------------------------------------------------------------------------------


def handle(method: str, given: dict[str, Any]) -> Any:
    if method == "getItem":
        if given["id"] == 0:
            raise GenericException("Gone", {"why": "sold"})
        if given["id"] == 1:
            raise GenericException("Nothing")
        return {"id": given["id"], "name": "generic", "tags": ["y"] * given["copies"]}
    return None


def test_a_generic_server_of_data(idl: Idl, serve: Callable[..., str]) -> None:
    with idl.module.ShopClient(serve(generic_service(idl, "Shop", handle)), timeout=5.0) as client:
        assert client.get_item(7) == idl.module.Item(id=7, name="generic", tags=["y", "y"])
        with pytest.raises(idl.module.Gone, match="sold"):
            client.get_item(0)
        with pytest.raises(weego.ApplicationError):
            client.get_item(1)
        assert client.put(idl.module.Item(id=1)) is None


def test_a_generic_server_of_text(idl: Idl, serve: Callable[..., str]) -> None:
    def text(method: str, given: str) -> str:
        return json.dumps(handle(method, json.loads(given)))

    with GenericClient(serve(generic_service(idl, "Shop", text, form="json")), idl, timeout=5.0) as client:
        assert client.call("getItem", {"id": 2})["name"] == "generic"


def test_mistakes_of_a_generic_server(idl: Idl) -> None:
    with pytest.raises(weego.UsageError, match='no service "Shup"'):
        generic_service(idl, "Shup", handle)
    with pytest.raises(weego.UsageError, match="form is"):
        generic_service(idl, "Shop", handle, form="xml")


# ---- generated and generic are one -----------------------------------------------------------------------------------


class Calculator:
    """The tutorial's, over the module made of its IDL."""

    def __init__(self, module: ModuleType) -> None:
        self.module: Any = module

    def service(self) -> Any:
        module = self.module

        class Service(module.Calculator):  # type: ignore[misc, name-defined]
            def ping(self):
                pass

            def add(self, num1, num2):
                return num1 + num2

            def calculate(self, logid, w):
                match w.op:
                    case module.Operation.ADD:
                        return w.num1 + w.num2
                    case module.Operation.DIVIDE if w.num2 == 0:
                        raise module.InvalidOperation(whatOp=w.op, why="cannot divide by 0")
                    case module.Operation.DIVIDE:
                        return w.num1 // w.num2
                raise module.InvalidOperation(whatOp=w.op, why="unknown")

            def zip(self):
                pass

        return Service()


def test_the_tutorial_is_the_same_through_generated_and_generic_clients(serve: Callable[..., str]) -> None:
    idl = Idl(corpus() / "apache_thrift/tutorial/tutorial.thrift")
    module: Any = idl.module
    address = serve(Calculator(module).service())
    with module.CalculatorClient(address, timeout=5.0) as typed, GenericClient(address, idl, timeout=5.0) as generic:
        assert typed.ping() is generic.call("ping") is None
        assert typed.zip() is generic.call("zip") is None
        assert typed.add(2, 3) == generic.call("add", {"num1": 2, "num2": 3}) == 5
        work = module.Work(num1=7, num2=2, op=module.Operation.DIVIDE)
        plain = {"num1": 7, "num2": 2, "op": "DIVIDE"}
        assert typed.calculate(1, work) == generic.call("Calculator.calculate", {"logid": 1, "w": plain}) == 3
        errors = []
        for call in (lambda: typed.calculate(1, work.copy(num2=0)), lambda: generic.call("calculate", {"logid": 1, "w": {**plain, "num2": 0}})):
            with pytest.raises(module.InvalidOperation) as caught:
                call()
            errors.append((caught.value.whatOp, caught.value.why))
        assert errors == [(4, "cannot divide by 0")] * 2
        with pytest.raises(weego.UnknownMethod):
            typed.get_struct(1)
        with pytest.raises(weego.UnknownMethod):
            generic.call("getStruct", {"key": 1})


def test_thriftpy2s_calculator_is_the_same_through_both(serve: Callable[..., str]) -> None:
    idl = Idl(corpus() / "Thriftpy_thriftpy2/examples/calculator/calc.thrift")
    (name, spec), *_ = idl.services.items()
    module: Any = idl.module
    base = getattr(module, name)
    methods = {method.py_name: (lambda _self, a, b, sign=method.name: {"add": a + b, "sub": a - b, "mult": a * b, "div": a // b}[sign]) for method in spec.methods.values()}
    address = serve(type("Service", (base,), methods)())
    with getattr(module, f"{name}Client")(address, timeout=5.0) as typed, GenericClient(address, idl, timeout=5.0) as generic:
        for method in spec.methods.values():
            names = [field.name for field in method.args]
            assert getattr(typed, method.py_name)(6, 3) == generic.call(method.name, dict(zip(names, (6, 3), strict=True)))


def test_thrifttest_is_the_same_through_both(serve: Callable[..., str]) -> None:
    """Every method whose arguments come back, with something in every argument, and the exceptions."""
    from random import Random

    from tests.idlc.random_values import value

    idl = Idl(corpus() / "apache_thrift/test/ThriftTest.thrift")
    module: Any = idl.module
    spec = idl.services["ThriftTest"]
    random = Random(5)

    def echo(method: Any) -> Callable[..., Any]:
        same = [index for index, field in enumerate(method.args) if field.type == method.result]
        made = None if method.result is None or same else value(random, method.result)
        return lambda _self, *args: args[same[0]] if same else made

    address = serve(type("Service", (module.ThriftTest,), {method.py_name: echo(method) for method in spec.methods.values()})())
    compared = 0
    with module.ThriftTestClient(address, timeout=5.0) as typed, GenericClient(address, idl, timeout=5.0) as generic:
        for method in spec.methods.values():
            args = [value(random, field.type) for field in method.args]
            plain = {field.wire_name or field.name: dynamic.to_json(field.type, arg) for field, arg in zip(method.args, args, strict=True)}
            expected = getattr(typed, method.py_name)(*args)
            found = generic.call(f"ThriftTest.{method.name}", json.loads(json.dumps(plain)))
            assert found == dynamic.to_json(method.result, expected), method.name
            compared += 1
    assert compared > 20

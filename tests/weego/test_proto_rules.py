"""Servers that enforce the rules of a .proto by protovalidate: generated and generic, one message and streams."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weego
from idlc.proto_compile import compile_protos
from tests.support import buf_validate, need
from weego import GenericClient, ProtoIdl, generic_service, validate_arguments
from weego.proto_rules import checker_of

PROTO = """
syntax = "proto3";
package acme.rules;
import "buf/validate/validate.proto";
message Plain { string text = 1; }
message User {
  string id = 1 [(buf.validate.field).string.uuid = true];
  uint32 age = 2 [(buf.validate.field).uint32.lte = 150];
  repeated User friends = 3 [(buf.validate.field).repeated.max_items = 2];
  map<string, User> named = 4;
  string first = 5;
  string last = 6;
  option (buf.validate.message).cel = {
    id: "both"
    message: "last must be there if first is"
    expression: "this.first == '' || this.last != ''"
  };
}
message Outside { User user = 1; }
service Users {
  rpc Put(User) returns (Plain);
  rpc PutAll(stream User) returns (Plain);
  rpc Watch(User) returns (stream Plain);
  rpc PutOutside(Outside) returns (Plain);
}
"""
GOOD = {"id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need.module("protovalidate")
    path = tmp_path_factory.mktemp("rules")
    (path / "users.proto").write_text(PROTO)
    return path


@pytest.fixture(scope="module")
def idl(folder: Path) -> ProtoIdl:
    return ProtoIdl(folder / "users.proto", [buf_validate.include(), folder])


@pytest.fixture(params=["generic", "generated"])
def client(request: pytest.FixtureRequest, idl: ProtoIdl, folder: Path) -> Iterator[GenericClient]:
    """A client that checks nothing, of a server that does."""

    def handler(method: str, given: Any) -> Any:
        if method == "Watch":
            return iter([{"text": "one"}])
        return {"text": str(len(list(given))) if method == "PutAll" else "ok"}

    service = generic_service(idl, "Users", handler) if request.param == "generic" else generated(folder)
    with (
        weego.Server(service, listen="tcp://127.0.0.1:0", middleware=[validate_arguments]) as server,
        GenericClient(server.addresses[0], idl, timeout=10.0) as made,
    ):
        yield made


def generated(folder: Path) -> Any:
    name = "weego_rules_generated"
    if name not in sys.modules:
        compile_protos([folder / "users.proto"], folder / name, [buf_validate.include(), folder])
        sys.path.insert(0, str(folder))
        try:
            importlib.import_module(f"{name}.acme.rules")
        finally:
            sys.path.remove(str(folder))
    module: Any = sys.modules[f"{name}.acme.rules"]

    class Users(module.Users):  # type: ignore[misc]
        def put(self, request: Any) -> Any:
            return module.Plain(text="ok")

        def put_all(self, requests: Iterator[Any]) -> Any:
            return module.Plain(text=str(len(list(requests))))

        def watch(self, request: Any) -> Iterator[Any]:
            yield module.Plain(text="one")

        def put_outside(self, request: Any) -> Any:
            return module.Plain(text="ok")

    return Users()


def test_calls_that_break_rules_never_reach_the_handler(client: GenericClient) -> None:
    assert client.call("Put", GOOD) == {"text": "ok"}
    with pytest.raises(weego.StatusError) as caught:
        client.call("Put", {"id": "x", "age": 200, "first": "a", "friends": [GOOD, {"id": "y"}], "named": {"k": {"id": "z"}}})
    assert caught.value.code == weego.Code.INVALID_ARGUMENT
    for part in (
        "invalid arguments: ",
        "id: must be a valid UUID (string.uuid)",
        "age: must be less than or equal to 150 (uint32.lte)",
        "friends[1].id: must be a valid UUID",
        "named['k'].id: must be a valid UUID",
        "the message: last must be there if first is (both)",
    ):
        assert part in caught.value.message
    (detail,) = caught.value.details
    assert detail.type_url == "type.googleapis.com/buf.validate.Violations"
    from protovalidate import ViolationsPb

    assert len(ViolationsPb.from_binary(detail.value).violations) == 5


def test_streams(client: GenericClient) -> None:
    with client.stream("PutAll") as stream:
        stream.send(GOOD)
        stream.send(GOOD)
        assert stream.result() == {"text": "2"}
    with pytest.raises(weego.StatusError, match="age: must be less"), client.stream("PutAll") as stream:
        stream.send(GOOD)
        stream.send({**GOOD, "age": 151})
        stream.result()
    with client.stream("Watch", GOOD) as replies:
        assert list(replies) == [{"text": "one"}]
    with pytest.raises(weego.StatusError, match="must be a valid UUID"), client.stream("Watch", {"id": "x"}) as replies:
        list(replies)


def test_rules_inside_a_message_without_rules(client: GenericClient) -> None:
    assert client.call("PutOutside", {}) == {"text": "ok"}
    with pytest.raises(weego.StatusError, match=r"user\.id: must be a valid UUID"):
        client.call("PutOutside", {"user": {"id": "x"}})


def test_messages_without_rules_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain.proto").write_text('syntax = "proto3"; message M { M m = 1; } service S { rpc Get(M) returns (M); }')
    assert checker_of(ProtoIdl(tmp_path / "plain.proto").method("Get")[1].request.cls) is None
    assert checker_of(bytes) is None


def test_rules_without_the_library_are_no_silent_pass(idl: ProtoIdl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "protovalidate", None)
    with pytest.raises(weego.UsageError, match=r"pip install 'weego\[protovalidate\]'"):
        checker_of(idl.method("Put")[1].request.cls)

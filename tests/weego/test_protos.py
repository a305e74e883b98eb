"""Protobuf IDL at run time: names, plain data, descriptors, reflection that misbehaves, and definitions as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

import weego
from idlc import IdlError
from weego import ProtoIdl
from weego.dynamic import JsonError
from weego.grpc_services import _reflection
from weego.proto_text import describe

PROTO = """
syntax = "proto2";
package a.b;
import "google/protobuf/any.proto";
import "google/protobuf/timestamp.proto";
enum Color { RED = 0; BLUE = 5; }
message Part {
  required int64 id = 1;
  optional string some_name = 2;
  repeated Color colors = 3;
  map<string, Part> parts = 4;
  oneof way { string road = 5; bytes rail = 6; }
  optional google.protobuf.Timestamp at = 7;
  optional google.protobuf.Any any = 8;
  message Inner { optional double x = 1; }
  optional Inner inner = 9;
}
service One { rpc Get(Part) returns (Part) { option idempotency_level = NO_SIDE_EFFECTS; } rpc Both(stream Part) returns (stream Part); }
service Two { rpc Get(Part) returns (Part); rpc Only(Part) returns (Part); }
"""


@pytest.fixture(scope="module")
def idl(tmp_path_factory: pytest.TempPathFactory) -> ProtoIdl:
    path = tmp_path_factory.mktemp("protos") / "parts.proto"
    path.write_text(PROTO)
    return ProtoIdl(path)


def test_names(idl: ProtoIdl) -> None:
    for name in ("a.b.One.Get", "/a.b.One/Get", "One.Get", "b.One.Get"):
        service, spec = idl.method(name)
        assert (service.full_name, spec.name, spec.idempotent) == ("a.b.One", "Get", True)
    assert idl.method("Only")[0].full_name == "a.b.Two"
    for name, message in [
        ("Get", "a method of a.b.One and of a.b.Two: name the service too"),
        ("a.b.One.Gett", 'service a.b.One has no method "Gett"; did you mean "Get"'),
        ("Three.Get", 'no service "Three"'),
        ("Nothing", 'no method "Nothing"'),
    ]:
        with pytest.raises(weego.UsageError) as caught:
            idl.method(name)
        assert message in str(caught.value)


def test_plain_data(idl: ProtoIdl) -> None:
    _, spec = idl.method("One.Get")
    given = {
        "id": "7",
        "someName": "x",
        "colors": ["BLUE"],
        "parts": {"k": {"id": "1"}},
        "rail": "AAE=",
        "at": "1970-01-01T00:00:05Z",
        "any": {"@type": "type.googleapis.com/a.b.Part", "id": "9"},
        "inner": {"x": 1.5},
    }
    (message,) = idl.arguments(spec, given)
    assert spec.request.decode(spec.request.encode(message)) == message
    assert idl.plain(spec, message) == given
    assert idl.arguments(spec, {"id": 7, "some_name": "x"})[0].some_name == "x"  # the .proto's spelling too


@pytest.mark.parametrize(
    ("given", "message"),
    [({"idd": 1}, "idd"), ({"id": "x"}, "id"), ([1], "a.b.Part"), ({"id": 2**70}, "id"), ({"colors": ["PINK"]}, "PINK"), ({"parts": 1}, "parts")],
    ids=["name", "text", "array", "range", "enum", "map"],
)
def test_data_that_does_not_fit(idl: ProtoIdl, given: Any, message: str) -> None:
    _, spec = idl.method("One.Get")
    with pytest.raises(JsonError, match=message):
        idl.arguments(spec, given)


def test_an_any_that_nobody_knows(idl: ProtoIdl) -> None:
    _, spec = idl.method("One.Get")
    (message,) = idl.arguments(spec, {"id": 1})
    message.any.type_url = "type.googleapis.com/no.Such"
    message.any.value = b"\x08\x01"
    with pytest.raises(JsonError, match="has no JSON form"):
        idl.plain(spec, message)


def test_from_descriptors(idl: ProtoIdl) -> None:
    from idlc.errors import Report
    from idlc.proto_protoc import read_protos

    descriptors, _ = read_protos([idl.path], [], Report({}))
    again = ProtoIdl.from_descriptors(descriptors.SerializeToString())
    assert set(again.services) == {"a.b.One", "a.b.Two"}
    backwards = FileDescriptorSet(file=reversed(descriptors.file))
    assert set(ProtoIdl.from_descriptors(backwards).services) == {"a.b.One", "a.b.Two"}
    with pytest.raises(weego.UsageError, match="are no FileDescriptorSet"):
        ProtoIdl.from_descriptors(b"\xff\xff")
    with pytest.raises(weego.UsageError, match=r"imports google/protobuf/.*, which is not there"):
        ProtoIdl.from_descriptors(FileDescriptorSet(file=[each for each in descriptors.file if each.name == "parts.proto"]))
    circle = FileDescriptorSet(file=[FileDescriptorProto(name="a", dependency=["b"]), FileDescriptorProto(name="b", dependency=["a"])])
    with pytest.raises(weego.UsageError, match="a imports b imports a"):
        ProtoIdl.from_descriptors(circle)


def test_a_file_with_mistakes(tmp_path: Path) -> None:
    (tmp_path / "x.proto").write_text("message {")
    with pytest.raises(IdlError, match=r"x\.proto:1:9"):
        ProtoIdl(tmp_path / "x.proto")


def test_two_idls_of_one_name_live_beside_each_other(tmp_path: Path) -> None:
    """Each has a pool of its own; generated code has protobuf's one pool, in which they would clash."""
    (tmp_path / "x.proto").write_text('syntax = "proto3"; message M { int32 a = 1; } service S { rpc Get(M) returns (M); }')
    first = ProtoIdl(tmp_path / "x.proto")
    (tmp_path / "x.proto").write_text('syntax = "proto3"; message M { string b = 1; } service S { rpc Get(M) returns (M); }')
    second = ProtoIdl(tmp_path / "x.proto")
    assert first.arguments(first.method("Get")[1], {"a": 1})[0].a == 1
    assert second.arguments(second.method("Get")[1], {"b": "x"})[0].b == "x"


def test_definitions_as_text(idl: ProtoIdl) -> None:
    text = describe(idl.pool, "a.b.One")
    assert text is not None
    for line in [
        "service a.b.One {",
        "  rpc Get(a.b.Part) returns (a.b.Part);",
        "  rpc Both(stream a.b.Part) returns (stream a.b.Part);",
        "  required int64 id = 1;",
        "  optional string some_name = 2;",
        "  repeated a.b.Color colors = 3;",
        "  map<string, a.b.Part> parts = 4;",
        "  oneof way {",
        "    bytes rail = 6;",
        "  google.protobuf.Timestamp at = 7;",
        "message a.b.Part.Inner {",
        "  BLUE = 5;",
    ]:
        assert f"{line}\n" in text
    assert describe(idl.pool, "a.b.One.Get").startswith("rpc Get(a.b.Part)")  # type: ignore[union-attr]
    assert describe(idl.pool, "a.b.Color") == "enum a.b.Color {\n  RED = 0;\n  BLUE = 5;\n}\n"
    assert describe(idl.pool, "a.b.Nothing") is None


# ---- servers that misbehave --------------------------------------------------------------------------------------------


def lying(answers: Any) -> Any:
    """A reflection service (v1) that answers each request as `answers(request, response class)` says."""
    base, classes = _reflection("v1")

    def server_reflection_info(_: Any, requests: Any) -> Any:
        for request in requests:
            yield from answers(request, classes["ServerReflectionResponse"])

    return type("Lying", (base,), {"server_reflection_info": server_reflection_info})()


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        (lambda _request, _cls: [], weego.RpcError, "ended before it answered|in time|deadline"),
        (lambda _request, cls: [cls(error_response={"error_code": 5, "error_message": "no"})], weego.UsageError, "knows no .*: no"),
        (lambda _request, cls: [cls(file_descriptor_response={"file_descriptor_proto": [b"\xff"]})], weego.UsageError, "no descriptor"),
        (
            lambda _request, cls: [
                cls(file_descriptor_response={"file_descriptor_proto": [FileDescriptorProto(name="x", dependency=["y"]).SerializeToString()]})
            ],
            weego.UsageError,
            "asked for the file y and gave others",
        ),
    ],
    ids=["silent", "refusing", "garbage", "others"],
)
def test_reflection_that_lies(answers: Any, error: Any, message: str) -> None:
    with weego.Server([lying(answers)], listen="tcp://127.0.0.1:0") as server, pytest.raises(error, match=message):
        ProtoIdl.from_server(server.addresses[0], symbol="x.Y", timeout=1.0)


def test_a_server_without_reflection(tmp_path: Path) -> None:
    from weego.serving import GrpcOptions

    (tmp_path / "x.proto").write_text('syntax = "proto3"; message M { int32 a = 1; } service S { rpc Get(M) returns (M); }')
    service = weego.generic_service(ProtoIdl(tmp_path / "x.proto"), "S", lambda _, given: given)
    with weego.Server([service], listen="tcp://127.0.0.1:0", grpc=GrpcOptions(reflection=False)) as server:
        with pytest.raises(weego.NoReflection, match="does not describe its services"):
            ProtoIdl.from_server(server.addresses[0])

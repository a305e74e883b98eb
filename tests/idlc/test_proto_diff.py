"""What breaks between two versions of a .proto, each change by itself; and dumps of .proto files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from idlc.diff import Change
from idlc.errors import IdlError, Report
from idlc.proto_compile import load_protos
from idlc.proto_diff import compare_protos
from idlc.proto_dump import dump_protos
from idlc.proto_files import ProtoFile, TypeTable
from tests.idlc.test_corpus import corpus, rows
from weego.cli.commands import weego as group

BASE = """syntax = "proto3";
package shop.v1;
enum Color { RED = 0; BLUE = 5; }
message Inner { int32 a = 1; }
message Item {
  int32 id = 1;
  string name = 2;
  repeated Inner inners = 3;
  map<string, Inner> by_name = 4;
  oneof way { string road = 5; bytes rail = 6; }
  Color color = 7;
  optional int32 size = 8;
  reserved 20;
}
service Shop {
  rpc Get(Item) returns (Item);
  rpc Watch(Item) returns (stream Item);
}
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, str], tuple[list[ProtoFile], TypeTable]]:
    def made(folder: str, text: str) -> tuple[list[ProtoFile], TypeTable]:
        path = tmp_path / folder / "shop.proto"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        files, types, _ = load_protos([path], [], Report({}))
        return files, types

    return made


@pytest.mark.parametrize(
    ("before", "after", "severity", "code", "message", "line"),
    [
        ("int32 id = 1;", "string id = 1;", "breaking", "type", "shop.v1.Item.id was int32 and is string", 6),
        ("int32 id = 1;", "int64 id = 1;", "warning", "type", "was int32 and is int64", 6),
        ("int32 id = 1;", "sint32 id = 1;", "breaking", "type", "was int32 and is sint32", 6),
        ("int32 id = 1;", "Color id = 1;", "warning", "type", "was int32 and is shop.v1.Color", 6),
        ("string name = 2;", "bytes name = 2;", "warning", "type", "was string and is bytes", 7),
        ("Inner inners = 3;", "Item inners = 3;", "breaking", "type", "was shop.v1.Inner and is shop.v1.Item", 8),
        ("map<string, Inner>", "map<int32, Inner>", "breaking", "type", "was map<string, shop.v1.Inner> and is map<int32, shop.v1.Inner>", 9),
        ("string name = 2;", "string name = 9;", "breaking", "number", "name had the number 2 and has 9", 7),
        ("string name = 2;", "string title = 2;", "warning", "name", "name is called title now", 7),
        ("string name = 2;", 'string name = 2 [json_name = "n"];', "warning", "json-name", "was name in JSON and is n", 7),
        ("string name = 2;", "", "breaking", "removed", "its number 2 is not reserved", 7),
        ("string name = 2;", "reserved 2;", "warning", "removed", "shop.v1.Item.name is gone", 7),
        ("string name = 2;", "repeated string name = 2;", "breaking", "label", "was singular and is repeated", 7),
        ("oneof way { string road = 5; bytes rail = 6; }", "string road = 5; oneof way { bytes rail = 6; }", "breaking", "oneof", "was in the oneof way", 10),
        ("oneof way", "oneof path", "warning", "name", "the oneof of shop.v1.Item.road was way and is path", 10),
        ("optional int32 size", "int32 size", "warning", "presence", "no longer optional", 12),
        ("reserved 20;", "string more = 20;", "breaking", "reserved", "takes the number 20, which was reserved", 13),
        ("reserved 20;", "reserved 20; string more = 21;", "addition", "added", "more is new", 13),
        ("BLUE = 5;", "BLUE = 6;", "breaking", "enum-number", "shop.v1.Color.BLUE was 5 and is 6", 3),
        ("BLUE = 5;", "", "breaking", "removed", "BLUE (5) is gone", 3),
        ("BLUE = 5;", "reserved 5;", "warning", "removed", "BLUE (5) is gone", 3),
        ("BLUE = 5;", "GREEN = 5;", "warning", "name", "BLUE (5) is called GREEN now", 3),
        ("BLUE = 5;", "BLUE = 5; GREEN = 6;", "addition", "added", "shop.v1.Color.GREEN is new", 3),
        ("rpc Get(Item) returns (Item);", "", "breaking", "removed", "shop.v1.Shop.Get is gone", 16),
        ("rpc Get(Item)", "rpc Get(Inner)", "breaking", "method-type", "Get takes shop.v1.Inner, no longer shop.v1.Item", 16),
        ("returns (Item);", "returns (Inner);", "breaking", "method-type", "Get answers shop.v1.Inner", 16),
        ("returns (stream Item)", "returns (Item)", "breaking", "streaming", "Watch was server and is unary", 17),
        ("rpc Get", "rpc Put(Item) returns (Item); rpc Get", "addition", "added", "shop.v1.Shop.Put is new", 16),
        ("service Shop", "service Store", "breaking", "removed", "service shop.v1.Shop is gone", 15),
        ("package shop.v1;", "package shop.v2;", "breaking", "removed", "service shop.v1.Shop is gone", 15),
        ("message Inner", "message Other {} message Inner", "addition", "added", "message shop.v1.Other is new", 4),
    ],
)  # fmt: skip
def test_one_change(read: Any, before: str, after: str, severity: str, code: str, message: str, line: int) -> None:
    assert before in BASE
    (old, _), (new, _) = read("old", BASE), read("new", BASE.replace(before, after, 1))
    found = [change for change in compare_protos(old, new) if message in str(change)]
    assert [(each.severity, each.code, each.position.line) for each in found] == [(severity, code, line)]


def test_required_fields(read: Any) -> None:
    text = 'syntax = "proto2"; message M { required int32 a = 1; optional int32 b = 2 [default = 5]; }'
    old, _ = read("old", text)

    def changes(new: str) -> list[tuple[str, str]]:
        return [(each.severity, each.code) for each in compare_protos(old, read("new", new)[0])]

    assert changes(text.replace("required int32 a = 1;", "reserved 1;")) == [("breaking", "removed")]
    assert changes(text.replace("required int32 a", "optional int32 a")) == [("breaking", "label")]
    assert changes(text.replace("default = 5", "default = 6")) == [("warning", "default")]
    assert changes(text.replace("optional int32 b", "required int32 c = 3; optional int32 b")) == [("breaking", "required")]
    assert compare_protos(read("new", text.replace("required int32 a = 1;", ""))[0], old)[0].code == "required"


def test_a_type_that_becomes_another_kind(read: Any) -> None:
    (old, _), (new, _) = read("old", BASE), read("new", BASE.replace("enum Color { RED = 0; BLUE = 5; }", "message Color {}"))
    assert "shop.v1.Color was a enum and is a message" in "\n".join(map(str, compare_protos(old, new)))


def test_nothing_changed_in_the_corpus() -> None:
    """Each file beside itself; and each has a dump that is JSON and has all messages."""
    compared = 0
    for row in rows("RESULTS_proto.tsv"):
        path = corpus() / row[0]
        root = next((each for each in path.parents if each.parent == corpus()), path.parent)
        folders = [each for each in (root, root / "src", path.parent) if each.is_dir()]
        try:
            files, types, _ = load_protos([path], folders, Report({}))
        except IdlError:
            continue
        assert compare_protos(files, files) == []
        dumped = json.loads(json.dumps(dump_protos(files, types)))
        assert [each["name"] for each in dumped["files"]] == [file.name for file in files]
        compared += 1
    assert compared > 50


def test_a_dump(read: Any) -> None:
    files, types = read("x", BASE.replace("message Item {", "// What is sold.\nmessage Item {").replace("int32 id = 1;", "int32 id = 1 [deprecated = true]; // Its number."))
    (file,) = dump_protos(files, types)["files"]
    assert (file["package"], file["syntax"]) == ("shop.v1", "proto3")
    item = file["messages"][1]
    assert (item["name"], item["doc"]) == ("shop.v1.Item", "What is sold.")
    fields = {each["name"]: each for each in item["fields"]}
    assert fields["id"] == {
        "id": 1, "name": "id", "line": 7, "doc": "Its number.", "options": {"deprecated": True}, "type": "int32", "requiredness": "default", "json_name": "id",
    }  # fmt: skip
    assert fields["inners"]["type"] == {"list": {"name": "shop.v1.Inner"}}
    assert fields["by_name"]["type"] == {"map": ["string", {"name": "shop.v1.Inner"}]}
    assert (fields["road"]["oneof"], fields["size"]["requiredness"], fields["size"].get("oneof")) == ("way", "optional", None)
    assert file["enums"][0]["members"][1] == {"name": "BLUE", "line": 3, "value": 5}
    assert file["services"][0]["methods"][1]["streaming"] == "server"


# ---- the commands ----------------------------------------------------------------------------------------------------


def idl(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["idl", *arguments])


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    Path("old/shop.proto").write_text(BASE)
    Path("shop.proto").write_text(BASE.replace("int32 id = 1;", "string id = 1;"))
    result = idl("diff", "old/shop.proto", "shop.proto")
    assert (result.exit_code, "shop.proto:6:3: breaking: shop.v1.Item.id was int32 and is string" in result.stdout) == (1, True)
    assert json.loads(idl("diff", "old/shop.proto", "shop.proto", "--json").stdout)[0]["code"] == "type"
    assert idl("diff", "shop.proto", "shop.proto").exit_code == 0
    assert [each["name"] for each in json.loads(idl("dump", "shop.proto").stdout)["files"]] == ["shop.proto"]
    assert idl("check", "shop.proto").exit_code == 0
    Path("bad.proto").write_text('syntax = "proto3"; message M { Itm a = 1; }')
    assert idl("check", "bad.proto").exit_code == 1
    assert json.loads(idl("check", "--json", "bad.proto").stdout)[0]["line"] == 1
    Path("x.thrift").write_text("struct S {}")
    assert idl("check", "shop.proto", "x.thrift").exit_code == 0
    assert idl("diff", "shop.proto", "x.thrift").exit_code == 2
    assert idl("format", "shop.proto").exit_code == 2
    assert idl("trim", "shop.proto").exit_code == 2
    assert "format is for Thrift files" in capfd.readouterr().err


def test_against_a_git_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    Path("a").mkdir()
    Path("a/shop.proto").write_text(BASE)
    Path("a/user.proto").write_text('syntax = "proto3"; import "shop.proto"; message User { shop.v1.Item item = 1; }')
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    assert idl("diff", "a/user.proto", "-I", "a", "--against", "HEAD").exit_code == 0
    Path("a/shop.proto").write_text(BASE.replace("rpc Get(Item) returns (Item);", ""))
    result = idl("diff", "a/user.proto", "-I", "a", "--against", "HEAD")
    assert (result.exit_code, "shop.v1.Shop.Get is gone" in result.stdout) == (1, True)
    assert idl("diff", "a/user.proto", "--against", "nowhere").exit_code == 1


def test_changes_sort_by_how_bad_they_are(read: Any) -> None:
    new = BASE.replace("string name = 2;", "string title = 2;").replace("int32 id = 1;", "bytes id = 1;").replace("reserved 20;", "reserved 20; int32 new = 30;")
    changes: list[Change] = compare_protos(read("old", BASE)[0], read("new", new)[0])
    assert [each.severity for each in changes] == ["breaking", "warning", "addition"]

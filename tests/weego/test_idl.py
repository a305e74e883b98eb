"""`weego idl`: what each command prints, writes, and exits with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from weego.cli.commands import weego as group

OLD = "struct Item { 1: i32 id, 2: optional string name }\nservice Shop { Item get(1: i32 id) }\n"
NEW = "struct Item { 1: i64 id }\nservice Shop { Item get(1: i32 id) void put(1: Item item) }\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("shop.thrift").write_text(NEW)
    return tmp_path


def idl(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(group, ["idl", *arguments], input=given)


def test_check() -> None:
    assert (idl("check", "shop.thrift").exit_code, idl("check", "shop.thrift").output) == (0, "")
    Path("bad.thrift").write_text("struct S { i32 a, 2: Itm b }")
    result = idl("check", "bad.thrift")
    assert result.exit_code == 1
    assert 'bad.thrift:1:22: error: undefined type "Itm"' in result.stderr


def test_check_as_json() -> None:
    Path("bad.thrift").write_text("struct S { i32 a, 2: Itm b }")
    result = idl("check", "--json", "bad.thrift")
    assert result.exit_code == 1
    (error,) = json.loads(result.stdout)
    assert (error["severity"], error["code"], error["line"], error["column"], error["width"]) == ("error", "undefined-type", 1, 22, 3)
    Path("bad.thrift").write_text("struct S { i32 a }")
    (warning,) = json.loads(idl("check", "--json", "bad.thrift").stdout)
    assert (warning["severity"], warning["code"]) == ("warning", "no-id")


def test_format_in_place_and_to_look_at() -> None:
    assert idl("format", "--check", "shop.thrift").exit_code == 1
    result = idl("format", "--diff", "shop.thrift")
    assert result.exit_code == 1
    assert "+    1: i64 id" in result.stdout
    assert Path("shop.thrift").read_text() == NEW
    assert idl("format", "shop.thrift").stdout == "formatted shop.thrift\n"
    assert Path("shop.thrift").read_text().startswith("struct Item {\n    1: i64 id\n}\n\nservice Shop {\n")
    assert (idl("format", "--check", "shop.thrift").exit_code, idl("format", "shop.thrift").stdout) == (0, "")


def test_format_as_a_filter() -> None:
    assert idl("format", "-", given="struct  S{}").stdout == "struct S {}\n"
    result = idl("format", "-", given="struct")
    assert result.exit_code == 1
    assert "<stdin>:1:7: error: expected" in result.stderr


def test_trim_to_stdout_and_to_a_folder(capfd: pytest.CaptureFixture[str]) -> None:
    Path("sub").mkdir()
    Path("sub/main.thrift").write_text('include "../shop.thrift"\nstruct Unused {}\nservice S { shop.Item get() void other() }\n')
    result = idl("trim", "sub/main.thrift", "-m", "get")
    assert "Unused" not in result.stdout
    assert "other" not in result.stdout
    assert idl("trim", "sub/main.thrift", "-m", "S.get", "-o", "out").exit_code == 0
    assert sorted(str(path) for path in Path("out").rglob("*.thrift")) == ["out/shop.thrift", "out/sub/main.thrift"]
    assert idl("check", "out/sub/main.thrift").exit_code == 0
    assert "cut 1 of 2 structs and 3 methods" in capfd.readouterr().err
    assert idl("trim", "sub/main.thrift", "-o", ".").exit_code == 2
    assert idl("trim", "sub/main.thrift", "-m", "nothing").exit_code == 2
    assert idl("trim", "sub/main.thrift", "-m", "(").exit_code == 2


def test_diff_of_two_files() -> None:
    Path("old.thrift").write_text(OLD)
    result = idl("diff", "old.thrift", "shop.thrift")
    assert result.exit_code == 1
    assert result.stdout.split("\n")[:2] == [
        "shop.thrift:1:22: breaking: field id of struct Item was i32 and is i64",
        "shop.thrift:1:8: warning: optional field name of struct Item is gone; never use the id 2 for another",
    ]
    assert "put is new" in idl("diff", "--all", "old.thrift", "shop.thrift").stdout
    assert idl("diff", "shop.thrift", "shop.thrift").exit_code == 0
    assert idl("diff", "shop.thrift").exit_code == 2


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_diff_against_a_revision(capfd: pytest.CaptureFixture[str]) -> None:
    git("init", "-q", ".")
    Path("idl").mkdir()
    Path("idl/base.thrift").write_text("struct Base { 1: i32 a }")
    Path("idl/main.thrift").write_text('include "base.thrift"\nstruct S { 1: base.Base b }')
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert idl("diff", "--against", "HEAD", "idl/main.thrift").exit_code == 0
    Path("idl/base.thrift").write_text("struct Base { 1: i64 a }")
    result = idl("diff", "--against", "HEAD", "--json", "idl/main.thrift")
    assert result.exit_code == 1
    (change,) = json.loads(result.stdout)
    assert (change["severity"], change["code"], change["file"]) == ("breaking", "type", "idl/base.thrift")
    Path("idl/new.thrift").write_text("struct N {}")
    assert idl("diff", "--against", "HEAD", "idl/new.thrift").exit_code == 1
    assert "not in revision HEAD" in capfd.readouterr().err
    assert idl("diff", "--against", "nowhere", "idl/main.thrift").exit_code == 1
    assert "no revision 'nowhere'" in capfd.readouterr().err


def test_diff_warnings_count_when_asked() -> None:
    Path("old.thrift").write_text("const i32 A = 1")
    Path("new.thrift").write_text("const i32 A = 2")
    assert idl("diff", "old.thrift", "new.thrift").exit_code == 0
    assert idl("diff", "--strict", "old.thrift", "new.thrift").exit_code == 1


def test_dump() -> None:
    found = json.loads(idl("dump", "shop.thrift").stdout)
    assert [each["name"] for each in found["files"][0]["services"][0]["methods"]] == ["get", "put"]


def test_files_that_are_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["check", "none.thrift"], ["dump", "none.thrift"], ["format", "none.thrift"], ["diff", "none.thrift", "shop.thrift"]):
        result = idl(*command)
        assert result.exit_code == 1, command
        assert "none.thrift" in result.stderr + capfd.readouterr().err


def test_other_targets(capfd: pytest.CaptureFixture[str]) -> None:
    runner = CliRunner()
    assert runner.invoke(group, ["gen", "shop.thrift", "-o", "ts", "-t", "typescript"]).exit_code == 0
    assert "export interface Item {" in Path("ts/shop.ts").read_text()
    assert runner.invoke(group, ["gen", "shop.thrift", "-o", "ts", "-t", "typescript", "--check"]).exit_code == 0
    assert runner.invoke(group, ["gen", "shop.thrift", "-o", "s", "-t", "jsonschema:base=x/"]).exit_code == 0
    assert json.loads(Path("s/shop.schema.json").read_text())["$id"] == "x/shop.schema.json"
    assert runner.invoke(group, ["gen", "shop.thrift", "-o", "x", "-t", "cobol"]).exit_code == 2
    assert 'no back end "cobol"' in capfd.readouterr().err

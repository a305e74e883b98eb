"""The options that commands on IDL share."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from weego.cli.commands import weego as group
from weego.cli.idl_options import levels

IDL = "struct S { i32 a, 2: i32 b = 017 }"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("s.thrift").write_text(IDL)
    return tmp_path


def gen(*options: str) -> Result:
    return CliRunner().invoke(group, ["gen", "s.thrift", "-o", "gen", *options])


def test_levels() -> None:
    assert levels(["error", "ignore=no-id"]) == {"*": "error", "no-id": "ignore"}
    for wrong in ("fatal", "error=", "=no-id", ""):
        with pytest.raises(click.BadParameter, match="error, warn or ignore"):
            levels([wrong])


def test_warnings_become_errors_and_nothing_is_written() -> None:
    result = gen("-W", "error")
    assert result.exit_code == 1
    assert "s.thrift:1:16: error: " in result.stderr
    assert "[-W error=no-id]" in result.stderr
    assert "[-W error=leading-zero]" in result.stderr
    assert not Path("gen").exists()


def test_one_warning_is_ignored_and_one_is_not() -> None:
    result = gen("-W", "error", "-W", "ignore=no-id", "-W", "warn=leading-zero")
    assert result.exit_code == 0
    assert "no id" not in result.stderr
    assert "warning: 017" in result.stderr


def test_a_note_is_an_error_only_by_name() -> None:
    Path("s.thrift").write_text("service S { void getId(), void get_id() }")
    assert "note: S.getId would become get_id" in gen("-W", "error").stderr
    assert gen("-W", "error=method-names").exit_code == 1
    assert "getId" not in gen("-W", "ignore=method-names").stderr


@pytest.mark.parametrize(("dialect", "number", "octal"), [("apache", "-1", "17"), ("kitex", "1", "15")])
def test_the_dialect_decides_where_compilers_differ(dialect: str, number: str, octal: str) -> None:
    assert gen("--dialect", dialect).exit_code == 0
    text = Path("gen/s/s.py").read_text()
    assert f'stub.Field({number}, "a", stub.I32)' in text
    assert f'stub.Field(2, "b", stub.I32, default={octal})' in text


def test_check_says_what_is_stale_and_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert gen("--check").exit_code == 1
    assert "gen/s/s.py: missing; run `weego gen` again" in capfd.readouterr().err
    assert not Path("gen").exists()
    assert gen().exit_code == 0
    assert gen("--check").exit_code == 0
    Path("s.thrift").write_text(IDL + " struct T {}")
    assert gen("--check").exit_code == 1
    assert "gen/s/s.py: not what the IDL says now" in capfd.readouterr().err
    assert "class T" not in Path("gen/s/s.py").read_text()

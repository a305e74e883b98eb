from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from idlc.errors import Report
from idlc.resolver import resolve


def load(path: Path, *include_dirs: Path) -> tuple[list[str], Report]:
    report = Report()
    programs = resolve([str(path)], [str(each) for each in include_dirs], report)
    return [os.path.basename(program.path) for program in programs], report


def test_files_stand_behind_what_they_include(write: Callable[..., Path]) -> None:
    path = write('include "b.thrift"\ninclude "a.thrift"', a='include "b.thrift"', b="")
    assert load(path)[0] == ["b.thrift", "a.thrift", "main.thrift"]


def test_include_folders_are_searched_in_order(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write('include "dep.thrift"\nstruct S { 1: dep.A a }')
    for name, text in (("one", "struct A {}"), ("two", "struct B {}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dep.thrift").write_text(text)
    assert load(path, tmp_path / "one", tmp_path / "two")[1].errors == []
    assert load(path, tmp_path / "two", tmp_path / "one")[1].errors[0].code == "undefined-type"
    (tmp_path / "dep.thrift").write_text("struct A {}")
    assert load(path, tmp_path / "two")[1].errors == []  # beside the including file comes first


def test_a_missing_include_says_where_it_was_looked_for(write: Callable[..., Path], tmp_path: Path) -> None:
    _, report = load(write('\ninclude "nope.thrift"'), tmp_path / "inc")
    (error,) = report.errors
    assert error.code == "include-missing"
    assert error.position is not None
    assert (error.position.line, error.position.column) == (2, 9)
    assert str(tmp_path / "inc") in (error.hint or "")


def test_a_circle_is_shown(write: Callable[..., Path]) -> None:
    _, report = load(write('include "a.thrift"', a='include "main.thrift"'))
    assert report.errors[0].code == "include-circle"
    assert "main.thrift -> " in report.errors[0].message


def test_a_file_that_includes_itself(write: Callable[..., Path]) -> None:
    assert load(write('include "main.thrift"'))[1].errors[0].code == "include-circle"


def test_including_twice_is_a_warning(write: Callable[..., Path]) -> None:
    _, report = load(write('include "a.thrift"\ninclude "./a.thrift"', a=""))
    assert [warning.code for warning in report.warnings] == ["include-twice"]


def test_an_unreadable_file(tmp_path: Path) -> None:
    _, report = load(tmp_path / "nothing.thrift")
    assert report.errors[0].code == "unreadable"
    assert "No such file" in report.errors[0].message


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfstruct S {}\r\n", b"// caf\xe9\nstruct S {}"])
def test_byte_order_mark_and_latin1(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.thrift"
    path.write_bytes(data)
    _, report = load(path)
    assert report.errors == []
    assert [warning.code for warning in report.warnings] == (["not-utf8"] if b"\xe9" in data else [])

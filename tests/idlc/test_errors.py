from __future__ import annotations

import pytest

from idlc.errors import MAX_ERRORS, Diagnostic, IdlError, Position, Report, Source, TooManyErrors

SOURCE = Source("echo.thrift", "struct S {\n\t1: Requst req\r\n}\n")


def test_offsets_become_lines_and_columns() -> None:
    assert [SOURCE.locate(offset) for offset in (0, 10, 11, 15)] == [(1, 1), (1, 11), (2, 1), (2, 5)]
    assert SOURCE.line(2) == "\t1: Requst req"
    assert str(Position(SOURCE, 15)) == "echo.thrift:2:5"


def test_a_diagnostic_shows_the_line_a_caret_and_the_hint() -> None:
    found = Diagnostic("error", "undefined-type", 'undefined type "Requst"', Position(SOURCE, 15, 6), "a hint")
    assert found.render().split("\n") == [
        'echo.thrift:2:5: error: undefined type "Requst"',
        "    \t1: Requst req",
        "    \t   ^~~~~~",
        "  hint: a hint",
    ]


def test_a_diagnostic_without_place() -> None:
    assert Diagnostic("warning", "same-name", "twice").render() == "warning: twice"


def test_an_error_carries_all_diagnostics() -> None:
    report = Report()
    report.raise_errors()
    report.error("a", "first", Position(SOURCE, 0))
    report.error("b", "second", None)
    report.warn("c", "only a warning", None)
    with pytest.raises(IdlError) as raised:
        report.raise_errors()
    assert [each.code for each in raised.value.diagnostics] == ["a", "b"]
    assert "echo.thrift:1:1: error: first" in str(raised.value)
    assert "error: second" in str(raised.value)


def test_a_run_ends_after_many_errors() -> None:
    report = Report()
    for _ in range(MAX_ERRORS - 1):
        report.error("a", "again", None)
    with pytest.raises(TooManyErrors):
        report.error("a", "once more", None)
    assert len(report.errors) == MAX_ERRORS

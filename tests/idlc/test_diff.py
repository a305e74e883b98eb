"""Breaking changes, by Apache's audit files and rule by rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from idlc.diff import Change, compare
from idlc.errors import Report
from idlc.resolver import resolve
from tests.idlc.test_corpus import corpus

Compare = Callable[[str, str], list[Change]]


@pytest.fixture
def changed(check: Callable[..., Any]) -> Compare:
    def changed(old: str, new: str) -> list[Change]:
        first, second = check(old), check(new)
        assert first.errors == second.errors == []
        return compare(first.programs, second.programs)

    return changed


@pytest.mark.parametrize("number", range(1, 18))
def test_each_break_of_apaches_audit_is_found_and_nothing_else(number: int) -> None:
    old, new = audit("test"), audit(f"break{number}")
    found = compare(old, new, {old[-1]: new[-1]})
    assert [change.severity for change in found] == ["breaking"]
    assert found[0].position.line > 0


def test_apaches_warnings_break_nothing() -> None:
    old, new = audit("test"), audit("warning")
    found = compare(old, new, {old[-1]: new[-1]})
    assert len(found) > 10
    assert {change.severity for change in found} == {"warning"}


def audit(name: str) -> Any:
    report = Report()
    programs = resolve([str(corpus() / f"apache_thrift/test/audit/{name}.thrift")], [], report)
    assert not report.errors
    return programs


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("struct S { 1: i32 a }", "struct S { 2: i32 a }", "breaking id"),
        ("struct S { 1: i32 a }", "struct S { 1: i32 b }", "warning renamed"),
        ("struct S { 1: i32 a }", "struct S {}", "breaking removed"),
        ("struct S { 1: optional i32 a }", "struct S {}", "warning removed"),
        ("struct S {}", "struct S { 1: i32 a }", "addition added"),
        ("struct S {}", "struct S { 1: required i32 a }", "breaking required"),
        ("struct S { 1: i32 a }", "struct S { 1: optional i32 a }", "warning requiredness"),
        ("struct S { 1: string a }", "struct S { 1: binary a }", "breaking type"),
        ("struct S { 1: list<i32> a }", "struct S { 1: set<i32> a }", "breaking type"),
        ("struct S { 1: i32 a = 1 }", "struct S { 1: i32 a = 2 }", "warning default"),
        ("struct S {}", "union S {}", "breaking kind"),
        ("struct S {}", "enum S {}", "breaking kind"),
        ("struct S {}", "", "warning removed"),
        ("", "struct S {}", "addition added"),
        ("enum E { A = 1 }", "enum E { A = 2 }", "breaking number"),
        ("enum E { A = 1 }", "enum E { B = 1 }", "warning renamed"),
        ("enum E { A = 1, B = 2 }", "enum E { A = 1 }", "breaking removed"),
        ("enum E { A = 1 }", "enum E { A = 1, B = 2 }", "addition added"),
        ("service S { void a() }", "service S {}", "breaking removed"),
        ("service S {}", "service S { void a() }", "addition added"),
        ("service S { void a() }", "", "breaking removed"),
        ("service S { void a() }", "service S { oneway void a() }", "breaking oneway"),
        ("service S { void a() }", "service S { i32 a() }", "breaking result"),
        ("service S { void a(1: i32 x) }", "service S { void a(1: i64 x) }", "breaking type"),
        ("exception E {} service S { void a() }", "exception E {} service S { void a() throws (1: E e) }", "breaking throws"),
        ("exception E {} service S { void a() throws (1: E e) }", "exception E {} service S { void a() }", "warning throws"),
        ("namespace py a", "namespace py b", "warning namespace"),
        ("const i32 C = 1", "const i32 C = 2", "warning constant"),
    ],
)
def test_rules(changed: Compare, old: str, new: str, expected: str) -> None:
    assert [f"{change.severity} {change.code}" for change in changed(old, new)] == [expected]


def test_what_is_the_same_on_the_wire_is_no_change(changed: Compare) -> None:
    old = "typedef i64 Id struct S { 1: Id a, 2: list<Id> b } service A { void x(1: Id a) } service B extends A {}"
    new = "struct S { 2: list<i64> b, 1: i64 a } service A { void x(1: i64 a) } service B extends A {}"
    assert [(change.severity, change.code) for change in changed(old, new)] == [("warning", "removed")]  # the typedef


def test_a_method_that_moves_to_the_base_is_still_there(changed: Compare) -> None:
    old = "service B { void x() } service S extends B { void y() }"
    assert [c.code for c in changed(old, "service B { void x() void y() } service S extends B {}")] == ["added"]


def test_a_streaming_mode_is_part_of_a_method(changed: Compare) -> None:
    old = "struct R {} service S { R a(1: R r) }"
    assert [c.code for c in changed(old, old.replace("r) }", 'r) (streaming.mode = "server") }'))] == ["streaming"]

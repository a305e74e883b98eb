from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from idlc import model

Check = Callable[..., Any]


def test_names_may_be_used_before_they_are_defined(check: Check) -> None:
    found = check("struct S { 1: T a, 2: E e }\ntypedef list<S> T\nenum E { A }\nservice V extends W {}\nservice W {}")
    assert found.errors == []
    fields = found["S"].fields
    assert fields[0].type is found["T"]
    assert found["T"].target == model.ListOf(found["S"])
    assert fields[1].type is found["E"]
    assert found["V"].base is found["W"]


def test_included_names_have_a_prefix(check: Check) -> None:
    found = check(
        'include "a.b.thrift"\nstruct S { 1: a.b.T t, 2: a.b.E e = a.b.E.Y, 3: i32 c = a.b.C }\nservice V extends a.b.W {}',
        **{"a.b": "typedef i32 T\nenum E { X, Y }\nconst i32 C = 7\nservice W {}"},
    )
    assert found.errors == []
    assert found["S"].fields[0].type.target == model.Base("i32")
    assert found["S"].fields[1].default.member.value == 1
    assert found["V"].base.name == "W"


def test_prefixes_reach_one_file_deep(check: Check) -> None:
    found = check('include "b.thrift"\nstruct S { 1: a.T t }', b='include "a.thrift"', a="struct T {}")
    assert found.codes == ["undefined-type"]
    assert found.errors[0].hint == 'no included file is called "a"'


def test_two_includes_of_one_name(check: Check, tmp_path: Any) -> None:
    for name, text in (("x", "struct A {}\nconst i32 C = 1"), ("y", "struct B {}\nconst i32 C = 2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dep.thrift").write_text(text)
    includes = 'include "x/dep.thrift"\ninclude "y/dep.thrift"\n'
    assert check(includes + "struct S { 1: dep.A a, 2: dep.B b }").codes == []
    assert check(includes + "const i32 D = dep.C").codes == ["ambiguous"]


# Numbers


def test_enum_numbers(check: Check) -> None:
    found = check("enum E { A, B = 5, C, D = -2, E }")
    assert [member.value for member in found["E"].members] == [0, 5, 6, -2, -1]
    assert found["E"].numbered(6).name == "C"
    assert found["E"].member("D").value == -2


def test_fields_without_id(check: Check) -> None:
    text = "struct S { 1: i32 a, i32 b, 5: i32 c, i32 d }"
    found = check(text)
    assert [field.id for field in found["S"].fields] == [1, -1, 5, -2]
    assert '"b" has no id: it is 2 to Kitex and -1 to Apache Thrift; -1 is taken' in found.warnings[0].message
    assert [field.id for field in check(text, dialect="kitex")["S"].fields] == [1, 2, 5, 6]


def test_ids_that_would_meet_follow_apache(check: Check) -> None:
    found = check("struct S { i32 a, 1: i32 b }")
    assert [field.id for field in found["S"].fields] == [-1, 1]
    assert "Kitex refuses the file" in found.warnings[0].message


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("struct S { 1: i32 a, 1: i32 b }", ["duplicate-id"]),
        ("struct S { 1: i32 a, 2: i32 a }", ["duplicate-field"]),
        ("struct S { 32768: i32 a }", ["id-range"]),
        ("struct S { 0: i32 a, -7: i32 b }", ["id-not-positive", "id-not-positive"]),
        ("enum E { A, A }", ["duplicate-member"]),
        ("enum E { A = 1, B = 1 }", ["enum-alias"]),
        ("enum E { A = 2147483647, B }", ["enum-range"]),
        ("struct S {}\nenum S { A }", ["duplicate-name"]),
        ("struct S { 1: Nope a }", ["undefined-type"]),
        ("const i32 A = 1\nstruct S { 1: A a }", ["not-a-type"]),
        ("service V {}\nstruct S { 1: V a }", ["not-a-type"]),
        ("typedef B A\ntypedef C B\ntypedef A C", ["typedef-circle"]),
        ("typedef list<A> A", ["typedef-circle"]),
        ("struct B {}\nservice S extends B {}", ["not-a-service"]),
        ("service S extends B {}", ["undefined-service"]),
        ("service A extends B {}\nservice B extends C {}\nservice C extends B {}", ["extends-circle"]),
        ("service S { void f(), i32 f() }", ["duplicate-function"]),
        ("service B { void f() }\nservice S extends B { i32 f() }", ["redefined-function"]),
        ("service S { void f(1: i32 a, 1: i32 b) }", ["duplicate-id"]),
        ("service S { void f() throws (1: i32 e) }", ["not-an-exception"]),
        ("struct T {}\nservice S { void f() throws (1: T e) }", ["not-an-exception"]),
        ("exception X {}\nservice S { void f() throws (1: required X x) }", ["required-throws"]),
        ("service S { oneway i32 f() }", ["oneway-result"]),
        ("exception X {}\nservice S { oneway void f() throws (1: X x) }", ["oneway-throws"]),
        ("service S { void f(1: optional i32 a) }", ["optional-argument"]),
        ("union U { 1: required i32 a }", ["union-required"]),
        ("struct SFArgs {}\nservice S { void f() }", ["go-name"]),
        ("struct A { 1: required B b }\nstruct B { 1: required A a }", ["required-circle"]),
        ("struct A { 1: optional A a, 2: required list<A> b }", []),
        ("struct A { 1: A a = {} }", ["default-circle"]),
        ("struct A { 1: list<B> b = [{}] }\nstruct B { 1: optional A a = {} }", ["default-circle"]),
        ("struct A { 1: A a = D }\nconst A D = {}", ["default-circle"]),
        ("struct A { 1: B b = {'a': {'b': {}}} }\nstruct B { 1: optional A a }", []),
        ("struct S { 1: set<list<i32>> a }", ["mutable-key"]),
        ("struct S { 1: set<list<i32> (python.immutable = '')> a }", []),
        ("namespace py a\nnamespace py b", ["namespace-twice"]),
    ],
)
def test_what_is_checked(check: Check, text: str, codes: list[str]) -> None:
    assert check(text).codes == codes


@pytest.mark.parametrize(
    ("function", "codes"),
    [
        ("R f(1: R r) (streaming.mode = 'server')", []),
        ("R f(1: R r) (streaming.mode = 'unary')", []),
        ("R f(1: R r) (streaming.mode = 'both')", ["streaming"]),
        ("R f(1: R r, 2: R q) (streaming.mode = 'client')", ["streaming"]),
        ("R f(1: R r) (streaming.mode = 'client', streaming.mode = 'server')", ["streaming"]),
        ("oneway void f(1: R r) (streaming.mode = 'client')", ["streaming"]),
        ("void f(1: R r) (streaming.mode = 'client')", ["streaming"]),
        ("string f(1: string r) (streaming.mode = 'bidirectional')", ["streaming"]),
    ],
)
def test_streaming_annotations(check: Check, function: str, codes: list[str]) -> None:
    assert check(f"struct R {{}}\nservice S {{ {function} }}").codes == codes


def test_streaming_modes(check: Check) -> None:
    found = check(
        "struct R {}\nservice S { R a(1: R r) (streaming.mode = 'unary'), R b(1: R r) (streaming.mode = 'client'), R c() }"
    )
    assert [(f.streaming, f.is_stream) for f in found["S"].functions] == [
        ("unary", False),
        ("client", True),
        (None, False),
    ]


def test_a_name_that_is_nearly_right_is_suggested(check: Check) -> None:
    assert check("struct Request {}\nstruct S { 1: Requst r }").errors[0].hint == 'did you mean "Request"?'
    assert check('include "a.thrift"\nstruct S { 1: a.Requst r }', a="struct Request {}").errors[0].hint == (
        'did you mean "a.Request"?'
    )


def test_union_members_are_optional(check: Check) -> None:
    assert [field.requiredness for field in check("union U { 1: i32 a, 2: optional i32 b }")["U"].fields] == [
        "optional"
    ] * 2


def test_mistakes_in_included_files_are_reported_there(check: Check) -> None:
    (error,) = check('include "a.thrift"', a="\nstruct S { 1: Nope n }").errors
    assert error.position.file.endswith("a.thrift")
    assert (error.position.line, error.position.column) == (2, 15)


def test_endless_chains_are_refused(check: Check) -> None:
    text = "\n".join(f"typedef T{number + 1} T{number}" for number in range(5000)) + "\ntypedef i32 T5000"
    assert check(text).codes == ["too-deep"]


def test_idempotent_is_true_or_false(check: Check) -> None:
    found = check('service S { void a() (idempotent = "perhaps") }')
    assert found.codes == ["idempotent"]
    assert 'use "true" or "false"' in str(found.errors[0].hint)

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from idlc import model
from idlc.values import freeze

Check = Callable[..., Any]

TYPES = (
    "enum E { A = 1, B = 2 }\nenum F { A = 1, B = 7, C = 3 }\ntypedef E Alias\n"
    "struct P { 1: i32 x, 2: optional string n }\nstruct R { 1: required i32 x, 2: required P p }\n"
    "union U { 1: i32 a, 2: string b }\nconst i32 TEN = 10\nconst string WORD = 'w'\nconst list<i32> ITEMS = [1]\n"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("bool C = true", True),
        ("bool C = 0", False),
        ("i8 C = -128", -128),
        ("i64 C = 0x7fffffffffffffff", 2**63 - 1),
        ("i32 C = true", 1),
        ("i32 C = E.B", 2),
        ("double C = 3", 3.0),
        ("double C = TEN", 10.0),
        ("string C = 'x'", "x"),
        ("binary C = '\\xff'", b"\xff"),
        ("binary C = WORD", b"w"),
        ("uuid C = '{00112233-4455-6677-8899-AABBCCDDEEFF}'", uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")),
        ("E C = E.B", 2),
        ("E C = 1", 1),
        ("Alias C = Alias.B", 2),
        ("list<i32> C = [1, TEN]", (1, 10)),
        ("set<E> C = [E.A, 2]", (1, 2)),
        ("set<i32> C = {}", ()),
        ("map<string, list<i32>> C = {'a': [1]}", frozenset({("a", (1,))})),
        ("P C = {'x': 1, 'n': WORD}", ("P", frozenset({("x", 1), ("n", "w")}))),
        ("U C = {'b': 'x'}", ("U", frozenset({("b", "x")}))),
        ("list<i32> C = ITEMS", (1,)),
    ],
)
def test_values_fit_their_types(check: Check, text: str, value: object) -> None:
    found = check(TYPES + "const " + text)
    assert found.codes == []
    assert freeze(found["C"].value) == value
    assert type(freeze(found["C"].value)) is type(value)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("bool C = 1.5", ["wrong-value"]),
        ("bool C = 2", ["odd-bool"]),
        ("i8 C = 128", ["int-range"]),
        ("i32 C = 4294967296", ["int-range"]),
        ("i32 C = '1'", ["wrong-value"]),
        ("i32 C = 1.0", ["wrong-value"]),
        ("i32 C = WORD", ["wrong-value"]),
        ("i8 C = TEN", []),
        ("double C = '1'", ["wrong-value"]),
        ("string C = 1", ["wrong-value"]),
        ("string C = true", ["wrong-value"]),
        ("string C = '\\xff'", ["not-utf8"]),
        ("uuid C = '00112233'", ["wrong-value"]),
        ("i32 C = NOPE", ["undefined-value"]),
        ("i32 C = TENN", ["undefined-value"]),
        ("E C = 7", ["not-a-member"]),
        ("E C = 'A'", ["wrong-value"]),
        ("E C = E.Z", ["undefined-value"]),
        ("E C = A", ["undefined-value"]),
        ("E C = F.B", ["wrong-value"]),
        ("E C = F.C", ["wrong-value"]),
        ("E C = F.A", ["loose-member"]),
        ("E C = Nothing.A", ["loose-member"]),
        ("string C = E.A", ["wrong-value"]),
        ("list<i32> C = 1", ["wrong-value"]),
        ("list<i32> C = [1, 'x', 'y']", ["wrong-value", "wrong-value"]),
        ("set<i32> C = [1, 1]", ["duplicate-value"]),
        ("map<i32, i32> C = []", ["wrong-value"]),
        ("map<i32, i32> C = {1: 1, 1: 2}", ["duplicate-value"]),
        ("P C = {x: 1}", ["field-name"]),
        ("P C = {'z': 1}", ["unknown-field"]),
        ("P C = {'x': 's'}", ["wrong-value"]),
        ("P C = {'x': 1, 'x': 2}", ["duplicate-value"]),
        ("R C = {'p': {}}", ["missing-field"]),
        ("R C = {'x': 1}", ["missing-field"]),
        ("U C = {'a': 1, 'b': 'x'}", ["union-value"]),
        ("U C = {}", ["union-value"]),
        ("list<string> C = ITEMS", ["wrong-value"]),
        ("i32 C = D\nconst i32 D = C", ["constant-circle"]),
        ("list<i32> C = [C]", ["wrong-value"]),
    ],
)
def test_what_does_not_fit(check: Check, text: str, codes: list[str]) -> None:
    found = check(TYPES + "const " + text)
    if "C = [C]" in text:
        assert found.codes == ["constant-circle"]
    else:
        assert found.codes == codes


def test_mistakes_have_places_and_hints(check: Check) -> None:
    (error,) = check("enum Color { RED }\nconst Color C = RED").errors
    assert (error.position.line, error.position.column) == (2, 17)
    assert error.hint == 'did you mean "Color.RED"?'
    (error,) = check("struct P { 1: i32 width }\nconst P C = {'widht': 1}").errors
    assert error.hint == 'did you mean "width"?'


def test_defaults_of_fields_and_arguments(check: Check) -> None:
    found = check("struct P { 1: i32 x }\nstruct S { 1: P p = {'x': 3} }\nservice V { void f(1: i32 a = 5) }")
    assert freeze(found["S"].fields[0].default) == ("P", frozenset({("x", 3)}))
    assert freeze(found["V"].functions[0].args[0].default) == 5


def test_a_reference_stays_a_reference(check: Check) -> None:
    found = check("const i32 B = A\nconst i32 A = 1")
    assert found["B"].value == model.Reference(found["A"])
    assert model.plain(found["B"].value) == model.Scalar(1)

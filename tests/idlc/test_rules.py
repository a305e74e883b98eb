"""`vt.*`: what is read, what is refused where it stands, and what the emitted code finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import weego
from codec.validation import ValidationError, violations
from idlc.emit_rules import RuleSet
from idlc.errors import Report

COMMON = """
enum Colour { RED = 1, BLUE = 2 }
struct Plain { 1: string text }
struct Inner { 1: string name (vt.min_size = "1") }
struct Holder { 1: Inner inner }
"""


class Given(dict[str, Any]):
    """All fields of the struct, where one is not enough."""


@pytest.fixture
def broken(emit: Callable[..., Any]) -> Callable[..., Any]:
    """A struct of one field with annotations: which rules are broken by each of the values."""

    def broken(field: str, *values: Any, struct: str = "") -> list[list[str]]:
        module = emit(f"{COMMON}\nstruct S {{ {field} }} {struct}").load("main.main")
        made = [module.S(**value) if isinstance(value, Given) else module.S(f=value(module) if callable(value) else value) for value in values]
        return [[f"{each.path} {each.rule}" for each in violations(value)] for value in made]

    return broken


OK: list[str] = []


@pytest.mark.parametrize(
    ("field", "good", "bad", "found"),
    [
        ('1: i32 f (vt.const = "5")', [5], [4], "f const"),
        ('1: i32 f (vt.lt = "5")', [4], [5, 6], "f lt"),
        ('1: i32 f (vt.le = "0x10")', [16], [17], "f le"),
        ('1: i64 f (vt.gt = "-1")', [0], [-1], "f gt"),
        ('1: double f (vt.ge = "1.5")', [1.5], [1.4, float("nan")], "f ge"),
        ('1: i32 f (vt.in = "1", vt.in = "2")', [1, 2], [3], "f in"),
        ('1: i32 f (vt.in = "[1, 2]")', [1, 2], [3], "f in"),
        ('1: i32 f (vt.not_in = "1")', [2], [1], "f not_in"),
        ('1: bool f (vt.const = "true")', [True], [False], "f const"),
        ('1: string f (vt.const = "a")', ["a"], ["b"], "f const"),
        ('1: string f (vt.in = "a", vt.in = "b c")', ["a", "b c"], ["c"], "f in"),
        ('1: string f (vt.min_size = "3")', ["abc", "é."], ["ab"], "f min_size"),
        ('1: string f (vt.max_size = "2")', ["é"], ["é."], "f max_size"),
        ('1: string f (vt.min_rune_size = "2")', ["é."], ["é"], "f min_rune_size"),
        ('1: string f (vt.max_rune_size = "1")', ["é"], ["é."], "f max_rune_size"),
        ('1: string f (vt.pattern = "b+")', ["abbc"], ["ac"], "f pattern"),
        ('1: string f (vt.prefix = "ab")', ["abc"], ["cab"], "f prefix"),
        ('1: string f (vt.suffix = "ab")', ["cab"], ["abc"], "f suffix"),
        ('1: string f (vt.contains = "{x}")', ["a{x}b"], ["ab"], "f contains"),
        ('1: string f (vt.not_contains = "x\\"")', ["ab"], ['ax"b'], "f not_contains"),
        ('1: binary f (vt.prefix = "ab", vt.max_size = "3")', [b"abc"], [b"xab"], "f prefix"),
        ('1: binary f (vt.pattern = "^\\x5cd+$")', [b"12"], [b"x"], "f pattern"),
        ('1: list<i32> f (vt.min_size = "1", vt.elem.gt = "0")', [[1]], [[1, 0]], "f[1] gt"),
        ('1: set<string> f (vt.max_size = "1", vt.elem.min_size = "1")', [{"a"}], [{""}], "f[0] min_size"),
        ('1: map<string, i32> f (vt.value.lt = "5")', [{"a": 4}], [{"a": 5}], "f['a'] lt"),
        ('1: map<string, i32> f (vt.key.min_size = "2")', [{"ab": 4}], [{"a": 5}], "f.key('a') min_size"),
        ('1: map<i32, list<list<i32>>> f (vt.value.elem.elem.gt = "0")', [{1: [[1]]}], [{1: [[1], [2, 0]]}], "f[1][1][1] gt"),
        ('1: map<i32, i32> f (vt.min_rune_size = "1")', [{1: 1}], [{}], "f min_rune_size"),
        ('1: Colour f (vt.defined_only = "true")', [lambda m: m.Colour.RED], [lambda m: m.Colour(7)], "f defined_only"),
        ('1: Colour f (vt.in = "Colour.RED")', [lambda m: m.Colour.RED], [lambda m: m.Colour.BLUE], "f in"),
        ('1: Colour f (vt.const = "main.Colour.RED")', [lambda m: m.Colour.RED], [lambda m: m.Colour.BLUE], "f const"),
        ('1: Colour f (vt.not_in = "[RED]")', [lambda m: m.Colour.BLUE], [lambda m: m.Colour.RED], "f not_in"),
        ("1: Inner f", [None, lambda m: m.Inner(name="a")], [lambda m: m.Inner()], "f.name min_size"),
        ("1: Holder f", [lambda m: m.Holder()], [lambda m: m.Holder(inner=m.Inner())], "f.inner.name min_size"),
        ('1: Inner f (vt.skip = "true")', [lambda m: m.Inner()], [], ""),
        ('1: Inner f (vt.not_nil = "true", vt.skip = "true")', [lambda m: m.Inner()], [None], "f not_nil"),
        ("1: list<Inner> f", [lambda m: [m.Inner()]], [], ""),
        ('1: list<Inner> f (vt.elem.skip = "false")', [lambda m: [m.Inner(name="a")]], [lambda m: [m.Inner()]], "f[0].name min_size"),
        ('1: map<string, Inner> f (vt.value.skip = "false")', [{}], [lambda m: {"k": m.Inner()}], "f['k'].name min_size"),
        ('1: optional i32 f (vt.gt = "0")', [None, 1], [0], "f gt"),
        ('1: optional i32 f (vt.not_nil = "true", vt.gt = "0")', [1], [None], "f not_nil"),
        ('1: optional string f (vt.not_nil = "false")', [None], [], ""),
    ],
)
def test_rules(broken: Callable[..., Any], field: str, good: list[Any], bad: list[Any], found: str) -> None:
    assert broken(field, *good) == [OK] * len(good)
    assert broken(field, *bad) == [[found]] * len(bad)


def test_other_fields_and_functions(broken: Callable[..., Any]) -> None:
    fields = '1: i32 a, 2: optional i32 b, 3: string s, 4: i32 f (vt.lt = "$a", vt.gt = "$b", vt.le = "@add(@len($s), 5)", vt.const = "@mod($a, 4)")'
    assert broken(fields, Given(a=6, b=1, s="é", f=2)) == [OK]
    assert broken(fields, Given(a=6, s="", f=2)) == [OK]  # b is not set: its rule asks nothing
    assert broken(fields, Given(a=3, b=9, s="", f=7)) == [["f lt", "f gt", "f le", "f const"]]
    text = '1: i32 a, 2: string f (vt.const = "@sprintf(\'%d-%v\', $a, $a)")'
    assert broken(text, Given(a=3, f="3-3"), Given(a=3, f="x")) == [OK, ["f const"]]
    assert broken('1: i64 f (vt.lt = "@now_unix_nano()")', 5, time.time_ns() + 10**12) == [OK, ["f lt"]]


def test_a_pattern_that_comes_with_the_data(broken: Callable[..., Any]) -> None:
    fields = '1: string p, 2: string f (vt.pattern = "$p")'
    assert broken(fields, Given(p="^a", f="ab"), Given(p="^b", f="ab"), Given(p="(", f="ab")) == [OK, ["f pattern"], ["f pattern"]]


def test_functions_of_ones_own(emit: Callable[..., Any]) -> None:
    made = emit('struct S { 1: i32 n, 2: string f (vt.max_size = "@twice($n)") }')
    assert made.warnings == ["vt-function"]
    value = made.load("main.main").S(n=1, f="abc")
    with pytest.raises(weego.UsageError, match=r"weego\.rule_function"):
        violations(value)
    weego.rule_function("twice", lambda number: number * 2)
    assert [each.rule for each in violations(value)] == ["max_size"]


def test_asserts(broken: Callable[..., Any]) -> None:
    rule = '(vt.assert = "@equal(@len($f), $n)")'
    # The annotation stands behind the struct's closing bracket.
    assert broken("1: string f, 2: i32 n", Given(f="ab", n=2), Given(f="ab", n=3), struct=rule) == [OK, [" assert"]]


def test_unions_exceptions_and_circles(emit: Callable[..., Any]) -> None:
    module = emit(
        'union U { 1: i32 a (vt.gt = "0"), 2: Node n } exception E { 1: string message (vt.min_size = "1") } '
        'struct Node { 1: optional Node next, 2: i32 v (vt.lt = "3") }'
    ).load("main.main")
    assert violations(module.U(a=0))[0].rule == "gt"
    node = module.Node(v=1, next=module.Node(v=2, next=module.Node(v=3)))
    assert [each.path for each in violations(module.U(n=node))] == ["n.next.next.v"]
    with pytest.raises(ValidationError):
        module.E().validate()


def test_rules_of_included_files(emit: Callable[..., Any]) -> None:
    made = emit("include 'base.thrift'\nstruct S { 1: base.B b }", base='struct B { 1: i32 a (vt.gt = "0") }')
    module = made.load("main.main")
    value = module.S(b=made.load("base.base").B())
    assert [str(each) for each in violations(value)] == ["b.a: must be greater than 0, got 0 (vt.gt)"]
    with pytest.raises(ValidationError, match=r"S breaks rules of its IDL: b\.a: must be greater than 0") as caught:
        value.validate()
    assert len(caught.value.violations) == 1


def test_a_struct_without_rules_is_always_valid(emit: Callable[..., Any]) -> None:
    module = emit("struct S { 1: i32 a } struct V { 1: i32 validate }").load("main.main")
    module.S().validate()
    value = module.V(validate=3)
    assert value.validate == 3
    value.validate_()


def test_emitted_rules_are_typed_and_clean(emit: Callable[..., Any]) -> None:
    text = emit(
        'struct S { 1: string len (vt.min_size = "1", vt.pattern = "a"), 2: list<string> each (vt.elem.min_size = "1"), '
        '3: i32 value (vt.lt = "$found"), 4: i32 found, 5: i32 at (vt.gt = "0") }'
    )
    module = text.load("main.main")
    assert len(violations(module.S(each=[""]))) == 5


@pytest.mark.parametrize(
    ("field", "message", "hint"),
    [
        ('1: i32 f (vt.greater = "1")', "vt.greater is no rule for i32", "it takes"),
        ('1: i32 f (vt.minsize = "1")', "vt.minsize is no rule for i32", None),
        ('1: string f (vt.min_sise = "1")', "vt.min_sise is no rule for string", 'did you mean "vt.min_size"?'),
        ('1: string f (vt.gt = "1")', "vt.gt is no rule for string", None),
        ('1: i32 f (vt.elem.gt = "1")', "vt.elem.gt is for a list or set, this is i32", None),
        ('1: i8 f (vt.lt = "300")', "vt.lt: 300 does not fit in i8", None),
        ('1: i32 f (vt.lt = "x")', 'vt.lt: "x" is no value of i32', None),
        ('1: i32 f (vt.lt = "$g")', 'S has no field "g"', None),
        ('1: i32 f (vt.lt = "$ff"), 2: i32 fff', 'S has no field "ff"', 'did you mean "$fff"?'),
        ('1: Colour f (vt.in = "Colour.REDD")', 'enum Colour has no member "Colour.REDD"', 'did you mean "Colour.RED"?'),
        ('1: string f (vt.pattern = "(")', "vt.pattern is no regular expression", None),
        ('1: string f (vt.min_size = "-1")', "vt.min_size cannot be negative", None),
        ('1: i32 f (vt.lt = "@add(1)")', "@add takes 2 arguments, here are 1", None),
        ('1: Inner f (vt.skip = "perhaps")', 'vt.skip cannot be "perhaps"', 'use "true" or "false"'),
        ('1: string f (vt.const = "@sprintf($f)")', "@sprintf begins with a quoted template", None),
    ],
)
def test_mistakes_are_errors_where_they_stand(check: Callable[..., Any], field: str, message: str, hint: str | None) -> None:
    found = check(f"{COMMON}struct S {{ {field} }}")
    assert found.errors == []
    report = Report()
    RuleSet(found.programs, report)
    (error,) = report.errors
    assert message in error.message
    assert (error.position.line, error.code) == (6, "vt")
    if hint is not None:
        assert hint in str(error.hint)


def test_a_struct_takes_assert_only(check: Callable[..., Any]) -> None:
    report = Report()
    RuleSet(check('struct S { 1: i32 a } (vt.gt = "0", vt.assert = "@equal($a, 1)")').programs, report)
    assert [error.message for error in report.errors] == ["a struct takes vt.assert only, not vt.gt"]

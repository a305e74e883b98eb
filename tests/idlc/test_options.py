"""Typed options (thriftgo's `use_option`): its own example, each type, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from idlc import model
from idlc.errors import Report
from idlc.options import OptionError, options
from idlc.resolver import resolve
from tests.idlc.test_corpus import corpus

DECLARED = """
enum Size { S = 1, XL = 7 }
struct Inner { 1: string email, 2: i32 n = 5 }
typedef Inner Alias
struct Info {
    1: i8 small, 2: i64 big, 3: double real, 4: binary raw, 5: bool on, 6: Size size, 7: Alias alias,
    8: map<string, Inner> by_name, 9: list<set<string>> lists, 10: string text = "x"
}
struct _StructOptions { 1: Info info, 2: string word, 3: list<i32> numbers, 4: Size size }
struct _FieldOptions { 1: bool hidden }
struct _EnumOptions { 1: string note }
struct _EnumValueOptions { 1: i32 weight }
struct _ServiceOptions { 1: string owner }
struct _MethodOptions { 1: map<string, i32> limits }
"""


def read(tmp_path: Path, text: str, declared: str = DECLARED) -> tuple[model.Program, Report]:
    (tmp_path / "opt.thrift").write_text(declared)
    (tmp_path / "main.thrift").write_text(f'include "opt.thrift"\n{text}')
    report = Report({})
    program = resolve([str(tmp_path / "main.thrift")], [], report)[-1]
    assert report.errors == []
    return program, report


def one(tmp_path: Path, annotations: str) -> dict[str, Any]:
    program, _ = read(tmp_path, f"struct P {{}} ({annotations})")
    thing: Any = program.symbols["P"]
    return options(program, thing)


def test_thriftgos_own_example() -> None:
    """The values are those that thriftgo's own tests want of this file (extension/thrift_option/option_test.go)."""
    path = corpus() / "cloudwego_thriftgo/extension/thrift_option/option_idl/test.thrift"
    report = Report({})
    program = resolve([str(path)], [], report)[-1]
    assert [each for each in report.warnings if each.code == "option"] == []
    symbols: Any = program.symbols
    person = options(program, symbols["Person"])
    assert person["entity.person_basic_info"] == {
        "valuei8": 8, "valuei16": 16, "valuei32": 32, "valuei64": 64, "valuestring": "example@email.com", "valuebyte": 1,
        "valuebinary": b"\x12", "valuedouble": 3.14159, "valuebool": True,
    }  # fmt: skip
    assert person["entity.person_struct_info"] == {
        "valuestruct": {"email": "empty email"},
        "valueteststruct": {"name": "lee", "innerStruct": {"email": "no email"}},
        "valueenum": "B",
        "valuestructtypedef": {"email": "empty email"},
        "valuebasictypedef": "hello there",
    }
    assert person["entity.person_container_info"] == {
        "valuemap": {"hey1": "value1"},
        "valuelist": ["list1", "list2"],
        "valueset": ["list3", "list4"],
        "valuelistset": [["a", "b", "c"], ["d", "e", "f"]],
        "valuelistsetstruct": [[{"email": "e1"}, {"email": "e2"}], [{"email": "e3"}, {"email": "e4"}]],
        "valuemapstruct": {"k1": {"email": "e1"}, "k2": {"email": "e2"}},
    }
    assert person["validation.person_string_info"] == "hello"
    assert person["validation.person_map_info"] == {"hey1": "value1"}
    assert person["validation.person_enum_info"] == "XXL"
    assert person["validation.person_basic_typedef_info"] == "hello there"
    assert person["validation.person_struct_typedef_info"] == {"name": "empty name"}
    assert person["validation.person_struct_default_value_info"]["v1"] == "v1 string"
    assert "aaa.bbb" not in person
    assert options(program, symbols["Person"].field("name")) == {"entity.person_field_info": "the name of this person"}
    # The same with commas, and field by field.
    second, third = options(program, symbols["PersonB"]), options(program, symbols["PersonC"])
    for name in ("entity.person_basic_info", "entity.person_struct_info", "entity.person_container_info"):
        assert second[name] == person[name]
    assert third["entity.person_basic_info"] == {"valuei8": 8, "valuei16": 16}
    assert third["entity.person_struct_info"]["valueteststruct"] == {"name": "lee", "innerStruct": {"email": "no email"}}
    enum = symbols["MyEnum"]
    assert options(program, enum) == {"validation.enum_info": {"name": "EnumInfoName", "number": 333}}
    assert options(program, enum.members[0]) == {"validation.enum_value_info": {"name": "EnumValueInfoName", "number": 222}}
    service = symbols["MyService"]
    assert options(program, service.functions[0]) == {"validation.method_info": {"name": "MethodInfoName", "number": 555}}


def test_thriftgos_own_mistakes() -> None:
    path = corpus() / "cloudwego_thriftgo/extension/thrift_option/option_idl/test_grammar_error.thrift"
    report = Report({})
    resolve([str(path)], [], report)
    found = {(each.position.line, each.message) for each in report.warnings if each.code == "option" and each.position}
    assert {message.partition(": ")[2].partition(":")[0] for _, message in found} == {
        "person_basic_info.valuei16", "person_struct_info", "expected key",
    }  # fmt: skip


def test_every_kind_of_thing(tmp_path: Path) -> None:
    program, report = read(
        tmp_path,
        """
        struct P { 1: i32 a (opt.hidden = "true") } (opt.word = "w")
        union U { 1: i32 a } (opt.word = "u")
        enum E { A (opt.weight = "3") } (opt.note = "n")
        service S { void m() (opt.limits = "{a: 1, b: 2}") } (opt.owner = "me")
        """,
    )
    s: Any = program.symbols
    things = [s["P"], s["P"].fields[0], s["U"], s["E"], s["E"].members[0], s["S"], s["S"].functions[0]]
    assert [options(program, each) for each in things] == [
        {"opt.word": "w"}, {"opt.hidden": True}, {"opt.word": "u"}, {"opt.note": "n"}, {"opt.weight": 3}, {"opt.owner": "me"}, {"opt.limits": {"a": 1, "b": 2}},
    ]  # fmt: skip
    assert report.warnings == []  # the include is used, by options alone


def test_values(tmp_path: Path) -> None:
    assert one(tmp_path, "opt.info = '{small: -8; big: 9, real: 1e3 raw: 00ff on: f size: XL alias: {email: \"a b\"}}'")["opt.info"] == {
        "small": -8, "big": 9, "real": 1000.0, "raw": b"\x00\xff", "on": False, "size": "XL", "alias": {"email": "a b", "n": 5}, "text": "x",
    }  # fmt: skip
    assert one(tmp_path, 'opt.numbers = "[1, 2 3]"') == {"opt.numbers": [1, 2, 3]}
    assert one(tmp_path, 'opt.size = "S"') == {"opt.size": "S"}
    assert one(tmp_path, 'opt.info.alias.email = "x", opt.info.small = "1"') == {"opt.info": {"small": 1, "alias": {"email": "x", "n": 5}, "text": "x"}}
    assert one(tmp_path, 'opt.nothing = "x", other.word = "y", word = "z", opt.hidden = "true"') == {}
    assert one(tmp_path, """opt.info = '{text: "a\\\\"b: {c}"}'""")["opt.info"]["text"] == 'a"b: {c}'


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("opt.info = '{smal: 1}'", "info: Info has no field 'smal'"),
        ("opt.info = '{small: 200}'", "info.small: 200 does not fit in i8"),
        ("opt.info = '{small: x}'", "info.small: 'x' is no i8"),
        ("opt.info = '{on: 2}'", "info.on: '2' is no bool"),
        ("opt.info = '{size: M}'", "info.size: Size has no member 'M'"),
        ("opt.info = '{raw: xyz}'", "info.raw: 'xyz' is no binary"),
        ("opt.info = '{alias: 1}'", "expected {…} for Inner, got '1'"),
        ("opt.info = '{small: [1]}'", "info.small: expected i8, got a list"),
        ("opt.info = '{small: 1'", "expected key: value or }, got the end"),
        ("opt.info = '{small 1}'", "expected key: value or }, got small"),
        ("opt.info = '{small: 1} 2'", "2 behind the end of the value"),
        ("opt.info = '{text: \"x}'", '" is not closed'),
        ("opt.info = '[1]'", "expected {…} for Info"),
        ("opt.numbers = '[1, x]'", r"numbers[1]: 'x' is no i32"),
        ("opt.numbers = '" + "[" * 60 + "'", "nested too deeply"),
        ("opt.numbers = ''", "expected a value, got the end"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, annotation: str, message: str) -> None:
    program, report = read(tmp_path, f"struct P {{}} ({annotation})")
    (warning,) = report.warnings
    assert warning.code == "option"
    assert message in warning.message
    assert warning.position is not None
    assert warning.position.line == 2
    thing: Any = program.symbols["P"]
    with pytest.raises(OptionError):
        options(program, thing)


# ---- unused includes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("struct A {}", True),
        ("struct A { 1: base.B b }", False),
        ("const base.E X = base.E.ONE", False),
        ("const i32 X = base.K", False),
        ("struct A { 1: i32 n = base.K }", False),
        ("service S extends base.S {}", False),
        ("service S { void x() throws (1: base.X x) }", False),
        ("typedef list<base.B> L", False),
        ("", False),
    ],
)
def test_includes_that_nobody_needs(tmp_path: Path, text: str, unused: bool) -> None:
    (tmp_path / "base.thrift").write_text("struct B {} enum E { ONE = 1 } const i32 K = 1 service S {} exception X {}")
    (tmp_path / "main.thrift").write_text(f'include "base.thrift"\n{text}')
    report = Report({})
    resolve([str(tmp_path / "main.thrift")], [], report)
    assert [each.code for each in report.warnings] == (["unused-include"] if unused else [])

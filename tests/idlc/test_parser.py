from __future__ import annotations

import pytest

from idlc import ast
from idlc.errors import Report, Source, TooManyErrors
from idlc.parser import MAX_NESTING, parse


def read(text: str) -> tuple[ast.Document, Report]:
    report = Report()
    return parse(Source("x.thrift", text), report), report


def good(text: str) -> ast.Document:
    document, report = read(text)
    assert [str(error) for error in report.errors] == []
    return document


def mistakes(text: str) -> list[str]:
    return [str(error).removeprefix("x.thrift:") for error in read(text)[1].errors]


def test_headers() -> None:
    document = good('include "a/b.thrift"\ncpp_include "<map>"\nnamespace py shop.orders\nnamespace * all (k = "v")')
    assert [include.path for include in document.includes] == ["a/b.thrift"]
    assert [(n.scope, n.name) for n in document.namespaces] == [("py", "shop.orders"), ("*", "all")]


def test_a_struct_and_its_places() -> None:
    document = good("struct S {\n  1: required list<i32> a = [1],\n  string b;\n  -3: optional map<string, X.Y> c\n}")
    (struct,) = document.definitions
    assert isinstance(struct, ast.Struct)
    assert [(f.id, f.name, f.requiredness) for f in struct.fields] == [
        (1, "a", "required"), (None, "b", "default"), (-3, "c", "optional"),
    ]  # fmt: skip
    assert (struct.fields[0].pos.file, struct.fields[0].pos.line, struct.fields[0].pos.column) == ("x.thrift", 2, 25)
    assert isinstance(struct.fields[0].default, ast.ListValue)
    assert struct.fields[0].id_pos.column == 3


def test_keywords_may_be_names() -> None:
    document = good(
        "struct S { 1: string list, 2: i32 required, 3: i32 struct, 4: i32 service }\nenum E { string, list }"
    )
    assert isinstance(document.definitions[0], ast.Struct)
    assert [each.name for each in document.definitions[0].fields] == ["list", "required", "struct", "service"]


def test_a_service() -> None:
    document = good(
        "service S extends b.Base {\n"
        "  oneway void a(1: i32 x) (deprecated),\n"
        "  i32 (k = 'v') f() throws (1: X x) (streaming.mode = 'unary');\n"
        "}"
    )
    (service,) = document.definitions
    assert isinstance(service, ast.Service)
    assert service.base is not None
    assert service.base.name == "b.Base"
    one, two = service.functions
    assert (one.oneway, one.result, one.annotations[0].value) == (True, None, "1")
    assert (two.oneway, two.throws[0].name, two.annotations[0].key) == (False, "x", "streaming.mode")


def test_annotations_everywhere() -> None:
    document = good(
        'typedef list<i32 (a = "1")> (b = "2") L (c = "3")\n'
        'const i32 C = 1 (k = "v");\n'
        'enum E { A = 1 (k = "v",), B () } (k = "v")\n'
        'union U { 1: i32 a (k = "v", flag) } (k = "v")\n'
        'service S { void f(1: i32 a (k = "v")) } (k = "v")'
    )
    typedef = document.definitions[0]
    assert isinstance(typedef, ast.Typedef)
    assert isinstance(typedef.type, ast.ListType)
    assert typedef.type.annotations[0].key == "b"
    assert typedef.type.elem.annotations[0].key == "a"
    assert all(definition.annotations for definition in document.definitions)


def test_what_only_one_compiler_reads() -> None:
    document, report = read(
        "namespace py a;\nstruct S xsd_all { 1: S & next xsd_optional xsd_attrs { 1: i32 z } };\n"
        'senum Old { "a", "b" }\nservice V { async void f() }\ntypedef slist T,\n'
        "struct L { 1: list cpp_type 'x' <i32> l, 2: list<i32> cpp_type 'x' m }"
    )
    assert not report.errors
    assert [warning.code for warning in report.warnings] == ["stray-separator", "stray-separator", "cpp-type"]
    assert isinstance(document.definitions[1], ast.Typedef)


def test_values() -> None:
    const = good("const map<string, list<double>> C = {'a': [1, .5; x.Y 'z',], 'b': {}}").definitions[0]
    assert isinstance(const, ast.Const)
    assert isinstance(const.value, ast.MapValue)
    (_, items), (_, empty) = const.value.pairs
    assert isinstance(items, ast.ListValue)
    assert [type(item) for item in items.items] == [ast.IntValue, ast.DoubleValue, ast.NameValue, ast.StringValue]
    assert isinstance(empty, ast.MapValue)


@pytest.mark.parametrize(("dialect", "value"), [("kitex", 15), ("apache", 17)])
def test_a_leading_zero_is_read_as_the_dialect_says(dialect: str, value: int) -> None:
    report = Report()
    document = parse(Source("x", "const i32 A = 017"), report, dialect)  # type: ignore[arg-type]
    assert document.definitions[0].value.value == value  # type: ignore[union-attr]
    assert "15 to Kitex (octal) and 17 to Apache" in report.warnings[0].message


# Comments


def test_comments_become_docs() -> None:
    document = good(
        "/* Licensed to somebody. Copyright. */\n\n"
        "/** The file. */\n\n"
        "namespace py a\n"
        "// One\n// struct.\n"
        "struct S {\n"
        "  1: i32 a  // behind a\n"
        "  /** before b */\n"
        "  2: i32 b, // not this one\n"
        "  # hash\n"
        "  3: i32 c\n"
        "  4: i32 d /* about d */ }\n"
        "// far away\n\n"
        "enum E {\n  A, //< about A\n  B\n}\n"
        "/**\n * Several\n *   lines.\n */\n"
        "service V {\n  // does f\n  void f(/* an x */ 1: i32 x)\n}"
    )
    assert document.doc == "The file."
    struct, enum, service = document.definitions
    assert isinstance(struct, ast.Struct)
    assert struct.doc == "One\nstruct."
    assert [each.doc for each in struct.fields] == ["behind a", "before b", "hash", "about d"]
    assert isinstance(enum, ast.Enum)
    assert enum.doc == ""
    assert [each.doc for each in enum.members] == ["about A", ""]
    assert isinstance(service, ast.Service)
    assert service.doc == "Several\n  lines."
    assert service.functions[0].doc == "does f"
    assert service.functions[0].args[0].doc == "an x"


def test_the_comment_of_the_first_definition_is_not_the_files() -> None:
    document = good("// About the file.\n\n// About S.\nstruct S {}")
    assert document.doc == "About the file."
    assert document.definitions[0].doc == "About S."


def test_a_licence_is_no_doc() -> None:
    document = good("// Licensed under some licence.\nstruct S {}")
    assert document.doc == ""
    assert document.definitions[0].doc == ""


# Mistakes


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("struct S { 1: i32 a,, 2: i32 b }", "1:21: error: expected a type"),
        ("struct S { 1: i32 a", '1:20: error: expected "}" that ends struct S, found the end'),
        ("struct S {\n  1: i32 a\n\nstruct T {}", '4:1: error: expected "}" that ends struct S'),
        ("struct S { 1: list<i32 a }", '1:24: error: expected ">"'),
        ("struct S { 1: void a }", "1:15: error: expected a type"),
        ("struct a.b {}", "1:8: error: the name of the struct cannot contain a dot"),
        ("struct S {}\nnamespace py a", '2:1: error: "namespace" after the first definition'),
        ("service S { void f }", '1:20: error: expected "("'),
        ("interface S {}", "1:1: error: expected a definition"),
        ("cpp_namespace a.b", "1:1: error: expected a definition"),
        ("enum E { A = 'x' }", "1:14: error: expected an integer"),
        ("const i64 A = 9223372036854775808", "1:15: error: 9223372036854775808 does not fit"),
        ("const i32 A =", "1:14: error: expected a value"),
        ("@Foo{a = 1}\nstruct S {}", "1:1: error: expected a definition"),
        ("namespace py a-b", '1:15: error: unexpected character "-"'),
        ("struct S { 1: i32 a (k = 5) }", "1:26: error: expected a string"),
    ],
)
def test_a_mistake_and_its_place(text: str, place: str) -> None:
    assert mistakes(text)[0].startswith(place)


def test_several_mistakes_in_one_run() -> None:
    found = mistakes(
        "struct S {\n  1: i32\n  2: string ok\n  3: list<> b\n  4: i32 c\n}\n"
        "nonsense here\n"
        "service V {\n  void f(1: i32)\n  void g()\n  i32 (\n  void h()\n}\n"
        "enum E { 5 }\n"
    )
    assert [place.split(": ")[0] for place in found] == ["3:3", "4:11", "7:1", "9:16", "12:9", "14:10"]


def test_definitions_after_a_mistake_are_read() -> None:
    document, report = read("struct S { ! }\n\nstruct T { 1: i32 a }\nconst i32 X == 3\nenum E { A }")
    assert report.errors
    assert [each.name for each in document.definitions if not isinstance(each, ast.Service)][-2:] == ["T", "E"]


def test_nesting_has_a_bound() -> None:
    depth = MAX_NESTING + 5
    assert "nested more than" in mistakes("typedef " + "list<" * depth + "i32" + ">" * depth + " T")[0]
    assert "nested more than" in mistakes("const i32 A = " + "[" * 10000)[0]


def test_garbage_ends() -> None:
    report = Report()
    with pytest.raises(TooManyErrors):
        parse(Source("x", "} ] )\nstruct { ( [\nenum 5 = , ; \n" * 50), report)

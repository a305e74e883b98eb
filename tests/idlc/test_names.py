from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from idlc import model
from idlc.errors import Report
from idlc.names import Names, identifier, pep8

Check = Callable[..., Any]


@pytest.mark.parametrize(
    ("idl", "python"),
    [
        ("echo", "echo"),
        ("getItem", "get_item"),
        ("GetItem", "get_item"),
        ("get_item", "get_item"),
        ("getHTTPPage", "get_http_page"),
        ("HTTPGet", "http_get"),
        ("testI32", "test_i32"),
        ("Get_Item", "get_item"),
        ("PING", "ping"),
        ("_private", "_private"),
        ("A", "a"),
        ("echo2String", "echo2_string"),
    ],
)
def test_pep8(idl: str, python: str) -> None:
    assert pep8(idl) == python


@pytest.mark.parametrize(
    ("stem", "module"),
    [("echo", "echo"), ("foo.bar", "foo_bar"), ("my-idl", "my_idl"), ("2nd", "_2nd"), ("class", "class_")],
)
def test_modules(stem: str, module: str) -> None:
    assert identifier(stem) == module


def named(check: Check, text: str, style: Any = "pep8") -> tuple[Any, Names, Report]:
    found = check(text)
    assert found.errors == []
    report = Report()
    return found, Names(report, style), report


def test_keywords_get_an_underscore_and_give_way(check: Check) -> None:
    found, names, report = named(
        check, "struct S { 1: i32 class, 2: i32 class_, 3: i32 ok, 4: i32 __mangled, 5: i32 __init__ }"
    )
    table = names.fields(found["S"])
    assert table == {
        "class": "class__",
        "class_": "class_",
        "ok": "ok",
        "__mangled": "__mangled___",
        "__init__": "__init___",
    }
    assert [warning.code for warning in report.warnings] == ["renamed"] * 3
    names.fields(found["S"])
    assert len(report.warnings) == 3  # said once


def test_what_python_keeps_for_enums_and_exceptions(check: Check) -> None:
    found, names, _ = named(
        check,
        "enum E { None, name, mro, real, _sunder_, ok }\nexception X { 1: i32 args, 2: i32 message }\nstruct S { 1: i32 args }",
    )
    assert [names.member(found["E"], member) for member in found["E"].members] == [
        "None_", "name_", "mro_", "real_", "_sunder__", "ok",
    ]  # fmt: skip
    assert names.fields(found["X"]) == {"args": "args_", "message": "message"}
    assert names.fields(found["S"]) == {"args": "args"}


def test_methods(check: Check) -> None:
    text = "service A { void getId(), void Import(), void _hidden() }\nservice B extends A { void get_id(), void putAll(), void PutAll() }"
    found, names, report = named(check, text)
    assert names.methods(found["A"]) == {"getId": "get_id", "Import": "import_", "_hidden": "_hidden_"}
    assert names.methods(found["B"]) == {
        "getId": "get_id", "Import": "import_", "_hidden": "_hidden_",
        "get_id": "get_id_", "putAll": "putAll", "PutAll": "PutAll",
    }  # fmt: skip
    assert sorted(warning.code for warning in report.warnings) == ["method-names"] * 3 + ["renamed"] * 2


def test_the_idls_own_method_names(check: Check) -> None:
    found, names, report = named(check, "service A { void getId(), void get_id(), void del() }", "idl")
    assert names.methods(found["A"]) == {"getId": "getId", "get_id": "get_id", "del": "del_"}
    assert [warning.code for warning in report.warnings] == ["renamed"]


def test_tops_and_clients(check: Check) -> None:
    found, names, _ = named(check, "struct None {}\nstruct EchoClient {}\nservice Echo {}")
    assert names.top(found["None"]) == "None_"
    assert names.client(found["Echo"]) == "EchoClient_"
    assert isinstance(found["Echo"], model.Service)

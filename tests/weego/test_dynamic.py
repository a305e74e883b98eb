"""IDL loaded at run time, and its values as JSON: every type there and back, and what each mistake is told."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from codec.structs import FrozenMap
from codec.types import (
    BINARY,
    BOOL,
    BYTE,
    DOUBLE,
    I16,
    I32,
    I64,
    STRING,
    UUID,
    EnumType,
    List,
    Map,
    Set,
    StructType,
    Type,
)
from idlc import IdlError
from weego.dynamic import JsonError, arguments, from_json, load, services, to_json

BASE = """
namespace py shared.base
enum Level { NONE = 0, LOW = 1, HIGH = 2, class = 3 }
struct Info { 1: string from, 2: optional i64 user }
service Root { Info whoAmI(1: i64 id, 2: i32 n = 3, 3: optional Info hint, 4: list<i32> many = [1, 2]) }
"""
SHOP = """
include "base.thrift"
union Key { 1: i64 id, 2: string name }
exception NotFound { 1: string message, 2: binary blob }
struct Item { 1: required string name, 2: base.Level level, 3: optional Item next, 4: list<Key> keys }
service Shop extends base.Root { Item getItem(1: Key key) throws (1: NotFound nf) }
"""


@pytest.fixture(scope="module")
def shop() -> ModuleType:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "inc").mkdir()
        Path(folder, "inc/base.thrift").write_text(BASE)
        Path(folder, "shop.thrift").write_text(SHOP)
        return load(Path(folder, "shop.thrift"), [Path(folder, "inc")])


def there_and_back(type: Type, plain: Any) -> Any:
    value = from_json(type, json.loads(json.dumps(plain)))
    assert to_json(type, value) == plain
    json.dumps(to_json(type, value), allow_nan=False)
    return value


# ---- loading ---------------------------------------------------------------------------------------------------------


def test_the_module_is_that_of_the_file_and_stays_usable(shop: ModuleType) -> None:
    assert shop.Item(name="tea").name == "tea"
    assert list(services(shop)) == ["Shop"]
    assert list(services(shop)["Shop"].methods) == ["whoAmI", "getItem"]


def test_nothing_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idl = tmp_path / "a.thrift"
    idl.write_text("struct A { 1: i32 n }")
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    load(idl)
    assert os.listdir(scratch) == []
    assert sorted(os.listdir(tmp_path)) == ["a.thrift", "tmp"]
    assert not [name for name in sys.path_importer_cache if name.startswith(str(scratch))]


def test_each_load_is_of_its_own(tmp_path: Path) -> None:
    idl = tmp_path / "a.thrift"
    idl.write_text("struct A { 1: i32 n }")
    first = load(idl)
    idl.write_text("struct A { 1: i32 n, 2: i32 m }")
    second = load(idl)
    assert first.A is not second.A
    assert (first.A.__plan__.names, second.A.__plan__.names) == (("n",), ("n", "m"))


def test_packages_that_need_each_other_are_loaded_whole(tmp_path: Path) -> None:
    (tmp_path / "a.thrift").write_text('namespace py x\ninclude "b.thrift"\nstruct A { 1: b.B b }')
    (tmp_path / "b.thrift").write_text('namespace py y\ninclude "c.thrift"\nstruct B { 1: c.C c }')
    (tmp_path / "c.thrift").write_text("namespace py x\nstruct C { 1: i32 n }")
    module = load(tmp_path / "a.thrift")
    value = there_and_back(StructType(module.A), {"b": {"c": {"n": 1}}})
    assert sys.modules[module.__name__.rpartition(".")[0]].C is type(value.b.c)


def test_mistakes_in_the_idl(tmp_path: Path) -> None:
    (tmp_path / "a.thrift").write_text("struct A { 1: Nope n }")
    before = set(sys.modules)
    with pytest.raises(IdlError, match="Nope"):
        load(tmp_path / "a.thrift")
    assert not {name for name in set(sys.modules) - before if name.startswith("weego_dynamic")}


# ---- every type ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "plain", "value"),
    [
        (BOOL, True, True),
        (BYTE, -128, -128),
        (I16, 32767, 32767),
        (I32, -(2**31), -(2**31)),
        (I64, 2**63 - 1, 2**63 - 1),
        (DOUBLE, 1.5, 1.5),
        (DOUBLE, "-Infinity", -math.inf),
        (STRING, "grüß", "grüß"),
        (BINARY, "AP8=", b"\x00\xff"),
        (UUID, "00112233-4455-6677-8899-aabbccddeeff", uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")),
        (List(I32), [1, 2], [1, 2]),
        (Set(I32), [1, 2], {1, 2}),
        (Map(STRING, I32), {"a": 1}, {"a": 1}),
        (Map(I32, STRING), [[1, "a"], [2, "b"]], {1: "a", 2: "b"}),
        (Map(BINARY, BOOL), [["AA==", False]], {b"\x00": False}),
        (Set(List(I32)), [[1], [2]], {(1,), (2,)}),
        (Map(Set(I32), List(I32)), [[[1], [2]]], {frozenset({1}): [2]}),
        (Set(Map(STRING, I32)), [{"a": 1}], {FrozenMap({"a": 1})}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_there_and_back(type: Type, plain: Any, value: Any) -> None:
    assert there_and_back(type, plain) == value


def test_not_a_number() -> None:
    assert math.isnan(from_json(DOUBLE, "NaN"))
    assert to_json(DOUBLE, math.nan) == "NaN"


def test_text_maps_may_be_pairs() -> None:
    assert from_json(Map(STRING, I32), [["a", 1]]) == {"a": 1}


def test_structs_enums_and_unions(shop: ModuleType) -> None:
    plain = {"name": "tea", "level": "HIGH", "next": {"name": "cup", "level": "NONE", "keys": []}, "keys": [{"id": 7}, {"name": "x"}]}
    item = there_and_back(StructType(shop.Item), plain)
    assert item == shop.Item(
        name="tea", level=item.level, next=shop.Item(name="cup"), keys=[shop.Key(id=7), shop.Key(name="x")]
    )
    assert item.level == 2


def test_names_that_python_keeps_are_written_as_in_the_idl(shop: ModuleType) -> None:
    info = services(shop)["Shop"].methods["whoAmI"].result
    assert info is not None
    assert there_and_back(info, {"from": "here", "user": 5}).from_ == "here"


def test_enums_by_number(shop: ModuleType) -> None:
    level = next(field.type for field in shop.Item.__plan__.fields if field.name == "level")
    assert isinstance(level, EnumType)
    assert to_json(level, from_json(level, 2)) == "HIGH"
    assert from_json(level, "NONE") == 0
    assert from_json(level, "class") == 3
    assert there_and_back(level, 77) == 77


def test_exceptions(shop: ModuleType) -> None:
    assert there_and_back(StructType(shop.NotFound), {"message": "no", "blob": ""}) == shop.NotFound(message="no")


def test_void() -> None:
    assert to_json(None, None) is None


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_arguments_by_name(shop: ModuleType) -> None:
    spec = services(shop)["Shop"].methods["whoAmI"]
    assert arguments(spec, {"id": 1}) == (1, 3, None, [1, 2])
    assert arguments(spec, {"n": 4, "id": 1, "hint": {"from": "x"}})[:2] == (1, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, 'argument "id" (i64) is missing'),
        ({"id": None}, 'argument "id" (i64) is missing'),
        ({"idd": 1}, 'the arguments of whoAmI: no argument "idd"; did you mean "id"?'),
        ({"id": 1, "hint": {"form": "x"}}, 'hint: Info: no field "form"; did you mean "from"?'),
        ([1], "expected an object for the arguments of whoAmI, got an array"),
    ],
)
def test_arguments_that_do_not_fit(shop: ModuleType, given: object, message: str) -> None:
    with pytest.raises(JsonError, match=f"^{re.escape(message)}$"):
        arguments(services(shop)["Shop"].methods["whoAmI"], given)


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "value", "message"),
    [
        (I32, 2**31, "2147483648 does not fit in i32"),
        (I32, True, "expected an integer for i32, got true"),
        (I32, 1.0, "expected an integer for i32, got 1.0"),
        (BOOL, 1, "expected true or false for bool, got 1"),
        (DOUBLE, 10**400, "does not fit in double"),
        (DOUBLE, "1", "expected a number for double, got '1'"),
        (STRING, None, "expected a string for string, got null"),
        (BINARY, "AP8", "expected base64 text for binary, got 'AP8'"),
        (UUID, "1-2", "expected the text of a UUID for uuid, got '1-2'"),
        (List(I32), [1, "2"], "[1]: expected an integer for i32, got '2'"),
        (Set(I32), {}, "expected an array for set<i32>, got an object"),
        (Map(I32, I32), {"x": 2}, "[x]: expected an integer for i32, got 'x'"),
        (Map(BOOL, I32), {"true": 2}, "expected an array of [key, value] pairs for map<bool,i32>, got an object"),
        (Map(STRING, I32), {"a": "x"}, "[a]: expected an integer"),
        (Map(I32, I32), [[1, 2], [3]], "expected an array of [key, value] pairs"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_that_do_not_fit(type: Type, value: object, message: str) -> None:
    with pytest.raises(JsonError, match=re.escape(message)):
        from_json(type, value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, 'v: required field "name" of Item is missing'),
        ({"name": "x", "level": "HIHG"}, 'v.level: Level has no member "HIHG"; did you mean "HIGH"?'),
        ({"name": "x", "level": 2**31}, "v.level: 2147483648 does not fit in an enum"),
        ({"name": "x", "level": []}, "v.level: expected a name or number of Level, got an array"),
        ({"name": "x", "keys": [{}]}, "v.keys[0]: Key is a union and takes exactly one member, got none"),
        ({"name": "x", "keys": [{"id": 1, "name": "y"}]}, "takes exactly one member, got id and name"),
        ({"name": "x", "keys": [{"ide": 1}]}, 'v.keys[0]: Key: no member "ide"; did you mean "id"?'),
        ({"name": "x", "next": 5}, "v.next: expected an object for Item, got 5"),
    ],
)
def test_structs_that_do_not_fit(shop: ModuleType, value: object, message: str) -> None:
    with pytest.raises(JsonError, match=re.escape(message)) as caught:
        from_json(StructType(shop.Item), value, "v")
    assert caught.value.path.startswith("v")


def test_too_deep(shop: ModuleType) -> None:
    value: dict[str, Any] = {"name": "end"}
    for _ in range(5000):
        value = {"name": "x", "next": value}
    with pytest.raises(JsonError, match="nested too deeply"):
        from_json(StructType(shop.Item), value)

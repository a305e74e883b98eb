from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codec.validation import ValidationError
from idlc.errors import IdlError

Emit = Callable[..., Any]


def test_defaults(emit: Emit, data: Path) -> None:
    made = emit([data / "values.thrift"])
    values, shared = made.load("values"), made.load("shop.shared")
    found = values.Defaults(must="m")
    expected = {
        "number": 12, "tags": ["a", "b"], "spot": values.Point(x=1), "given": values.Point(x=9, label="nine"),
        "status": shared.Status.FAILED, "maybe": None, "count": 3, "numbers": [1], "pairs": {(1, 2), (3, 4)},
        "must": "m", "with_default": 4, "base": None, "id": values.ID, "zero": shared.Status.OK, "none": [],
        "empty": {}, "nowhere": None, "typed": {1, 2}, "sets": set(),
    }  # fmt: skip
    assert {name: getattr(found, name) for name in expected} == expected
    with pytest.raises(TypeError, match="must"):
        values.Defaults()


def test_nothing_is_shared_between_instances(emit: Emit, data: Path) -> None:
    values = emit([data / "values.thrift"]).load("values")
    one, two = values.Defaults(must=""), values.Defaults(must="")
    for name in ("tags", "spot", "given", "numbers", "pairs", "none", "empty", "typed", "sets"):
        assert getattr(one, name) is not getattr(two, name), name
    one.tags.append("x")
    one.spot.x = 100
    assert values.Defaults(must="").tags == ["a", "b"]
    assert values.HERE.x == 1


def test_wire_round_trip(emit: Emit, data: Path) -> None:
    values = emit([data / "values.thrift"]).load("values")
    plan = values.Defaults.__plan__
    found = values.Defaults(must="m", nowhere=values.Point(x=3), sets={frozenset({1})}, count=8)
    assert plan.loads(plan.dumps(found)) == found
    tree = values.Tree(
        name="a", children=[values.Tree(name="b")], by_name={"c": values.Tree()}, parent=values.Tree(name="p")
    )
    assert values.Tree.__plan__.loads(values.Tree.__plan__.dumps(tree)) == tree


def test_absent_fields_get_their_defaults(emit: Emit) -> None:
    made = emit(
        "enum E { A = 4 }\nstruct Old { 1: optional i32 a }\n"
        "struct New { 1: optional i32 a, 2: i32 b = 7, 3: list<i32> c = [1], 4: optional string d, 5: optional i32 e = 9,"
        " 6: string f, 7: E g, 8: E h = E.A }"
    ).load("main")
    found = made.New.__plan__.loads(made.Old.__plan__.dumps(made.Old()))
    assert found == made.New()
    assert (found.b, found.c, found.d, found.e, found.f, int(found.g), found.h) == (7, [1], None, 9, "", 0, made.E.A)


def test_names_that_collide(emit: Emit, data: Path) -> None:
    made = emit([data / "collisions.thrift"])
    names, shared = made.load("shop.collisions"), made.load("shop.shared")
    found = names.Shadows(Base=shared.Base(id="1"), self="me", class_=2, class__=1, copy="c")
    assert (found.own, found.list, found.int, found.bool, found.stub) == (names.Base(own=2), ["x"], 7, True, 20)
    assert names.Shadows.__plan__.loads(names.Shadows.__plan__.dumps(found)) == found
    assert copy.copy(found) == found
    assert found.copy_(str="s").str == "s"
    assert pickle.loads(pickle.dumps(found)) == found
    assert {field.wire_name for field in names.Shadows.__plan__.fields if field.wire_name} == {"class", "__private"}


def test_unions(emit: Emit, data: Path) -> None:
    names = emit([data / "collisions.thrift"]).load("shop.collisions")
    found = names.Choice(which="text")
    assert (found.which_, found.value_, found.which, found.value) == ("which", "text", "text", None)
    found.value = 3
    assert (found.which_, found.value_, found.which) == ("value", 3, None)
    assert names.Choice.__plan__.loads(names.Choice.__plan__.dumps(found)) == found
    with pytest.raises(ValueError, match="exactly one"):
        names.Choice(value=1, which="x")
    match found:
        case names.Choice(value=int(number)):
            assert number == 3
        case _:
            pytest.fail("the pattern should match")


def test_union_members_start_unset(emit: Emit) -> None:
    main = emit("union U { 1: i32 a = 1, 2: list<i32> b }").load("main")
    assert (main.U(b=[]).a, main.U(b=[]).b) == (None, [])


def test_exceptions(emit: Emit, data: Path) -> None:
    made = emit([data / "collisions.thrift"])
    broken = made.load("shop.collisions").Broken
    refused = made.load("shop.shared").Refused
    with pytest.raises(broken) as raised:
        raise broken(args_="why")
    assert (raised.value.args_, raised.value.args) == ("why", ())
    assert "too late" in str(refused(message="too late"))
    assert isinstance(refused(), Exception)
    assert refused() == refused()


def test_recursion_and_empty_structs(emit: Emit) -> None:
    main = emit("struct A { 1: B b }\nstruct B { 1: list<A> a }\nstruct E {}\nexception X {}").load("main")
    found = main.A(b=main.B(a=[main.A()]))
    assert main.A.__plan__.loads(main.A.__plan__.dumps(found)) == found
    assert main.E() == main.E()
    assert str(main.X()) == ""


def test_docs(emit: Emit) -> None:
    made = emit('/** About S: "x". */\nstruct S {\n  1: i32 a // about a\n}')
    assert made.load("main").S.__doc__ == 'About S: "x".'
    assert '    a: int\n    """about a"""\n' in made.text("main/main.py")


def test_unknown_fields_are_kept_where_the_idl_asks_for_it(emit: Emit, tmp_path: Path) -> None:
    """A service that is older than both its neighbours passes on what it does not know."""
    idl = tmp_path / "passed.thrift"
    idl.write_text(
        "namespace py passed\n"
        'struct Old { 1: string name } (py.keep_unknown = "true")\n'
        "struct Plain { 1: string name }\n"
        "struct New { 1: string name, 2: list<i32> numbers }\n"
    )
    passed = emit([idl]).load("passed")
    sent = passed.New(name="a", numbers=[1, 2])
    for cls, wanted in ((passed.Old, sent), (passed.Plain, passed.New(name="a"))):
        for compact in (False, True):
            held = cls.__plan__.loads(passed.New.__plan__.dumps(sent, compact), compact)
            assert held.name == "a"
            assert passed.New.__plan__.loads(cls.__plan__.dumps(held, compact), compact) == wanted
            assert pickle.loads(pickle.dumps(held)) == copy.copy(held) == held


VIEWS = """
namespace py views
typedef binary Bytes
struct Part { 1: binary data (py.view = "true", vt.min_size = "2", vt.prefix = "ab"), 2: optional Bytes more (py.view = "true"), 3: binary plain (py.view = "false") }
service Store { binary get(1: binary key (py.view = "1")) (py.view = "true") }
"""


def test_binaries_are_views_where_the_idl_asks_for_it(emit: Emit, tmp_path: Path) -> None:
    idl = tmp_path / "views.thrift"
    idl.write_text(VIEWS)
    made = emit([idl])
    views = made.load("views")
    text = made.text("views/views.py")
    assert "    data: bytes | memoryview\n" in text
    assert "    more: bytes | memoryview | None\n" in text
    assert "    plain: bytes\n" in text
    assert "def get(self, key: bytes | memoryview) -> bytes | memoryview:" in text
    part = views.Part.__plan__.loads(views.Part.__plan__.dumps(views.Part(data=b"abc", more=b"m", plain=b"p")))
    assert [type(value) for value in (part.data, part.more, part.plain)] == [memoryview, memoryview, bytes]
    assert part == views.Part(data=memoryview(b"abc"), more=b"m", plain=b"p")
    part.validate()
    part.data = memoryview(b"b")
    with pytest.raises(ValidationError) as found:
        part.validate()
    assert [violation.rule for violation in found.value.violations] == ["min_size", "prefix"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('struct S { 1: string a (py.view = "true") }', "py.view is for binary, not for string"),
        ('struct S { 1: list<binary> a (py.view = "true") }', "py.view is for binary, not for list<binary>"),
        ('service S { void f() (py.view = "true") }', "py.view is for binary, not for void"),
        ('struct S { 1: binary a (py.view = "yes") }', 'py.view cannot be "yes"'),
    ],
)
def test_what_cannot_be_a_view(emit: Emit, text: str, message: str) -> None:
    with pytest.raises(IdlError, match=re.escape(message)):
        emit(text)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from idlc.errors import Report
from idlc.packages import Place, assign, circular


def placed(
    check: Callable[..., Any], text: str, **others: str
) -> tuple[dict[str, str], set[tuple[str, ...]], list[str]]:
    report = Report()
    places = assign(check(text, **others).programs, report)
    return (
        {program.stem: str(place) for program, place in places.items()},
        circular(places),
        [w.code for w in report.warnings],
    )


def test_namespaces_and_stems(check: Callable[..., Any]) -> None:
    places, _, _ = placed(
        check, 'include "a.thrift"\ninclude "b-c.thrift"\nnamespace * x.y', a="namespace py shop.lambda", **{"b-c": ""}
    )
    assert places == {"main": "main.main", "a": "shop.lambda_.a", "b-c": "b_c.b_c"}


def test_a_module_gives_way_to_a_package_of_its_name(check: Callable[..., Any]) -> None:
    places, _, _ = placed(check, 'include "b.thrift"\nnamespace py a.b', b="namespace py a")
    assert places == {"main": "a.b.main", "b": "a.b_"}


def test_two_files_that_want_one_module(check: Callable[..., Any], tmp_path: Any) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "main.thrift").write_text("")
    places, _, warnings = placed(check, 'include "sub/main.thrift"')
    assert places == {"main": "main.main_2"}  # two files, one stem
    assert warnings == ["same-module"]


def test_relative_imports() -> None:
    echo = Place(("echo",), "echo")
    assert Place(("base",), "base").seen_from(echo) == "..base.base"
    assert Place(("echo",), "other").seen_from(echo) == ".other"
    assert Place(("a", "b", "c"), "x").seen_from(Place(("a", "d"), "y")) == "..b.c.x"
    assert Place(("a",), "x").seen_from(Place(("a", "b"), "y")) == "..x"


def test_packages_in_a_circle(check: Callable[..., Any]) -> None:
    _, circle, _ = placed(
        check, 'include "b.thrift"\nnamespace py one', b='include "c.thrift"\nnamespace py two', c="namespace py one"
    )
    assert circle == {("one",), ("two",)}
    _, circle, _ = placed(check, 'include "b.thrift"\nnamespace py one', b="namespace py two")
    assert circle == set()
    _, circle, _ = placed(check, 'include "b.thrift"\nnamespace py one', b="namespace py one.inner")
    assert circle == {("one",), ("one", "inner")}

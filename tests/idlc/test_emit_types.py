"""Types and values, seen in emitted modules."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weego import stub


def test_constants_of_every_shape(emit: Callable[..., Any], data: Path) -> None:
    made = emit([data / "values.thrift"])
    values = made.load("values")
    shared = made.load("shop.shared")
    assert (values.START, values.END, values.THIRD, values.YES) == (12, 12, 3.0, True)
    assert type(values.THIRD) is float
    assert values.Point(x=1) == values.HERE
    assert [values.Point(x=1), values.Point(x=2, y=3)] == values.PATH
    assert {(1, 2), (3, 4)} == values.PAIRS
    assert {stub.FrozenMap({"a": 1}): {1, 2}} == values.MAPS
    assert {frozenset({1, 2}): "x"} == values.BY_SET
    assert values.RAW == b"\xff\x00a"
    assert values.QUOTED == 'say "hi" \\ \n'
    assert uuid.UUID("00112233-4455-6677-8899-aabbccddeeff") == values.ID
    assert values.STATUS is shared.Status.FAILED
    assert values.COPIED == ["a", "b"]
    assert {values.Point(x=1), values.Point(x=2)} == values.SPOTS


def test_annotations(emit: Callable[..., Any]) -> None:
    text = emit(
        "typedef list<string> Names\nenum E { A }\n"
        "struct S { 1: map<set<i32>, list<map<list<E>, bool>>> a, 2: set<Names> b, 3: Names c, 4: set<map<string, list<i8>>> d,"
        " 5: uuid e, 6: double f, 7: binary g }"
    ).text("main/main.py")
    for line in (
        "a: dict[frozenset[int], list[dict[tuple[E, ...], bool]]]",
        "b: set[tuple[str, ...]]",
        "c: Names",
        "d: set[stub.FrozenMap[str, tuple[int, ...]]]",
        "e: UUID | None",
        "f: float",
        "g: bytes",
        "Names: TypeAlias = list[str]",
    ):
        assert f"{line}\n" in text


def test_odd_values(emit: Callable[..., Any]) -> None:
    made = emit(
        "const double A = 1e400\nconst double B = -1e400\nconst set<i32> C = []\nconst set<set<i32>> D = [[], [1, 1]]\n"
        "struct P { 1: required list<i32> a, 2: required uuid b, 3: required bool c }\nconst P E = {}\n"
        'const map<i32, i32> F = {1: 1, 1: 2}\nconst string G = "\\"\\\\\'"\n'
    )
    main = made.load("main")
    assert (math.inf, -math.inf, set(), {frozenset(), frozenset({1})}) == (main.A, main.B, main.C, main.D)
    assert main.P(a=[], b=uuid.UUID(int=0), c=False) == main.E
    assert main.F == {1: 2}
    assert main.G == "\"\\'"

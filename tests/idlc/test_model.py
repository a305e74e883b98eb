from __future__ import annotations

from collections.abc import Callable
from typing import Any

from idlc import model
from idlc.model import Base, ListOf, MapOf, SetOf, same, spell, strip


def test_typedefs_are_looked_through(check: Callable[..., Any]) -> None:
    found = check(
        "typedef list<A> L\ntypedef B A\ntypedef i32 B\nenum E { X }\nstruct S { 1: L l, 2: list<i32> m, 3: map<B, E> n }"
    )
    k, m, n = (field.type for field in found["S"].fields)
    assert strip(k) == ListOf(found["A"])
    assert same(k, m)
    assert not same(k, SetOf(Base("i32")))
    assert same(n, MapOf(Base("i32"), found["E"]))
    assert not same(n, MapOf(Base("i32"), Base("i32")))
    assert spell(n) == "map<B, E>"
    assert spell(SetOf(k)) == "set<L>"
    assert spell(None) == "void"


def test_ancestors(check: Callable[..., Any]) -> None:
    found = check("service A {}\nservice B extends A {}\nservice C extends B {}")
    assert [each.name for each in found["C"].ancestors()] == ["B", "A"]
    assert isinstance(found["C"], model.Service)

"""Cutting what services do not need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from idlc.trim import UnknownMethod, trim

IDL = """\
// the file
struct Used { 1: Inner inner }  // used
struct Inner {}

/** Gone with its comment. */
struct Unused { 1: OnlyThere x }
struct OnlyThere {}
/** @preserve */
struct Kept { 1: AlsoKept x }
struct AlsoKept {}
exception Err {}
enum Colour { RED }
struct InConst { 1: i32 a }
const InConst C = {"a": 1}

service Base { Inner root() }
service S extends Base {
  /** First. */
  Used first(1: i32 a)  // behind
  // Second, alone.
  void second(1: Unused u) throws (1: Err e),
}
"""


def texts(check: Callable[..., Any], **options: Any) -> str:
    found = check(IDL)
    assert found.errors == []
    result = trim(found.programs, [found.main], **options)
    text = result.texts[found.main]
    assert check(text).errors == []
    return text


def test_chosen_methods_and_what_they_need(check: Callable[..., Any]) -> None:
    text = texts(check, methods=["S.first"])
    assert text == """\
// the file
struct Used { 1: Inner inner }  // used
struct Inner {}

/** @preserve */
struct Kept { 1: AlsoKept x }
struct AlsoKept {}
enum Colour { RED }
struct InConst { 1: i32 a }
const InConst C = {"a": 1}

service Base {
}
service S extends Base {
  /** First. */
  Used first(1: i32 a)  // behind
}
""".replace("service Base {\n}", "service Base { }")


def test_all_methods_when_none_is_chosen(check: Callable[..., Any]) -> None:
    text = texts(check)
    assert "struct Unused" in text
    assert "void second" in text


def test_a_method_by_its_own_name_or_a_pattern(check: Callable[..., Any]) -> None:
    assert "exception Err" in texts(check, methods=["sec.*"])
    assert "struct Used" not in texts(check, methods=["second"])


def test_named_structs_stay_and_preserve_can_be_ignored(check: Callable[..., Any]) -> None:
    text = texts(check, methods=["root"], keep=["OnlyThere"], preserve=False)
    assert "struct OnlyThere" in text
    assert "Kept" not in text


def test_a_pattern_that_fits_nothing(check: Callable[..., Any]) -> None:
    with pytest.raises(UnknownMethod, match=r"S\.nothing"):
        texts(check, methods=["S.nothing", "first"])

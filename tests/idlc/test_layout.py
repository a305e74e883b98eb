from __future__ import annotations

import ast

import pytest

from idlc.layout import (
    WIDTH,
    Group,
    call,
    comment_text,
    docstring,
    flat,
    lay_out,
    prefixed,
    quoted,
    quoted_bytes,
    tuple_of,
)


def test_short_expressions_stay_on_one_line() -> None:
    assert lay_out(call("f", "1", tuple_of(["x"]), prefixed("k=", Group("[", (), "]"))), "  ", ":") == [
        "  f(1, (x,), k=[]):"
    ]


def test_long_ones_break_at_their_brackets() -> None:
    long = tuple_of(["a" * 40, "b" * 50])
    assert lay_out(prefixed("x = ", call("f", long, "1"))) == [
        "x = f(", "    (", "        " + "a" * 40 + ",", "        " + "b" * 50 + ",", "    ),", "    1,", ")",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["plain", "it's", 'say "hi"', "both ' and \"", "back\\slash", "new\nline\x00", "ü€"])
def test_quotes_read_back(text: str) -> None:
    assert ast.literal_eval(quoted(text)) == text
    assert ast.literal_eval(quoted_bytes(text.encode())) == text.encode()


def test_double_quotes_where_they_cost_nothing() -> None:
    assert quoted("a") == '"a"'
    assert quoted('"') == "'\"'"
    assert quoted("it's") == '"it\'s"'
    assert quoted_bytes(b"\xff") == 'b"\\xff"'


@pytest.mark.parametrize(
    "text",
    ['ends with "quote"', 'has """three""" quotes', "back\\slash \\", "tab\tand\x07bell", "two\n  lines\n\nthree", '"'],
)
def test_docstrings_are_valid_and_say_the_same(text: str) -> None:
    lines = docstring(text, "    ")
    body = ast.parse("class A:\n" + "\n".join(lines)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = ast.get_docstring(body)
    assert found is not None
    assert found.split() == text.replace("\x07", " ").split()


def test_long_docs_are_wrapped() -> None:
    lines = docstring("word " * 100, "    ")
    assert max(map(len, lines)) <= WIDTH
    assert lines[-1] == '    """'
    assert docstring(" \n ") == []


def test_comments_have_one_line() -> None:
    assert comment_text("a\nb\x00 c") == "a b c"
    assert flat("x") == "x"

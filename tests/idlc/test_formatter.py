"""One layout for IDL files: what it looks like, that it is stable, and that nothing but blanks changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from idlc.errors import IdlError
from idlc.formatter import WIDTH, format_text
from tests.idlc.test_corpus import corpus, expected_to_pass

MESSY = """\
// about the file

namespace   py  a.b
namespace go c  ( x = "y" )
const list<i32> L=[1,2 ,3]
const map<string,i32> M = {"a":1,"b":2, // two
 "c": 3}
typedef i32 Foo
/** doc
 * more
 */
enum E { A=1, B
C = 3 // c
}
struct S{}
struct T { 1:required i32 a=5(api.query="a",x="y"); // behind


  // own
  2: optional map < string , list< i32 > > m }
service X extends Y{
 void a()
 oneway void b(1:i32 x,2:string y)throws(1:Err e)(k="v"),
  map<string, i32> aVeryLongNameThatGoesOnAndOn(1: string firstArgument, 2: string secondArgument, 3: i32 third = 5)
}
senum Old { "a", "b" }
union U { 1: i32 a } ( z = "1" )
"""
NEAT = """\
// about the file

namespace py a.b
namespace go c (x = "y")

const list<i32> L = [1, 2, 3]
const map<string, i32> M = {
    "a": 1,
    "b": 2,  // two
    "c": 3
}

typedef i32 Foo

/** doc
 * more
 */
enum E {
    A = 1,
    B
    C = 3  // c
}

struct S {}

struct T {
    1: required i32 a = 5 (api.query = "a", x = "y");  // behind

    // own
    2: optional map<string, list<i32>> m
}

service X extends Y {
    void a()
    oneway void b(1: i32 x, 2: string y) throws (1: Err e) (k = "v"),
    map<string, i32> aVeryLongNameThatGoesOnAndOn(
        1: string firstArgument,
        2: string secondArgument,
        3: i32 third = 5
    )
}

senum Old {
    "a",
    "b"
}

union U {
    1: i32 a
} (z = "1")
"""


def test_the_layout() -> None:
    assert format_text("x", MESSY) == NEAT
    assert format_text("x", NEAT) == NEAT


def test_comments_keep_their_places() -> None:
    text = "struct S {\n# own\n1: i32 a /* in */ = 1 // behind\n/* before */ 2: i32 b\n\n/* last */\n}\n// end\n"
    assert format_text("x", text) == (
        "struct S {\n    # own\n    1: i32 a /* in */ = 1  // behind\n    /* before */\n    2: i32 b\n\n    /* last */\n}\n// end\n"
    )


def test_lines_end_where_they_can() -> None:
    items = ", ".join(f'"item number {each}"' for each in range(12))
    lines = format_text("x", f"const list<string> L = [{items}]").split("\n")
    assert lines[0] == "const list<string> L = ["
    assert lines[1] == '    "item number 0",'
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize("text", ["", "\n\n", "// only a comment", "namespace py a\r\n\r\nstruct S { 1: i32 a }\r\n"])
def test_odd_files(text: str) -> None:
    once = format_text("x", text)
    assert format_text("x", once) == once
    assert "\r" not in once


def test_a_broken_file_stays_as_it_is() -> None:
    with pytest.raises(IdlError, match="expected"):
        format_text("x", "struct {")


@pytest.mark.timeout(300)
def test_the_corpus_keeps_its_tokens_and_is_stable() -> None:
    """`format_text` itself compares the tokens and comments of before and after."""
    for name in expected_to_pass():
        text = Path(corpus() / name).read_text(errors="replace")
        once = format_text(name, text)
        assert format_text(name, once) == once, name
        assert re.sub(r"\s", "", once) == re.sub(r"\s", "", text), name

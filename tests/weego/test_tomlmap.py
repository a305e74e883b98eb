"""Lines of keys: for every construct of TOML, and never a different set of keys than tomllib finds."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.need import ROOT
from weego.tomlmap import Path, positions

DOCUMENT = '''\
# comment [not.a.table]
top = 1
[server]
name = "a # b"   # comment
"quoted key" = 'x = [1, 2]'
dotted.deep."er key" = 3
text = """
[fake]
key = "no"
\\""" still inside
ends with quotes"""""
literal = \'\'\'
[fake]
\'\'\'
after = true

[[listen]]
address = "tcp://x"
tls = { cert = "a,b]", nested = { deep = 1 } }
[listen.options]
nodelay = true
[[listen]]
address = [
  "one",   # ]
  [2, 3],
  { four = 4 },
]
[[listen.rule]]
a = 1
[[listen.rule]]
a = 2
[ spaced . "table" ]
when = 1979-05-27 07:32:00
'''

LINES: dict[Path, int] = {
    ("top",): 2,
    ("server",): 3,
    ("server", "name"): 4,
    ("server", "quoted key"): 5,
    ("server", "dotted"): 6,
    ("server", "dotted", "deep", "er key"): 6,
    ("server", "text"): 7,
    ("server", "literal"): 12,
    ("server", "after"): 15,
    ("listen",): 17,
    ("listen", 0): 17,
    ("listen", 0, "address"): 18,
    ("listen", 0, "tls", "cert"): 19,
    ("listen", 0, "tls", "nested", "deep"): 19,
    ("listen", 0, "options"): 20,
    ("listen", 0, "options", "nodelay"): 21,
    ("listen", 1): 22,
    ("listen", 1, "address", 0): 24,
    ("listen", 1, "address", 1, 1): 25,
    ("listen", 1, "address", 2, "four"): 26,
    ("listen", 1, "rule", 0, "a"): 29,
    ("listen", 1, "rule", 1): 30,
    ("listen", 1, "rule", 1, "a"): 31,
    ("spaced", "table"): 32,
    ("spaced", "table", "when"): 33,
}


def paths(value: Any, path: Path = ()) -> set[Path]:
    """Every path in a parsed document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    for name, inner in pairs:
        found |= paths(inner, (*path, name))
    return found


def test_each_key_has_its_line() -> None:
    found = positions(DOCUMENT)
    assert {path: found.get(path) for path in LINES} == LINES


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_keys_are_those_of_tomllib(newline: str) -> None:
    text = DOCUMENT.replace("\n", newline)
    assert set(positions(text)) == paths(tomllib.loads(text))


@pytest.mark.parametrize("name", ["server.toml", "full.toml"])
def test_the_shipped_files(name: str) -> None:
    text = (ROOT / "conf" / name).read_text()
    assert set(positions(text)) == paths(tomllib.loads(text))


@pytest.mark.parametrize("text", ["", "\n\n", "# only", "a = 1", "a=''", 'a=""', "a=[]", "a={}", "[a]", "[[a]]", "a=[[],[[]],{}]"])
def test_small_documents(text: str) -> None:
    assert set(positions(text)) == paths(tomllib.loads(text))


KEYS = st.sampled_from(["a", "b", '"c.d"', "'e'", "f-1", "2", '"\\u0041"', "x . y"])
VALUES = st.recursive(
    st.sampled_from(["1", "-1.5e3", "true", '"s"', "'l'", '"]#"', '"""m\n"x"\n"""', "'''n\n'''", "1979-05-27", '""""q"""', "inf"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda each: "[ " + ",\n # c\n".join(each) + " ]")
    | inner.map(lambda each: "{ k = " + each.replace("\n # c\n", "") + " }"),
    max_leaves=4,
)
STATEMENTS = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    st.builds("[{}]".format, KEYS),
    st.builds("[[{}]]".format, KEYS),
    st.just("# comment ' \" ["),
)


@given(st.lists(STATEMENTS, max_size=8).map("\n".join))
def test_any_valid_document_has_the_keys_of_tomllib(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(positions(text)) == paths(document)

from __future__ import annotations

import pytest

from idlc.errors import Report, Source
from idlc.lexer import Token, has_leading_zero, int_value, is_octal, string_value, tokenise


def words(text: str) -> list[tuple[str, str]]:
    report = Report()
    tokens = tokenise(Source("x.thrift", text), report).tokens
    assert not report.errors
    return [(token.kind, token.text) for token in tokens]


def mistakes(text: str) -> list[str]:
    report = Report()
    tokenise(Source("x.thrift", text), report)
    return [str(error) for error in report.errors]


def test_tokens_of_every_kind() -> None:
    assert words("struct a.b_1 { -0x1F: +1 .5 -1.5E-3 1e10 \"it's\" 'x' } & @") == [
        ("name", "struct"), ("name", "a.b_1"), ("symbol", "{"), ("int", "-0x1F"), ("symbol", ":"), ("int", "+1"),
        ("double", ".5"), ("double", "-1.5E-3"), ("double", "1e10"), ("string", "\"it's\""), ("string", "'x'"),
        ("symbol", "}"), ("symbol", "&"), ("symbol", "@"), ("end", ""),
    ]  # fmt: skip


def test_comments_are_kept_beside_the_token_they_precede() -> None:
    tokens = tokenise(Source("x", "# a\n/* b /* c */ struct // d\n S"), Report())
    assert [token.text for token in tokens.tokens] == ["struct", "S", ""]
    assert [c.text for c in tokens.comments[0]] == ["# a", "/* b /* c */"]
    assert [c.text for c in tokens.comments[1]] == ["// d"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x 1_000", "1:3: error: malformed number"),
        ("0xZZ", "1:1: error: malformed number"),
        ("a\n  'open", "2:3: error: string without end"),
        ("a /* open", "1:3: error: comment without end"),
        ("structé", '1:7: error: unexpected character "é"'),
        ("a $ b", '1:3: error: unexpected character "$"'),
    ],
)
def test_what_is_no_token(text: str, place: str) -> None:
    assert mistakes(text)[0].startswith(f"x.thrift:{place}")


def test_reading_goes_on_after_a_bad_token() -> None:
    assert len(mistakes("$ 'open\n 1_0 $")) == 4


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"tab\t nl\n quote\" sq\' bs\\"', "tab\t nl\n quote\" sq' bs\\"),
        (r'"\x41\u0042\U00000043\104"', "ABCD"),
        (r'"\xe4\xbd\xa0"', "你"),
        (r'"\xff"', "\udcff"),
        ('"two\nlines"', "two\nlines"),
        ("'say \"hi\"'", 'say "hi"'),
    ],
)
def test_string_escapes(literal: str, value: str) -> None:
    assert string_value(Token("string", literal, 0)) == (value, [])


def test_an_unknown_escape_stays_as_it_is() -> None:
    assert string_value(Token("string", r'"\d\ud800"', 0)) == (r"\d\ud800", [r"\d", r"\ud800"])


def test_integers() -> None:
    assert [int_value(text, octal=False) for text in ("12", "-12", "+5", "0x1F", "-0x1F", "0o17", "017")] == [
        12, -12, 5, 31, -31, 15, 17,
    ]  # fmt: skip
    assert int_value("-017", octal=True) == -15
    assert int_value("018", octal=True) == 18
    assert is_octal("017")
    assert not is_octal("018")
    assert has_leading_zero("018")
    assert not has_leading_zero("0x1")
    assert not has_leading_zero("0")

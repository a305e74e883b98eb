"""Text of a Thrift IDL file → tokens, with one regular expression.

Lexical rules are the union of what Apache Thrift and thriftgo read: comments `//`, `#` and `/* */`; strings in
either quote, over several lines too; decimal, hex and octal integers. Keywords are no tokens of their own: any
word may be a field's name, so the parser decides by position.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from idlc.errors import Position, Report, Source

Kind = Literal["name", "int", "double", "string", "symbol", "end"]

# Blanks are swallowed with the token behind them: half as many matches as a rule of their own would need.
_TOKEN: Final = re.compile(
    r"""
    [ \t\r\n\f\v]*+ (?:
      (?P<name>    [A-Za-z_] (?: \.?[A-Za-z0-9_] )* )
    | (?P<symbol>  [{}()\[\]<>,;:=*&@] )
    | (?P<comment> //[^\n]* | \#[^\n]* | /\*.*?\*/ )
    | (?P<double>  [+-]? (?: [0-9]*\.[0-9]+ (?: [eE][+-]?[0-9]+ )? | [0-9]+[eE][+-]?[0-9]+ ) (?![A-Za-z0-9_.]) )
    | (?P<int>     [+-]? (?: 0x[0-9A-Fa-f]+ | 0o[0-7]+ | [0-9]+ ) (?![A-Za-z0-9_.]) )
    | (?P<string>  "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' )
    | (?P<number>  [+-]?[0-9][A-Za-z0-9_.]* )
    | (?P<open>    /\* | ["'] )
    | (?P<end>     \Z )
    | (?P<other>   . )
    )
    """,
    re.VERBOSE | re.DOTALL,
)

_TOKEN_KINDS: Final = frozenset({"name", "int", "double", "string", "symbol"})

_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{3}|.)", re.DOTALL)
_SIMPLE_ESCAPES: Final = {
    "n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "0": "\0",
    '"': '"', "'": "'", "\\": "\\",
}  # fmt: skip


class Token(NamedTuple):
    """A word of the file. `offset` counts characters; `text` is exactly what stands there."""

    kind: Kind
    text: str
    offset: int


class Comment(NamedTuple):
    """A comment, its marks included."""

    text: str
    offset: int


class Tokens(NamedTuple):
    """All tokens of a file, the last of kind "end"; `comments[i]` are the comments between token i - 1 and i."""

    source: Source
    tokens: list[Token]
    comments: dict[int, list[Comment]]


def tokenise(source: Source, report: Report) -> Tokens:
    """Cut the text into tokens; what is no token is reported and skipped."""
    text = source.text
    tokens: list[Token] = []
    comments: dict[int, list[Comment]] = {}
    offset = 0
    end = len(text)
    while offset < end:
        for found in _TOKEN.finditer(text, offset):
            kind = found.lastgroup
            assert kind is not None  # the last alternative takes any character
            lexeme = found[kind]
            offset = found.end() - len(lexeme)
            if kind in _TOKEN_KINDS:
                tokens.append(Token(kind, lexeme, offset))  # type: ignore[arg-type]
            elif kind == "comment":
                comments.setdefault(len(tokens), []).append(Comment(lexeme, offset))
            elif kind == "number":
                report.error("bad-number", f'malformed number "{lexeme}"', Position(source, offset, len(lexeme)),
                             "numbers are written 12, -12, 0x1F, 0o17, 1.5 or 1e10")  # fmt: skip
                tokens.append(Token("int", "0", offset))
            elif kind == "open":
                if lexeme != "/*":
                    tokens.append(Token("string", lexeme * 2, offset))
                offset = _unterminated(source, offset, lexeme, report)
                break  # reading goes on somewhere else
            elif kind == "other":
                _unknown_character(source, offset, lexeme, report)
        else:
            offset = end
    tokens.append(Token("end", "", end))
    return Tokens(source, tokens, comments)


def _unterminated(source: Source, offset: int, mark: str, report: Report) -> int:
    """Report a comment or string without end; returns where reading goes on."""
    if mark == "/*":
        report.error("unterminated", "comment without end", Position(source, offset, 2), 'close it with "*/"')
        return len(source.text)
    report.error("unterminated", "string without end", Position(source, offset), f"close it with {mark}")
    newline = source.text.find("\n", offset)
    return len(source.text) if newline < 0 else newline


def _unknown_character(source: Source, offset: int, char: str, report: Report) -> None:
    shown = char if char.isprintable() else f"\\u{ord(char):04x}"
    hint = "names are made of ASCII letters, digits and _" if char.isalpha() else None
    report.error("bad-character", f'unexpected character "{shown}"', Position(source, offset), hint)


def string_value(token: Token) -> tuple[str, list[str]]:
    r"""What a string token means, and the escapes in it that nobody knows (they stay as they are).

    `\xHH` and octal escapes are bytes, as in Go; bytes that are not UTF-8 come out as lone surrogates
    ("surrogateescape"), so that a `binary` constant gets them back exactly.
    """
    body = token.text[1:-1]
    if "\\" not in body:
        return body, []
    unknown: list[str] = []

    def replace(found: re.Match[str]) -> bytes | str:
        code = found.group(1)
        if code in _SIMPLE_ESCAPES:
            return _SIMPLE_ESCAPES[code]
        if code[0] in "uU" and len(code) > 1:
            number = int(code[1:], 16)
            if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                unknown.append(found.group())
                return found.group()
            return chr(number)
        if code[0] == "x" and len(code) > 1:
            return bytes([int(code[1:], 16)])
        if len(code) == 3:
            return bytes([int(code, 8) & 0xFF])
        unknown.append(found.group())
        return found.group()

    out = bytearray()
    last = 0
    for found in _ESCAPE.finditer(body):
        out += body[last : found.start()].encode()
        piece = replace(found)
        out += piece.encode() if isinstance(piece, str) else piece
        last = found.end()
    out += body[last:].encode()
    return out.decode("utf-8", "surrogateescape"), unknown


def int_value(text: str, *, octal: bool) -> int:
    """What an integer token means. `octal`: is `017` fifteen (thriftgo) or seventeen (Apache)?"""
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    if digits.startswith(("0x", "0o")):
        return sign * int(digits, 0)
    if octal and is_octal(text):
        return sign * int(digits, 8)
    return sign * int(digits)


def is_octal(text: str) -> bool:
    """Has the token a leading zero and only octal digits, so that compilers read it differently?"""
    digits = text.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and all(char in "01234567" for char in digits)


def has_leading_zero(text: str) -> bool:
    """`017` and `018`: a leading zero before a decimal digit."""
    digits = text.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()

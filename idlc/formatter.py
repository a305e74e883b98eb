"""Thrift IDL in one layout: `weego idl format`.

Only blanks change. Every token and every comment stays, in its order, and a text that is formatted already stays as it is; both are
checked before the result is given out. What cannot be parsed is not formatted.

* four blanks for each level, one item a line, one blank line at most where there was any, one between definitions
* a comment behind an item stays behind it, one on a line of its own keeps its line
* arguments and values that do not fit on `WIDTH` columns get a line each
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from idlc import ast
from idlc.errors import IdlError, Report, Source
from idlc.lexer import Comment, Token, Tokens, tokenise
from idlc.parser import parse

__all__ = ["WIDTH", "format_text"]

# Where lists of arguments and values are broken; comments and single words may reach further.
WIDTH: Final = 100
INDENT: Final = "    "

_ONE_LINERS: Final = (ast.Include, ast.Namespace, ast.Const, ast.Typedef)
_CLOSERS: Final = frozenset({")", "]", "}", ">"})
_OPENERS: Final = frozenset({"(", "[", "{", "<"})


class _Unfaithful(AssertionError):
    """The formatter lost or changed something: a mistake of ours, never shown as success."""


def format_text(path: str, text: str) -> str:
    """The file's text in the one layout. IdlError when it has mistakes in its syntax."""
    report = Report()
    source = Source(path, text)
    document = parse(source, report)
    report.raise_errors()
    tokens = tokenise(source, Report())
    result = _Formatter(document, tokens).text()
    _check(tokens, Source(path, result))
    return result


def _check(before: Tokens, source: Source) -> None:
    report = Report()
    after = tokenise(source, report)
    if report.errors:
        raise _Unfaithful(str(IdlError(report.errors)))
    if [token.text for token in before.tokens] != [token.text for token in after.tokens]:
        raise _Unfaithful(f"{source.path}: the tokens changed")
    if _comment_words(before) != _comment_words(after):
        raise _Unfaithful(f"{source.path}: the comments changed")


def _comment_words(tokens: Tokens) -> list[list[str]]:
    return [comment.text.split() for _, each in sorted(tokens.comments.items()) for comment in each]


@dataclass(slots=True)
class _Line:
    """A line in the making."""

    indent: int
    text: str = ""


@dataclass(slots=True)
class _Formatter:
    document: ast.Document
    source_tokens: Tokens
    _lines: list[str] = field(default_factory=list)
    _line: _Line = field(default_factory=lambda: _Line(0))
    _starts: dict[int, ast.Span] = field(default_factory=dict)
    _ends: dict[int, int] = field(default_factory=dict)
    _broken: set[int] = field(default_factory=set)
    """Opening brackets whose items get a line each."""

    def __post_init__(self) -> None:
        for span in self.document.spans:
            self._starts[span.start] = span
        self._match_brackets()

    def _match_brackets(self) -> None:
        open_: list[int] = []
        for at, token in enumerate(self._tokens):
            if token.kind == "symbol" and token.text in _OPENERS:
                open_.append(at)
            elif token.kind == "symbol" and token.text in _CLOSERS and open_:
                self._ends[open_.pop()] = at

    @property
    def _tokens(self) -> list[Token]:
        return self.source_tokens.tokens

    def text(self) -> str:
        """The whole file."""
        blocks: list[int] = []  # closing tokens of the bodies we are in
        broken: list[int] = []  # closing tokens of the broken brackets we are in
        for at, token in enumerate(self._tokens):
            span = self._starts.get(at)
            starts_item = span is not None and not span.inline
            closes = bool(blocks) and at == blocks[-1]
            level = len(blocks) + len(broken)
            opened = self._tokens[at - 1] if at else None
            after_open = opened is not None and at - 1 in self._broken
            if token.kind == "end":
                self._comments(at, 0, behind=True)
                break
            if closes:
                self._comments(at, level, behind=True)
                blocks.pop()
                if self._tokens[at - 1].text != "{" or at in self.source_tokens.comments:
                    self._end_line()
                    self._line.indent = len(blocks) + len(broken)
            elif blocks and token.kind == "string" and self._is_senum_body(blocks[-1]):
                self._comments(at, level, behind=True)
                self._end_line()
                self._line.indent = level
            elif broken and at == broken[-1]:
                self._comments(at, level, behind=True)
                broken.pop()
                self._end_line()
                self._line.indent = len(blocks) + len(broken)
            elif starts_item:
                self._item_start(at, span, level)
            elif after_open or self._begins_broken_item(at, broken):
                self._comments(at, level, behind=True)
                self._end_line()
                self._line.indent = level
            else:
                self._comments(at, level, behind=False)
            self._word(at, token)
            if token.text == "{" and token.kind == "symbol" and self._opens_body(at):
                blocks.append(self._ends[at])
            elif at in self._ends and self._must_break(at):
                self._broken.add(at)
                broken.append(self._ends[at])
        self._end_line()
        while self._lines and not self._lines[-1]:
            self._lines.pop()
        return "\n".join(self._lines) + "\n" if self._lines else ""

    # ---- lines -------------------------------------------------------------------------------------------------------

    def _end_line(self) -> None:
        if self._line.text:
            self._lines.append((INDENT * self._line.indent + self._line.text).rstrip())
        self._line = _Line(self._line.indent)

    def _blank(self) -> None:
        self._end_line()
        if self._lines and self._lines[-1]:
            self._lines.append("")

    def _item_start(self, at: int, span: ast.Span | None, level: int) -> None:
        """An item of a body, a header or a definition: a line of its own, and blank lines before it as its kind wants."""
        self._trailing(at)
        self._end_line()
        is_first = at == 0 or self._tokens[at - 1].text == "{"
        wants = self._blank_before(at, span, level) if not is_first else False
        leading = self.source_tokens.comments.get(at, [])
        own = [comment for comment in leading if not self._is_trailing(at, comment)]
        if not is_first and (wants or self._blank_in_source(at, own[0].offset if own else self._tokens[at].offset)):
            self._blank()
        self._own_comments(at, own, level)
        self._end_line()
        self._line.indent = level

    def _blank_before(self, at: int, span: ast.Span | None, level: int) -> bool:
        """One-liners of a kind may stand together; other definitions may not."""
        if level or span is None:
            return False
        before = next((each for each in self.document.spans if each.end == at and not each.inline and self._is_top(each)), None)
        return before is None or not (isinstance(span.node, _ONE_LINERS) and type(before.node) is type(span.node))

    def _is_top(self, span: ast.Span) -> bool:
        return isinstance(span.node, (*_ONE_LINERS, ast.Enum, ast.Struct, ast.Service)) or span.node is None

    def _blank_in_source(self, at: int, until: int) -> bool:
        """Was there an empty line between the item before, its comment included, and this place?"""
        if at == 0:
            return False
        end = self._tokens[at - 1].offset + len(self._tokens[at - 1].text)
        for comment in self.source_tokens.comments.get(at, []):
            if self._is_trailing(at, comment):
                end = comment.offset + len(comment.text)
        return self.document.source.text[end:until].count("\n") > 1

    # ---- comments ----------------------------------------------------------------------------------------------------

    def _is_trailing(self, at: int, comment: Comment) -> bool:
        """Does it stand on the line of the token before?"""
        if at == 0:
            return False
        end = self._tokens[at - 1].offset + len(self._tokens[at - 1].text)
        if "\n" in self.document.source.text[end : comment.offset]:
            return False
        # `/* about b */ i32 b` behind a comma on one line speaks of what follows it on that line.
        rest = self.document.source.text[comment.offset + len(comment.text) :].split("\n", 1)[0].strip()
        return not (comment.text.startswith("/*") and rest and not rest.startswith(("//", "#", "/*", "}")))

    def _trailing(self, at: int) -> None:
        for comment in self.source_tokens.comments.get(at, []):
            if self._is_trailing(at, comment):
                self._line.text += ("  " if self._line.text else "") + self._comment(comment, self._line.indent)

    def _own_comments(self, at: int, comments: list[Comment], level: int) -> None:
        for number, comment in enumerate(comments):
            if number and self._gap(comments[number - 1], comment.offset):
                self._blank()
            self._end_line()
            self._line.indent = level
            self._line.text = self._comment(comment, level)
        if comments and at < len(self._tokens) and self._gap(comments[-1], self._tokens[at].offset) and self._tokens[at].kind != "end":
            self._blank()

    def _gap(self, comment: Comment, until: int) -> bool:
        return self.document.source.text[comment.offset + len(comment.text) : until].count("\n") > 1

    def _comments(self, at: int, level: int, *, behind: bool) -> None:
        """Comments before a token that starts no item. `behind`: the token will stand on a line of its own."""
        comments = self.source_tokens.comments.get(at, [])
        if behind:
            self._trailing(at)
            own = [comment for comment in comments if not self._is_trailing(at, comment)]
            if own and self._blank_in_source(at, own[0].offset) and self._tokens[at - 1].text != "{":
                self._blank()
            self._own_comments(at, own, level)
            return
        for comment in comments:
            self._line.text += (" " if self._line.text else "") + self._comment(comment, self._line.indent)
            if not comment.text.startswith("/*"):
                self._end_line()
                self._line.indent = level + 1

    def _comment(self, comment: Comment, level: int) -> str:
        """Its text; the lines of a block move with its first."""
        first, *rest = comment.text.replace("\r\n", "\n").split("\n")
        if not rest:
            return first.rstrip()
        margin = INDENT * level
        if all(not line.strip() or line.lstrip().startswith("*") for line in rest):
            return "\n".join([first.rstrip(), *((f"{margin} {line.strip()}").rstrip() for line in rest)])
        old = len(re.sub(r".*\n", "", self.document.source.text[: comment.offset], flags=re.DOTALL).expandtabs(4))
        shift = len(margin) - old
        moved = [_shifted(line.expandtabs(4), shift) for line in rest]
        return "\n".join([first.rstrip(), *moved])

    # ---- words -------------------------------------------------------------------------------------------------------

    def _word(self, at: int, token: Token) -> None:
        if self._line.text and not self._line.text.endswith("\n") and self._spaced(at):
            self._line.text += " "
        self._line.text += token.text

    def _spaced(self, at: int) -> bool:
        """A blank between this token and the one before on the line?"""
        before, now = self._tokens[at - 1], self._tokens[at]
        if self.source_tokens.comments.get(at):
            return True
        left, right = before.text, now.text
        if before.kind == "symbol":
            if left in ("(", "[", "<") or (left == "{" and right == "}"):
                return False
            if left == "{":
                return False
            if left == ">" and right == "(":
                return at in self.document.annotation_opens
            return not (right in (",", ";", ":", ")", "]", "}", ">") and now.kind == "symbol")
        if now.kind == "symbol":
            if right == "(":
                return at in self.document.annotation_opens or left == "throws"
            return right in ("{", "[", "=", "&") and not (right == "[" and left == "<")
        return True

    def _opens_body(self, at: int) -> bool:
        """A body of items, not a value: some item begins right behind it, or nothing is in it and a definition's head before it."""
        if at not in self._ends:
            return False
        if at + 1 in self._starts and not self._starts[at + 1].inline:
            return True
        if self._tokens[at + 1].text != "}":
            return self._is_senum(at)
        return self._is_head(at)

    def _is_head(self, at: int) -> bool:
        span = next((each for each in self.document.spans if each.start < at < each.end and self._is_top(each)), None)
        return span is not None and isinstance(span.node, ast.Enum | ast.Struct | ast.Service)

    def _is_senum(self, at: int) -> bool:
        return at >= 2 and self._tokens[at - 2].text == "senum"

    def _is_senum_body(self, end: int) -> bool:
        return any(close == end and self._is_senum(start) for start, close in self._ends.items())

    # ---- long lists --------------------------------------------------------------------------------------------------

    def _must_break(self, at: int) -> bool:
        """A bracket around arguments or values that does not fit on its line, or has comments that end lines in it."""
        if self._tokens[at].text == "<" or at in self.document.annotation_opens:
            return False
        end = self._ends[at]
        if end == at + 1:
            return bool(self.source_tokens.comments.get(end))
        if any(not comment.text.startswith("/*") for each in range(at + 1, end + 1) for comment in self.source_tokens.comments.get(each, [])):
            return True
        length = len(INDENT) * self._line.indent + len(self._line.text)
        for each in range(at + 1, self._until(end)):
            length += len(self._tokens[each].text) + self._spaced(each)
        return length > WIDTH

    def _until(self, end: int) -> int:
        """What stands behind a closing bracket on its line: at most up to the next opening one."""
        at = end + 1
        while at < len(self._tokens) and self._tokens[at].text in (",", ";", ")", "]", "}"):
            at += 1
        return at

    def _begins_broken_item(self, at: int, broken: list[int]) -> bool:
        """Is this the first token of a further item of the innermost broken bracket?"""
        if not broken:
            return False
        opened = next(start for start, end in self._ends.items() if end == broken[-1])
        if opened not in self._broken or self._depth_between(opened, at):
            return False
        if at in self._starts and self._starts[at].inline:
            return True
        before = self._tokens[at - 1]
        if before.kind == "symbol" and before.text in (",", ";"):
            return True
        # Items of a value may stand without separators.
        now = self._tokens[at]
        is_separator = now.kind == "symbol" and now.text in (",", ";")
        return self._tokens[opened].text == "[" and before.text != "[" and not is_separator

    def _depth_between(self, opened: int, at: int) -> bool:
        return any(opened < start < at <= end for start, end in self._ends.items() if opened < start < at)


def _shifted(line: str, by: int) -> str:
    if by >= 0 or not line[:-by].strip():
        return (" " * by + line if by >= 0 else line[-by:]).rstrip()
    return line.lstrip().rstrip()

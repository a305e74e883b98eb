"""Laying out Python source: expressions that break over lines when they are long, docstrings, quoted strings.

An expression is a string, or a `Group` of brackets around items; a group that does not fit on its line gets one line
for each item, with a trailing comma, the way formatters do it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

# Emitted lines end here where they can: what formatters and import sorters take when nobody tells them otherwise.
WIDTH: Final = 88
INDENT: Final = "    "


@dataclass(frozen=True, slots=True)
class Group:
    """Items between brackets. `lone_comma`: a single item needs its comma, as in a tuple."""

    open: str
    items: tuple[Node, ...]
    close: str
    lone_comma: bool = False


Node: TypeAlias = str | Group


def call(function: str, *items: Node) -> Group:
    """`function(items)`."""
    return Group(f"{function}(", items, ")")


def tuple_of(items: Iterable[Node]) -> Group:
    """A tuple."""
    return Group("(", tuple(items), ")", lone_comma=True)


def prefixed(prefix: str, node: Node) -> Node:
    """`name=node`, `key: node` and the like."""
    if isinstance(node, str):
        return prefix + node
    return Group(prefix + node.open, node.items, node.close, node.lone_comma)


def flat(node: Node) -> str:
    """On one line."""
    if isinstance(node, str):
        return node
    comma = "," if node.lone_comma and len(node.items) == 1 else ""
    return node.open + ", ".join(flat(item) for item in node.items) + comma + node.close


def lay_out(node: Node, indent: str = "", suffix: str = "") -> list[str]:
    """Lines of source, `suffix` behind the last."""
    line = indent + flat(node) + suffix
    if isinstance(node, str) or not node.items or len(line) <= WIDTH:
        return [line]
    lines = [indent + node.open]
    for item in node.items:
        lines += lay_out(item, indent + INDENT, ",")
    lines.append(indent + node.close + suffix)
    return lines


def quoted(text: str) -> str:
    """A string literal, in double quotes where that needs no more escapes."""
    literal = repr(text)
    if literal[0] == "'" and '"' not in literal and "\\'" not in literal:
        return f'"{literal[1:-1]}"'
    return literal


def quoted_bytes(data: bytes) -> str:
    """A bytes literal in the same style."""
    literal = repr(data)
    if literal[1] == "'" and '"' not in literal and "\\'" not in literal:
        return f'b"{literal[2:-1]}"'
    return literal


def docstring(text: str, indent: str = "") -> list[str]:
    """A docstring; nothing for an empty text. Long lines are wrapped."""
    body = _clean(text)
    if not body:
        return []
    lines: list[str] = []
    room = WIDTH - len(indent) - 6
    for line in body.split("\n"):
        lines += _wrap(line, room)
    escaped = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if escaped.endswith('"'):
        escaped = escaped[:-1] + '\\"'
    lines = escaped.split("\n")
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    first, *rest = lines
    return [f'{indent}"""{first}', *((indent + line).rstrip() for line in rest), f'{indent}"""']


def comment_text(text: str) -> str:
    """A text as one line that can stand behind `#`."""
    return " ".join(_clean(text).split())


def _clean(text: str) -> str:
    """Only what can stand in a source file: no control characters, no trailing blanks."""
    lines = (line.rstrip() for line in text.expandtabs(4).replace("\r", "").split("\n"))
    body = "\n".join(lines).strip()
    return "".join(char if char == "\n" or char.isprintable() else " " for char in body)


def _wrap(line: str, room: int) -> list[str]:
    if len(line) <= room:
        return [line]
    margin = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, room, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False) or [line]

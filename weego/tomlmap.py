"""Where each key of a TOML document stands: tomllib reads the values but forgets the lines.

`positions` scans a document that tomllib has already accepted, so it only needs to know where keys, strings and brackets
begin and end, not whether they are right.

    [server]                     ("server",)                 1
    workers = 2                  ("server", "workers")       2
    [[listen]]                   ("listen", 0)               3, and ("listen",) 3
    tls = { cert = "a" }         ("listen", 0, "tls", "cert") 4
"""

from __future__ import annotations

import re
import tomllib

__all__ = ["Path", "positions"]

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Longest opening first. A multi-line string may end in up to two quotes of its own before the closing three.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\r\n#]+")


def positions(text: str) -> dict[Path, int]:
    """The line, counted from 1, on which each table and key of a valid document first appears."""
    return _Scanner(text).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # arrays of tables: how many elements so far

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip(_BLANK):
            if self.text.startswith("[[", self.at):
                self.at += 2
                table = self.header(array=True)
                self.at += 2
            elif self.text[self.at] == "[":
                self.at += 1
                table = self.header(array=False)
                self.at += 1
            else:
                self.pair(table)
        return self.lines

    def header(self, *, array: bool) -> Path:
        """The path of a header. `[a.b]` after `[[a]]` means b of the last a."""
        path: Path = ()
        line, names = self.line(), self.key()
        for depth, name in enumerate(names):
            path = (*path, name)
            self.lines.setdefault(path, line)
            if array and depth == len(names) - 1:
                index = self.arrays[path] = self.arrays.get(path, -1) + 1
            elif path in self.arrays:
                index = self.arrays[path]
            else:
                continue
            path = (*path, index)
            self.lines.setdefault(path, line)
        return path

    def pair(self, table: Path) -> None:
        """A `key = value`, in a table or an inline table."""
        path, line = table, self.line()
        for name in self.key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self.at += 1  # the "="
        self.skip(_SPACE)
        self.value(path)

    def key(self) -> list[str]:
        """a."b.c".d as its names; stops at the = or ] that follows."""
        names = []
        while True:
            self.skip(_SPACE)
            if match := _STRING.match(self.text, self.at):
                names.append(str(tomllib.loads("k = " + match[0])["k"]))
            else:
                match = _BARE_KEY.match(self.text, self.at)
                assert match, f"not a key at line {self.line()}"
                names.append(match[0])
            self.at = match.end()
            self.skip(_SPACE)
            if self.text[self.at] != ".":
                return names
            self.at += 1

    def value(self, path: Path) -> None:
        if self.text[self.at] == "{":
            self.inside("}", path)
        elif self.text[self.at] == "[":
            self.inside("]", path)
        else:
            match = _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
            assert match, f"no value at line {self.line()}"
            self.at = match.end()

    def inside(self, closing: str, path: Path) -> None:
        """The elements of an array or the pairs of an inline table, up to and over the closing bracket."""
        self.at += 1
        index = 0
        while self.skip(_BLANK) and self.text[self.at] != closing:
            if self.text[self.at] == ",":
                self.at += 1
            elif closing == "}":
                self.pair(path)
            else:
                self.lines[(*path, index)] = self.line()
                self.value((*path, index))
                index += 1
        self.at += 1

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Step over what the pattern matches; False at the end of the document."""
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return self.at < len(self.text)

    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

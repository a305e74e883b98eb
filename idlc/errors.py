"""What the compiler says about an IDL file: positions, diagnostics, and the error that carries them.

A run collects as many mistakes as it can and raises one `IdlError` at the end, so that a user mends a
file in one go. Each diagnostic renders the way compilers do::

    echo.thrift:3:5: error: undefined type "Requst"
        1: Requst req
           ^~~~~~
      hint: did you mean "Request"?
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

# Later errors are mostly echoes of the first ones; twenty fill a terminal and are still worth reading.
MAX_ERRORS = 20

Severity = Literal["error", "warning", "note"]

# What a user may make of warnings: refuse the file, say so and go on, say nothing.
Level = Literal["error", "warn", "ignore"]
Levels = Mapping[str, Level]

# The key that stands for every code a `Levels` does not name.
ANY_CODE: Final = "*"


class Source:
    """The text of one IDL file, and where its lines begin."""

    __slots__ = ("_line_starts", "path", "text")

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self._line_starts: list[int] | None = None

    def locate(self, offset: int) -> tuple[int, int]:
        """Line and column of a character offset, both counted from 1."""
        if self._line_starts is None:
            starts = [0]
            starts.extend(i + 1 for i, char in enumerate(self.text) if char == "\n")
            self._line_starts = starts
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line (counted from 1) without its line ending."""
        self.locate(0)
        assert self._line_starts is not None
        start = self._line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : len(self.text) if end < 0 else end].rstrip("\r")

    def __repr__(self) -> str:
        return f"Source({self.path!r})"


@dataclass(slots=True, eq=False)
class Position:
    """A place in an IDL file: cheap to make (a frozen class takes three times as long), line and column are counted on demand."""

    source: Source
    offset: int
    width: int = 1

    @property
    def file(self) -> str:
        """Path of the file as the user would write it."""
        return self.source.path

    @property
    def line(self) -> int:
        """Line, counted from 1."""
        return self.source.locate(self.offset)[0]

    @property
    def column(self) -> int:
        """Column in characters, counted from 1."""
        return self.source.locate(self.offset)[1]

    def __str__(self) -> str:
        line, column = self.source.locate(self.offset)
        return f"{self.source.path}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning, or a note: nothing is wrong, but the reader may want to know.

    `code` is a stable word such as "undefined-type".
    """

    severity: Severity
    code: str
    message: str
    position: Position | None = None
    hint: str | None = None

    def __str__(self) -> str:
        if self.position is None:
            return f"{self.severity}: {self.message}"
        return f"{self.position}: {self.severity}: {self.message}"

    def render(self) -> str:
        """The message, the line it is about with a caret under the place, and the hint."""
        lines = [str(self)]
        if self.position is not None:
            text = self.position.source.line(self.position.line)
            column = self.position.column
            if text.strip():
                # Tabs stay tabs, so that the caret stands under its character in any terminal.
                indent = "".join("\t" if char == "\t" else " " for char in text[: column - 1])
                width = max(1, min(self.position.width, len(text) - column + 1))
                lines.append(f"    {text}")
                lines.append(f"    {indent}^{'~' * (width - 1)}")
        if self.hint is not None:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def plain(self) -> dict[str, object]:
        """The same for programs: what `json.dumps` takes, positions counted from 1."""
        found: dict[str, object] = {"severity": self.severity, "code": self.code, "message": self.message}
        if self.position is not None:
            found |= {"file": self.position.file, "line": self.position.line, "column": self.position.column}
            found["width"] = self.position.width
        if self.hint is not None:
            found["hint"] = self.hint
        return found


class IdlError(Exception):
    """An IDL file (or several) cannot be compiled; `diagnostics` holds each reason in the order of the files."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(diagnostic.render() for diagnostic in self.diagnostics))


class TooManyErrors(Exception):
    """Raised inside a run when `MAX_ERRORS` is reached; never leaves `idlc`."""


@dataclass(slots=True)
class Report:
    """Collects the diagnostics of one run. `levels`: warning code → what to make of it, `ANY_CODE` for the others."""

    levels: Levels = field(default_factory=dict)
    errors: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    _promoted: int = 0

    @property
    def is_broken(self) -> bool:
        """Is there a true error, one that was not a warning by nature?"""
        return len(self.errors) > self._promoted

    def error(self, code: str, message: str, position: Position | None, hint: str | None = None) -> None:
        """Note an error and go on; raises `TooManyErrors` when going on is of no use to anybody."""
        self.errors.append(Diagnostic("error", code, message, position, hint))
        if len(self.errors) >= MAX_ERRORS:
            raise TooManyErrors

    def warn(self, code: str, message: str, position: Position | None, hint: str | None = None) -> None:
        """Note something that compiles but may not mean what its author thinks."""
        match self.levels.get(code) or self.levels.get(ANY_CODE, "warn"):
            case "error":
                self._promoted += 1
                self.error(code, f"{message} [-W error={code}]", position, hint)
            case "warn":
                self.warnings.append(Diagnostic("warning", code, message, position, hint))

    def note(self, code: str, message: str, position: Position | None, hint: str | None = None) -> None:
        """Tell the reader of something that is right; an error only for who asked for that code by name."""
        match self.levels.get(code, "warn"):
            case "error":
                self._promoted += 1
                self.error(code, f"{message} [-W error={code}]", position, hint)
            case "warn":
                self.warnings.append(Diagnostic("note", code, message, position, hint))

    def raise_errors(self) -> None:
        """Raise `IdlError` if there was any error."""
        if self.errors:
            raise IdlError(self.errors)

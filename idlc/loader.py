"""Files → parsed files: reads each IDL file once, follows its includes, refuses circles.

An include is looked for beside the including file, then in each include directory in order, then in the folder
the compiler was started in. A file that is reached on two ways is one file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from idlc import ast
from idlc.errors import Position, Report, Source
from idlc.model import Program
from idlc.parser import DEFAULT_DIALECT, Dialect, parse


@dataclass(slots=True)
class Loader:
    """Loads files of one run; `programs` lists them with each file behind the files it includes."""

    report: Report
    include_dirs: Sequence[str]
    dialect: Dialect = DEFAULT_DIALECT
    programs: list[Program] = field(default_factory=list)
    _loaded: dict[str, Program] = field(default_factory=dict)
    _chain: list[str] = field(default_factory=list)
    _shown: list[str] = field(default_factory=list)

    def load(self, path: str, included_at: Position | None = None) -> Program | None:
        """The file at a path; None when it cannot be read, which is then in the report."""
        real = os.path.realpath(path)
        if real in self._loaded:
            return self._loaded[real]
        source, digest = self._read(path, included_at)
        if source is None:
            return None
        stem = os.path.basename(path).removesuffix(".thrift")
        program = Program(path, stem, digest, parse(source, self.report, self.dialect))
        self._chain.append(real)
        self._shown.append(path)
        self._includes(program)
        self._chain.pop()
        self._shown.pop()
        self._loaded[real] = program
        self.programs.append(program)
        return program

    def _read(self, path: str, included_at: Position | None) -> tuple[Source | None, str]:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            self.report.error("unreadable", f"cannot read {path}: {error.strerror}", included_at)
            return None, ""
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            text = data.decode("latin-1")
            source = Source(path, text)
            place = Position(source, error.start)
            self.report.warn("not-utf8", "not UTF-8, read as Latin-1", place, "save the file as UTF-8")
            return source, hashlib.sha256(data).hexdigest()
        return Source(path, text), hashlib.sha256(data).hexdigest()

    def _includes(self, program: Program) -> None:
        for include in program.document.includes:
            path = self._find(program, include)
            if path is None:
                continue
            real = os.path.realpath(path)
            if real in self._chain:
                circle = [*self._shown[self._chain.index(real) :], path]
                self.report.error("include-circle", "files include each other: " + " -> ".join(circle), include.pos)
                continue
            included = self.load(path, include.pos)
            if included is None:
                continue
            if included in program.includes:
                self.report.warn("include-twice", f'"{include.path}" is included twice', include.pos, "delete one")
            else:
                program.includes.append(included)
                program.include_positions[included] = include.pos

    def _find(self, program: Program, include: ast.Include) -> str | None:
        places = [os.path.dirname(program.path), *self.include_dirs, ""]
        for place in places:
            path = os.path.normpath(os.path.join(place, include.path))
            if os.path.isfile(path):
                return path
        self.report.error(
            "include-missing",
            f'cannot find "{include.path}"',
            include.pos,
            "looked in " + ", ".join(_unique(place or "." for place in places)) + "; add its folder with -I",
        )
        return None


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))

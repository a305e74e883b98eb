"""IDL text in, what the compiler makes of it out."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from idlc import model
from idlc.compile import Compilation, compile_files
from idlc.errors import Report
from idlc.parser import Dialect
from idlc.resolver import resolve

_numbers = itertools.count()


class Checked:
    """Programs and diagnostics of one run of the front end."""

    def __init__(self, programs: list[model.Program], report: Report) -> None:
        self.programs = programs
        self.errors = report.errors
        self.warnings = report.warnings

    @property
    def main(self) -> model.Program:
        return self.programs[-1]

    def __getitem__(self, name: str) -> Any:
        return self.main.symbols[name]

    @property
    def codes(self) -> list[str]:
        return [each.code for each in self.errors + self.warnings]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write IDL files; the path of the first."""

    def write(text: str, **others: str) -> Path:
        for name, other in others.items():
            (tmp_path / f"{name}.thrift").write_text(other)
        path = tmp_path / "main.thrift"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def check(write: Callable[..., Path]) -> Callable[..., Checked]:
    """Resolve IDL text; other files by keyword."""

    def check(text: str, dialect: Dialect = "apache", **others: str) -> Checked:
        report = Report()
        return Checked(resolve([str(write(text, **others))], [], report, dialect), report)

    return check


class Emitted:
    """A package made of IDL files, and its modules imported."""

    def __init__(self, root: Path, package: str, compilation: Compilation) -> None:
        self.root = root
        self.package = package
        self.compilation = compilation
        self.warnings = [each.code for each in compilation.warnings]

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def load(self, module: str) -> ModuleType:
        return importlib.import_module(f"{self.package}.{module}")


@pytest.fixture
def emit(
    tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Emitted]]:
    """Compile IDL text, or files, into an importable package of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def emit(source: str | list[Path], names: Any = "pep8", **others: str) -> Emitted:
        package = f"gen{next(_numbers)}"
        made.append(package)
        paths = [write(source, **others)] if isinstance(source, str) else source
        compilation = compile_files(paths, tmp_path / package, names=names)
        return Emitted(tmp_path / package, package, compilation)

    yield emit
    for name in list(sys.modules):
        if name.partition(".")[0] in made:
            del sys.modules[name]


@pytest.fixture
def data() -> Path:
    """IDL files of this folder."""
    return Path(__file__).parent / "data"

"""`.proto` text in, imported modules out."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from idlc.compile import Compilation
from idlc.proto_compile import compile_protos

_numbers = itertools.count()


class Protos:
    """A folder of `.proto` files. Each gets a package of its own name, for one process knows a name only once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = f"gen_proto{next(_numbers)}"
        self.out = root / self.package
        self.compilation: Compilation | None = None

    def write(self, **files: str) -> list[Path]:
        """Files by their stems; `UNIQUE` in a text becomes a word that no other test has."""
        paths = []
        for stem, text in files.items():
            path = self.root / f"{stem}_{self.package}.proto"
            path.write_text(text.replace("UNIQUE", self.package))
            paths.append(path)
        return paths

    def compile(self, *paths: Path, **options: Any) -> Compilation:
        self.compilation = compile_protos(list(paths), self.out, [self.root], **options)
        return self.compilation

    def load(self, module: str) -> ModuleType:
        return importlib.import_module(f"{self.package}.{module.replace('UNIQUE', self.package)}")


@pytest.fixture
def protos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Protos]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Protos(tmp_path)
    yield made
    for name in list(sys.modules):
        if name.partition(".")[0] == made.package:
            del sys.modules[name]

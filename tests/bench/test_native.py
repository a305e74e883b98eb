"""bench/native.py: compiling on demand."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from bench import native

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "#include <stdio.h>\nint main(void) { puts(%s); return 0; }\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(native, "BENCH", tmp_path)
    monkeypatch.setattr(native, "BUILD", tmp_path / "build")
    return tmp_path


def said(path: Path) -> str:
    return subprocess.run([str(path)], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt install gcc libc6-dev")
def test_compiles_once_and_again_when_a_source_is_newer(folder: Path) -> None:
    source = folder / "probe.c"
    source.write_text(SOURCE % '"one"')
    binary = native.program("probe")
    assert said(binary) == "one"
    first = binary.stat().st_mtime_ns
    assert native.program("probe") == binary
    assert binary.stat().st_mtime_ns == first
    source.write_text(SOURCE % '"two"')
    os.utime(source, ns=(first + 10**9, first + 10**9))
    assert said(native.program("probe")) == "two"
    assert list((folder / "build").iterdir()) == [binary]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt install gcc libc6-dev")
def test_shows_what_the_compiler_said(folder: Path) -> None:
    (folder / "probe.c").write_text("int main(void) { return nonsense; }\n")
    with pytest.raises(native.BenchError, match="nonsense"):
        native.program("probe")
    assert list((folder / "build").iterdir()) == []


def test_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "probe.c").write_text("")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(native.BenchError, match="install gcc"):
        native.program("probe")

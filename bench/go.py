"""Builds Kitex's side of the benchmark, ``bench/kitex``, from the Go module proxy, when it is first needed.

What decides the outcome – sources, IDL, Go's version – names the folder in ``build/bench/``; the first build takes about a minute.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

from bench.codecs import IDL
from bench.native import BENCH, BUILD, BenchError

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = BENCH / "kitex"
BUILDING = 540.0
"""Seconds: all of Kitex for the first time, on a slow and busy machine."""


class GoMissing(BenchError):
    """There is no Go here, or it cannot get at Kitex: a gap in the table, not the end of the run."""


def kitex() -> Path:
    """The program with Kitex's server and client; see bench/kitex/main.go. Raises GoMissing, or BenchError when it does not build."""
    go = shutil.which("go")
    if go is None:
        raise GoMissing("Go is not installed (1.22 or later; apt-get install golang-go)")
    digest = hashlib.sha256(_run([go, "version"], SOURCES).encode() + IDL.read_bytes())
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    folder = BUILD / f"kitex-{digest.hexdigest()[:16]}"
    built = folder / "bench"
    if not built.exists():
        for stale in BUILD.glob("kitex-*"):
            shutil.rmtree(stale, ignore_errors=True)
        _build(go, folder / "source", built)
    return built


def _build(go: str, source: Path, built: Path) -> None:
    shutil.copytree(SOURCES, source)
    # The IDL is Python's; Go's package is named here, so that there is one IDL.
    (source / IDL.name).write_text(f"namespace go bench\n{IDL.read_text()}")
    try:
        _run([go, "mod", "download"], source)
    except BenchError as error:
        raise GoMissing(f"Kitex cannot be downloaded: {' '.join(str(error).split())[-300:]}") from None
    compile_ = [go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o"]
    tool = source.parent / "kitex"
    _run([*compile_, str(tool), "github.com/cloudwego/kitex/tool/cmd/kitex"], source)
    _run([str(tool), "-module", "weego/bench/kitex", IDL.name], source)
    fresh = source.parent / "bench.new"
    _run([*compile_, str(fresh), "."], source)
    fresh.rename(built)
    tool.unlink()


def _run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILDING, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
    return done.stdout

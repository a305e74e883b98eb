"""Compiles the benchmark's C programs when they are first needed.

The load generator and the floor are C so that neither costs more than the kernel does. The binaries go to
``build/bench/``, which git ignores, and are rebuilt when a source is newer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

BENCH = Path(__file__).resolve().parent
BUILD = BENCH.parent / "build" / "bench"
"""Everything the benchmark makes: binaries, generated stubs, the bytes of its messages."""

FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra", "-Werror")


class BenchError(Exception):
    """A measurement could not be made; the text says which, why, and what to do."""


def program(name: str) -> Path:
    """The path of the compiled ``bench/<name>.c``, compiled now if it has to be."""
    source = BENCH / f"{name}.c"
    binary = BUILD / name
    newest = max(path.stat().st_mtime_ns for path in (source, *BENCH.glob("*.h")))
    if binary.exists() and binary.stat().st_mtime_ns >= newest:
        return binary
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError(f"bench/{name}.c: no C compiler found; install gcc (Debian: apt install gcc libc6-dev)")
    BUILD.mkdir(parents=True, exist_ok=True)
    # Compiled under a name of its own and renamed, so that two runs at once never start half a binary.
    fresh = BUILD / f"{name}.{os.getpid()}"
    done = subprocess.run(
        [*compiler.split(), *FLAGS, "-o", str(fresh), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        fresh.unlink(missing_ok=True)
        raise BenchError(f"bench/{name}.c does not compile with {compiler}:\n{done.stderr.strip()}")
    fresh.replace(binary)
    return binary

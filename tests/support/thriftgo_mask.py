"""A program on the code that thriftgo generates with field masks: what it says of a mask and a value is what ours are compared with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support import thriftgo
from tests.support.need import ROOT, missing
from tests.support.peers import CACHE

SOURCES = ROOT / "tests" / "codec" / "thriftgo_mask"
IDL = SOURCES / "mask.thrift"


def build() -> Path:
    """The program; a skip with the reason where it cannot be built."""
    compiler, _ = thriftgo.build()
    go = shutil.which("go") or missing("Go, which builds thriftgo's field masks", thriftgo.NEED_GO)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()[:16]
    folder = CACHE / "thriftgo_mask" / digest
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "oracle"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            for name in ("main.go", "go.mod", "go.sum"):
                shutil.copy(SOURCES / name, folder)
            without = folder / "z" / "mask.thrift"
            without.parent.mkdir(exist_ok=True)
            without.write_text(without_union())
            _generate(compiler, folder, "cur", IDL, "")
            _generate(compiler, folder, "zero", without, ",field_mask_zero_required")
            done = subprocess.run(
                [go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o", "oracle.new", "."],
                cwd=folder, capture_output=True, text=True, timeout=thriftgo.BUILDING, check=False,
            )  # fmt: skip
            if done.returncode:
                missing(f"thriftgo's field masks ({' '.join(done.stderr.split())[-300:]})", thriftgo.NEED_GO)
            (folder / "oracle.new").rename(program)
    return program


def without_union() -> str:
    """The IDL as thriftgo can generate it with `field_mask_zero_required`, which knows no zero of a union and ends in a panic."""
    lines = IDL.read_text().splitlines(keepends=True)
    start = next(at for at, line in enumerate(lines) if line.startswith("union"))
    end = next(at for at in range(start, len(lines)) if lines[at].startswith("}"))
    return "".join(line for at, line in enumerate(lines) if not start <= at <= end and "Choice" not in line)


def _generate(compiler: Path, folder: Path, name: str, idl: Path, options: str) -> None:
    language = f"go:with_field_mask,with_reflection,package_prefix=weego/mask/{name}{options}"
    subprocess.run([compiler, "-g", language, "-o", folder / name, idl], check=True, capture_output=True, timeout=thriftgo.BUILDING)


def ask(program: Path, questions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers; what both hold is said in main.go."""
    given = "".join(f"{json.dumps(each)}\n" for each in questions)
    done = subprocess.run([program], input=given, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]

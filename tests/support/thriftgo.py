"""thriftgo and a plugin for it on its own library, built from the Go module proxy in the version that go.mod pins."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.support.need import ROOT, missing
from tests.support.peers import CACHE

SOURCES = ROOT / "tests" / "idlc" / "thriftgo_plugin"
BUILDING = 300.0
NEED_GO = "install Go 1.22 or later (apt-get install golang-go) and let it reach a module proxy"


def build() -> tuple[Path, Path]:
    """The programs thriftgo and thrift-gen-dump; a skip with the reason where they cannot be built."""
    go = shutil.which("go") or missing("Go, which builds thriftgo", NEED_GO)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()[:16]
    folder = CACHE / "thriftgo" / digest
    folder.mkdir(parents=True, exist_ok=True)
    programs = {folder / "thriftgo": "github.com/cloudwego/thriftgo", folder / "thrift-gen-dump": "."}
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for program, package in programs.items():
            if not program.exists():
                fresh = program.with_suffix(".new")
                command = [go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o", str(fresh), package]
                done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, timeout=BUILDING, check=False)
                if done.returncode:
                    missing(f"thriftgo ({' '.join(done.stderr.split())[-300:]})", NEED_GO)
                fresh.rename(program)
    first, second = programs
    return first, second

"""h2spec, built from the Go module proxy into build/peers/h2spec/, which git ignores, by the first test that asks."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.need import missing
from tests.support.peers import CACHE

MODULE = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
BUILDING = 300.0
NEED_GO = "install Go 1.22 or later (apt-get install golang-go) and let it reach a module proxy"


def program() -> Path:
    """Where it is; a visible skip where it cannot be built."""
    go = shutil.which("go") or missing("Go, which builds h2spec", NEED_GO)
    folder = CACHE / "h2spec"
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / "h2spec"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            done = subprocess.run(
                [go, "install", MODULE], env={**os.environ, "GOBIN": str(folder)}, capture_output=True, text=True, timeout=BUILDING, check=False
            )
            if done.returncode:
                missing(f"h2spec ({' '.join(done.stderr.split())[-300:]})", NEED_GO)
    return built

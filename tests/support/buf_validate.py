"""`buf/validate/validate.proto`, in the version of the Go module that has it; to build/peers/, which git ignores."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.need import missing
from tests.support.peers import CACHE

VERSION = "v1.1.0"
FETCHING = 240.0
NEED = "install Go and let it reach a module proxy"


def include() -> str:
    """The folder to give to `-I`; a skip with the reason where the file cannot be had."""
    go = shutil.which("go") or missing("Go, which fetches protovalidate's rules", NEED)
    folder = CACHE / f"buf-validate-{VERSION}"
    file = folder / "buf" / "validate" / "validate.proto"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock, tempfile.TemporaryDirectory() as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            done = subprocess.run(
                [go, "mod", "download", "-json", f"github.com/bufbuild/protovalidate@{VERSION}"],
                cwd=scratch, capture_output=True, text=True, timeout=FETCHING, check=False, env={**os.environ, "GOFLAGS": "-mod=mod"},
            )  # fmt: skip
            if done.returncode:
                missing(f"protovalidate's rules ({' '.join((done.stderr or done.stdout).split())[-300:]})", NEED)
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(json.loads(done.stdout)["Dir"], "proto/protovalidate/buf/validate/validate.proto"), file)
    return str(folder)

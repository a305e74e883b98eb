"""The benchmark's IDL as weego's own generated stubs, made when they are missing or older than what makes them."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import idlc.compile
from bench.codecs import IDL
from bench.native import BUILD


def _made_from() -> str:
    """A digest of the IDL and of the generator: stubs of another digest are stale."""
    digest = hashlib.sha256(IDL.read_bytes())
    for source in sorted(Path(idlc.compile.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def module() -> Any:
    """The generated package of ``bench.thrift``."""
    folder = BUILD / f"stubs-{_made_from()}"
    if not folder.is_dir():
        BUILD.mkdir(parents=True, exist_ok=True)
        for stale in BUILD.glob("stubs-*"):
            shutil.rmtree(stale, ignore_errors=True)
        fresh = BUILD / f"fresh-stubs.{os.getpid()}"
        idlc.compile.compile_files([IDL], fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another process was quicker
            shutil.rmtree(fresh)
    sys.path.append(str(folder))
    return importlib.import_module("weego_bench")

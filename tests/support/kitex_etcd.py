"""Kitex's registry and resolver on etcd in a process of their own: tests/interop/kitex_etcd, built from the Go module proxy to build/peers/kitex-etcd.

    with registered(etcd.port, "echo", "127.0.0.1:8888", 20, lane="blue"): …
    resolve(etcd.port, "echo")          [{"Network": "tcp", "Address": "127.0.0.1:8888", "Weight": 20, "Lane": "blue"}]
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.need import ROOT, missing
from tests.support.peers import CACHE

SOURCES = ROOT / "tests" / "interop" / "kitex_etcd"
FILES = ("go.mod", "go.sum", "main.go")
# Building all of Kitex for the first time, on a slow and busy machine.
BUILDING = 540.0
PATIENCE = 30.0
NEED_GO = (
    "install Go 1.22 or later (apt-get install golang-go; on Debian 12 from backports) and let it reach a module proxy"
)


def program() -> Path:
    """The program, built when it is first asked for."""
    go = shutil.which("go") or missing("Go, which builds Kitex's registry", NEED_GO)
    digest = hashlib.sha256(_run([go, "version"], SOURCES).encode())
    for name in FILES:
        digest.update(f"\0{name}\0".encode() + (SOURCES / name).read_bytes())
    folder = CACHE / "kitex-etcd" / digest.hexdigest()[:16]
    built = folder / "kitex_etcd"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            for earlier in folder.parent.glob("*/"):
                shutil.rmtree(earlier)
            shutil.copytree(SOURCES, folder)
            try:
                _run([go, "mod", "download"], folder)
            except OSError as error:
                missing(f"Kitex's registry ({' '.join(str(error).split())[-300:]})", NEED_GO)
            _run([go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o", f"{built}.new", "."], folder)
            Path(f"{built}.new").rename(built)
    return built


def _run(command: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILDING, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
    return done.stdout


@contextlib.contextmanager
def registered(port: int, service: str, address: str, weight: int, **tags: str) -> Iterator[None]:
    """A Kitex server is announced for the block."""
    command = [str(program()), "register", f"127.0.0.1:{port}", service, address, str(weight)]
    command += [f"{name}={value}" for name, value in tags.items()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            said = process.stdout.readline()
            assert said == "registered\n", process.stderr.read()
            yield
            process.stdin.close()
            assert process.wait(PATIENCE) == 0, process.stderr.read()
        finally:
            process.kill()


def resolve(port: int, service: str) -> list[dict[str, Any]]:
    """What a Kitex client finds."""
    found: list[dict[str, Any]] = json.loads(_run([str(program()), "resolve", f"127.0.0.1:{port}", service], SOURCES))
    return found

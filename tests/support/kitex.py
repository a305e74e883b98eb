"""Kitex in processes of its own: the server and client of tests/interop/kitex/, built from the Go module proxy.

    with server() as address: …                            # tcp://127.0.0.1:…, all framings on one port
    said = call(address, "framed", "echo")                 # one check of the Kitex client; fails the test with its reason

Nothing that is generated or built is committed: the first test that asks has Kitex's own tool, in the version that go.mod pins, write the Go code
for the IDL, and builds both programs into build/peers/kitex/, which git ignores, in a folder named by what they are made of.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.need import ROOT, missing
from tests.support.peers import CACHE
from tests.support.processes import Process

SOURCES = ROOT / "tests" / "interop" / "kitex"
IDL = SOURCES / "conversation.thrift"
NEWER_IDL = SOURCES / "newer.thrift"
# Building all of Kitex for the first time, on a slow and busy machine.
BUILDING = 540.0
NEED_GO = (
    "install Go 1.22 or later (apt-get install golang-go; on Debian 12 from backports) and let it reach a module proxy"
)


def conversation() -> Path:
    """The program of both; see tests/interop/kitex/main.go."""
    go = shutil.which("go") or missing("Go, which builds Kitex", NEED_GO)
    folder = CACHE / "kitex" / _digest(go)
    built = folder / "conversation"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            for earlier in folder.parent.glob("*/"):
                shutil.rmtree(earlier)
            _build(go, folder, built)
    return built


def _digest(go: str) -> str:
    """Of everything that decides what is built."""
    digest = hashlib.sha256(_run([go, "version"], SOURCES).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, folder: Path, built: Path) -> None:
    source = folder / "source"
    shutil.copytree(SOURCES, source)
    try:
        _run([go, "mod", "download"], source)
    except OSError as error:
        missing(f"Kitex ({' '.join(str(error).split())[-300:]})", NEED_GO)
    # Without version stamps: Go would ask git about a folder that git ignores.
    compile_ = [go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o"]
    tool = folder / "kitex"
    _run([*compile_, str(tool), "github.com/cloudwego/kitex/tool/cmd/kitex"], source)
    for idl in (IDL, NEWER_IDL):
        _run([str(tool), "-module", "weego/interop/kitex", idl.name], source)
    fresh = folder / "conversation.new"
    _run([*compile_, str(fresh), "."], source)
    fresh.rename(built)
    tool.unlink()


def _run(command: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILDING, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
    return done.stdout


@contextlib.contextmanager
def server(*options: str) -> Iterator[str]:
    """The address of a Kitex server of the IDL's service Conversation; `options` are those of main.go."""
    # Two threads are plenty here, and leave the machine to the other side.
    with Process([str(conversation()), "serve", *options], env={"GOMAXPROCS": "2"}) as process:
        port = process.wait_for(r"^listening on (\d+)$")[1]
        yield f"tcp://127.0.0.1:{port}"
        assert process.child.poll() is None, f"the Kitex server has ended:\n{process.output}"


def calling(address: str, transport: str, check: str, **options: str) -> Process:
    """A Kitex client about to do `check`; `options` are those of main.go: caller, callee, timeout, bare."""
    named = [f"-{name}={value}" for name, value in options.items()]
    command = [str(conversation()), "call", "-address", address.removeprefix("tcp://"), "-transport", transport]
    return Process([*command, *named, check], env={"GOMAXPROCS": "2"})


def call(address: str, transport: str, check: str, **options: str) -> str:
    """Have a Kitex client do `check`; what it printed."""
    with calling(address, transport, check, **options) as process:
        code = process.wait()
        assert code == 0, process.output
        return process.output


def checks() -> list[str]:
    """The names of all checks the client knows."""
    with Process([str(conversation()), "list"]) as process:
        assert process.wait() == 0, process.output
        return list(process.lines)

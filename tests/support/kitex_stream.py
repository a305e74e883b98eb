"""Kitex's TTHeaderStreaming in processes of its own: the server and client of tests/interop/kitex_stream/.

Built like the programs of tests/support/kitex.py: from the Go module proxy, by Kitex's own tool in the version that go.mod pins, into
build/peers/kitex-stream/, in a folder named by what they are made of.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.kitex import NEED_GO, _run
from tests.support.need import ROOT, missing
from tests.support.peers import CACHE
from tests.support.processes import Process

SOURCES = ROOT / "tests" / "interop" / "kitex_stream"
IDL = SOURCES / "talk.thrift"
MODULE = "weego/interop/kitexstream"


def talk() -> Path:
    """The program of both; see tests/interop/kitex_stream/main.go."""
    go = shutil.which("go") or missing("Go, which builds Kitex", NEED_GO)
    digest = hashlib.sha256(_run([go, "version"], SOURCES).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    folder = CACHE / "kitex-stream" / digest.hexdigest()[:16]
    built = folder / "talk"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            for earlier in folder.parent.glob("*/"):
                shutil.rmtree(earlier)
            _build(go, folder, built)
    return built


def _build(go: str, folder: Path, built: Path) -> None:
    source = folder / "source"
    shutil.copytree(SOURCES, source)
    try:
        _run([go, "mod", "download"], source)
    except OSError as error:
        missing(f"Kitex ({' '.join(str(error).split())[-300:]})", NEED_GO)
    compile_ = [go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o"]
    tool = folder / "kitex"
    _run([*compile_, str(tool), "github.com/cloudwego/kitex/tool/cmd/kitex"], source)
    _run([str(tool), "-streamx", "-module", MODULE, IDL.name], source)
    fresh = folder / "talk.new"
    _run([*compile_, str(fresh), "."], source)
    fresh.rename(built)
    tool.unlink()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of a Kitex server of the IDL's service Talk."""
    with Process([str(talk()), "serve"], env={"GOMAXPROCS": "2"}) as process:
        port = process.wait_for(r"^listening on (\d+)$")[1]
        yield f"tcp://127.0.0.1:{port}"
        assert process.child.poll() is None, f"the Kitex server has ended:\n{process.output}"


def calling(address: str, check: str, *, relay: str = "") -> Process:
    """A Kitex client about to do `check`, with a server behind the one it calls."""
    command = [str(talk()), "call", "-address", address.removeprefix("tcp://"), "-relay", relay, check]
    return Process(command, env={"GOMAXPROCS": "2"})


def call(address: str, check: str, *, relay: str = "") -> None:
    """Have a Kitex client do `check`."""
    with calling(address, check, relay=relay) as process:
        code = process.wait()
        assert code == 0, process.output


def checks() -> list[str]:
    """The names of all checks the client knows."""
    with Process([str(talk()), "list"]) as process:
        assert process.wait() == 0, process.output
        return list(process.lines)

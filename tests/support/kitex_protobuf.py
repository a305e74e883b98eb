"""Kitex Protobuf in processes of its own: the server and client of tests/interop/kitex_protobuf/.

Built like the programs of tests/support/kitex.py: from the Go module proxy, by Kitex's own tool in the version that go.mod pins, into
build/peers/kitex-protobuf/, in a folder named by what they are made of.
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

SOURCES = ROOT / "tests" / "interop" / "kitex_protobuf"
IDL = SOURCES / "talk.proto"
MODULE = "weego/interop/kitexprotobuf"


def talk() -> Path:
    """The program of both; see tests/interop/kitex_protobuf/main.go."""
    go = shutil.which("go") or missing("Go, which builds Kitex", NEED_GO)
    digest = hashlib.sha256(_run([go, "version"], SOURCES).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    folder = CACHE / "kitex-protobuf" / digest.hexdigest()[:16]
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
    _run([str(tool), "-module", MODULE, IDL.name], source)
    fresh = folder / "talk.new"
    _run([*compile_, str(fresh), "."], source)
    fresh.rename(built)
    tool.unlink()


@contextlib.contextmanager
def server(*, shared: bool = False) -> Iterator[str]:
    """The address of a Kitex server of the IDL's service Talk."""
    with Process([str(talk()), "serve", *(["-shared"] if shared else [])], env={"GOMAXPROCS": "2"}) as process:
        port = process.wait_for(r"^listening on (\d+)$")[1]
        yield f"tcp://127.0.0.1:{port}"
        assert process.child.poll() is None, f"the Kitex server has ended:\n{process.output}"


def call(address: str, transport: str, check: str) -> None:
    """Have a Kitex client do `check`."""
    command = [str(talk()), "call", "-address", address.removeprefix("tcp://"), "-transport", transport, check]
    with Process(command, env={"GOMAXPROCS": "2"}) as process:
        code = process.wait()
        assert code == 0, process.output

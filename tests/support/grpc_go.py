"""grpc-go in processes of its own: its client and server of gRPC's interoperability tests, as they are, built from the Go module proxy.

    with server() as address: …                        # tcp://127.0.0.1:…
    run(address, "large_unary")                        # a case of its client; fails the test with its reason

The versions are pinned by tests/interop/grpc/go.mod; the programs go to build/peers/grpc-go/, which git ignores.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.need import ROOT, missing
from tests.support.net import wait_until
from tests.support.peers import CACHE
from tests.support.ports import free_port
from tests.support.processes import Process

SOURCES = ROOT / "tests" / "interop" / "grpc"
# Building all of grpc-go for the first time, on a slow and busy machine.
BUILDING = 540.0
CASE = 120.0
NEED_GO = (
    "install Go 1.22 or later (apt-get install golang-go; on Debian 12 from backports) and let it reach a module proxy"
)


def programs() -> Path:
    """The folder of ``client``, ``server`` and ``http2``, the client of the negative tests."""
    go = shutil.which("go") or missing("Go, which builds grpc-go", NEED_GO)
    folder = CACHE / "grpc-go" / _digest(go)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for earlier in folder.parent.glob("*/"):
                shutil.rmtree(earlier)
            _build(go, folder)
    return folder


def _digest(go: str) -> str:
    digest = hashlib.sha256(_run([go, "version"], SOURCES).encode())
    for name in ("go.mod", "go.sum", "tools.go"):
        digest.update(f"\0{name}\0".encode() + (SOURCES / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, folder: Path) -> None:
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name in ("go.mod", "go.sum", "tools.go"):
        shutil.copy(SOURCES / name, fresh / name)
    try:
        _run([go, "mod", "download"], fresh)
    except OSError as error:
        missing(f"grpc-go ({' '.join(str(error).split())[-300:]})", NEED_GO)
    for name in ("client", "server", "http2"):
        _run([go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o", name, f"google.golang.org/grpc/interop/{name}"], fresh)
    fresh.rename(folder)


def _run(command: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BUILDING, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
    return done.stdout


def reflected_program() -> Path:
    """A server of the TestService that describes itself, built from tests/interop/grpc_reflection."""
    go = shutil.which("go") or missing("Go, which builds grpc-go", NEED_GO)
    sources = SOURCES.with_name("grpc_reflection")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources.iterdir()))).hexdigest()[:16]
    program = CACHE / "grpc-go-reflection" / digest
    program.parent.mkdir(parents=True, exist_ok=True)
    with open(program.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            try:
                _run([go, "build", "-buildvcs=false", "-ldflags=-s -w", "-o", f"{program}.new", "."], sources)
            except OSError as error:
                missing(f"grpc-go ({' '.join(str(error).split())[-300:]})", NEED_GO)
            program.with_suffix(".new").rename(program)
    return program


@contextlib.contextmanager
def reflected_server(cert: str | None = None, key: str | None = None) -> Iterator[str]:
    """The address of a grpc-go server of the TestService that describes itself, with TLS if it gets a certificate."""
    with Process([str(reflected_program()), *([cert, key] if cert and key else [])]) as process:
        yield f"tcp://127.0.0.1:{process.wait_for(r'^([0-9]+)$')[1]}"


# Programs that people use on gRPC servers, as they are.
TOOLS = {
    "grpc-health-probe": "github.com/grpc-ecosystem/grpc-health-probe@v0.4.62",
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",
}


def tool(name: str) -> str:
    """The path of one of TOOLS, built when it is first needed."""
    go = shutil.which("go") or missing(f"Go, which builds {name}", NEED_GO)
    module = TOOLS[name]
    built = CACHE / "grpc-tools" / module.rpartition("@")[2] / name
    built.parent.mkdir(parents=True, exist_ok=True)
    with open(built.parent.parent / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            environ = {**os.environ, "GOBIN": str(built.parent), "GOFLAGS": "-buildvcs=false"}
            command = [go, "install", "-ldflags=-s -w", module]
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BUILDING, check=False)
            if done.returncode:
                missing(f"{name} ({' '.join(done.stderr.split())[-300:]})", NEED_GO)
    return str(built)


@contextlib.contextmanager
def server(cert: str | None = None, key: str | None = None) -> Iterator[str]:
    """The address of a grpc-go server of the TestService, with TLS if it gets a certificate."""
    port = free_port()
    command = [str(programs() / "server"), f"-port={port}"]
    if cert:
        command += ["-use_tls", f"-tls_cert_file={cert}", f"-tls_key_file={key}"]
    with Process(command, env={"GOMAXPROCS": "2"}) as process:
        wait_until(lambda: is_open(port) or process.child.poll() is not None, "the grpc-go server")
        yield f"tcp://127.0.0.1:{port}"
        assert process.child.poll() is None, f"the grpc-go server has ended:\n{process.output}"


def run(address: str, case: str, *options: str) -> None:
    """Run one case of grpc-go's client against `address`. Fails the test with what it says."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    command = [str(programs() / "client"), f"-server_host={host}", f"-server_port={port}", f"-test_case={case}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CASE, check=False)
    assert done.returncode == 0, f"{case}: {done.stderr[-2000:] or done.stdout[-2000:]}"


def is_open(port: int) -> bool:
    """Does somebody listen?"""
    import socket

    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0

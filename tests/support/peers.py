"""Implementations of Thrift that nobody here wrote, in processes of their own: thriftpy2, Apache Thrift, and Apache's own test programs.

    with apache_server("threaded", "framed", generated) as address: …      # serves tests/interop/data/interop.thrift
    with thriftpy2_server("buffered") as address: …

Apache's test programs (TestClient.py, TestServer.py, ThriftTest.thrift) are fetched when a test first asks, in the version of the installed
Apache compiler, to build/peers/ which git ignores: with Go from the Go module, else from Debian's source package. What cannot be had is a skip
that says what to install, and a failure in CI.

Run as a program, this file is one of the servers.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.need import ROOT, missing, program
from tests.support.processes import Process

CACHE = ROOT / "build" / "peers"
INTEROP_IDL = ROOT / "tests" / "interop" / "data" / "interop.thrift"
FETCHING = 240.0
NEED_COMPILER = "apt-get install thrift-compiler"
NEED_SOURCES = "install Go, or let `apt-get source thrift` reach a Debian mirror"


# ---------------------------------------------------------------- Apache's compiler and test programs


def compiler() -> str:
    """Apache's compiler."""
    return program("thrift", NEED_COMPILER)


def compiler_version() -> str:
    """Its version, such as "0.17.0"."""
    said = subprocess.run(
        [compiler(), "--version"], capture_output=True, text=True, check=True, timeout=FETCHING
    ).stdout
    found = re.search(r"\d+\.\d+\.\d+", said)
    return found[0] if found else missing(f"a Thrift compiler that tells its version (it says {said!r})", NEED_COMPILER)


def generate_apache(idl: Path, out: Path) -> Path:
    """Apache's Python code for `idl`; the folder that goes on sys.path."""
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler(), "--gen", "py", "-out", str(out), str(idl)], check=True, timeout=FETCHING)
    return out


def apache_tests() -> Path:
    """The folder ``test`` of Apache Thrift's sources: ThriftTest.thrift, py/TestClient.py, py/TestServer.py, py/util.py."""
    version = compiler_version()
    folder = CACHE / f"thrift-{version}" / "test"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ThriftTest.thrift").exists():
            _fetch(version, folder)
    return folder


def _fetch(version: str, folder: Path) -> None:
    """Put the test programs into `folder`."""
    scratch = CACHE / "fetching"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        reasons = []
        for fetch in (_from_go, _from_debian):
            try:
                found = fetch(version, scratch)
            except (OSError, subprocess.SubprocessError, KeyError, ValueError, tarfile.TarError) as error:
                reasons.append(f"{fetch.__name__.removeprefix('_from_')}: {_one_line(error)}")
                continue
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(found / "py", folder / "py", ignore=shutil.ignore_patterns("explicit_module"))
            shutil.copy(found / "ThriftTest.thrift", folder / "ThriftTest.thrift")
            return
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    missing(f"the sources of Apache Thrift {version} ({'; '.join(reasons)})", NEED_SOURCES)


def _from_go(version: str, scratch: Path) -> Path:
    """The Go module has the whole source tree in it."""
    go = shutil.which("go")
    if not go:
        raise FileNotFoundError("Go is not installed")
    env = {**os.environ, "GOMODCACHE": str(scratch / "go"), "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local"}
    said = _run([go, "mod", "download", "-json", f"github.com/apache/thrift@v{version}"], scratch, env)
    return Path(json.loads(said)["Dir"]) / "test"


def _from_debian(version: str, scratch: Path) -> Path:
    """Debian's source package, by an apt that reads nothing and changes nothing of the system's own lists."""
    if not shutil.which("apt-get"):
        raise FileNotFoundError("there is no apt-get")
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = scratch / "sources.list"
    sources.write_text(f"deb-src [signed-by={keyring}] {_debian_mirror()} {release['VERSION_CODENAME']} main\n")
    apt = ["apt-get", "-q", "-o", f"Dir::State={scratch}/state", "-o", f"Dir::Cache={scratch}/cache"]
    apt += ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=-", "-o", "APT::Sandbox::User="]
    env = dict(os.environ)
    _run([*apt, "update"], scratch, env)
    _run([*apt, "source", "--download-only", "thrift"], scratch, env)
    (archive,) = scratch.glob("thrift_*.orig.tar.*")
    with tarfile.open(archive) as tar:
        tar.extractall(scratch / "source", filter="data")
    (found,) = (scratch / "source").glob("*/test/ThriftTest.thrift")
    return found.parent


def _debian_mirror() -> str:
    """Where this system gets its own packages from."""
    lists = Path("/etc/apt")
    for path in (lists / "sources.list", *sorted(lists.glob("sources.list.d/*"))):
        if path.is_file() and (found := re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?) *(\S+/debian)/?(?:\s|$)", path.read_text(), re.MULTILINE)):
            return found[1]
    raise FileNotFoundError("apt has no Debian mirror")


def _run(command: list[str], cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=FETCHING, check=False)
    if done.returncode:
        raise OSError(f"{command[0]} failed: {done.stderr or done.stdout}")
    return done.stdout


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


# ---------------------------------------------------------------- servers of tests/interop/data/interop.thrift


@contextlib.contextmanager
def thriftpy2_server(transport: str, port: int = 0, *, protocol: str = "binary") -> Iterator[str]:
    """The address of a thriftpy2 server."""
    with _server("thriftpy2", "--transport", transport, "--port", str(port), "--protocol", protocol) as address:
        yield address


@contextlib.contextmanager
def apache_server(kind: str, transport: str, generated: Path, *, protocol: str = "binary") -> Iterator[str]:
    """The address of an Apache server, "threaded" or "simple"; `generated` is what `generate_apache` made of the IDL."""
    options = ("--kind", kind, "--transport", transport, "--protocol", protocol, "--generated", str(generated))
    with _server("apache", *options) as address:
        yield address


@contextlib.contextmanager
def _server(*arguments: str) -> Iterator[str]:
    with Process([sys.executable, "-m", "tests.support.peers", *arguments], cwd=str(ROOT)) as process:
        port = process.wait_for(r"^listening on (\d+)$")[1]
        yield f"tcp://127.0.0.1:{port}"


class Handler:
    """The service, for peers that take any object with its methods; `types` has the IDL's structs."""

    def __init__(self, types: Any) -> None:
        self._types = types
        self._noted = 0

    def ping(self) -> str:
        return "pong"

    def echo(self, every: Any) -> Any:
        return every

    def nothing(self) -> None:
        pass

    def text(self, text: str) -> str:
        return text

    def raw(self, raw: bytes) -> bytes:
        return raw

    def add(self, a: int, b: int) -> int:
        return a + b

    def find(self, what: str) -> Any:
        if what == "nothing":
            raise self._types.NotFound(what=what, code=404)
        if what == "secret":
            raise self._types.Denied(why="it is a secret: ключ")
        return self._types.Inner(name=what, number=len(what))

    def check(self, what: str) -> None:
        if what == "nothing":
            raise self._types.NotFound(what=what, code=-1)

    def many(self, count: int) -> list[Any]:
        return [self._types.Inner(name=f"number {number}", number=number) for number in range(count)]

    def note(self, text: str) -> None:
        self._noted += 1

    def noted(self) -> int:
        return self._noted

    def fail(self) -> None:
        raise RuntimeError("on purpose")


def thriftpy2_types() -> Any:
    """The IDL as thriftpy2 understands it: a module with its structs and services."""
    import thriftpy2

    return thriftpy2.load(str(INTEROP_IDL), module_name="interop_thrift")


def apache_types(generated: Path) -> tuple[Any, Any]:
    """The IDL as Apache's compiler wrote it: the modules of its structs and of the service."""
    if str(generated) not in sys.path:
        sys.path.insert(0, str(generated))
    return importlib.import_module("interop.ttypes"), importlib.import_module("interop.Interop")


def _serve_thriftpy2(transport: str, protocol: str, port: int) -> None:
    from thriftpy2.protocol import TBinaryProtocolFactory, TCompactProtocolFactory
    from thriftpy2.rpc import make_server
    from thriftpy2.transport import TBufferedTransportFactory, TFramedTransportFactory, TServerSocket

    class Socket(TServerSocket):
        def listen(self) -> None:
            listening: Any = super()
            listening.listen()
            assert self.sock is not None
            _announce(self.sock.getsockname()[1])

    types = thriftpy2_types()
    factory = TFramedTransportFactory() if transport == "framed" else TBufferedTransportFactory()
    protocols = TCompactProtocolFactory() if protocol == "compact" else TBinaryProtocolFactory()
    server = make_server(
        types.Interop, Handler(types), "127.0.0.1", 1, proto_factory=protocols, trans_factory=factory
    )
    socket_class: Any = Socket
    server.trans = socket_class(host="127.0.0.1", port=port, client_timeout=3000)  # make_server takes no port 0
    server.serve()


def _serve_apache(kind: str, transport: str, protocol: str, generated: Path) -> None:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocolAcceleratedFactory, TBinaryProtocolFactory
    from thrift.protocol.TCompactProtocol import TCompactProtocolFactory
    from thrift.server.TServer import TSimpleServer, TThreadedServer
    from thrift.transport import TSocket, TTransport

    class Socket(TSocket.TServerSocket):  # type: ignore[misc]  # thrift has no types
        def listen(self) -> None:
            super().listen()
            _announce(self.handle.getsockname()[1])

    types, service = apache_types(generated)
    server_class = TThreadedServer if kind == "threaded" else TSimpleServer
    transports = (
        TTransport.TFramedTransportFactory() if transport == "framed" else TTransport.TBufferedTransportFactory()
    )
    protocols = {
        "accel": lambda: TBinaryProtocolAcceleratedFactory(fallback=False),
        "compact": TCompactProtocolFactory,
        "binary": TBinaryProtocolFactory,
    }[protocol]()
    server_class(service.Processor(Handler(types)), Socket("127.0.0.1", 0), transports, protocols).serve()


def _announce(port: int) -> None:
    sys.stdout.write(f"listening on {port}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["thriftpy2", "apache"])
    parser.add_argument("--kind", choices=["threaded", "simple"], default="threaded")
    parser.add_argument("--transport", choices=["framed", "buffered"], default="framed")
    parser.add_argument("--protocol", choices=["binary", "accel", "compact"], default="binary")
    parser.add_argument("--generated", type=Path)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.peer == "thriftpy2":
        _serve_thriftpy2(given.transport, given.protocol, given.port)
    else:
        _serve_apache(given.kind, given.transport, given.protocol, given.generated)


if __name__ == "__main__":
    main()

"""Starts one server under measurement, and ends it."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.go import GoMissing, kitex
from bench.native import BENCH, BenchError, program

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 20.0
"""A peer imports gevent and perhaps generates stubs; much longer than that it hangs."""

STOP_SECONDS = 5.0


@dataclass(frozen=True)
class PeerInfo:
    """One column of the comparison."""

    name: str
    title: str
    cannot: tuple[str, ...] = ()
    """Messages that it is not measured with: it knows no TTHeader, or (Go) writes maps in any order, and replies are compared byte for byte."""


PEERS = (
    PeerInfo("floor", "C epoll loop that echoes bytes"),
    PeerInfo("weego", "weego, one worker"),
    PeerInfo("kitex", "Kitex v0.16.3 (Go), GOMAXPROCS=1", cannot=("complex",)),
    PeerInfo("thriftpy2", "thriftpy2 (Cython) in a gevent StreamServer", cannot=("1KiB-ttheader", "1KiB-mux")),
    PeerInfo("apache", "Apache Thrift (C accelerator), thread per connection", cannot=("1KiB-ttheader", "1KiB-mux")),
)


@dataclass(frozen=True)
class Peer:
    """A server that listens on 127.0.0.1."""

    port: int
    pid: int


class PeerMissing(BenchError):
    """The peer cannot run here (its library is not installed): a gap in the table, not the end of the run."""


def _first_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(seconds) else b""


def _explain(name: str, process: subprocess.Popen[bytes], text: str) -> BenchError:
    last = text.strip().rpartition("\n")[2]
    if process.poll() is None:
        return BenchError(f"bench.peers.{name} did not listen within {START_SECONDS:g} s\n{text}")
    if last.startswith(("ModuleNotFoundError", "ImportError")):
        return PeerMissing(last.partition(": ")[2])
    return BenchError(f"bench.peers.{name} ended with code {process.returncode} before it listened:\n{text.strip()}")


@contextmanager
def running(name: str, cpu: int | None = None, *extra: str) -> Iterator[Peer]:
    """A new process of ``bench.peers.<name>`` on CPU ``cpu``; it has ended when the block is left.

    Raises PeerMissing when the peer's library is not installed, BenchError for whatever else keeps it from listening.
    """
    if name == "floor":
        program("floor")  # compiled outside the time a peer has to start
    if name == "kitex":
        try:
            kitex()
        except GoMissing as missing:
            raise PeerMissing(str(missing)) from None
    command = [sys.executable, "-m", f"bench.peers.{name}", "--port", "0", *extra]
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=BENCH.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            line = _first_line(process, START_SECONDS)
            try:
                said = json.loads(line)
                peer = Peer(int(said["port"]), int(said["pid"]))
            except (ValueError, KeyError, TypeError):
                if not line:  # the end of its output: it is about to exit, and its exit code belongs in the message
                    _wait(process, 1.0)
                errors.seek(0)
                raise _explain(name, process, errors.read().decode(errors="replace")) from None
            yield peer
        finally:
            process.terminate()
            if not _wait(process, STOP_SECONDS):
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True

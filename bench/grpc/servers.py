"""Servers under load: CPU per unary call of weego's, grpcio's and grpc-go's, by h2load and by a grpcio client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.host import places, say

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CALL_TIMEOUT = "5S"
# How Linux numbers the clock of a process (include/linux/posix-timers_types.h), as clock_getcpuclockid(3) says it, which Python does not have.
CLOCK_PID_SHIFT = 3
CPUCLOCK_SCHED = 2
BODIES = {"1KiB": 1024, "100KB": 100_000}
GRPCIO_CLIENT = "grpcio's client"


@dataclass(frozen=True)
class Peer:
    """One server, and how many of the calls it gets: the slow ones would make the run long."""

    name: str
    command: list[str]
    env: dict[str, str]
    share: float


@dataclass(frozen=True)
class Load:
    """Connections, streams on each, the body, and how many calls. By h2load, or by a grpcio client with `streams` calls in flight."""

    body: str
    connections: int
    streams: int
    calls: int
    tls: bool = False
    by: str = "h2load"

    def __str__(self) -> str:
        way = f"{self.connections} × {self.streams}" if self.by == "h2load" else f"{self.by}, {self.streams} in flight"
        return f"{self.body}, {way}{', TLS' if self.tls else ''}"


LOADS = (
    Load("1KiB", 100, 1, 60_000),
    Load("1KiB", 8, 32, 120_000),
    Load("1KiB", 1, 1, 8000),
    Load("100KB", 8, 8, 6000),
    Load("1KiB", 1, 64, 20_000, by=GRPCIO_CLIENT),
    Load("1KiB", 100, 1, 40_000, tls=True),
    Load("1KiB", 8, 32, 80_000, tls=True),
)
# Load, peer, and how many times its CPU per call must be weego's.
TARGETS = (
    (LOADS[0], "grpcio", 12.0),
    (LOADS[0], "grpcio asyncio", 15.0),
    (LOADS[1], "grpcio", 20.0),
    (LOADS[1], "grpcio asyncio", 30.0),
    (LOADS[2], "grpcio", 4.0),
    (LOADS[3], "grpcio", 3.0),
    (LOADS[4], "grpcio", 6.0),
    *((load, "grpc-go", 1.0) for load in LOADS[:3]),
)


def go_program() -> str | None:
    """grpc-go's server and client, built; None where Go is missing or its modules cannot be had."""
    go = shutil.which("go")
    if go is None:
        return None
    sources = [HERE / "peers" / "go" / name for name in ("go.mod", "main.go")]
    digest = hashlib.sha256(b"\0".join(each.read_bytes() for each in sources)).hexdigest()[:16]
    folder = ROOT / "build" / "peers" / f"grpc-go-bench-{digest}"
    built = folder / "grpc-go"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for each in sources:
            shutil.copy(each, folder)
        for command in ([go, "mod", "tidy"], [go, "build", "-buildvcs=false", "-o", str(built), "."]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                say(f"grpc-go: not measured: {done.stderr.strip()[-300:]}")
                return None
    return str(built)


def peers() -> list[Peer]:
    module = [sys.executable, "-m"]
    found = [
        Peer("weego", [*module, "bench.grpc.peers.weego"], {}, 1.0),
        Peer("grpcio", [*module, "bench.grpc.peers.grpcio"], {}, 0.08),
        Peer("grpcio asyncio", [*module, "bench.grpc.peers.grpcio", "--asyncio"], {}, 0.08),
    ]
    go = go_program()
    if go is not None:
        found.append(Peer("grpc-go", [go], {"GOMAXPROCS": "1"}, 0.5))
    return found


def pinned(command: list[str], cpu: int | None) -> list[str]:
    """`command` on one CPU."""
    return ["taskset", "-c", str(cpu), *command] if cpu is not None and shutil.which("taskset") else command


@contextlib.contextmanager
def running(peer: Peer, folder: Path, tls: bool = False) -> Iterator[tuple[int, int]]:
    """The peer's port and process id. `folder` has server.crt and server.key."""
    files = [str(folder / "server.crt"), str(folder / "server.key")] if tls else []
    process = subprocess.Popen(
        pinned([*peer.command, *files], places().server),
        cwd=ROOT,
        env={**os.environ, **peer.env},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: {peer.name} ended before it listened")
        said = json.loads(line)
        yield int(said["port"]), int(said["pid"])
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """User and kernel time of all threads of a process, by the kernel's clock of it: to the nanosecond, where /proc counts in ticks of 10 ms."""
    return time.clock_gettime(~pid << CLOCK_PID_SHIFT | CPUCLOCK_SCHED)


def call(port: int, load: Load, calls: int, folder: Path) -> float:
    """Make the calls; how many a second there were. Fails when a single one does."""
    size = BODIES[load.body]
    if load.by == GRPCIO_CLIENT:
        command = [sys.executable, "-m", "bench.grpc.peers.callers", "grpcio", str(port), str(calls), str(load.streams), str(size)]
        done = subprocess.run(pinned(command, places().generator), cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {load}: {done.stderr[-300:]}")
        return float(json.loads(done.stdout)["rate"])
    varint = bytes([size & 0x7F | 0x80, size >> 7]) if size < 1 << 14 else bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    message = b"\n" + varint + bytes(size)
    path = folder / load.body
    path.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    command = ["h2load", "-n", str(calls), "-c", str(load.connections), "-m", str(load.streams), "-d", str(path)]
    for field in ("content-type: application/grpc", "te: trailers", f"grpc-timeout: {CALL_TIMEOUT}", "x-request-id: bench"):
        command += ["-H", field]
    url = f"http{'s' if load.tls else ''}://127.0.0.1:{port}/bench.Echo/Echo"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if found is None or int(found[1]) != calls:
        raise SystemExit(f"bench: h2load {load}: {done.stdout[-300:]}{done.stderr[-300:]}")
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    return float(rate[1]) if rate else 0.0


def measure(port: int, pid: int, load: Load, calls: int, folder: Path) -> tuple[float, float]:
    """CPU µs per call of the server, and calls per second."""
    before = cpu_seconds(pid)
    rate = call(port, load, calls, folder)
    # A caller of ours makes some calls to warm up, which count too.
    return (cpu_seconds(pid) - before) / (calls + (WARM if load.by == GRPCIO_CLIENT else 0)) * 1e6, rate


def run(folder: Path, rounds: int, scale: float, only: str = "") -> list[dict[str, object]]:
    """All loads on all servers, alternating; prints a table for each, and the targets."""
    chosen = peers()
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    loads = [load for load in LOADS if only == str(load)] or [load for load in LOADS if only in str(load)]
    for load in loads:
        for turn in range(rounds):
            start = turn % len(chosen)
            for peer in chosen[start:] + chosen[:start]:
                share = 1.0 if load.by == GRPCIO_CLIENT and peer.name == "weego" else peer.share * (3 if load.by == GRPCIO_CLIENT else 1)
                calls = max(load.connections * load.streams * 2, int(load.calls * share * scale))
                with running(peer, folder, load.tls) as (port, pid):
                    call(port, load, max(load.connections * load.streams, calls // 10), folder)  # warm
                    samples.setdefault((str(load), peer.name), []).append(measure(port, pid, load, calls, folder))
            say(f"gRPC {load}, round {turn + 1} of {rounds}")
    cells: list[dict[str, object]] = []
    medians: dict[tuple[str, str], float] = {}
    for load in loads:
        print(f"\ngRPC servers, unary, {load} (median of {rounds})\n")
        print("| server         | CPU µs/call | × weego | calls/s |")
        print("|----------------|------------:|--------:|--------:|")
        own = statistics.median(cpu for cpu, _ in samples[str(load), "weego"])
        for peer in chosen:
            cpu, rate = (statistics.median(column) for column in zip(*samples[str(load), peer.name], strict=True))
            medians[str(load), peer.name] = cpu
            print(f"| {peer.name:<14} | {cpu:>11.1f} | {cpu / own if own else 0:>6.1f}× | {rate:>7.0f} |")
            cells.append({"load": str(load), "server": peer.name, "cpu_us": cpu, "calls_per_second": rate})
    print()
    for load, name, limit in TARGETS:
        if (str(load), name) in medians:
            ratio = medians[str(load), name] / medians[str(load), "weego"]
            print(f"{'met   ' if ratio >= limit else 'MISSED'} {load}: {name} by weego {ratio:.1f}, at least {limit:g}")
    return cells


# Calls that a caller of bench.grpc.peers.callers makes before it measures.
WARM = 200

"""``python -m bench.grpc``: CPU per unary call of each server, by h2load; a table for people, ``--json`` for scripts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.host import places

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_SECONDS = 20.0
CALL_TIMEOUT = "5S"
BODIES = {"1KiB": 1024, "100KB": 100_000}


@dataclass(frozen=True)
class Peer:
    """One server, and how many of the calls it gets: the slow ones would make the run long."""

    name: str
    command: list[str]
    env: dict[str, str]
    share: float


@dataclass(frozen=True)
class Load:
    """Connections, streams on each, the body, and how many calls."""

    body: str
    connections: int
    streams: int
    calls: int

    def __str__(self) -> str:
        return f"{self.body}, {self.connections} × {self.streams}"


LOADS = (Load("1KiB", 100, 1, 60_000), Load("1KiB", 8, 32, 120_000), Load("1KiB", 1, 1, 8000), Load("100KB", 8, 8, 6000))


def go_server() -> list[str] | None:
    """grpc-go's server, built; None where Go is missing or its modules cannot be had."""
    go = shutil.which("go")
    if go is None:
        return None
    folder = ROOT / "build" / "peers" / "grpc-go-bench"
    built = folder / "server"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("go.mod", "main.go"):
            shutil.copy(HERE / "peers" / "go" / name, folder)
        for command in ([go, "mod", "tidy"], [go, "build", "-o", str(built), "."]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                say(f"grpc-go: not measured: {done.stderr.strip()[-300:]}")
                return None
    return [str(built)]


def peers() -> list[Peer]:
    module = [sys.executable, "-m"]
    found = [
        Peer("weego", [*module, "bench.grpc.peers.weego"], {}, 1.0),
        Peer("grpcio", [*module, "bench.grpc.peers.grpcio"], {}, 0.08),
        Peer("grpcio asyncio", [*module, "bench.grpc.peers.grpcio", "--asyncio"], {}, 0.08),
    ]
    go = go_server()
    if go is not None:
        found.append(Peer("grpc-go", go, {"GOMAXPROCS": "1"}, 0.5))
    return found


@contextlib.contextmanager
def running(peer: Peer) -> Iterator[tuple[int, int]]:
    """The peer's port and process id."""
    cpu = places().server
    command = ["taskset", "-c", str(cpu), *peer.command] if cpu is not None and shutil.which("taskset") else peer.command
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **peer.env}, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
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
    """User and kernel time of all threads of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, pid: int, load: Load, calls: int, folder: str) -> tuple[float, float]:
    """CPU µs per call, and calls per second. Fails when a single call does."""
    size = BODIES[load.body]
    value = bytes(size)
    varint = bytes([size & 0x7F | 0x80, size >> 7]) if size < 1 << 14 else bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    message = b"\n" + varint + value
    path = os.path.join(folder, load.body)
    with open(path, "wb") as file:
        file.write(b"\0" + len(message).to_bytes(4, "big") + message)
    command = ["h2load", "-n", str(calls), "-c", str(load.connections), "-m", str(load.streams), "-d", path]
    for field in ("content-type: application/grpc", "te: trailers", f"grpc-timeout: {CALL_TIMEOUT}", "x-request-id: bench"):
        command += ["-H", field]
    before = cpu_seconds(pid)
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/bench.Echo/Echo"], capture_output=True, text=True, check=False)
    spent = cpu_seconds(pid) - before
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if found is None or int(found[1]) != calls:
        raise SystemExit(f"bench: h2load {load}: {done.stdout[-300:]}{done.stderr[-300:]}")
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    return spent / calls * 1e6, float(rate[1]) if rate else 0.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grpc", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one short round: does everything run?")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    if shutil.which("h2load") is None:
        say("bench: gRPC is not measured: h2load is missing (apt-get install nghttp2-client)")
        return 0
    rounds = given.rounds or (1 if given.smoke else 3)
    scale = 0.05 if given.smoke else 1.0
    chosen = peers()
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for load in LOADS:
            for turn in range(rounds):
                start = turn % len(chosen)
                for peer in chosen[start:] + chosen[:start]:
                    calls = max(load.connections * load.streams * 2, int(load.calls * peer.share * scale))
                    with running(peer) as (port, pid):
                        measure(port, pid, load, max(load.connections * load.streams, calls // 10), folder)  # warm
                        samples.setdefault((str(load), peer.name), []).append(measure(port, pid, load, calls, folder))
                say(f"gRPC {load}, round {turn + 1} of {rounds}")
    cells = []
    for load in LOADS:
        print(f"\ngRPC unary, {load} streams (h2load; median of {rounds})\n")
        print("| server         | CPU µs/call | × weego | calls/s |")
        print("|----------------|------------:|--------:|--------:|")
        own = statistics.median(cpu for cpu, _ in samples[str(load), "weego"])
        for peer in chosen:
            cpu, rate = (statistics.median(column) for column in zip(*samples[str(load), peer.name], strict=True))
            print(f"| {peer.name:<14} | {cpu:>11.1f} | {cpu / own if own else 0:>6.1f}× | {rate:>7.0f} |")
            cells.append({"load": str(load), "server": peer.name, "cpu_us": cpu, "calls_per_second": rate})
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(cells, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())

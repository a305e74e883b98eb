"""Runs the load generator once and reads what it measured."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.native import BenchError, program

if TYPE_CHECKING:
    from bench.peer import Peer

GRACE_SECONDS = 75.0
"""The generator ends by itself (30 s to open, twice its timeout of 10 s to drain); this is for when it cannot."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured window. Times in µs, memory in bytes."""

    requests: int
    seconds: float
    requests_per_second: float
    server_cpu_us: float
    """CPU time of the server process, all threads, user and kernel, per request."""
    server_busy: float
    """CPU time of the server by wall time; near 1 it was the server that limited the rate."""
    generator_cpu_us: float
    generator_busy: float
    p50_us: float
    p99_us: float
    max_us: float
    rss_bytes: int
    """Resident memory of the server at the end of the window, all connections open."""


def parse(text: str) -> Sample:
    """A Sample from the generator's output; raises BenchError with its words when it found something wrong."""
    try:
        said: dict[str, Any] = json.loads(text)
    except ValueError:
        raise BenchError(f"the load generator printed no result: {text.strip()[:200]!r}") from None
    if "error" in said:
        raise BenchError(said["error"])
    requests, seconds = int(said["requests"]), float(said["seconds"])
    if requests == 0:
        raise BenchError(f"no request was answered in {seconds:.3f} s; measure longer (--seconds)")
    cpu, own, latency = said["server"]["cpu_ns"], said["generator"]["cpu_ns"], said["latency_ns"]
    return Sample(
        requests=requests,
        seconds=seconds,
        requests_per_second=requests / seconds,
        server_cpu_us=cpu / requests / 1e3,
        server_busy=cpu / seconds / 1e9,
        generator_cpu_us=own / requests / 1e3,
        generator_busy=own / seconds / 1e9,
        p50_us=latency["p50"] / 1e3,
        p99_us=latency["p99"] / 1e3,
        max_us=latency["max"] / 1e3,
        rss_bytes=int(said["server"]["rss_bytes"]),
    )


def measure(
    peer: Peer,
    request: str,
    reply: str,
    *,
    connections: int,
    seconds: float,
    warmup: float,
    depth: int = 1,
    cpu: int | None = None,
) -> Sample:
    """Loads ``peer`` with the request in file ``request``; every reply must equal the file ``reply``."""
    command = [str(program("loadgen")), "--port", str(peer.port), "--server-pid", str(peer.pid)]
    command += ["--request", request, "--reply", reply, "--connections", str(connections), "--depth", str(depth)]
    command += ["--seconds", str(seconds), "--warmup", str(warmup)]
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds + warmup + GRACE_SECONDS
    )
    return parse(done.stdout or done.stderr)

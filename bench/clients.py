"""The clients side by side: what a call costs whoever makes it, against one and the same server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import NamedTuple

from bench.go import kitex
from bench.native import BENCH, BenchError

CLIENTS = ("weego", "kitex")

# Transport, callers at a time, and how the Kitex server is started.
LOADS = (
    ("framed", 1, "pingpong"),
    ("framed", 100, "pingpong"),
    ("ttheader", 1, "pingpong"),
    ("ttheader", 100, "pingpong"),
    ("ttheader-shared", 100, "shared"),
)

GRACE_SECONDS = 60.0


class Cell(NamedTuple):
    """One client under one load."""

    client: str
    transport: str
    callers: int
    variant: str


@dataclass(frozen=True, slots=True)
class ClientSample:
    """One measured window; CPU of the client's process, all threads, user and kernel."""

    calls: int
    cpu_us: float
    calls_per_second: float


def measure(client: str, port: int, transport: str, callers: int, *, seconds: float, warmup: float, cpu: int | None) -> ClientSample:
    """Loads the server on ``port`` with calls of 1 KiB. BenchError with the client's words when something went wrong."""
    command = [sys.executable, "-m", "bench.peers.weego_client"] if client == "weego" else [str(kitex()), "load"]
    dash = "--" if client == "weego" else "-"
    given = {"address": f"127.0.0.1:{port}", "transport": transport, "callers": callers, "seconds": seconds, "warmup": warmup}
    for name, value in given.items():
        command += [f"{dash}{name}", str(value)]
    if client == "weego" and cpu is not None:
        command += ["--cpu", str(cpu)]

    def place() -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    done = subprocess.run(
        command, cwd=BENCH.parent, capture_output=True, text=True, check=False, preexec_fn=place,
        env={**os.environ, "GOMAXPROCS": "1"}, timeout=seconds + warmup + GRACE_SECONDS,
    )  # fmt: skip
    try:
        said = json.loads(done.stdout)
        calls, cpu_ns, took = int(said["calls"]), float(said["cpu_ns"]), float(said["seconds"])
        return ClientSample(calls, cpu_ns / calls / 1e3, calls / took)
    except (ValueError, KeyError, ZeroDivisionError):
        raise BenchError(f"the {client} client over {transport} failed:\n{done.stderr.strip()[-2000:]}") from None

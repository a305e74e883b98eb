"""Clients: CPU per unary call of weego's, grpcio's and grpc-go's against the same server, beside what bare sockets cost for the same bytes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench.grpc.servers import BODIES, ROOT, Peer, go_program, pinned, running
from bench.host import places, say

SIZE = BODIES["1KiB"]
SERVER = Peer("weego", [sys.executable, "-m", "bench.grpc.peers.weego"], {}, 1.0)
FLOOR = Peer("floor", [sys.executable, "-m", "bench.peers.floor"], {}, 1.0)
# Client, its floor for calls one at a time, and how many of the calls it makes.
CLIENTS = (
    ("weego", "gevent-sockets", 1.0),
    ("weego-threads", "sockets", 1.0),
    ("grpcio", "", 0.5),
    ("grpc-go", "", 1.0),
    ("sockets", "", 1.0),
    ("gevent-sockets", "", 1.0),
)
CALLS = 10_000
LIMIT = 6.0
"""grpcio's CPU per call by weego's."""


def run(folder: Path, rounds: int, scale: float) -> list[dict[str, object]]:
    """All clients, alternating, each in a process of its own on a CPU of its own; prints a table."""
    go = go_program()
    found: dict[tuple[str, int, bool], list[float]] = {}
    for tls in (False, True):
        with running(SERVER, folder, tls) as (port, _), running(FLOOR, folder) as (floor, _):
            for turn in range(rounds):
                for flight in (1, 64):
                    for name, _, share in CLIENTS:
                        if (name.endswith("sockets") and (tls or flight > 1)) or (name == "grpc-go" and (tls or go is None)):
                            continue
                        calls = max(flight * 2, int(CALLS * share * scale))
                        more = [str(floor if name.endswith("sockets") else port), str(calls), str(flight), str(SIZE)]
                        if name == "grpc-go":
                            assert go is not None
                            command = [go, "call", f"127.0.0.1:{port}", *more[1:]]
                        else:
                            command = [sys.executable, "-m", "bench.grpc.peers.callers", name, *more]
                            command += [str(folder / "ca.pem")] if tls else []
                        environ = {**os.environ, "GOMAXPROCS": "1"}
                        place = pinned(command, places().generator)
                        done = subprocess.run(place, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
                        if done.returncode:
                            raise SystemExit(f"bench: {name}: {done.stderr[-500:]}")
                        found.setdefault((name, flight, tls), []).append(float(json.loads(done.stdout)["us"]))
                say(f"gRPC clients{', TLS' if tls else ''}, round {turn + 1} of {rounds}")
    return show({key: statistics.median(costs) for key, costs in found.items()}, rounds)


def show(found: dict[tuple[str, int, bool], float], rounds: int) -> list[dict[str, object]]:
    print(f"\ngRPC clients, unary, 1 KiB (median of {rounds})\n")
    print("| client         | calls at a time |     | CPU µs/call | grpcio by it | floor by it |")
    print("|----------------|----------------:|-----|------------:|-------------:|------------:|")
    cells: list[dict[str, object]] = []
    floors = {name: floor for name, floor, _ in CLIENTS}
    for (name, flight, tls), cost in sorted(found.items(), key=lambda item: (item[0][2], item[0][1])):
        theirs = found["grpcio", flight, tls] / cost
        floor = found.get((floors[name], flight, tls))
        of_floor = f"{floor / cost:.2f}" if floor else ""
        print(f"| {name:<14} | {flight:>15} | {'TLS' if tls else '':<3} | {cost:>11.1f} | {theirs:>11.1f}× | {of_floor:>11} |")
        cells.append({"client": name, "in_flight": flight, "tls": tls, "cpu_us": cost, "grpcio_by_it": theirs})
    print()
    for name in ("weego", "weego-threads"):
        for flight in (1, 64):
            ratio = found["grpcio", flight, False] / found[name, flight, False]
            text = f"{name}, {flight} at a time: grpcio by it {ratio:.1f}, at least {LIMIT:g}"
            floor = found.get((floors[name], flight, False))
            if floor:
                text += f" (bare sockets for the same bytes: {found['grpcio', flight, False] / floor:.1f})"
            print(f"{'met   ' if ratio >= LIMIT else 'MISSED'} {text}")
    return cells

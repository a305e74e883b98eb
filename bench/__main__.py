"""``python -m bench``: measures, prints the tables, writes the JSON."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import clients
from bench.host import busy, describe, places, raise_file_limit
from bench.load import measure
from bench.messages import MUX, MUX_DEPTH, TTHEADER, files, messages
from bench.native import BENCH, BenchError
from bench.peer import PEERS, PeerMissing, running
from bench.report import Cell, Result, as_json, as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = (1, 100, 1000)
MESSAGES = ("16B", "1KiB", "complex", TTHEADER, MUX)
PARTS = ("servers", "clients", "codecs")
PEER_NAMES = tuple(peer.name for peer in PEERS)

MAX_DEPTH = 1024
"""The load generator's own limit."""

ROUNDS = 5
SECONDS = 2.0
"""One window. 36 loads of 5 rounds of 2 s with their starts and warm-ups stay under ten minutes."""
WARMUP_SECONDS = 0.3
CODEC_SECONDS = 0.1

SMOKE_SECONDS = 0.2
SMOKE_WARMUP_SECONDS = 0.05
SMOKE_CODEC_SECONDS = 0.02
SMOKE_LOADS = (("16B", 1), ("1KiB", 100), ("1KiB", 1000), ("complex", 100), (TTHEADER, 100), (MUX, 10))


@dataclass(frozen=True)
class Plan:
    """What a run measures."""

    rounds: int
    seconds: float
    warmup: float
    codec_seconds: float
    depth: int
    smoke: bool
    parts: tuple[str, ...]
    peers: tuple[str, ...]
    loads: tuple[tuple[str, int], ...]
    json: str | None


def plan(arguments: Sequence[str]) -> Plan:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures weego, its peers and the floor in one run; docs/benchmarks.md explains the figures.",
    )
    parser.add_argument("--rounds", type=int, help=f"rounds of each (default {ROUNDS}; with --smoke 1)")
    parser.add_argument("--seconds", type=float, help=f"length of one window (default {SECONDS:g})")
    parser.add_argument("--depth", type=int, default=1, help="unanswered requests per connection (default 1)")
    parser.add_argument("--smoke", action="store_true", help="one short round of a few loads: does everything run?")
    parser.add_argument("--json", metavar="FILE", help="write the result for scripts here (- for stdout, no tables)")
    parser.add_argument(
        "--only",
        metavar="NAME,…",
        action="append",
        default=[],
        help=f"of {', '.join(PARTS)}; {', '.join(PEER_NAMES)}; {', '.join(MESSAGES)}; 1, 100, 1000 or any other "
        "number of connections: only these; what no name speaks about stays whole",
    )
    given = parser.parse_args(arguments)
    names = [name for group in given.only for name in group.split(",") if name]
    numbers = tuple(int(name) for name in names if name.isdigit())
    known = (*PARTS, *PEER_NAMES, *MESSAGES)
    for name in names:
        if name not in known and not (name.isdigit() and int(name) > 0):
            parser.error(f"--only {name}: unknown; expected a number of connections or one of {', '.join(known)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least one is needed")
    if given.seconds is not None and given.seconds <= 0:
        parser.error(f"--seconds {given.seconds}: must be more than 0")
    if not 1 <= given.depth <= MAX_DEPTH:
        parser.error(f"--depth {given.depth}: from 1 to {MAX_DEPTH}")
    if given.json not in (None, "-") and not os.path.isdir(os.path.dirname(given.json) or "."):
        parser.error(f"--json {given.json}: there is no folder {os.path.dirname(given.json)}")

    def chosen(known: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in known if name in names) or known

    loads = tuple(itertools.product(chosen(MESSAGES), numbers or CONNECTIONS))
    if given.smoke and not numbers:
        loads = tuple(load for load in SMOKE_LOADS if load[0] in chosen(MESSAGES))
    return Plan(
        rounds=given.rounds or (1 if given.smoke else ROUNDS),
        seconds=given.seconds or (SMOKE_SECONDS if given.smoke else SECONDS),
        warmup=SMOKE_WARMUP_SECONDS if given.smoke else WARMUP_SECONDS,
        codec_seconds=SMOKE_CODEC_SECONDS if given.smoke else CODEC_SECONDS,
        depth=given.depth,
        smoke=given.smoke,
        parts=chosen(PARTS),
        peers=chosen(PEER_NAMES),
        loads=loads,
        json=given.json,
    )


def say(text: str) -> None:
    """Progress goes to stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def measure_servers(chosen: Plan, result: Result) -> None:
    """Each load in turn; within it all servers alternate, and each round begins with another one."""
    where = places()
    done, total = 0, len(chosen.loads) * chosen.rounds
    for name, connections in chosen.loads:
        message = messages()[name]
        able = {peer.name for peer in PEERS if name not in peer.cannot}
        peers = [peer for peer in chosen.peers if peer in able]
        request, reply = files(message)
        cells = {peer: Cell(peer, name, connections) for peer in peers}
        for turn in range(chosen.rounds):
            start = turn % max(1, len(peers))
            for peer in peers[start:] + peers[:start]:
                if peer in result.missing:
                    continue
                try:
                    # A fresh process each time: no server profits or suffers from what it served before.
                    with running(peer, where.server, *_variant(peer, name)) as server:
                        sample = measure(
                            server,
                            request,
                            request if peer == "floor" else reply,
                            connections=connections,
                            seconds=chosen.seconds,
                            warmup=chosen.warmup,
                            depth=max(chosen.depth, MUX_DEPTH) if name == MUX else chosen.depth,
                            cpu=where.generator,
                        )
                except PeerMissing as missing:
                    result.missing[peer] = str(missing)
                    say(f"{peer}: not measured: {missing}")
                    continue
                except BenchError as error:
                    raise BenchError(f"{peer}, {name}, {connections} connections: {error}") from None
                cells[peer].samples.append(sample)
            done += 1
            say(f"[{done}/{total}] {name}, {connections} connections, round {turn + 1} of {chosen.rounds}")
        result.cells += [cell for cell in cells.values() if cell.samples]


def _variant(peer: str, message: str) -> tuple[str, ...]:
    """Kitex serves connections with one call at a time, or with many, and must be told; weego looks at each message."""
    return ("--variant", "shared") if peer == "kitex" and message == MUX else ()


def measure_clients(chosen: Plan, result: Result) -> None:
    """weego's client and Kitex's in turn, against the same Kitex server: plain for one call at a time, sharing for many."""
    where = places()
    for each in clients.LOADS:
        for client in clients.CLIENTS:
            result.clients.setdefault(clients.Cell(client, *each), [])
        for _ in range(chosen.rounds):
            try:
                with running("kitex", where.server, "--variant", each[2]) as server:
                    for client in clients.CLIENTS:
                        sample = clients.measure(
                            client, server.port, each[0], each[1],
                            seconds=chosen.seconds, warmup=chosen.warmup, cpu=where.generator,
                        )  # fmt: skip
                        result.clients[clients.Cell(client, *each)].append(sample)
            except PeerMissing as missing:
                result.missing["kitex"] = str(missing)
                result.clients.clear()
                say(f"clients: not measured: {missing}")
                return
        say(f"clients: {each[0]}, {each[1]} callers")


def measure_codecs(chosen: Plan, result: Result) -> None:
    """All codecs, in a process of their own."""
    say("codecs")
    command = [sys.executable, "-m", "bench.codecs", "--rounds", str(chosen.rounds)]
    command += ["--seconds", str(chosen.codec_seconds)]
    cpu = places().server
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"the codecs could not be measured:\n{done.stderr.strip()}")
    said = json.loads(done.stdout)
    result.codecs = said["samples"]
    for name, why in said["missing"].items():
        result.missing.setdefault(name, why)


def main() -> int:
    """Exit code: 0 measured, 1 not (one message on stderr)."""
    chosen = plan(sys.argv[1:])
    raise_file_limit()
    if busy():
        say("others are using this machine: the figures will be noisy, read the range beside each median")
    settings: dict[str, object] = {
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "warmup": chosen.warmup,
        "depth": chosen.depth,
        "smoke": chosen.smoke,
        "pinned": places().server is not None,
    }
    result = Result(describe(), settings)
    began = time.monotonic()
    try:
        if "servers" in chosen.parts:
            measure_servers(chosen, result)
        if "clients" in chosen.parts:
            measure_clients(chosen, result)
        if "codecs" in chosen.parts:
            measure_codecs(chosen, result)
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    settings["took_seconds"] = round(time.monotonic() - began, 1)
    if chosen.json is not None:
        text = json.dumps(as_json(result), indent=1) + "\n"
        if chosen.json == "-":
            sys.stdout.write(text)
            return 0
        with open(chosen.json, "w", encoding="utf-8") as file:
            file.write(text)
    sys.stdout.write(as_text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

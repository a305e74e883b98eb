"""Messages of Thrift streams (TTHeaderStreaming): how many a second, and the CPU each costs on either side, of weego and of Kitex.

    python -m bench.thrift_streams [--rounds 3] [--smoke] [--json FILE]

1 KiB messages on one connection, in four shapes: the server streams, the client streams, both do on one stream, and 32 streams go back and forth. Each pair
of client and server runs alone; Kitex has one CPU's worth of Go (GOMAXPROCS=1), as weego's worker has. Rounds alternate, medians are shown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.grpc.servers import ROOT, cpu_seconds
from bench.host import say
from tests.support import kitex_stream

SIZE = 1024
# Those of tests/interop/kitex_stream/load.go.
PER_CALL = 2000
AT_ONCE = 32
SHAPES = ("server streams", "client streams", "both stream", f"{AT_ONCE} streams back and forth")
PAIRS = (("kitex", "weego"), ("kitex", "kitex"), ("weego", "weego"), ("weego", "kitex"))
CALLS = 40
GO = {"GOMAXPROCS": "1"}


def run(folder: Path, rounds: int, calls: int) -> list[dict[str, Any]]:
    """All pairs, alternating; prints a table for each shape."""
    from idlc import compile_files

    compile_files([str(kitex_stream.IDL)], str(folder / "bench_talk"), [], names="pep8", version="0")
    talk = str(kitex_stream.talk())
    here = [sys.executable, "-m", "bench.thrift_streams"]
    servers = {"weego": [*here, "serve", str(folder)], "kitex": [talk, "serve"]}
    running: dict[str, tuple[subprocess.Popen[str], str]] = {}
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    try:
        for name, command in servers.items():
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **GO})
            assert process.stdout
            running[name] = process, process.stdout.readline().split()[-1]
        for turn in range(rounds):
            for client, server in PAIRS:
                process, port = running[server]
                command = (
                    [talk, "load", "-address", f"127.0.0.1:{port}", "-calls", str(calls), "-size", str(SIZE)]
                    if client == "kitex"
                    else [*here, "call", str(folder), port, str(calls)]
                )
                talking = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **GO}
                )
                assert talking.stdin
                assert talking.stdout
                for shape in SHAPES:
                    talking.stdout.readline()  # it is warm
                    before = cpu_seconds(process.pid)
                    talking.stdin.write("\n")
                    talking.stdin.flush()
                    said = json.loads(talking.stdout.readline())
                    served = (cpu_seconds(process.pid) - before) / said["messages"] * 1e6
                    found.setdefault((client, server, shape), []).append((said["rate"], said["us"], served))
                talking.stdin.close()
                talking.stdout.close()
                if talking.wait():
                    raise SystemExit(f"bench: {client} failed")
            say(f"Thrift streams, round {turn + 1} of {rounds}")
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()
            if process.stdout:
                process.stdout.close()
    rows = []
    for shape in SHAPES:
        for client, server in PAIRS:
            rate, calling, serving = [statistics.median(column) for column in zip(*found[client, server, shape], strict=True)]
            rows.append({"shape": shape, "client": client, "server": server, "per_second": rate, "client_us": calling, "server_us": serving})
    show(rows)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Tables, and weego's CPU as a share of Kitex's: servers under the same client, clients of the same server."""
    for shape in SHAPES:
        print(f"\nThrift streams, {shape}, {SIZE} bytes a message\n")
        print("| client | server | messages/s | client µs | server µs |")
        print("|---|---|---:|---:|---:|")
        by = {(row["client"], row["server"]): row for row in rows if row["shape"] == shape}
        for row in by.values():
            print(f"| {row['client']} | {row['server']} | {row['per_second']:.0f} | {row['client_us']:.2f} | {row['server_us']:.2f} |")
        theirs = by["kitex", "kitex"]
        # A smoke run may be over before the kernel has counted a tick of the server's.
        server = by["kitex", "weego"]["server_us"] / (theirs["server_us"] or math.nan)
        client = by["weego", "kitex"]["client_us"] / (theirs["client_us"] or math.nan)
        print(f"\nCPU, weego by Kitex: server {server:.2f} (Kitex's client), client {client:.2f} (Kitex's server)")


def stubs(folder: str) -> Any:
    """What `weego gen` made of the IDL."""
    sys.path.insert(0, folder)
    return importlib.import_module("bench_talk.talk")


def serve(folder: str) -> None:
    """weego's server of Talk."""
    import weego

    t = stubs(folder)

    class Service(t.Talk):  # type: ignore[misc]
        def watch(self, req: Any) -> Any:
            for number in range(req.count):
                yield t.Reply(message=req.message, body=req.body, count=number)

        def collect(self, req: Any) -> Any:
            return t.Reply(count=sum(1 for _ in req))

        def chat(self, req: Any) -> Any:
            for each in req:
                yield t.Reply(message=each.message, body=each.body, count=each.count)

    server = weego.Server([Service()], listen=["tcp://127.0.0.1:0"])
    print("listening on", server.addresses[0].rpartition(":")[2], flush=True)
    server.serve_forever()


def call(folder: str, port: str, calls: int) -> None:
    """weego's client under gevent; see load.go."""
    import gevent

    gevent.get_hub()
    t = stubs(folder)
    client = t.TalkClient(f"tcp://127.0.0.1:{port}", timeout=60, max_idle=1)
    body = bytes(SIZE)

    def server_streams() -> None:
        assert sum(1 for _ in client.watch(t.Request(count=PER_CALL, body=body))) == PER_CALL

    def client_streams() -> None:
        with client.collect() as stream:
            for _ in range(PER_CALL):
                stream.send(t.Request(body=body))
            assert stream.result().count == PER_CALL

    def both() -> None:
        with client.chat() as stream:

            def send() -> None:
                for _ in range(PER_CALL):
                    stream.send(t.Request(body=body))
                stream.close_send()

            sender = gevent.spawn(send)
            assert sum(1 for _ in stream) == PER_CALL
            sender.join()

    def converse() -> None:
        with client.chat() as stream:
            for _ in range(PER_CALL // AT_ONCE):
                stream.send(t.Request(body=body))
                next(stream)
            stream.close_send()
            assert not list(stream)

    def back_and_forth() -> None:
        gevent.joinall([gevent.spawn(converse) for _ in range(AT_ONCE)], raise_error=True)

    shapes: tuple[Callable[[], None], ...] = (server_streams, client_streams, both, back_and_forth)
    for shape in shapes:
        shape()
        print("warm", flush=True)
        sys.stdin.readline()
        began, spent = time.perf_counter(), time.process_time()
        for _ in range(calls):
            shape()
        spent, took = time.process_time() - spent, time.perf_counter() - began
        count = calls * PER_CALL
        print(json.dumps({"messages": count, "rate": count / took, "us": spent / count * 1e6}), flush=True)


def main() -> int:
    """The bench, or one of its processes."""
    if len(sys.argv) > 1 and sys.argv[1] == "serve":
        serve(sys.argv[2])
        return 0
    if len(sys.argv) > 1 and sys.argv[1] == "call":
        call(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench.thrift_streams", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one short round: does everything run?")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    if shutil.which("go") is None:
        say("bench: Thrift streams are not measured: Go, which builds Kitex, is missing (1.22 or later; apt-get install golang-go)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), given.rounds or (1 if given.smoke else 3), 1 if given.smoke else CALLS)
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

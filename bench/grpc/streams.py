"""Messages of streams: how many a second, and the CPU each costs on either side, of weego and of grpcio. See docs/benchmarks.md.

Three shapes of 1 KiB messages on one stream of one connection: the server streams, the client streams, both do (the client sends in one thread or
greenlet and reads in another). Each pair of client and server runs alone, in processes of their own; rounds alternate, medians are shown.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.grpc.servers import BODIES, ROOT, cpu_seconds
from bench.host import say

PROTO = ROOT / "tests" / "interop" / "grpc" / "testing.proto"
GRPCIO = ROOT / "tests" / "support" / "grpcio_testing.py"
SIZE = BODIES["1KiB"]
# Client and server. Those of grpcio are slow: they get a tenth of the messages.
PAIRS = (("weego", "weego"), ("weego-threads", "weego"), ("grpcio", "weego"), ("weego", "grpcio"), ("grpcio", "grpcio"))
SHAPES = ("server streams", "client streams", "both stream")
# Messages of one call: a request that lists more of them is itself too large to be a fair beginning.
CALL = 2000
MESSAGES = 20_000
LIMIT = 10.0
"""weego's messages a second by grpcio's."""


def run(folder: Path, rounds: int, scale: float) -> list[dict[str, Any]]:
    """All pairs, alternating; prints a table for each shape."""
    from idlc.proto_compile import compile_protos

    compile_protos([PROTO], folder / "weego_grpc_testing", [PROTO.parent])
    commands = {
        "weego": [sys.executable, "-m", "bench.grpc.streams", "serve", str(folder)],
        "grpcio": [sys.executable, str(GRPCIO), str(folder), "serve"],
    }
    running = {}
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    try:
        for name, command in commands.items():
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            assert process.stdout
            running[name] = process, process.stdout.readline().split()[-1]
        for turn in range(rounds):
            for client, server in PAIRS:
                process, port = running[server]
                count = max(CALL, int(MESSAGES * scale) // (10 if "grpcio" in (client, server) else 1))
                command = [sys.executable, "-m", "bench.grpc.streams", "call", client, str(folder), port, str(count // CALL)]
                talking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
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
            say(f"gRPC streams, round {turn + 1} of {rounds}")
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()
            if process.stdout:
                process.stdout.close()
    rows = [
        {"shape": shape, "client": client, "server": server, "per_second": rate, "client_us": calling, "server_us": serving}
        for shape in SHAPES
        for client, server in PAIRS
        for rate, calling, serving in [[statistics.median(column) for column in zip(*found[client, server, shape], strict=True)]]
    ]
    show(rows)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    for shape in SHAPES:
        print(f"\ngRPC, {shape}, {SIZE} bytes a message\n")
        print("| client | server | messages/s | client µs | server µs |")
        print("|---|---|---:|---:|---:|")
        for row in rows:
            if row["shape"] == shape:
                print(
                    f"| {row['client']} | {row['server']} | {row['per_second']:.0f} | {row['client_us']:.1f} | {row['server_us']:.1f} |"
                )
        by = {(row["client"], row["server"]): row for row in rows if row["shape"] == shape}
        own, theirs = by["weego", "weego"], by["grpcio", "grpcio"]
        rate = own["per_second"] / theirs["per_second"]
        print(f"\n{'met   ' if rate >= LIMIT else 'MISSED'} {shape}: messages a second, weego by grpcio {rate:.1f}, at least {LIMIT:g}")
        print(
            f"CPU of grpcio by weego's: client {theirs['client_us'] / own['client_us']:.1f}, server {theirs['server_us'] / own['server_us']:.1f}"
        )


def serve(folder: str) -> None:
    """weego's server of the TestService."""
    import weego
    from tests.interop import grpc_service

    server = weego.Server([grpc_service.service(grpc_service.module(Path(folder)))], listen=["tcp://127.0.0.1:0"])
    print("listening on", server.addresses[0].rpartition(":")[2], flush=True)
    server.serve_forever()


def child(client: str, folder: str, port: str, calls: str) -> None:
    """One client: warms up, says so, waits for a line, measures; for each shape. Prints JSON."""
    shapes = grpcio(folder, port) if client == "grpcio" else ours(client, folder, port)
    for shape in SHAPES:
        shapes[shape]()
        print("warm", flush=True)
        sys.stdin.readline()
        began, spent = time.perf_counter(), time.process_time()
        for _ in range(int(calls)):
            shapes[shape]()
        spent, took = time.process_time() - spent, time.perf_counter() - began
        messages = int(calls) * CALL
        print(json.dumps({"messages": messages, "rate": messages / took, "us": spent / messages * 1e6}), flush=True)


def ours(client: str, folder: str, port: str) -> dict[str, Callable[[], object]]:
    from tests.interop import grpc_service

    t: Any = grpc_service.module(Path(folder))
    held = t.TestServiceClient(f"tcp://127.0.0.1:{port}", timeout=60)
    asked = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=SIZE)] * CALL)
    given = t.StreamingInputCallRequest(payload=t.Payload(body=bytes(SIZE)))
    both = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=SIZE)], payload=t.Payload(body=bytes(SIZE)))
    if client == "weego":
        import gevent

        gevent.get_hub()

    def aside(action: Callable[[], None]) -> Callable[[], object]:
        """Run it beside this."""
        if client == "weego":
            return gevent.spawn(action).join
        thread = threading.Thread(target=action)
        thread.start()
        return thread.join

    def upload() -> None:
        with held.streaming_input_call() as stream:
            for _ in range(CALL):
                stream.send(given)
            assert stream.result().aggregated_payload_size == CALL * SIZE

    def chat() -> None:
        stream = held.full_duplex_call()

        def send() -> None:
            for _ in range(CALL):
                stream.send(both)
            stream.close_send()

        join = aside(send)
        assert sum(1 for _ in stream) == CALL
        join()

    return dict(zip(SHAPES, (lambda: list(held.streaming_output_call(asked)), upload, chat), strict=True))


def grpcio(folder: str, port: str) -> dict[str, Callable[[], object]]:
    import grpc

    peer = peer_of_grpcio()
    t = peer.messages(folder)
    client = peer.Client(t, grpc.insecure_channel(f"127.0.0.1:{port}"))
    asked = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=SIZE)] * CALL)
    given = t.StreamingInputCallRequest(payload=t.Payload(body=bytes(SIZE)))
    both = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=SIZE)], payload=t.Payload(body=bytes(SIZE)))

    def repeated(message: Any) -> Iterator[Any]:
        for _ in range(CALL):
            yield message

    def upload() -> None:
        assert client.input(repeated(given)).aggregated_payload_size == CALL * SIZE

    def chat() -> None:
        assert sum(1 for _ in client.duplex(repeated(both))) == CALL

    return dict(zip(SHAPES, (lambda: list(client.output(asked)), upload, chat), strict=True))


def peer_of_grpcio() -> Any:
    """tests/support/grpcio_testing.py as a module."""
    spec = importlib.util.spec_from_file_location("grpcio_testing", GRPCIO)
    assert spec
    assert spec.loader
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    return peer


if __name__ == "__main__":
    {"serve": serve, "call": child}[sys.argv[1]](*sys.argv[2:])

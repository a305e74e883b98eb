"""What a gRPC client costs, and TLS: CPU per call of weego's client and of grpcio's, with and without TLS, against the same servers.

    python -m bench.grpc_client [--calls 4000] [--rounds 3]

Unary calls of 1 KiB each way, one at a time and 64 at a time, and messages of one stream of 1 KiB each. Each client is a process of its own; rounds
of all of them alternate, and the median of the rounds is shown. The server is weego's (one process, with and without TLS) and, for the
cost of TLS on a server, grpcio's. CPU is user and system time of all threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "tests" / "interop" / "grpc" / "testing.proto"
GRPCIO = ROOT / "tests" / "support" / "grpcio_testing.py"
SIZE = 1024
AT_A_TIME = 64
MESSAGES = 2000
CLIENTS = ("weego", "weego-threads", "grpcio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(*chosen.child, chosen.calls)
    elif chosen.serve:
        serve(*chosen.serve)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), chosen.calls, chosen.rounds)


def run(folder: Path, calls: int, rounds: int) -> None:
    from idlc.proto_compile import compile_protos
    from tests.support.certs import Certificates

    compile_protos([PROTO], folder / "weego_grpc_testing", [PROTO.parent])
    certs = Certificates(folder / "certs")
    own = [sys.executable, "-m", "bench.grpc_client", "--serve", str(folder)]
    theirs = [sys.executable, str(GRPCIO), str(folder), "serve"]
    files = [str(certs.folder / "server.crt"), str(certs.folder / "server.key")]
    servers = {
        ("weego", ""): [*own, "plain"],
        ("weego", "tls"): [*own, "tls"],
        ("grpcio", ""): theirs,
        ("grpcio", "tls"): [*theirs, *files],
    }
    running = {}
    found: dict[tuple[str, ...], list[float]] = {}
    try:
        for name, command in servers.items():
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            assert process.stdout
            running[name] = process, process.stdout.readline().split()[-1]
        for _ in range(rounds):
            for (server, tls), (process, port) in running.items():
                for client in CLIENTS if server == "weego" else ("weego",):
                    before = cpu(process.pid)
                    command = [sys.executable, "-m", "bench.grpc_client", f"--calls={calls}"]
                    command += ["--child", client, str(folder), port, tls and certs.path("ca")]
                    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
                    for what, cost in said["us"].items():
                        found.setdefault(("client", client, tls, what), []).append(cost)
                    if client == "weego":
                        found.setdefault(("server", server, tls, "unary"), []).append((cpu(process.pid) - before) / said["calls"] * 1e6)
    finally:
        for process, _ in running.values():
            process.terminate()
            process.wait()
    for key in sorted(found):
        side, name, tls, what = key
        print(f"{side} {name:14} {tls or 'plain':6} {what:14} {statistics.median(found[key]):8.1f} µs of CPU")


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def serve(folder: str, how: str) -> None:
    """weego's server of the TestService."""
    import weego
    from tests.interop import grpc_service

    t = grpc_service.module(Path(folder))
    tls = weego.ServerTLS(cert=f"{folder}/certs/server.pem") if how == "tls" else None
    server = weego.Server([grpc_service.service(t)], listen=["tcp://127.0.0.1:0"], tls=tls)
    print("listening on", server.addresses[0].rpartition(":")[2], flush=True)
    server.serve_forever()


def child(client: str, folder: str, port: str, ca: str, calls: int) -> None:
    """Measure one client; prints JSON."""
    once, stream, several = grpcio(folder, port, ca) if client == "grpcio" else ours(client, folder, port, ca)
    for _ in range(200):
        once()
    costs = {}
    for what, action, count in (
        ("one at a time", lambda: [once() for _ in range(calls)], calls),
        (f"{AT_A_TIME} at a time", lambda: several(calls), calls // AT_A_TIME * AT_A_TIME),
        ("stream message", stream, MESSAGES),
    ):
        began = time.process_time()
        action()
        costs[what] = (time.process_time() - began) / count * 1e6
    print(json.dumps({"us": costs, "calls": 2 * calls + 200}))


Measured = tuple[Callable[[], object], Callable[[], object], Callable[[int], object]]


def ours(client: str, folder: str, port: str, ca: str) -> Measured:
    import weego
    from tests.interop import grpc_service

    t: Any = grpc_service.module(Path(folder))
    held = t.TestServiceClient(f"tcp://localhost:{port}", timeout=30, tls=weego.TLS(ca=ca) if ca else None)
    request = t.SimpleRequest(response_size=SIZE, payload=t.Payload(body=bytes(SIZE)))
    many = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=SIZE)] * MESSAGES)

    def once() -> object:
        return held.unary_call(request)

    if client == "weego":
        import gevent

        gevent.get_hub()

        def several(calls: int) -> object:
            return gevent.joinall([gevent.spawn(repeat, once, calls // AT_A_TIME) for _ in range(AT_A_TIME)], raise_error=True)

    else:

        def several(calls: int) -> object:
            return in_threads(once, calls)

    return once, lambda: list(held.streaming_output_call(many)), several


def grpcio(folder: str, port: str, ca: str) -> Measured:
    import grpc

    peer = peer_of_grpcio()
    t = peer.messages(folder)
    if ca:
        channel = grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(Path(ca).read_bytes()))
    else:
        channel = grpc.insecure_channel(f"localhost:{port}")
    client = peer.Client(t, channel)
    request = t.SimpleRequest(response_size=SIZE, payload=t.Payload(body=bytes(SIZE)))
    many = t.StreamingOutputCallRequest(response_parameters=[t.ResponseParameters(size=SIZE)] * MESSAGES)

    def once() -> object:
        return client.unary(request, timeout=30)

    return once, lambda: list(client.output(many)), lambda calls: in_threads(once, calls)


def peer_of_grpcio() -> Any:
    """tests/support/grpcio_testing.py as a module."""
    spec = importlib.util.spec_from_file_location("grpcio_testing", GRPCIO)
    assert spec
    assert spec.loader
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    return peer


def repeat(action: Callable[[], object], times: int) -> None:
    for _ in range(times):
        action()


def in_threads(action: Callable[[], object], calls: int) -> None:
    threads = [threading.Thread(target=repeat, args=(action, calls // AT_A_TIME)) for _ in range(AT_A_TIME)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


if __name__ == "__main__":
    main()

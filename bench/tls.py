"""What TLS costs Thrift: ``python -m bench.tls``: CPU per framed call of 1 KiB, on the server and in the client, with TLS and without, in one run.

(gRPC's part: ``python -m bench.grpc --load TLS``.) Rounds alternate; the median is shown, and the quotient, which is what to read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.grpc.servers import ROOT, Peer, cpu_seconds, pinned, running
from bench.host import places
from tests.support.certs import Certificates

CALLERS = (1, 100)
SECONDS = 2.0
WARMUP = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tls", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs="*", metavar=("CERT", "KEY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return
    found: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    peer = Peer("weego", [sys.executable, "-m", "bench.tls", "--serve"], {}, 1.0)
    with tempfile.TemporaryDirectory() as name:
        Certificates(Path(name))
        for _ in range(given.rounds):
            for callers in CALLERS:
                for tls in (False, True):
                    with running(peer, Path(name), tls) as (port, pid):
                        found.setdefault((callers, tls), []).append(measure(port, pid, callers, f"{name}/ca.pem" if tls else ""))
    print(f"\nThrift framed, 1 KiB, CPU µs per call (median of {given.rounds})\n")
    print("| callers | server | with TLS | × | client | with TLS | × |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for callers in CALLERS:
        plain, secure = ([statistics.median(column) for column in zip(*found[callers, tls], strict=True)] for tls in (False, True))
        cells = [f"{plain[at]:.1f} | {secure[at]:.1f} | {secure[at] / plain[at]:.2f}" for at in (0, 1)]
        print(f"| {callers} | {cells[0]} | {cells[1]} |")


def measure(port: int, pid: int, callers: int, ca: str) -> tuple[float, float]:
    """CPU µs per call of the server and of the client."""
    command = [sys.executable, "-m", "bench.peers.weego_client", f"--address=localhost:{port}", f"--callers={callers}", f"--seconds={SECONDS}"]
    command += [f"--warmup={WARMUP}", *([f"--ca={ca}"] if ca else [])]
    before = cpu_seconds(pid)
    done = subprocess.run(pinned(command, places().generator), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: the client failed: {done.stderr[-500:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    # The server's time is that of the warm-up too.
    served = (cpu_seconds(pid) - before) / (said["calls"] * (SECONDS + WARMUP) / SECONDS)
    return served * 1e6, said["cpu_ns"] / 1e3 / said["calls"]


def serve(files: list[str]) -> None:
    """weego's server, with TLS if there are files."""
    from bench import stubs
    from bench.peers.serving import announce
    from poller.tls import ServerTLS
    from weego import Server

    gen = stubs.module()

    class Bench(gen.Bench):  # type: ignore[misc, name-defined]  # generated at run time
        def echo(self, req: Any) -> Any:
            return gen.EchoResponse(action=req.action, msg=req.msg)

    tls = ServerTLS(cert=files[0], key=files[1]) if files else None
    server = Server([Bench()], listen=["tcp://127.0.0.1:0"], tls=tls)
    announce(int(server.addresses[0].rpartition(":")[2]))
    server.serve_forever()


if __name__ == "__main__":
    main()

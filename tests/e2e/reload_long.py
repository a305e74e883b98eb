"""Reload under load, the long form: 20 HUPs, the handler's code changed before each, at least 50 000 requests.

    python -m tests.e2e.reload_long [--hups 20] [--requests 50000] [--workers 2] [--pace 0] [--within 2.0]

Prints a summary; exit code 1 when a request failed, a connection broke, or the new code did not answer on every connection within
the time allowed. Seconds are judged here and not in the test suite, which runs `reloads` in a shorter form.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.load import Failure, Load
from tests.support.processes import PATIENCE
from tests.support.service import App, Server, until


@dataclass
class Result:
    """What happened: seconds from each HUP until the last connection was answered by the new code, requests, failures."""

    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    newcomers: int = 0
    failures: list[Failure] = field(default_factory=list)
    slowest: float = 0.0
    workers: int = 0


def reloads(app: App, server: Server, *, hups: int, requests: int, pace: float) -> Result:
    """HUP `server` so many times, each as soon as the last one's code answers everywhere; go on until enough requests were answered."""
    result = Result()
    with Load(server.address, pace=pace) as load:
        until(lambda: not load.behind(1) or load.failures, "the first answers")
        for version in range(2, hups + 2):
            server.mark()
            app.write_version(version)
            load.newest = version
            begun = time.monotonic()
            server.signal(signal.SIGHUP)
            server.wait_for("reload done")
            until(lambda v=version: not load.behind(v) or load.failures, f"code {version} on {load.behind(version)}")  # type: ignore[misc]
            result.seconds.append(time.monotonic() - begun)
            if load.failures:
                break
        until(lambda: load.answered >= requests or load.failures, f"{requests} requests", PATIENCE + requests / 200)
    result.requests, result.newcomers, result.failures = load.answered, load.arrived, load.failures
    result.slowest, result.workers = load.slowest, len(load.pids)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hups", type=int, default=20)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two requests of a busy connection")
    parser.add_argument(
        "--within", type=float, default=2.0, help="seconds after a HUP by which new code answers everywhere"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app = App(Path(folder))
        with app.serve(workers=given.workers) as server:
            result = reloads(app, server, hups=given.hups, requests=given.requests, pace=given.pace)
            until(lambda: len(server.family()) == given.workers + 1, "the old workers to go")
    late = [seconds for seconds in result.seconds if seconds > given.within]
    print(
        f"{len(result.seconds)} HUPs over 64 connections, 8 of them mostly idle\n"
        f"  requests          {result.requests} answered by {result.workers} workers, {len(result.failures)} failed\n"
        f"  newcomers         {result.newcomers}\n"
        f"  reconnects        0 (no connection is replaced: one that ends is a failure)\n"
        f"  new code answers  on every connection after {statistics.median(result.seconds):.2f} s (median), "
        f"{max(result.seconds):.2f} s (worst); allowed {given.within:g} s, missed {len(late)} times\n"
        f"  slowest answer    {result.slowest * 1000:.0f} ms"
    )
    for line in result.failures[:20]:
        print("  FAILED", line)
    return 1 if result.failures or late or result.requests < given.requests or len(result.seconds) < given.hups else 0


if __name__ == "__main__":
    sys.exit(main())

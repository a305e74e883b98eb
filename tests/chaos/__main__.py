"""The long form: ``make chaos``. Six parts, each by itself with --only.

    python -m tests.chaos [--only storm|grpc|driver|figures|trouble|overload] [--seed 1] [--seconds 600] [--slack 1.0]

    storm     100 HUPs in a row and 100 in a second under 64 persistent connections of every framing, at least 100 000 requests
    grpc      20 HUPs under 64 channels of grpcio, unary calls and streams mixed, without a retry policy
    driver    faults drawn with a seed for so many seconds (tests/chaos/driver.py)
    figures   the goals of docs/reliability.md with their limits in milliseconds (tests/chaos/figures.py)
    trouble   one of two instances killed, stopped, slow, failing under load: what callers notice (tests/chaos/governance.py)
    overload  three times the calls that a service can serve: goodput, and how soon the others are refused (the same)

Exit code 1 when anything failed, a line of the log was not expected, something was left behind, or a limit was missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import figures, governance
from tests.chaos.driver import Chaos
from tests.chaos.reliability import measure
from tests.chaos.storm import percentile, storm
from tests.chaos.targets import Weego
from tests.e2e import grpc_reloads
from tests.support.service import App, until

REQUESTS = 100_000
#: p99 during reloads, in p99 of the steady time. Below so many seconds it is scheduling noise.
WORSE = 2.0
FLOOR = 0.01


def run_storm(given: argparse.Namespace, folder: Path) -> bool:
    app = App(folder)
    with app.serve(workers=2) as server:
        result = storm(app, server, in_a_row=100, burst=100, requests=given.requests, pace=0.02, steady=20)
        until(lambda: len(server.family()) == 3, "only the loader and the workers to be left")
    print(result)
    for failure in result.failures[:20]:
        print("  FAILED", failure)
    limit = max(WORSE * percentile(result.steady, 0.99), FLOOR) * given.slack
    worst = percentile(result.stormy, 0.99)
    if worst > limit:
        print(f"  MISSED p99 {worst * 1e3:.1f} ms, allowed {limit * 1e3:.1f} ms")
    return not result.failures and worst <= limit and result.requests >= given.requests and result.reloads_in_burst <= 2 + max(0.0, result.burst_seconds - 1.2)


def run_grpc(given: argparse.Namespace, folder: Path) -> bool:
    # On a machine that pauses the master or a worker they say so, and nothing else of it matters here.
    found = grpc_reloads.reloads(grpc_reloads.both(folder), hups=20, channels=64, allow=["is late: starved", "was not running for"])
    print(found)
    return found.failed == {"unary": [0], "stream": [0]} and found.done["unary"] > 1000 and found.done["stream"] > 200


def run_driver(given: argparse.Namespace, folder: Path) -> bool:
    report = Chaos(App(folder), given.seed).run(seconds=given.seconds)
    print(report)
    return report.is_good


def run_figures(given: argparse.Namespace, folder: Path) -> bool:
    figures.slack = given.slack
    good = True
    for case in figures.CASES:
        found = measure(case, Weego, long=True)
        good = good and found.ok
        print(f"  {'ok    ' if found.ok else 'MISSED'} {case.goal:4} {case.title}: {found.text}", flush=True)
    return good


def run_trouble(given: argparse.Namespace, folder: Path) -> bool:
    print(governance.TITLE)
    found = [governance.endure(what, 30, 200, "--idempotent", slack=given.slack) for what in governance.TROUBLES]
    return all(found)


def run_overload(given: argparse.Namespace, folder: Path) -> bool:
    found = [governance.overload(what, 10, given.slack) for what in governance.OVERLOADS]
    return all(found)


PARTS: dict[str, Callable[[argparse.Namespace, Path], bool]] = {
    "storm": run_storm, "grpc": run_grpc, "driver": run_driver, "figures": run_figures, "trouble": run_trouble, "overload": run_overload,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600, help="of the driver")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of the storm")
    parser.add_argument("--slack", type=float, default=1.0, help="what limits in milliseconds are multiplied by, on a busy machine")
    given = parser.parse_args()
    bad = []
    for name in given.only or PARTS:
        begun = time.monotonic()
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if not PARTS[name](given, Path(folder) / "app"):
                bad.append(name)
        print(f"   {time.monotonic() - begun:.0f} s", flush=True)
    print(f"chaos: {'not good: ' + ', '.join(bad) if bad else 'good'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

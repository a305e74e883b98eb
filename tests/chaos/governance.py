"""One of two instances in trouble under load, and a service with three times the calls it can serve: what callers notice.

    python -m tests.chaos.governance [--seconds 30] [--rate 200] [kill stop slow fail database compute]

For each trouble a line: calls, failures after the first second of it, p99 before and from the third second on. Exit code 1 when a promise of
docs/governance.md is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.need import ROOT
from tests.support.processes import Process
from tests.support.service import PROBE_CODE, App, Server, until

TROUBLES = ("kill", "stop", "slow", "fail")
BEFORE = 3.0

CODE = (
    PROBE_CODE.format(version=1)
    .replace("    def tell(self, text: str) -> str:\n", "    def tell(self, text: str) -> str:\n        trouble()\n")
    .replace("import time\n", "import threading\nimport time\n", 1)
    .replace("class Service(Probe):", '''def trouble() -> None:
    """What the file beside the configuration of this instance says: "slow" or "fail"."""
    try:
        with open(os.environ["PROBE_TROUBLE"]) as file:
            what = file.read()
    except OSError:
        return
    if what == "slow":
        time.sleep(2)
    elif what == "fail":
        raise RuntimeError("in trouble")
    elif what == "database":  # it can do four things at a time, each in 8 ms: 500 a second
        with DATABASE:
            time.sleep(0.008)
    elif what == "compute":  # 1 ms of work: 1000 a second where nobody else works
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass


DATABASE = threading.Semaphore(4)


class Service(Probe):''')
)


@dataclass
class Seen:
    """What came of the calls of one load."""

    calls: list[tuple[float, float, str]]

    def between(self, start: float, end: float = 1e9) -> Seen:
        return Seen([each for each in self.calls if start <= each[0] < end])

    @property
    def failed(self) -> list[str]:
        return [outcome for _, _, outcome in self.calls if outcome != "ok"]

    def quantile(self, share: float, *, only_ok: bool = True) -> float:
        times = sorted(seconds for _, seconds, outcome in self.calls if outcome == "ok" or not only_ok)
        return times[min(len(times) - 1, int(len(times) * share))] if times else float("nan")


def load(folder: Path, target: str, trouble: Any, *options: str) -> Seen:
    """Run the load; `trouble()` is called in a thread when it has begun."""
    command = [sys.executable, "-m", "tests.chaos.governed_load", target, *options]
    with Process(command, cwd=str(folder), env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        process.wait_for("^began")
        thread = threading.Thread(target=trouble)
        thread.start()
        assert process.wait(600) == 0, process.output
        thread.join()
        return Seen([tuple(json.loads(line)) for line in process.lines if line.startswith("[")])


class Pair:
    """Two servers that announce themselves as "probe", in one folder or in the registry at a URL."""

    def __init__(self, folder: Path, registry: str = "", ttl: float = 3) -> None:
        self.folder = folder
        self.apps = [App(folder / name, code=CODE) for name in "ab"]
        self.registry = folder / "registry"
        self.url = registry or f"file://{self.registry}"
        self.ttl = ttl
        self.servers: list[Server] = []

    def serve(self, index: int, **conf: Any) -> Server:
        app = self.apps[index]
        os.environ["PROBE_TROUBLE"] = str(app.folder / "trouble")
        more = f'[registry]\nurl = "{self.url}"\nttl = "{self.ttl:g}s"\n'
        server = app.serve(more=more + conf.pop("more", ""), allow=[".*"], **conf)
        server.__enter__()
        self.servers.append(server)
        return server

    def wait(self) -> None:
        until(lambda: len(os.listdir(self.registry / "probe")) == len(self.servers) if self.registry.exists() else False, "all announced")

    def trouble(self, index: int, what: str) -> None:
        path = self.apps[index].folder / "trouble"
        path.with_suffix(".new").write_text(what)
        path.with_suffix(".new").replace(path)

    def close(self) -> None:
        for server in self.servers:
            server.process.__exit__()


def run(what: str, seconds: float, rate: float, *, idempotent: bool = True) -> tuple[Seen, float]:
    """One trouble: the calls seen, and when it began."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(Path(name))
        try:
            victim = pair.serve(0)
            pair.serve(1)
            pair.wait()
            workers = victim.workers()

            def trouble() -> None:
                time.sleep(BEFORE)
                if what == "kill":
                    os.kill(victim.pid, signal.SIGKILL)
                    for pid in workers:
                        os.kill(pid, signal.SIGKILL)
                elif what == "stop":
                    for pid in (victim.pid, *workers):
                        os.kill(pid, signal.SIGSTOP)
                else:
                    pair.trouble(0, what)
                time.sleep(seconds)
                if what == "stop":
                    for pid in (victim.pid, *workers):
                        os.kill(pid, signal.SIGCONT)

            target = f"file://{pair.registry}/probe"
            options = ["--seconds", str(BEFORE + seconds), "--rate", str(rate), *(["--idempotent"] if idempotent else [])]
            return load(pair.apps[0].folder, target, trouble, *options), BEFORE
        finally:
            pair.close()


OVERLOADS = {
    "database": '[[governance.limit]]\nname = "database"\nconcurrency = 8\nmethod = "tell"\n',
    "compute": "[governance]\nshed = true\n",
}


def overload(what: str, seconds: float) -> bool:
    """A service called at a tenth, at nine tenths and at three times of what it can serve on this machine; says whether the promises hold."""
    print("overload   load     served/s  p50 ok     p99 ok     refused/s  p99 refused  other failures")
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(Path(name))
        try:
            pair.trouble(0, what)
            server = pair.serve(0, more=OVERLOADS[what])
            pair.wait()

            worker = psutil.Process(server.workers()[0])

            def calls(*options: str) -> Seen:
                command = [sys.executable, "-m", "tests.chaos.open_load", server.address, *options]
                with Process(command, cwd=str(pair.apps[0].folder), env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
                    before = sum(worker.cpu_times()[:2])
                    assert process.wait(120) == 0, process.output
                    spent.append(sum(worker.cpu_times()[:2]) - before)
                    return Seen([tuple(each) for each in json.loads(process.lines[-1])])

            spent: list[float] = []
            all_of_it = calls("--seconds", "3", "--closed", "4")
            each = len([call for call in all_of_it.calls if call[2] == "ok"]) / spent.pop()
            capacity = len([call for call in all_of_it.between(1, 3).calls if call[2] == "ok"]) / 2
            print(f"{what:9} can serve {capacity:.0f} calls a second")
            seen = {}
            for share in (0.1, 0.9, 3.0):
                whole = calls("--seconds", str(seconds), "--rate", str(max(1.0, capacity * share)))
                found = whole.between(1, seconds)
                refused = Seen([each for each in found.calls if each[2].startswith("limit ")])
                good = [each for each in found.calls if each[2] == "ok"]
                seen[share] = (len(good) / (seconds - 1), found.quantile(0.99), refused.quantile(0.99, only_ok=False))
                others = len(found.calls) - len(good) - len(refused.calls)
                print(
                    f"{what:9} {share:4.1f} × {seen[share][0]:9.0f}  {found.quantile(0.5) * 1000:6.1f} ms {seen[share][1] * 1000:7.1f} ms"
                    f" {len(refused.calls) / (seconds - 1):10.0f} {seen[share][2] * 1000:9.1f} ms {others:8}"
                )
        finally:
            pair.close()
    per_cpu = len([call for call in whole.calls if call[2] == "ok"]) / spent[-1] / each
    peak = max(capacity, *(goodput for goodput, _, _ in seen.values()))
    print(
        f"{what:9} goodput {seen[3.0][0] / peak:.0%} of the peak ({per_cpu:.0%} for the same CPU time of the server), p99 of the served {seen[3.0][1] / seen[0.1][1]:.1f} × the unloaded,"
        f" 99 % of the refused within {seen[3.0][2] * 1000:.1f} ms"
    )
    return seen[3.0][0] >= 0.9 * peak and seen[3.0][1] <= 3 * seen[0.1][1] and seen[3.0][2] < 0.005


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trouble", nargs="*", default=[*TROUBLES, *OVERLOADS])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--not-idempotent", action="store_true")
    options = parser.parse_args()
    broken = 0
    print("trouble    calls  failed in 1st s  later  share   p99 before   p99 from 3rd s")
    for what in options.trouble:
        if what in OVERLOADS:
            broken += not overload(what, min(options.seconds, 10))
            continue
        seen, at = run(what, options.seconds, options.rate, idempotent=not options.not_idempotent)
        first, later = seen.between(at, at + 1), seen.between(at + 1)
        before, after = seen.between(0.5, at).quantile(0.99), seen.between(at + 3).quantile(0.99, only_ok=False)
        share = len(later.failed) / max(1, len(later.calls))
        print(
            f"{what:9} {len(seen.calls):6} {len(first.failed):16} {len(later.failed):6} {share:6.2%} {before * 1000:9.1f} ms {after * 1000:13.1f} ms"
        )
        for text in sorted(set(later.failed))[:3]:
            print(f"          {text}")
        broken += share > 0.001
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""One of two instances in trouble under load, and a service with three times the calls it can serve: what callers notice.

    python -m tests.chaos.governance [--seconds 30] [--rate 200] [kill stop slow fail database compute mixed]

For each trouble a line: calls, failures after the first second of it, p99 before and from the third second on. Overload is judged net of the time in which the
server had no CPU because others had them. Exit code 1 when a promise of docs/governance.md is broken; `make chaos` asks for the same.
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

from tests.support.need import ROOT
from tests.support.processes import Process
from tests.support.service import PROBE_CODE, App, Server, until

TROUBLES = ("kill", "stop", "slow", "fail")
BEFORE = 3.0
#: Promises of docs/governance.md for a trouble: the share of calls that fail after its first second; p99 from its third second on, in p99 before it, but not
#: below so many seconds, where it is scheduling noise.
MOST_FAILED, SLOWER, NOISE = 0.001, 2.0, 0.01

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
        compute(0.001)
    elif what == "mixed":  # the same, with something to wait for in the middle
        compute(0.0005)
        time.sleep(0.003)
        compute(0.0005)


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
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


def run(what: str, seconds: float, rate: float, *options: str, before: float = BEFORE) -> Seen:
    """The calls seen: `before` seconds without trouble, and then so many with it. `options` are those of the load."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(Path(name))
        try:
            victim = pair.serve(0)
            pair.serve(1)
            pair.wait()
            workers = victim.workers()

            def trouble() -> None:
                time.sleep(before)
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
            return load(pair.apps[0].folder, target, trouble, "--seconds", str(before + seconds), "--rate", str(rate), *options)
        finally:
            pair.close()


def endure(what: str, seconds: float, rate: float, *options: str, slack: float = 1.0) -> bool:
    """One of two instances in trouble; says whether the promises hold."""
    seen = run(what, seconds, rate, *options)
    first, later = seen.between(BEFORE, BEFORE + 1), seen.between(BEFORE + 1)
    normal, after = seen.between(0.5, BEFORE).quantile(0.99), seen.between(BEFORE + 3).quantile(0.99, only_ok=False)
    share = len(later.failed) / max(1, len(later.calls))
    good = share <= MOST_FAILED and after <= max(SLOWER * normal, NOISE) * slack
    print(
        f"{what:9} {len(seen.calls):6} {len(first.failed):16} {len(later.failed):6} {share:6.2%} {normal * 1000:9.1f} ms {after * 1000:13.1f} ms"
        f"   {'ok' if good else 'MISSED'}", flush=True
    )  # fmt: skip
    for text in sorted(set(later.failed))[:3]:
        print(f"          {text}")
    return good


OVERLOADS = {
    # Four at a time, and four that wait: more could not be served sooner.
    "database": '[[governance.limit]]\nname = "database"\nconcurrency = 8\nmethod = "tell"\n',
    "compute": "[governance]\nshed = true\n",
    "mixed": "[governance]\nshed = true\n",
}


#: What docs/governance.md promises of an overload: goodput, in shares of the best there was; p99 of those served, in p99 at a tenth of the load; p99 of those refused.
GOODPUT, WORSE, REFUSED_WITHIN = 0.9, 3.0, 0.005


@dataclass
class Stage:
    """One load of a service: what callers saw, and how much of that a worker without a CPU accounts for."""

    load: str
    seconds: float
    calls: list[tuple[float, float, float, str]]
    starved: float

    def served(self, *, net: bool) -> float:
        """Calls a second; `net`: of the time in which the worker had a CPU when it wanted one."""
        return sum(each[3] == "ok" for each in self.calls) / max(self.seconds - self.starved * net, 0.01)

    def quantile(self, kind: str, share: float, *, net: bool = True) -> float:
        """Of the times of those that were "ok", or met a "limit ", after the first second; `net` of waiting for a CPU."""
        times = sorted(took - waited * net for began, took, waited, outcome in self.calls if began >= 1 and outcome.startswith(kind))
        return times[min(len(times) - 1, int(len(times) * share))] if times else float("nan")

    def __str__(self) -> str:
        def found(kind: str) -> str:
            count = sum(each[3].startswith(kind) for each in self.calls)
            times = "/".join(f"{self.quantile(kind, share) * 1000:.1f}" for share in (0.5, 0.99))
            return f"{count / self.seconds:7.0f} {times:>10} {self.quantile(kind, 0.99, net=False) * 1000:7.1f}"

        others = sum(not each[3].startswith(("ok", "limit ")) for each in self.calls)
        return f"{self.load:>12} {found('ok')} {found('limit ')} {others:7} {self.starved / self.seconds:8.0%}"


def overload(what: str, seconds: float, slack: float = 1.0) -> bool:
    """A service called at a tenth, at nine tenths and at three times of what it can serve on this machine; says whether the promises hold."""
    print("overload      load  served/s  p50/p99 ms   gross refused/s p50/p99 ms   gross  others  starved")
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(Path(name))
        try:
            pair.trouble(0, what)
            server = pair.serve(0, more=OVERLOADS[what])
            pair.wait()
            (worker,) = server.workers()

            def stage(load: str, seconds: float, *options: str) -> Stage:
                command = [sys.executable, "-m", "tests.chaos.open_load", server.address, "--worker", str(worker), "--seconds", str(seconds)]
                with Process([*command, *options], cwd=str(pair.apps[0].folder), env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
                    assert process.wait(120) == 0, process.output
                    found = json.loads(process.lines[-1])
                made = Stage(load, seconds, [tuple(each) for each in found["calls"]], found["starved"])
                print(f"{what:9}{made}", flush=True)
                return made

            full = stage("8 callers", 3, "--closed", "8")
            net = what != "database"  # that is waited for, with or without a CPU
            capacity = full.served(net=net)
            low, high, over = (stage(f"{share} ×", seconds, "--rate", str(max(1.0, capacity * share))) for share in (0.1, 0.9, 3.0))
        finally:
            pair.close()
    goodput = over.served(net=net) / max(each.served(net=net) for each in (full, high, over))
    worse = over.quantile("ok", 0.99) / low.quantile("ok", 0.99)
    refused = over.quantile("limit ", 0.99)
    strange = {outcome for stage in (full, low, high, over) for *_, outcome in stage.calls if not outcome.startswith(("ok", "limit "))}
    good = goodput >= GOODPUT and worse <= WORSE * slack and refused < REFUSED_WITHIN * slack and not strange
    print(
        f"{what:9} {'ok' if good else 'MISSED'}: goodput {goodput:.0%} of the peak, p99 of the served {worse:.1f} × the unloaded,"
        f" 99 % of the refused within {refused * 1000:.1f} ms{''.join(f'; {each}' for each in sorted(strange)[:3])}"
    )
    return good


TITLE = "trouble    calls  failed in 1st s  later  share   p99 before   p99 from 3rd s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trouble", nargs="*", default=[*TROUBLES, *OVERLOADS])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--not-idempotent", action="store_true")
    options = parser.parse_args()
    good = True
    for what in options.trouble:
        if what in OVERLOADS:
            good &= overload(what, min(options.seconds, 10))
        else:
            print(TITLE)
            good &= endure(what, options.seconds, options.rate, *([] if options.not_idempotent else ["--idempotent"]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

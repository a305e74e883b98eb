"""Chaos with a seed: everything that can go wrong with processes, one thing after the other, under load, and all is well in the end.

    python -m tests.chaos [--seed 1] [--seconds 600]

Each round hurts the server in one way, drawn from a generator with the seed, and looks at what must hold all the time:
 * every answer belongs to its question, once (the load checks bytes, order and sequence of each connection);
 * a call fails only for a reason: a worker was killed between the last answer on its connection and its failure;
 * the log has no line that this round does not explain, and never a traceback;
and at the end descriptors, children and memory are what they were in the beginning.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import psutil

from tests.chaos.figures import can_bind
from tests.chaos.targets import wait
from tests.e2e.load import ALL_FRAMINGS, Failure, Load
from tests.e2e.wire import I32, STRING, Closed, Wire, call
from tests.support.leaks import descriptors
from tests.support.ports import free_port
from tests.support.service import App, Server, until

WORKERS: Final = 2
#: Seconds that calls in progress are given.
GRACE: Final = 5
#: How far a master's memory may grow over a run (bytes): allocator noise, not a leak of each reload.
MEMORY_SLACK: Final = 3 << 20
#: A kill so long before the last answer (seconds) may still be why a connection broke: the answer had to be read.
MARGIN: Final = 0.5
#: Lines that faults explain.
EXPLAINED: Final = [
    r"was killed by SIG(KILL|ABRT)",
    r"no worker is ready",
    r"dies young",
    r"is late: ",
    r"is stopped",
    r"the master was not running for",
    r"hangs: ",
    r"still hangs",
    r"is not turning|did not leave in time",
    r"reload failed",
    r"traceback of the failed load",
    r"cut off at the deadline",
    r"the loader was killed",
    r"the master is gone",
    r"does not fork",
    r"log lines? (was|were) dropped",
    r"worker \d gen \d+ .* (exited with status|wants to leave|leaves)",
    r"did not boot",
    r"no more descriptors|out of descriptors|Too many open files",
]


@dataclass
class Report:
    """What a run came to."""

    seed: int
    rounds: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    newcomers: int = 0
    failures: list[Failure] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.unexplained and not self.left

    def __str__(self) -> str:
        what = ", ".join(f"{count} × {name}" for name, count in sorted(self.rounds.items()))
        lines = [
            f"seed {self.seed}: {sum(self.rounds.values())} faults in {self.seconds:.0f} s: {what}",
            f"  {self.answered} answers, {self.newcomers} newcomers, {len(self.failures)} calls lost with processes that were killed",
        ]
        lines += [f"  UNEXPLAINED {line}" for line in self.unexplained[:20]]
        lines += [f"  LEFT {line}" for line in self.left]
        return "\n".join(lines)


class Chaos:
    """One run: a server, a load, and whoever is drawn."""

    def __init__(self, app: App, seed: int) -> None:
        self.app = app
        self.rng = random.Random(seed)
        self.report = Report(seed)
        self.version = 1
        self.kills: list[float] = []
        """When somebody was killed, or stopped and cut off for it: monotonic seconds."""
        self.outages: list[tuple[float, float]] = []
        """From the death of a master to the readiness of the next: nobody listens."""
        self.port = free_port()
        """The same for all masters."""
        self.base_fds = self.base_memory = 0
        self.server: Server
        self.load: Load
        self.faults: dict[str, tuple[int, Callable[[], None]]] = {
            "kill worker": (3, self.kill_worker),
            "kill all workers": (1, self.kill_all_workers),
            "stop worker": (1, self.stop_worker),
            "kill loader": (2, self.kill_loader),
            "kill base": (1, self.kill_base),
            "stop base": (1, self.stop_base),
            "term worker": (2, self.term_worker),
            "HUP": (4, self.reload),
            "HUP burst": (2, self.burst),
            "HUP broken config": (2, self.broken_config),
            "HUP broken import": (2, self.broken_import),
            "HUP crashing worker": (1, self.crashing_worker),
            "kill in a reload": (2, self.kill_in_a_reload),
            "stop master": (1, self.stop_master),
            "kill master": (1, self.kill_master),
            "resize": (1, self.resize),
            "slow readers": (2, self.slow_readers),
            "half frames": (2, self.half_frames),
            "resets": (2, self.resets),
            "garbage": (1, self.garbage),
            "no descriptors": (1, self.no_descriptors),
        }

    # ---- the run -------------------------------------------------------------------------------------------------------

    def run(self, *, seconds: float = 0, rounds: int = 0) -> Report:
        """So many rounds, or as many as fit into so many seconds."""
        begun = time.monotonic()
        self.write_conf()
        self.start()
        try:
            self.load = self.new_load()
            try:
                until(lambda: not self.load.behind(1), "the first answers")
                while time.monotonic() < begun + seconds if seconds else sum(self.report.rounds.values()) < rounds:
                    name = self.rng.choices(list(self.faults), [weight for weight, _ in self.faults.values()])[0]
                    self.report.rounds[name] += 1
                    self.faults[name][1]()
                    self.settle()
                    self.replenish()
            finally:
                self.load.__exit__()
            self.settle()
            self.collect()
            self.look_back()
        except BaseException as error:
            self.server.__exit__(type(error))
            raise
        self.server.__exit__(None)
        self.report.seconds = time.monotonic() - begun
        return self.report

    def start(self) -> None:
        """A master, all its workers, and what it holds when nothing has happened yet."""
        self.server = Server(self.app.conf, allow=[".*"])
        self.server.__enter__()
        self.settle()
        self.base_fds, self.base_memory = self.base()

    def new_load(self) -> Load:
        """Connections of all framings."""
        load = Load(self.server.address, connections=64, idle=8, pace=0.03, framings=ALL_FRAMINGS)
        load.newest = self.version
        load.__enter__()
        return load

    def write_conf(self, **conf: object) -> None:
        server = f'graceful_timeout = "{GRACE}s"\nboot_timeout = "10s"\nhang_timeout = "5s"'
        self.app.write_conf(workers=WORKERS, listen=[f"tcp://127.0.0.1:{self.port}"], server=server, log='format = "text"\naccess = false', **conf)  # type: ignore[arg-type]

    def base(self) -> tuple[int, int]:
        """Descriptors and memory of the master once a first reload has been through everything."""
        self.server.reload_ok()
        self.settle()
        until(lambda: "weego: base" in self.server.remember().values(), "the base")
        return len(descriptors(self.server.pid)), psutil.Process(self.server.pid).memory_info().rss

    def settle(self) -> None:
        """All is well again: a loader, all workers, one generation, newcomers are served."""

        def well() -> bool:
            titles = [title for title in self.server.family().values() if title]
            return (
                len(titles) == WORKERS + 1
                and sum("worker" in title for title in titles) == WORKERS
                and not any("(draining)" in title for title in titles)
            )

        until(well, "a loader and all workers, and nobody else", 60)
        with Wire(self.server.address) as wire:
            wire.tell()

    def replenish(self) -> None:
        """Take new connections for those that were lost with their workers, so that the load stays what it is."""
        lost = sum(each.failed for each in self.load._all)
        if lost > len(self.load._all) // 2:
            self.load.__exit__()
            self.collect()
            self.load = self.new_load()

    def collect(self) -> None:
        """Look at every failure of the load: whose fault was it?"""
        report, load = self.report, self.load
        report.answered += load.answered
        report.newcomers += load.arrived
        for failure in load.failures:
            report.failures.append(failure)
            # A connection may have moved to the worker that was killed without an answer from there: the time decides, not the pid.
            is_explained = any(failure.heard - MARGIN <= kill <= failure.at for kill in self.kills)
            if failure.number is None and "refused" in failure.why:
                is_explained = any(killed <= failure.at and failure.began <= ready for killed, ready in self.outages)
            if "wrong answer" in failure.why or not is_explained:
                report.unexplained.append(str(failure))
        load.failures = []

    def look_at_log(self) -> None:
        """Every warning must have been somebody's fault."""
        bad = re.compile(r"Traceback \(most recent call last\)| (WARNING|ERROR|CRITICAL) |a mistake in the master")
        explained = re.compile("|".join(EXPLAINED))
        for line in self.server.log.splitlines():
            if bad.search(line) and not explained.search(line) and not line.startswith("    "):
                self.report.unexplained.append(line)

    def look_back(self) -> None:
        """Log, descriptors, children, memory."""
        self.look_at_log()
        fds, memory = self.base_fds, self.base_memory
        try:
            wait(lambda: len(descriptors(self.server.pid)) <= fds, "descriptors", 20)
        except AssertionError:
            self.report.left.append(f"{len(descriptors(self.server.pid)) - fds} descriptors more than in the beginning")
        grown = psutil.Process(self.server.pid).memory_info().rss - memory
        if grown > MEMORY_SLACK:
            self.report.left.append(f"{grown >> 10} KiB more memory of the master")
        if len(self.server.family()) != WORKERS + 1 or len(self.server.remember()) > WORKERS + 2:
            self.report.left.append(f"children: {self.server.remember()}")

    # ---- whom to hurt --------------------------------------------------------------------------------------------------

    def workers(self) -> list[int]:
        return until(self.server.workers, "a worker")

    def hurt(self, pid: int, number: signal.Signals) -> None:
        if number == signal.SIGKILL:
            self.kills.append(time.monotonic())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill_worker(self) -> None:
        self.hurt(self.rng.choice(self.workers()), signal.SIGKILL)

    def kill_all_workers(self) -> None:
        for pid in self.workers():
            self.hurt(pid, signal.SIGKILL)

    def kill_loader(self) -> None:
        for pid, title in self.server.remember().items():
            if "loader" in title:
                self.hurt(pid, signal.SIGKILL)
        self.server.mark()
        self.server.wait_for("takes over|reload done")

    def kill_base(self) -> None:
        """Before a reload asks it, or while it does."""
        self.new_code()
        before = self.ended_reloads()
        for pid, title in self.server.remember().items():
            if title == "weego: base":
                if self.rng.random() < 0.5:
                    self.server.signal(signal.SIGHUP)
                self.hurt(pid, signal.SIGKILL)
        self.server.signal(signal.SIGHUP)
        until(lambda: self.ended_reloads() > before, "the end of the reload", 60)

    def stop_base(self) -> None:
        """A reload does without it."""
        for pid, title in self.server.remember().items():
            if title == "weego: base":
                self.hurt(pid, signal.SIGSTOP)
        self.reload()

    def stop_worker(self) -> None:
        pid = self.rng.choice(self.workers())
        self.hurt(pid, signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.2, 2.0))
        self.hurt(pid, signal.SIGCONT)

    def term_worker(self) -> None:
        self.hurt(self.rng.choice(self.workers()), signal.SIGTERM)
        time.sleep(0.2)

    def stop_master(self) -> None:
        self.server.signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.5, 3.0))
        self.server.signal(signal.SIGCONT)

    def kill_master(self) -> None:
        """Its workers answer what they have, let go of the port and leave; a new master starts at once, beside them, on the same port."""
        children = {pid: psutil.Process(pid) for pid in self.server.remember()}
        self.hurt(self.server.pid, signal.SIGKILL)
        wait(lambda: can_bind(self.port), "the port of a killed master to be free", 10)
        killed = self.server
        self.start()
        self.outages.append((self.kills[-1], time.monotonic()))
        _, alive = psutil.wait_procs(list(children.values()), GRACE + 5)
        if alive:
            self.report.left.append(f"of a killed master: {alive}")
        self.load.__exit__()
        self.collect()
        self.server, living = killed, self.server
        self.look_at_log()
        killed.__exit__(None)
        self.server = living
        self.load = self.new_load()

    def new_code(self) -> None:
        self.version += 1
        self.load.newest = self.version
        self.app.write_version(self.version)

    def ended_reloads(self) -> int:
        return len(re.findall("reload done|reload failed", self.server.log))

    def reload(self) -> None:
        self.new_code()
        before = self.ended_reloads()
        self.server.signal(signal.SIGHUP)
        until(lambda: self.ended_reloads() > before, "the end of the reload", 60)

    def burst(self) -> None:
        self.new_code()
        before = self.ended_reloads()
        for _ in range(self.rng.randint(5, 50)):
            self.server.signal(signal.SIGHUP)
            time.sleep(0.01)
        until(lambda: self.ended_reloads() > before, "the end of the reload", 60)

    def fails(self, spoil: Callable[[], object]) -> None:
        """A reload that must fail and change nothing; then all is put right again, for the next one."""
        workers = set(self.workers())
        before = self.server.log.count("reload failed")
        spoil()
        self.server.signal(signal.SIGHUP)
        until(lambda: self.server.log.count("reload failed") > before, "the reload to fail", 60)
        self.write_conf()
        self.app.write_version(self.version)
        if not workers <= set(self.server.remember()):
            self.report.unexplained.append("a reload that failed has cost a worker")

    def broken_config(self) -> None:
        text = self.app.conf.read_text()
        cut = self.rng.randrange(len(text) // 4, len(text))
        self.fails(lambda: self.app.conf.write_text(text[:cut] + "]]] " + text[cut:]))

    def broken_import(self) -> None:
        code = (self.app.folder / "app.py").read_text()
        wrong = self.rng.choice(["import no_such_module\n", "def f(:\n", "raise SystemExit(3)\n", "import os; os._exit(4)\n"])
        self.fails(lambda: self.app.write_code(wrong + code))

    def crashing_worker(self) -> None:
        code = (self.app.folder / "app.py").read_text()
        self.fails(lambda: self.app.write_code(code.replace("self.heard: list[str] = []", "os._exit(5)")))

    def kill_in_a_reload(self) -> None:
        """Somebody of the new or the old generation, at any step of it."""
        self.new_code()
        before = self.ended_reloads()
        self.server.signal(signal.SIGHUP)
        time.sleep(self.rng.uniform(0, 1.5))
        children = self.server.remember()
        if children:
            self.hurt(self.rng.choice(sorted(children)), signal.SIGKILL)
        until(lambda: self.ended_reloads() > before, "the end of the reload", 60)
        if "reload failed" in self.server.log[-2000:]:
            self.reload()

    def resize(self) -> None:
        self.server.signal(signal.SIGTTIN)
        until(lambda: len(self.server.workers()) > WORKERS, "one more")
        self.server.signal(signal.SIGTTOU)

    # ---- clients that behave badly -------------------------------------------------------------------------------------

    def slow_readers(self) -> None:
        """Who asks for much, takes little of it, and goes or stays through a reload."""
        wires = [Wire(self.server.address, receive_buffer=4096) for _ in range(8)]
        for wire in wires:
            wire.send(call("make", (1, I32, 1 << 20)))
        if self.rng.random() < 0.5:
            self.reload()
        for wire in wires[::2]:
            with contextlib.suppress(Closed):
                assert len(wire.receive().raw) == 1 << 20
        for wire in wires:
            wire.reset()

    def half_frames(self) -> None:
        """Half a question, a reload, and the other half."""
        question = call("tell", (1, STRING, "x" * self.rng.choice([10, 1000, 300_000])), seqid=7)
        wires = [Wire(self.server.address) for _ in range(8)]
        cut = self.rng.randrange(1, len(question))
        for wire in wires:
            wire.send(question[:cut])
        self.reload()
        for wire in wires:
            wire.send(question[cut:])
            assert wire.receive().seqid == 7
            wire.close()

    def resets(self) -> None:
        """Connections that end with RST in every phase."""
        for phase in range(40):
            with contextlib.suppress(OSError):
                wire = Wire(self.server.address)
                if phase % 4:
                    wire.send(call("tell", (1, STRING, "x" * 5000))[: 3000 if phase % 4 == 1 else None])
                if phase % 4 == 3:
                    wire.receive()
                wire.reset()

    def garbage(self) -> None:
        """Bytes that are no protocol; each connection is closed and nothing else happens."""
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as sock, contextlib.suppress(OSError):
                sock.sendall(b"\xff" + self.rng.randbytes(200))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass

    def no_descriptors(self) -> None:
        """More clients than descriptors: those who are in are served, and all is well when they leave."""
        for pid in self.workers():
            with contextlib.suppress(psutil.Error, OSError):
                used = max(descriptors(pid), default=0)
                _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 20, hard))
        socks = []
        for _ in range(200):
            with contextlib.suppress(OSError):
                socks.append(socket.create_connection(("127.0.0.1", self.server.port), timeout=5))
        time.sleep(1)
        for sock in socks:
            sock.close()
        for pid in self.workers():
            with contextlib.suppress(psutil.Error, OSError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))

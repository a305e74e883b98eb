"""What happens, and how long it takes, when a server is hurt: the goals G1 to G20 and G24 of docs/reliability.md as figures.

Each case starts a server of its own, on which it may do as it likes, and says what it found in a few words. For weego `ok` says whether that
is within the goal; milliseconds are judged only here, never in the test suite.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.chaos.targets import CRASHES, GRACE, WORKERS, Target, Weego, wait
from tests.e2e.wire import cut
from tests.support.leaks import descriptors

Make = Callable[..., Target]


@dataclass
class Found:
    """`text` is for the table; `ok` is the judgement of the goal, which is weego's."""

    text: str
    ok: bool = True
    numbers: dict[str, float] = field(default_factory=dict)


#: What `make chaos` multiplies the limits in milliseconds by, for a machine that is busy with other things.
slack = 1.0


def within(seconds: float, limit: float) -> bool:
    """Whether a time is within the limit of its goal."""
    return seconds <= limit * slack


def ms(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1e3:.0f} ms" if seconds < 9.95 else f"{seconds:.0f} s"


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)] if len(values) < 20 else statistics.quantiles(values, n=20)[18]


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def settled(target: Target) -> bool:
    """Whether all its workers are there and it answers."""
    return len(target.workers()) >= target.workers_wanted and target.answers()


# ---------------------------------------------------------------- reload


def broken_reload(make: Make, rounds: int) -> Found:
    """G1: a HUP with a broken configuration, a broken import, and (weego) a port that is taken."""
    good, told, what = 0, 0.0, []
    kinds = ["conf", "import", "port"]
    for kind in kinds:
        with make() as target:
            if kind != "import" and not target.can_break_conf:
                continue
            before, survived, slowest = target.workers(), 0, 0.0
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                if kind == "import":
                    target.break_import()
                elif kind == "conf":
                    conf = target.app.conf if isinstance(target, Weego) else target.folder / "conf.py"
                    conf.write_text(conf.read_text() + "\n[[[ what?\n")
                elif isinstance(target, Weego):
                    target.app.write_conf(workers=WORKERS, listen=[f"tcp://127.0.0.1:{target.port}", f"tcp://127.0.0.1:{taken.getsockname()[1]}"], log='format = "text"\naccess = false')
                else:
                    conf = target.folder / "conf.py"
                    conf.write_text(conf.read_text() + f"\nbind.append('127.0.0.1:{taken.getsockname()[1]}')\n")
                for number in range(rounds if isinstance(target, Weego) else 1):
                    target.reload()
                    if isinstance(target, Weego):
                        slowest = max(slowest, target.wait_for("reload failed", number + 1))
                        survived += target.answers() and target.workers() == before
                    else:
                        with contextlib.suppress(AssertionError):
                            wait(lambda: not target.is_alive, "it to die", 6, 0.05)
                        survived += target.is_alive and target.answers()
            good += survived
            told = max(told, slowest)
            outcome = f"{survived}/{rounds} unharmed, told within {ms(slowest)}" if isinstance(target, Weego) else ("survives" if survived else "**all down**")
            if not isinstance(target, Weego) and survived and not target.workers() >= before:
                outcome = "survives, workers replaced"
            what.append(f"{kind}: {outcome}")
    return Found("; ".join(what), good == rounds * len(kinds) and within(told, 2.0))


def idle_reload(make: Make, rounds: int) -> Found:
    """G5: from HUP until only new workers are there, nothing else going on."""
    times, lingers = [], []
    with make() as target:
        for number in range(rounds):
            before = target.workers()
            begun = time.monotonic()
            target.reload()
            try:
                wait(lambda before=before: not before & target.workers() and settled(target), "the new workers", 15)  # type: ignore[misc]
            except AssertionError:
                return Found("old workers are still there after 15 s", False)
            times.append(time.monotonic() - begun)
            if isinstance(target, Weego):
                target.wait_for(rf"gen {number + 1} .* exited with status 0", WORKERS)
                swapped, gone = target.when("reload done")[-1], target.when(rf"gen {number + 1} .* exited with status 0")[-1]
                lingers.append(gone - swapped)
                time.sleep(1)  # one right after another waits for a moment
    median = statistics.median(times)
    text = ms(median) + (f", the old ones gone {ms(statistics.median(lingers))} after the switch" if lingers else "")
    return Found(text, within(median, 1.0) and within(statistics.median(lingers or [0.0]), 0.1), {"seconds": median})


def busy_reload(make: Make, rounds: int, *, at_once: bool) -> Found:
    """G2, G3 for everybody: requests on new connections meanwhile; how many fail."""
    counts: Counter[str] = Counter()
    ending = threading.Event()
    with make() as target:

        def ask() -> None:
            while not ending.is_set():
                begun = time.monotonic()
                try:
                    target.ask(timeout=5)
                    counts["good"] += 1
                except (OSError, ValueError) as error:
                    counts["bad"] += 1
                    counts[type(error).__name__] += 1
                    time.sleep(0.05)
                counts["slowest"] = max(counts["slowest"], int((time.monotonic() - begun) * 1e6))
                time.sleep(0.02)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        most = 0
        for _ in range(rounds):
            target.reload()
            most = max(most, len(target.workers()))
            time.sleep(0.01 if at_once else 1.5)
        wait_until = time.monotonic() + 3
        while time.monotonic() < wait_until:
            most = max(most, len(target.workers()))
            time.sleep(0.05)
        ending.set()
        for thread in threads:
            thread.join()
        alive = target.is_alive and target.answers()
    text = f"{counts['bad']} of {counts['good'] + counts['bad']} failed, slowest {ms(counts['slowest'] / 1e6)}"
    if at_once:
        text += f", {most} workers at most"
    return Found(text if alive else f"**all down**, {text}", alive and not counts["bad"])


def capacity(make: Make, rounds: int) -> Found:
    """G4: ready workers during reloads, seen through the control socket."""
    fewest = 99
    with make() as target:
        assert isinstance(target, Weego)
        for _ in range(rounds):
            target.reload()
            ending = time.monotonic() + 1.5
            while time.monotonic() < ending:
                fewest = min(fewest, int(control(target, "status")["ready"]))  # type: ignore[call-overload]
                time.sleep(0.005)
    return Found(f"never fewer than {fewest} of {WORKERS} ready", fewest >= WORKERS)


def control(target: Weego, what: str) -> dict[str, object]:
    """Ask the control socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(target.folder / "weego.sock"))
        sock.sendall(json.dumps({"do": what}).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            data += sock.recv(1 << 16)
    answer: dict[str, object] = json.loads(data)["result"]
    return answer


# ---------------------------------------------------------------- death


def killed_worker(make: Make, rounds: int) -> Found:
    """G6: until a new worker answers; how many connects fail meanwhile."""
    times, failed = [], 0
    with make() as target:
        for _ in range(rounds):
            old = target.workers()
            os.kill(min(old), signal.SIGKILL)
            begun = time.monotonic()
            while True:
                try:
                    if target.ask(timeout=5) not in old:
                        break
                except (OSError, ValueError):
                    failed += 1
                    if not target.is_alive:
                        return Found("**the whole server exits**", False)
                if time.monotonic() > begun + 15:
                    return Found("no new worker within 15 s", False)
            times.append(time.monotonic() - begun)
            with contextlib.suppress(AssertionError):
                wait(lambda: settled(target), "all workers", 5)
            time.sleep(0.1)
    return Found(f"{ms(statistics.median(times))} (p95 {ms(p95(times))}), {failed} connects failed", within(p95(times), 0.05) and not failed, {"seconds": statistics.median(times)})


def killed_workers(make: Make, rounds: int) -> Found:
    """G7: all workers at once, and the first answer after."""
    times, refused = [], 0
    for _ in range(rounds):
        with make() as target:
            for pid in target.workers():
                os.kill(pid, signal.SIGKILL)
            begun = time.monotonic()
            while time.monotonic() < begun + 15:
                try:
                    target.ask(timeout=15)
                    break
                except (OSError, ValueError):
                    refused += 1
                    time.sleep(0.01)
                    if not target.is_alive:
                        return Found("**the whole server exits**", False)
            else:
                return Found("no answer within 15 s", False)
            times.append(time.monotonic() - begun)
    return Found(f"first answer after {ms(statistics.median(times))}, {refused} connects failed", within(statistics.median(times), 0.15) and not refused)


def killed_master(make: Make, rounds: int) -> Found:
    """G8: six calls of a second under way. When can the port be bound again, who is answered, when are all gone?"""
    free, lost, gone = [], 0, []
    for _ in range(rounds):
        with make() as target:
            held = [target.hold(1.0) for _ in range(6)]
            time.sleep(0.3)
            workers = target.workers()
            target.process.kill()
            begun = time.monotonic()
            freed = float("inf")
            while time.monotonic() < begun + GRACE + 3:
                if can_bind(target.port):
                    freed = time.monotonic() - begun
                    break
                time.sleep(0.001)
            for sock in held:
                try:
                    target.read(sock)
                except (OSError, ValueError):
                    lost += 1
                sock.close()
            with contextlib.suppress(AssertionError):
                gone.append(wait(lambda workers=workers: not any(running(pid) for pid in workers), "the workers to go", max(0.1, GRACE + 3 - (time.monotonic() - begun))) and time.monotonic() - begun)
            free.append(freed)
    inherit = all(value == float("inf") for value in free)
    text = "port never free, **orphans serve on**" if inherit else f"port free after {ms(max(free))}, {lost} of {6 * rounds} calls lost, all gone after {ms(max(gone)) if gone else 'never'}"
    return Found(text, not inherit and within(max(free), 0.2) and not lost and len(gone) == rounds and max(gone) <= GRACE)


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stopped_worker(make: Make, rounds: int) -> Found:
    """G9: SIGSTOP to one of two; 30 new connections, one after the other, and who replaces it."""
    hung, replaced, seen, ready = 0, [], [], []
    for _ in range(rounds):
        with make() as target:
            old = target.workers()
            victim = min(old)
            known = len(target.when("is ready after")) if isinstance(target, Weego) else 0
            os.kill(victim, signal.SIGSTOP)
            begun, clock = time.monotonic(), time.time()
            with contextlib.suppress(AssertionError):
                replaced.append(wait(lambda old=old: target.workers() - old, "a replacement", 6))  # type: ignore[misc]
            if isinstance(target, Weego):
                target.wait_for("is ready after", known + 1)
                seen.append(max(0.0, target.when("is stopped")[-1] - clock))  # the log has whole milliseconds
                ready.append(target.when("is ready after")[-1] - clock)
            for _ in range(30):
                try:
                    target.ask(timeout=1)
                except (OSError, ValueError):
                    hung += 1
                if time.monotonic() > begun + 40:
                    break
    text = f"{hung} of {30 * rounds} new connections hang; "
    text += f"replacement started after {ms(statistics.median(replaced))}" if len(replaced) == rounds else "not replaced within 6 s"
    text += f" (seen after {ms(statistics.median(seen))}, ready after {ms(statistics.median(ready))})" if ready else ""
    fast = within(statistics.median(seen or [0.0]), 0.01) and within(statistics.median(ready or [0.0]), 0.1)
    return Found(text, not hung and len(replaced) == rounds and fast)


def blocked_worker(make: Make, rounds: int) -> Found:
    """G10: a C function that never lets go, with a timeout of 3 s where one can be set."""
    times, first = [], 0
    for _ in range(rounds):
        with make(hang_timeout=3) as target:
            old = target.workers()
            sock = target.connect()
            sock.sendall(target.question("/block"))
            begun = time.monotonic()
            there: set[int] = set()

            def is_replaced(target: Target = target, old: set[int] = old, there: set[int] = there) -> bool:
                there.clear()
                there.update(target.workers())
                return bool(there - old)

            try:
                wait(is_replaced, "a replacement", 20)
            except AssertionError:
                return Found("never found out (20 s)", False)
            times.append(time.monotonic() - begun)
            first += old <= there
            if isinstance(target, Weego):
                target.wait_for(r"its stacks follow")
                target.wait_for(r"Current thread 0x|most recent call first")
            sock.close()
    return Found(
        f"replacement started after {times[0]:.1f} s" + (f", before the old one ends {first}/{rounds}" if first else ", the old one is killed first"),
        within(max(times), 3.2) and first == rounds,
    )


def starved(make: Make, seconds: float) -> Found:
    """G11: busy loops for every CPU and more, then a master that is stopped; nobody may be killed for it."""
    with make(hang_timeout=3) as target:
        before = target.workers()
        hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
        try:
            time.sleep(seconds)
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        target.signal(signal.SIGSTOP)
        time.sleep(seconds)
        served = target.answers(5)
        target.signal(signal.SIGCONT)
        time.sleep(2)
        alive = target.is_alive and target.workers() == before
    return Found(f"{'nobody killed' if alive else '**workers killed**'}, {'served' if served else 'did not serve'} while the master was stopped", alive and served)


def crash_loop(make: Make, seconds: float) -> Found:
    """G12: workers that end 0.1 s after they begin: boots in the first 5 s, then, if there is time, in as long again, and what the master works for it."""
    target = make(boot=CRASHES)

    def boots() -> int:
        mark = target.folder / "boots"
        return len(mark.read_text()) if mark.exists() else 0

    try:
        target.start(patiently=False)
        wait(lambda: boots() or not target.is_alive, "the first worker")  # the imports of the start are not counted
        before, begun = target.cpu(), time.monotonic()
        time.sleep(5)
        early = boots()
        time.sleep(max(0.0, seconds - 5))
        late, alive = boots() - early, target.is_alive
        share = (target.cpu() - before) / (time.monotonic() - begun)
    finally:
        target.__exit__()
    if not alive:
        return Found(f"{early + late} boots, then it exits", False)
    text = f"{early} boots in 5 s" + (f", {late / (seconds - 5):.2f}/s after" if seconds > 5 else "") + f", master {share:.1%} of a CPU"
    # One each 5 s, spread by a fifth, of each worker; and one that falls just inside.
    return Found(text, early <= 8 * WORKERS and late <= (seconds - 5) * WORKERS * 0.25 + WORKERS and share <= 0.01 * slack)


# ---------------------------------------------------------------- stop


def stop_idle(make: Make, rounds: int) -> Found:
    """G13: TERM when nothing is under way, and while a worker boots."""
    idle, booting = [], []
    for number in range(2 * rounds):
        with make() as target:
            if number % 2:
                os.kill(min(target.workers()), signal.SIGKILL)
                time.sleep(0.02 * (number // 2 % 5))
            begun = time.monotonic()
            target.signal(signal.SIGTERM)
            try:
                target.process.wait(GRACE + 10)
            except subprocess.TimeoutExpired:
                return Found(f"still there after {GRACE + 10} s", False)
            (booting if number % 2 else idle).append(time.monotonic() - begun)
    return Found(f"{ms(statistics.median(idle))}; while a worker boots {ms(p95(booting))} (p95), {ms(max(booting))} at most", within(statistics.median(idle), 0.15) and within(p95(booting), 0.15))


def stop_during_reload(make: Make, rounds: int) -> Found:
    """G14: a call of 2 s under way, HUP, 0.3 s later TERM: it ends when the call does."""
    times, reacted, lost = [], [], 0
    for _ in range(rounds):
        with make() as target:
            held = target.hold(2.0)
            time.sleep(0.1)
            target.reload()
            time.sleep(0.3)
            begun = time.monotonic()
            target.signal(signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                reacted.append(wait(lambda target=target: can_bind(target.port), "the port to be free", 1))  # type: ignore[misc]
            try:
                target.read(held)
            except (OSError, ValueError):
                lost += 1
            held.close()
            try:
                target.process.wait(GRACE + 10)
            except subprocess.TimeoutExpired:
                return Found(f"still there after {GRACE + 10} s", False)
            times.append(time.monotonic() - begun)
    text = f"no longer listens after {ms(max(reacted))}" if len(reacted) == rounds else "listens on"
    text += f", exits {times[0]:.1f} s after TERM (the call took 1.6 s more), {lost} of {rounds} calls lost"
    return Found(text, len(reacted) == rounds and within(max(reacted), 0.1) and within(max(times), 1.6 + 0.3) and not lost)


def stop_under_connects(make: Make, rounds: int) -> Found:
    """G15: twelve clients that connect all the time, and TERM. A refused connection is fine; a reset one was accepted and dropped."""
    counts: Counter[str] = Counter()
    for _ in range(rounds):
        with make() as target:
            ending = threading.Event()

            def ask(target: Target = target, ending: threading.Event = ending) -> None:
                while not ending.is_set():
                    try:
                        sock = target.connect(5)
                    except ConnectionRefusedError:
                        counts["refused"] += 1
                        return
                    except OSError:
                        counts["reset"] += 1
                        return
                    with sock:
                        try:
                            sock.sendall(target.question("/"))
                            target.read(sock)
                            counts["good"] += 1
                        except (OSError, ValueError):
                            counts["reset"] += 1

            threads = [threading.Thread(target=ask) for _ in range(12)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            target.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                target.process.wait(GRACE + 5)
            ending.set()
            for thread in threads:
                thread.join()
    numbers: dict[str, float] = {"reset": counts["reset"], "good": counts["good"]}
    return Found(f"{counts['reset']} of {counts['reset'] + counts['good']} reset in {rounds} stops", not counts["reset"], numbers)


# ---------------------------------------------------------------- what the system lacks


@contextlib.contextmanager
def read_output(path: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A pipe for a server's output, and the process that copies it to a file: not a thread, which would keep the clients waiting."""
    reader, writer = os.pipe()
    with open(path, "wb") as file, subprocess.Popen(["cat"], stdin=reader, stdout=file) as copier:
        os.close(reader)
        try:
            yield writer, copier
        finally:
            os.close(writer)
            copier.kill()


def pipelined(target: Target, count: int) -> None:
    """So many calls of weego's, by hundreds on 32 connections, spread over the workers."""
    hundred = target.question("/") * 100
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(target.connect()) for _ in range(32)]
        for number in range(count // 100):
            sock = socks[number % len(socks)]
            sock.sendall(hundred)
            got = bytearray()
            for _ in range(100):
                while cut("framed", got) is None:
                    got += sock.recv(65536)


def cpu_of_workers(target: Target) -> float:
    """Seconds of CPU of the workers, all threads, exactly."""
    return sum(ran(pid, thread) for pid in target.workers() for thread in map(int, os.listdir(f"/proc/{pid}/task")))


#: G16: lines that fill the pipe and the queues of two workers and more (some 110 bytes each); looks at the CPU; what calls may
#: cost more than with a log that is read, where less than so many seconds is scheduling.
MANY_LINES: Final = 160_000
TURNS: Final = 20
COSTS: Final = 1.1
NOISE: Final = 0.0005


def stuck_output(make: Make, requests: int) -> Found:
    """G16: the access log goes into a pipe that nobody reads any more, or on a disk that is full."""
    with tempfile.TemporaryDirectory() as folder, read_output(f"{folder}/stuck") as (writer, copier):
        with make(output=writer) as target:
            os.kill(copier.pid, signal.SIGSTOP)
            answered = 0
            with contextlib.suppress(OSError, ValueError):
                while answered < requests:
                    target.ask(timeout=3)
                    answered += 1
            if answered < requests:
                return Found(f"**hangs** after {answered} requests", False)
            if not isinstance(target, Weego):
                return Found(f"{answered} of {answered} answered")
            found = cost_of_no_reader(make, target, requests)
            os.kill(copier.pid, signal.SIGCONT)
            wait(lambda: b"log lines were dropped" in Path(f"{folder}/stuck").read_bytes(), "the lines that were lost to be told", step=0.1)
    return found


def cost_of_no_reader(make: Make, stuck: Target, requests: int) -> Found:
    """Three servers, one call each in turn, for the machine has other things to do: one whose log is read, one whose queues are full, one whose disk is."""
    times: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, read_output(f"{folder}/read") as (writer, _), open("/dev/full", "wb") as full:
        with make(output=writer) as read, make(output=full.fileno()) as disk:
            pipelined(stuck, MANY_LINES)
            servers = {"read": read, "unread": stuck, "no disk": disk}
            for _ in range(TURNS):
                before = {name: cpu_of_workers(server) for name, server in servers.items()}
                for _ in range(requests // TURNS):
                    for name, server in servers.items():
                        begun = time.monotonic()
                        server.ask(timeout=3)
                        times.setdefault(name, []).append(time.monotonic() - begun)
                for name, server in servers.items():
                    costs.setdefault(name, []).append((cpu_of_workers(server) - before[name]) / (requests // TURNS))
    late = {name: p99(each) for name, each in times.items()}
    cpu = {name: statistics.median(each) for name, each in costs.items()}
    text = f"all of {requests} answered; p99 and CPU of a call "
    text += "; ".join(f"{name}: {late[name] * 1e3:.1f} ms, {cpu[name] * 1e6:.0f} µs" for name in servers)
    good = all(late[name] <= max(COSTS * late["read"], late["read"] + NOISE) * slack and cpu[name] <= COSTS * cpu["read"] for name in servers)
    return Found(text, good)


def no_descriptors(make: Make, seconds: float) -> Found:
    """G17: a limit of 200 open files and 300 clients. Those who are in are served, the others get in as soon as there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with make() as target:
        for pid in target.workers():
            psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE, (200, 200))
        assert (soft, hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
        clients = []
        for _ in range(500):
            sock = target.connect(3)
            sock.sendall(target.question("/"))
            clients.append(sock)
        served = []
        for sock in clients:
            sock.settimeout(0.5 if len(served) == clients.index(sock) else 0.002)
            with contextlib.suppress(OSError, ValueError):
                target.read(sock)
                served.append(sock)
        before = [psutil.Process(pid).cpu_times() for pid in target.workers()]
        time.sleep(seconds)
        after = [psutil.Process(pid).cpu_times() for pid in target.workers()]
        cpu = sum(sum(b[:2]) - sum(a[:2]) for a, b in zip(before, after, strict=False)) / seconds
        good = 0
        for sock in served:
            sock.settimeout(5)
            with contextlib.suppress(OSError, ValueError):
                sock.sendall(target.question("/"))
                target.read(sock)
                good += 1
        for sock in clients:
            sock.close()
        with contextlib.suppress(AssertionError):
            resumed = wait(lambda: target.answers(1), "a newcomer to be served", 10)
            return Found(f"{good} of {len(served)} inside are served, {cpu:.0%} CPU, newcomers {ms(resumed)} after relief", good == len(served) > 100 and cpu <= 0.2 and within(resumed, 1.0), {"good": good, "served": len(served)})
    return Found("serves no newcomers after relief", False)


def balance(make: Make, connections: int) -> Found:
    """G18: long-lived connections over four workers, opened all at once and one every 20 ms."""
    text, worst = [], 0.0
    for paced in (False, True):
        with make(workers=4) as target:
            socks = []
            for _ in range(connections):
                socks.append(target.connect())
                if paced:
                    socks[-1].sendall(target.question("/"))
                    target.read(socks[-1])
                    time.sleep(0.02)
            counts: Counter[int] = Counter()
            for sock in socks:
                sock.sendall(target.question("/"))
                counts[target.read(sock)] += 1
            for sock in socks:  # not sooner: who has lost one may take another of those that still wait
                sock.close()
        ratio = max(counts.values()) / (connections / 4)
        worst = max(worst, ratio)
        text.append(f"{ratio:.2f} {'paced' if paced else 'at once'}")
    return Found("max/mean " + ", ".join(text), worst <= (1.1 if slack == 1.0 else 1.25))


def overhead(make: Make, seconds: float) -> Found:
    """G19: an idle master: how often it wakes, and its memory; and what a worker that does nothing but say so ten times a second works for it."""
    with make() as target:
        time.sleep(2)
        process = psutil.Process(target.process.pid)
        before, worked = process.num_ctx_switches().voluntary, sum(ran(pid) for pid in target.workers())
        time.sleep(seconds)
        worked = (sum(ran(pid) for pid in target.workers()) - worked) / seconds / len(target.workers())
        wakes = (process.num_ctx_switches().voluntary - before) / seconds
        size = process.memory_info().rss / 2**20
        private = sum(getattr(each, "private_dirty", 0) for each in process.memory_maps()) / 2**20
    text = f"{wakes:.1f} wake-ups/s, {size:.1f} MiB resident ({private:.0f} its own); an idle worker {worked:.2%} of a CPU"
    return Found(text, wakes <= 10 and size <= 15 and worked <= 0.005 * slack)


def ran(pid: int, thread: int | None = None) -> float:
    """Seconds of CPU of a thread, a process's main one unless told, exactly."""
    with open(f"/proc/{pid}/task/{thread or pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def leaks(make: Make, rounds: int) -> Found:
    """G20: many reloads; descriptors, memory and children of the master afterwards."""
    with make() as target:
        done = 0

        def one() -> None:
            nonlocal done
            before = target.workers()
            target.reload()
            done += 1
            wait(lambda: not before & target.workers() and settled(target), "the new workers", 30)

        try:
            for _ in range(5):
                one()
            if isinstance(target, Weego):  # what the master holds of those that drain goes with them
                wait(lambda: len(target.workers()) == target.workers_wanted, "the old workers to go", 30)
                time.sleep(0.5)
            fds, memory = len(descriptors(target.process.pid)), psutil.Process(target.process.pid).memory_info().rss
            for _ in range(rounds):
                one()
        except AssertionError:
            return Found(f"reload {done} never ends", False)
        if isinstance(target, Weego):
            wait(lambda: len(descriptors(target.process.pid)) <= fds, "the descriptors of the last reload to be closed", 30)
        fds = len(descriptors(target.process.pid)) - fds
        grown = (psutil.Process(target.process.pid).memory_info().rss - memory) / 2**20
        zombies = sum(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process(target.process.pid).children())
    return Found(f"{rounds} reloads: {fds:+d} descriptors, {grown:+.1f} MiB, {zombies} zombies", fds == 0 and grown <= 2 and not zombies)


def upgrade(make: Make, rounds: int) -> Found:
    """G24: SIGUSR2 under load: the same master pid, and nobody fails."""
    counts: Counter[str] = Counter()
    ending = threading.Event()
    with make() as target:
        assert isinstance(target, Weego)

        def ask() -> None:
            with target.connect(10) as sock:
                while not ending.is_set():
                    try:
                        sock.sendall(target.question("/"))
                        target.read(sock)
                        counts["good"] += 1
                    except (OSError, ValueError):
                        counts["bad"] += 1
                        return
                    time.sleep(0.005)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            for number in range(rounds):
                target.signal(signal.SIGUSR2)
                target.wait_for(r"upgraded from weego", number + 1)
                before = target.workers()
                target.reload()
                wait(lambda before=before: not before & target.workers() and settled(target), "the new workers", 20)  # type: ignore[misc]
        except AssertionError:
            return Found("no upgrade in place", False)
        finally:
            ending.set()
            for thread in threads:
                thread.join()
        alive = target.is_alive
    return Found(f"{rounds} upgrades and reloads, same pid, {counts['bad']} of {counts['good'] + counts['bad']} failed on 8 connections that stayed", alive and not counts["bad"])


@dataclass(frozen=True)
class Case:
    """One row. `short` and `long` are the size of it; `rivals`: whether it means anything for others."""

    goal: str
    title: str
    run: Callable[[Make, int], Found]
    short: int
    long: int
    rivals: bool = True


CASES: Final = (
    Case("G1", "HUP with a broken configuration, import, port", broken_reload, 2, 34),
    Case("G2", "6 HUPs, requests on new connections meanwhile", lambda make, n: busy_reload(make, n, at_once=False), 6, 6),
    Case("G3", "100 HUPs in a second", lambda make, n: busy_reload(make, n, at_once=True), 100, 100),
    Case("G4", "ready workers during reloads", capacity, 2, 5, rivals=False),
    Case("G5", "HUP when idle, until only new workers are left", idle_reload, 3, 5),
    Case("G6", "kill -9 of a worker, until a new one answers", killed_worker, 5, 20),
    Case("G7", "kill -9 of all workers", killed_workers, 2, 5),
    Case("G8", "kill -9 of the master, 6 calls of 1 s under way", killed_master, 1, 5),
    Case("G9", "SIGSTOP to a worker", stopped_worker, 1, 3),
    Case("G10", "a handler blocks its worker (limit 3 s)", blocked_worker, 1, 3),
    Case("G11", "8 busy loops, then the master stopped", starved, 5, 20),
    Case("G12", "two workers that crash after 0.1 s", crash_loop, 5, 25),
    Case("G13", "TERM when idle", stop_idle, 3, 25),
    Case("G14", "TERM during a reload", stop_during_reload, 1, 3),
    Case("G15", "TERM while 12 clients connect", stop_under_connects, 2, 50),
    Case("G16", "nobody reads the access log, or the disk is full", stuck_output, 3000, 9000),
    Case("G17", "no descriptors left", no_descriptors, 3, 60),
    Case("G18", "balance of 32 connections, 4 workers", balance, 32, 32),
    Case("G19", "an idle master", overhead, 5, 20),
    Case("G20", "leaks", leaks, 10, 200),
    Case("G24", "upgrade in place (USR2)", upgrade, 1, 3, rivals=False),
)

__all__ = ["CASES", "Case", "Found"]

"""Reload storms: HUPs in a row and HUPs all at once under persistent connections of every framing.

What is steady is measured before and after, half of the time each, for the machine has other things to do as well. No connection is ever replaced by the load, so nothing failed also means nobody reconnected.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field

from tests.e2e.load import ALL_FRAMINGS, Failure, Load
from tests.support.processes import PATIENCE
from tests.support.service import App, Server, until

#: Between two of the HUPs that come at once (seconds): a hundred in one second.
BURST_GAP = 0.01


@dataclass
class Storm:
    """What happened. Times in seconds."""

    requests: int = 0
    newcomers: int = 0
    workers: int = 0
    failures: list[Failure] = field(default_factory=list)
    reloads_in_a_row: int = 0
    reloads_in_burst: int = 0
    burst_seconds: float = 0.0
    most_processes: int = 0
    steady: list[float] = field(default_factory=list)
    stormy: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.requests} requests and {self.newcomers} newcomers in {self.seconds:.0f} s, answered by {self.workers} workers: "
            f"{len(self.failures)} failed, 0 reconnects\n"
            f"  {self.reloads_in_a_row} reloads in a row; the burst made {self.reloads_in_burst}, {self.most_processes} processes at most\n"
            f"  p99 {percentile(self.steady, 0.99) * 1e3:.1f} ms steady, {percentile(self.stormy, 0.99) * 1e3:.1f} ms in the storm, "
            f"slowest {max(self.stormy) * 1e3:.0f} ms"
        )


def percentile(values: list[float], part: float) -> float:
    """The value that so much of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def storm(app: App, server: Server, *, in_a_row: int, burst: int, requests: int, pace: float, steady: float) -> Storm:
    """HUP `in_a_row` times, each after the last has ended, then `burst` times at once; new code each time. At least so many requests."""
    result = Storm()
    with Load(server.address, pace=pace, framings=ALL_FRAMINGS) as load:
        begun = time.monotonic()
        until(lambda: not load.behind(1) or load.failures, "the first answers")
        load.latencies = []
        result.steady = steadily(load, steady / 2)
        version = 1
        for _ in range(in_a_row):
            version += 1
            app.write_version(version)
            load.newest = version
            server.reload_ok()
            result.most_processes = max(result.most_processes, len(server.remember()))
            if load.failures:
                break
        result.reloads_in_a_row = server.log.count("reload done")
        load.newest = version = version + 1
        app.write_version(version)
        burst_began = time.monotonic()
        for number in range(burst):
            server.signal(signal.SIGHUP)
            if number % 10 == 0:  # looking takes as long as the gap
                result.most_processes = max(result.most_processes, len(server.remember()))
            time.sleep(max(0.0, burst_began + (number + 1) * BURST_GAP - time.monotonic()))
        result.burst_seconds = time.monotonic() - burst_began
        until(lambda: not load.behind(version) or load.failures, f"code {version} everywhere")
        result.stormy, load.latencies = load.latencies, []
        result.steady += steadily(load, steady / 2)
        until(lambda: load.answered >= requests or load.failures, f"{requests} requests", PATIENCE + requests / 100)
        result.seconds = time.monotonic() - begun
    result.reloads_in_burst = server.log.count("reload done") - result.reloads_in_a_row
    result.requests, result.newcomers, result.failures = load.answered, load.arrived, load.failures
    result.workers = len(load.pids)
    return result


def steadily(load: Load, seconds: float) -> list[float]:
    """Latencies of so many seconds, and of a hundred requests a second at least, in which nothing else happens."""
    ending, wanted = time.monotonic() + seconds, load.answered + max(100, int(seconds * 100))
    load.latencies = []
    until(lambda: (time.monotonic() > ending and load.answered > wanted) or load.failures, "a steady time")
    found, load.latencies = load.latencies, []
    return found

"""What a process that does not answer is doing, by what the kernel says of its main thread, which is the one that runs the loop.

A worker that is late deserves a look before anything happens to it: one that waits for a CPU is not at fault, and one
that a debugger stopped will be back.
"""

from __future__ import annotations

import os
from typing import NamedTuple

STOPPED = "stopped"
"""By SIGSTOP, a terminal or a debugger."""
SPINNING = "spinning"
"""It runs, but not its loop."""
BLOCKED = "blocked"
"""It waits in a system call or for a lock, and not in its loop."""
STARVED = "starved"
"""It would run if it were given a CPU."""

#: Who gets less of a CPU than this share of the time, although it could use it, does not run in any useful sense.
STARVED_SHARE = 0.1

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Pulse(NamedTuple):
    """One look at a main thread. Seconds since it was forked."""

    state: str
    """The letter of proc(5): R runs or would like to, S and D wait, T and t are stopped."""
    cpu: float
    waited: float
    """For a CPU, while able to run. The kernel adds to it when the wait is over."""

    @property
    def is_stopped(self) -> bool:
        """By a signal, or by who traces it."""
        return self.state in ("T", "t")


def feel(pid: int) -> Pulse | None:
    """The pulse of process ``pid``; None if it is gone, or hidden from us."""
    folder = f"/proc/{pid}/task/{pid}"
    try:
        # The name, in parentheses, may hold anything, parentheses included.
        fields = _read(f"{folder}/stat").rpartition(b")")[2].split()
        state, cpu, waited = fields[0].decode(), (int(fields[11]) + int(fields[12])) * _TICK, 0.0
    except (OSError, IndexError, ValueError):
        return None
    try:
        runtime, delay = _read(f"{folder}/schedstat").split()[:2]
        if int(runtime):  # finer, where the kernel was built with it
            cpu, waited = int(runtime) / 1e9, int(delay) / 1e9
    except (OSError, ValueError):
        pass
    return Pulse(state, cpu, waited)


def diagnose(before: Pulse, now: Pulse, elapsed: float) -> str:
    """What it did in the ``elapsed`` seconds between two looks: STOPPED, SPINNING, BLOCKED or STARVED."""
    if now.is_stopped:
        return STOPPED
    has_run = now.cpu - before.cpu >= STARVED_SHARE * elapsed
    if now.state == "R":
        return SPINNING if has_run else STARVED
    return STARVED if not has_run and denied(before, now, elapsed) > elapsed / 2 else BLOCKED


def denied(before: Pulse, now: Pulse, elapsed: float) -> float:
    """Of the ``elapsed`` seconds between two looks, how many it could have run and was given no CPU."""
    waited = now.waited - before.waited
    if now.state == "R":  # a wait that has not ended is in no sum yet
        waited = max(waited, elapsed - (now.cpu - before.cpu))
    return min(max(waited, 0.0), elapsed)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)

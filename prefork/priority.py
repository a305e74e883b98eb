"""Who loads gives way to those who serve.

Importing takes all the CPU it can get. Where the CPUs are busy, or the kernel shares them out by session or container, a loader takes them from the
workers beside it, and calls wait (docs/reliability.md, "Storms"). So while it loads it is a few steps nicer.

That must be taken back, for its workers inherit it, and only some may: who has CAP_SYS_NICE, or a limit (RLIMIT_NICE, ``LimitNICE=`` of a unit) that allows
it. Where the master may not, the loader stays as it is. The master does both, for the loader may have become another user meanwhile.
"""

from __future__ import annotations

import os
import resource

from prefork.primitives import close_quietly

__all__ = ("Priority",)

#: A third of the weight of a worker, so even a machine whose workers want every CPU leaves a quarter of one to the loader: a reload takes longer, but ends.
STEPS = 5

#: <linux/capability.h>
_CAP_SYS_NICE = 23


class Priority:
    """That of a master's children: as its own, except for those that give way."""

    def __init__(self) -> None:
        self._usual = os.getpriority(os.PRIO_PROCESS, 0)
        limit = resource.getrlimit(resource.RLIMIT_NICE)[0]
        self.may_return = may_return(_status(), self._usual, limit)

    def give_way(self, pid: int) -> None:
        """A child that others are not to wait for."""
        if self.may_return:
            _set(pid, self._usual + STEPS)

    def take_back(self, pid: int) -> None:
        """A child that is like any other again, also after ``give_way`` did nothing."""
        if self.may_return:
            _set(pid, self._usual)


def may_return(status: str, nice: int, limit: int) -> bool:
    """Whether who has this /proc/PID/status, niceness and RLIMIT_NICE may come back to that niceness from a higher one."""
    if limit == resource.RLIM_INFINITY or 20 - nice <= limit:
        return True
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_NICE & 1)
    return False


def _set(pid: int, nice: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    except OSError:  # it is gone, or the sandbox forbids it
        pass


def _status() -> str:
    try:
        fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode(errors="replace")
    finally:
        close_quietly(fd)

"""Memory as the kernel bounds it: the limit of the container, what is used of it, and whether somebody was killed for want of it.

A process that the kernel kills for memory ends like one that somebody sends SIGKILL. What tells them apart are counters: that of the cgroup, and
that of the whole machine. They are looked at once a second, so a kill long ago is not taken for the reason of one today.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from prefork.primitives import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of a cgroup without a limit v1 says a number near 2**63.
_NO_LIMIT = 1 << 60

#: Kills of one shortage come together: several workers may be found dead after one look at the counter.
SAME_SHORTAGE_SECONDS = 2.0


class _Files(NamedTuple):
    """Where the kernel says it, in one of its two ways."""

    limit: str
    used: str
    cache: str
    """In memory.stat: cache that goes when memory is needed."""
    kills: str
    """The file that counts kills in a line "oom_kill N"."""


_V2 = _Files("memory.max", "memory.current", "inactive_file", "memory.events")
_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control")


class Memory:
    """The memory of the cgroup this process is in. ``root`` stands before /proc and /sys, for tests."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._folders, self._files = _find(root)
        self._kills = self._count()
        self._last_kill: float | None = None

    def limit(self) -> int:
        """Bytes that all processes of the container may use; 0: as many as there are."""
        limits = [_number(f"{folder}/{self._files.limit}") for folder in self._folders]
        return min((limit for limit in limits if 0 < limit < _NO_LIMIT), default=0)

    def used(self) -> float:
        """How much of the limit is used and would not be given back for the asking, 0 to 1; the worst of all limits that apply. 0: there is none."""
        return max((used / limit for used, limit in self._bounds()), default=0.0)

    def left(self) -> int | None:
        """Bytes to the nearest limit; None: there is none."""
        return min((max(0, limit - used) for used, limit in self._bounds()), default=None)

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """Used, and the limit, of each cgroup that has one."""
        for folder in self._folders:
            limit = _number(f"{folder}/{self._files.limit}")
            if 0 < limit < _NO_LIMIT:
                yield _number(f"{folder}/{self._files.used}") - _line(f"{folder}/memory.stat", self._files.cache), limit

    def look(self) -> bool:
        """Whether the kernel has killed somebody for memory in the last moments."""
        count = self._count()
        if count != self._kills:
            self._kills = count
            self._last_kill = monotonic()
        return self._last_kill is not None and monotonic() - self._last_kill < SAME_SHORTAGE_SECONDS

    def shortage(self) -> str:
        """What there is too little of."""
        limit = self.limit()
        return f"the limit of {limit / 2**20:.0f} MiB for the container is reached" if limit else "the machine has none left"

    def _count(self) -> tuple[int, ...]:
        groups = tuple(_line(f"{folder}/{self._files.kills}", "oom_kill") for folder in self._folders[:1])
        return (*groups, _line(os.path.join(self._root, "proc/vmstat"), "oom_kill"))


def _find(root: str) -> tuple[list[str], _Files]:
    """The folders of our cgroup and of all above it. Inside a container it may be named from outside: then only the mount."""
    found: dict[_Files, str] = {}
    for line in _text(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            found[_V2] = group
        elif "memory" in controllers.split(","):
            found[_V1] = group
    for files, mount in ((_V1, "sys/fs/cgroup/memory"), (_V2, "sys/fs/cgroup")):
        if files in found:
            mount = os.path.join(root, mount)
            group = found[files].strip("/")
            parts = group.split("/") if group else []
            folders = [os.path.join(mount, *parts[:depth]) for depth in range(len(parts), -1, -1)]
            folders = [folder for folder in folders if os.path.exists(os.path.join(folder, files.kills))]
            if folders:
                return folders, files
    return [], _V2


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int:
    """0 for "max", and for what is not there."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _line(path: str, name: str) -> int:
    """The number behind a name."""
    for line in _text(path).splitlines():
        word, _, number = line.partition(" ")
        if word == name and number.strip().isdigit():
            return int(number)
    return 0

"""How many CPUs this process may use: what `workers = "auto"` means.

The smallest of the scheduler's affinity mask and every cgroup quota above the process. A quota of one and a half CPUs counts
as two: a worker that is throttled at times serves more than a CPU that stands idle.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available"]


def available(root: str = "/") -> int:
    """CPUs by affinity and cgroup quota (v2 or v1), at least 1. `root` stands before /proc and /sys, for tests."""
    quotas = _cgroup_quotas(Path(root))
    return max(1, min([len(os.sched_getaffinity(0)), *(math.ceil(quota) for quota in quotas)]))


def _cgroup_quotas(root: Path) -> list[float]:
    """Every quota that applies, in CPUs. Nothing readable means no quota."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folders = _upwards(root / "sys/fs/cgroup", group)
            quotas += [_ratio(*_read(folder / "cpu.max").split()[:2]) for folder in folders]
        elif "cpu" in controllers.split(","):
            folders = _upwards(root / "sys/fs/cgroup" / controllers, group)
            quotas += [_ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")) for folder in folders]
    return [quota for quota in quotas if quota > 0]


def _upwards(mount: Path, group: str) -> list[Path]:
    """The group's folder and each one above it. Inside a container the group may be named from outside: then only the mount."""
    folder = mount / group.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def _ratio(quota: str = "", period: str = "") -> float:
    """Quota by period in CPUs; 0 for "max", -1 and whatever is not there."""
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

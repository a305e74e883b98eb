"""The machine: which CPUs the run may use, and what a reader must know about it to judge the numbers."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import dataclass
from importlib import metadata

BUSY_LOAD = 0.5
"""Load average over one minute, per CPU, from which on others are at work and the numbers are noisy."""

FILES = 4096
"""Open files a server or generator with a thousand connections gets by with."""

PACKAGES = ("weego", "thriftpy2", "gevent", "thrift", "protobuf")


@dataclass(frozen=True)
class Places:
    """The CPU of the server and of the load generator; None when there is only one CPU to share."""

    server: int | None
    generator: int | None


def places() -> Places:
    """One CPU for each side, the last two this process may run on (the first is where a machine's interrupts go)."""
    cpus = sorted(os.sched_getaffinity(0))
    return Places(cpus[-1], cpus[-2]) if len(cpus) > 1 else Places(None, None)


def say(text: str) -> None:
    """How far the run is, beside its tables."""
    print(text, file=sys.stderr, flush=True)


def raise_file_limit() -> None:
    """Lifts the soft limit of open files as far as needed and allowed; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def busy() -> bool:
    """Whether others use this machine right now."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) > BUSY_LOAD


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def describe() -> dict[str, object]:
    """What the JSON result says about the machine. Versions of packages that are missing are None."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": versions,
        "load_average": os.getloadavg()[0],
    }

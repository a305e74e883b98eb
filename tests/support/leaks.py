"""What a test must leave as it found it: descriptors, threads, children.

    with no_leaks():
        …
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

# A closed peer or an ended child needs a moment to disappear from /proc.
SETTLING = 5.0


def descriptors(pid: int | None = None) -> dict[int, str]:
    """Open fds of a process and what they are; the one that lists them is left out."""
    folder = f"/proc/{pid or 'self'}/fd"
    found = {}
    for name in os.listdir(folder):
        try:
            found[int(name)] = os.readlink(f"{folder}/{name}")
        except OSError:
            continue  # the listing's own descriptor
    return found


def children(pid: int | None = None) -> set[int]:
    """Live children of a process, all generations."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def _ends(fd: int) -> str:
    """Of a socket: its addresses and its state, which say whose it is."""
    with contextlib.suppress(psutil.Error):
        for each in psutil.Process().net_connections("all"):
            if each.fd == fd:
                return f"{each.laddr} {each.raddr} {each.status}"
    return ""


@contextmanager
def no_leaks() -> Iterator[None]:
    """Fails when the block leaves open descriptors, threads or child processes behind in this process."""
    gc.collect()
    fds, threads, processes = descriptors(), set(threading.enumerate()), children()
    yield
    deadline = time.monotonic() + SETTLING
    while True:
        gc.collect()
        left = {
            "descriptors": {fd: what for fd, what in descriptors().items() if fds.get(fd) != what},
            "threads": {thread.name for thread in set(threading.enumerate()) - threads},
            "children": children() - processes,
        }
        if not any(left.values()):
            return
        if time.monotonic() > deadline:
            left["descriptors"] = {fd: " ".join((what, _ends(fd))).strip() for fd, what in left["descriptors"].items()}
            raise AssertionError(f"left behind: {({kind: what for kind, what in left.items() if what})}")
        time.sleep(0.05)

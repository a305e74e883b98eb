"""The registry that needs nothing but a folder: services of one machine, or of one shared volume, find each other through files.

    run/registry/echo/tcp%3A%2F%2F10.0.0.1%3A8888        one file an instance: JSON, written whole or not at all
    its time of modification                             when the instance was last heard of
    "ttl" in it                                          for how many seconds that is good

Nobody serves it and nothing has to run. Readers look at the folder's own time ten times a second, which costs one system call, and read it when
something came or went, or when a lease may have run out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from governance.discovery import DiscoveryError, Registration
from governance.instance import Instance

__all__ = ["FileRegistry", "FileResolver"]

log = logging.getLogger("weego.governance")

# Seconds between two looks at the folder: so long a client may not know of a change.
LOOK: Final = 0.1
# A file that is larger was not written by a registry.
MOST_BYTES: Final = 65536
# The longest lease that is believed (seconds): a mistyped one must not keep an instance for ever.
MOST_TTL: Final = 3600.0
MOST_NAME: Final = 200


def folder_of(root: str, service: str) -> str:
    """Where the instances of `service` are written. DiscoveryError for a name that is no folder's."""
    name = quote(service, safe="")
    if not service or len(name) > MOST_NAME or set(name) <= {"."}:
        raise DiscoveryError(f"{service!r} cannot be the name of a service: it becomes a folder of {root}")
    return os.path.join(root, name)


class FileRegistry:
    """Announces instances in the folder `root`, which is made when it is missing."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._written: dict[str, str] = {}

    def register(self, registration: Registration) -> None:
        """Write the instance's file, or renew it. Raises DiscoveryError."""
        folder = folder_of(self.root, registration.service)
        path = os.path.join(folder, _file_name(registration.instance.address))
        text = json.dumps({**registration.instance.to_plain(), "ttl": registration.ttl}, sort_keys=True)
        try:
            if self._written.get(path) == text:
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
                    return
            os.makedirs(folder, exist_ok=True)
            fresh = f"{path}.{os.getpid()}.new"
            with open(fresh, "w") as file:
                file.write(text)
            os.replace(fresh, path)
        except OSError as error:
            raise DiscoveryError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
        self._written[path] = text

    def withdraw(self, registration: Registration) -> None:
        """Remove the instance's file. Raises DiscoveryError."""
        path = os.path.join(folder_of(self.root, registration.service), _file_name(registration.instance.address))
        self._written.pop(path, None)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DiscoveryError(f"cannot remove {path}: {(error.strerror or str(error)).lower()}") from None

    def __repr__(self) -> str:
        return f"<FileRegistry {self.root}>"


class FileResolver:
    """Finds the instances of `service` in the folder `root`. `clock` is the time that files are stamped with, seconds since 1970."""

    interval = LOOK

    def __init__(self, root: str, service: str, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self.folder = folder_of(root, service)
        self.source = f"file://{self.folder}"
        self._clock = clock
        self._stamp: int | None = None
        self._look_again = 0.0
        self._found: Sequence[Instance] = ()
        self._read: dict[str, tuple[int, Instance | None, float]] = {}

    def resolve(self) -> Sequence[Instance]:
        """Those whose lease is good. Raises DiscoveryError when the folder cannot be read; one that is not there has none."""
        now = self._clock()
        try:
            stamp = os.stat(self.folder).st_mtime_ns
            if stamp == self._stamp and now < self._look_again:
                return self._found
            self._found = self._scan(now)
        except FileNotFoundError:
            raise DiscoveryError(f"there is no {self.folder}: no instance ever registered there") from None
        except OSError as error:
            raise DiscoveryError(f"cannot read {self.folder}: {(error.strerror or str(error)).lower()}") from None
        # A file written in the same tick of the file system's clock as this look would not change the stamp again.
        self._stamp = stamp if now - stamp / 1e9 > 1.0 else None
        return self._found

    def _scan(self, now: float) -> Sequence[Instance]:
        found = []
        read: dict[str, tuple[int, Instance | None, float]] = {}
        soonest = now + MOST_TTL
        with os.scandir(self.folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.name.endswith(".new"):
                    continue
                try:
                    status = entry.stat()
                    known = self._read.get(entry.name)
                    # A renewal touches the file, a change replaces it.
                    if known is None or known[0] != status.st_ino:
                        known = (status.st_ino, *self._parse(entry.path))
                except FileNotFoundError:
                    continue
                read[entry.name] = known
                _, instance, ttl = known
                ends = status.st_mtime + ttl
                if instance is not None and now < ends:
                    found.append(instance)
                    soonest = min(soonest, ends)
                elif instance is not None and now > ends + MOST_TTL:
                    # Its owner was killed, and nobody will ever renew it.
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
        self._read = read
        self._look_again = soonest
        return found

    def _parse(self, path: str) -> tuple[Instance | None, float]:
        """The instance and its ttl; None, with a line in the log, for what is none."""
        try:
            with open(path, "rb") as file:
                raw = file.read(MOST_BYTES + 1)
            if len(raw) > MOST_BYTES:
                raise ValueError(f"longer than {MOST_BYTES} bytes")
            plain: Any = json.loads(raw)
            instance = Instance.from_plain(plain)
            ttl = plain.get("ttl", 0)
            if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= MOST_TTL:
                raise ValueError(f"ttl is a number of seconds up to {MOST_TTL:g}, not {ttl!r}")
        except (ValueError, RecursionError) as error:
            log.warning("%s is no instance and is passed over: %s", path, error)
            return None, 0.0
        return instance, float(ttl)

    def __repr__(self) -> str:
        return f"<FileResolver {self.folder}>"


def _file_name(address: str) -> str:
    name = quote(address, safe="")
    if len(name) > MOST_NAME:
        raise DiscoveryError(f"the address {address} is too long to be the name of a file")
    return name

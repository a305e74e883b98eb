"""Which code a loader has imported: one text that changes when the code does."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A file's time may lag behind the clock by a tick of the kernel; half a second costs nothing.
SLACK = 0.5


def of_code(since: float, more: Iterable[str] = ()) -> str:
    """A fingerprint of all files that modules were imported from, of what lies beside those that are no library's, in packages, for a worker
    may import that later, and of ``more``. ``since``: when loading began, seconds since 1970. "" if a file has changed since: it may have been read before.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_files() | set(more)):
        try:
            status = os.stat(path)
        except OSError:
            continue  # a module that made itself up
        if max(status.st_mtime, status.st_ctime) > since - SLACK:
            return ""
        digest.update(
            f"{path}\0{status.st_mtime_ns}\0{status.st_size}\0{status.st_ino}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


#: Endings of what Python imports, or acts upon, in a folder that it searches.
IMPORTABLE = (".py", ".pyc", ".so", ".pth", ".egg-link")


def of_folders(path: Iterable[str]) -> str:
    """A fingerprint of the names in the folders where modules are looked for: it changes when something is installed or taken away, and not when
    a file is replaced or a log is written there.
    """
    digest = hashlib.blake2b(digest_size=16)
    for folder in path:
        try:
            with os.scandir(folder or ".") as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(IMPORTABLE) or (entry.name.isidentifier() and entry.name != "__pycache__" and entry.is_dir()) or entry.name.endswith(".dist-info"))
        except OSError:
            names = []
        digest.update("\0".join([folder, *names, ""]).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files() -> set[str]:
    packages = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))
    standard = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
    files = {
        file
        for module in list(sys.modules.values())
        # Python's own library changes with Python; and which parts of it are in memory by now is chance.
        if isinstance(file := getattr(module, "__file__", None), str) and (file.startswith(packages) or not file.startswith(standard))
    }
    folders = {os.path.dirname(os.path.abspath(file)) for file in files if not file.startswith(packages)}
    seen: set[str] = set()
    while folders:
        folder = folders.pop()
        seen.add(folder)
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        files.update(entry.path for entry in entries if entry.name.endswith(".py"))
        inside = {entry.path for entry in entries if os.path.exists(os.path.join(entry.path, "__init__.py"))}
        folders |= inside - seen
    return files

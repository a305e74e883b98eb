"""The pidfile: a locked file that says which master serves. The lock decides, not the number in the file, for a number
that a dead master left behind may by now be anybody's.
"""

from __future__ import annotations

import fcntl
import os

from prefork.primitives import make_parent


class PidfileError(Exception):
    """The file cannot be taken; the text says why."""


class Pidfile:
    """A pidfile held by this process until ``close``. Raises PidfileError when another holds it."""

    def __init__(self, path: str) -> None:
        self.path = path
        make_parent(path)
        while True:
            try:
                self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise PidfileError(f"pidfile {path}: {os.strerror(error.errno or 0).lower()}") from None
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(self.fd, 32, 0).decode(errors="replace").strip()
                os.close(self.fd)
                raise PidfileError(f"pidfile {path}: held by a running master (pid {holder or 'unknown'})") from None
            if self._is_at_path():
                break
            os.close(self.fd)  # its former holder unlinked it between our open and our lock
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)

    @classmethod
    def inherited(cls, path: str, fd: int) -> Pidfile:
        """One that this process has locked already, before it executed the program that it is now."""
        pidfile = cls.__new__(cls)
        pidfile.path, pidfile.fd = path, fd
        return pidfile

    def close(self) -> None:
        """Unlink while the lock is held, then let go."""
        if self._is_at_path():
            os.unlink(self.path)
        os.close(self.fd)

    def _is_at_path(self) -> bool:
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        ours = os.fstat(self.fd)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

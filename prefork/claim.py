"""A claim: a token that at most one of two processes has at a time, and that one of them may keep for good.

It is an eventfd that holds 1 or 0. Whoever reads it has the token, the other finds nothing; no process has to run for that, so
it can be taken from one that is stopped. Who dies with the token has taken it along: the end of file on their socket says so.
"""

from __future__ import annotations

import os

from prefork.primitives import close_quietly, eventfd, eventfd_read, eventfd_write

__all__ = ("Claim",)


class Claim:
    """One process's copy. It starts with the token there to be taken."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> Claim:
        """A new one. OSError when out of descriptors."""
        return cls(eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def take(self) -> bool:
        """Whether the token is ours now."""
        try:
            eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def give_back(self) -> None:
        """Let the other have it."""
        eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Let go of this copy; who closes it while it has the token keeps it for good."""
        close_quietly(self.fd)

"""Tickets of a pair of processes: one for each thing that one offers and the other may take, as long as it is not taken back.

It is an eventfd that counts. Who offers adds a ticket; who takes the next thing, in order, takes a ticket first; who gives up takes
all that are left, and knows by their number how many of the last are its own again. No process has to run for that, so things can be
taken back from one that is stopped, but for the one it may have been stopped with in its hand.
"""

from __future__ import annotations

import os

from prefork.primitives import close_quietly, eventfd, eventfd_read, eventfd_write

__all__ = ("Tickets",)


class Tickets:
    """One process's copy of the counter."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> Tickets:
        """A new one, empty. OSError when out of descriptors."""
        return cls(eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE))

    def add(self) -> None:
        """One more, before the thing is offered."""
        eventfd_write(self.fd, 1)

    def take(self) -> bool:
        """One, if there is one."""
        try:
            eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def take_all(self) -> int:
        """How many there were."""
        count = 0
        while self.take():
            count += 1
        return count

    def close(self) -> None:
        """Let go of this copy."""
        close_quietly(self.fd)

"""What a worker's body is told. ``Worker.receive()`` returns these; the body matches on them.

Deadlines are instants of ``time.monotonic()``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Adopt", "Adopted", "Drain", "MasterGone", "Order", "Refused", "Reopen", "Serve", "Stop")


@dataclass(frozen=True, slots=True)
class Serve:
    """Start accepting: this generation is the one that serves."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Leave, others take over: stop accepting, hand plain connections over between two messages, finish the rest,
    return. Listeners whose index is in ``closing`` are taken over by nobody: accept from those until EAGAIN first.
    """

    deadline: float
    closing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """The server stops: accept until EAGAIN on every listener, close it, finish the calls, return. ``fast``: return now."""

    deadline: float
    fast: bool = False


@dataclass(frozen=True, slots=True)
class MasterGone:
    """The master died: do as for ``Stop``. Nobody replaces this worker; a new master may be waiting for the port."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Adopt:
    """A connection from an older worker: ``fd`` belongs to this worker now, ``data`` is what its former owner sent along."""

    fd: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Adopted:
    """The hand-over of this token is done: close your copy of the descriptor."""

    token: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The hand-over of this token did not happen: the connection is still yours, and untouched."""

    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reopen:
    """Reopen log files."""


Order = Serve | Drain | Stop | MasterGone | Adopt | Adopted | Refused | Reopen

"""What a worker's body is told. ``Worker.receive()`` returns these; the body matches on them.

Deadlines are instants of ``time.monotonic()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefork.application import Settings

__all__ = (
    "Adopt", "Adopted", "Drain", "Hot", "Lame", "LogLevel", "MasterGone", "Order", "Refused", "Reopen", "Serve", "Share", "Stacks", "Stop", "View",
)  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class Hot:
    """The settings have changed, and what has changed can be followed at once: do so, then say ``worker.followed(…)``."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Log from this level on (debug, info, warning, error), until ``Hot`` or the end."""

    level: str


@dataclass(frozen=True, slots=True)
class Lame:
    """``on``: the server is about to leave: serve all that comes, and ask the peers of protocols that can say so to go elsewhere.
    Else all is well again.
    """

    on: bool


@dataclass(frozen=True, slots=True)
class Share:
    """Give up to ``count`` plain connections to the worker of row ``row``, by ``hand_over(…, row=row)``, then say ``worker.shared(row)``."""

    row: int
    count: int


@dataclass(frozen=True, slots=True)
class Stacks:
    """Somebody wants to know where this worker is: say it with ``worker.tell_stacks``."""


@dataclass(frozen=True, slots=True)
class View:
    """Somebody wants to see what this worker has to tell of itself: say it with ``worker.tell_view``."""

    number: int


Order = Serve | Drain | Stop | MasterGone | Adopt | Adopted | Refused | Reopen | Hot | LogLevel | Lame | Share | Stacks | View

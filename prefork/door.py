"""A door of the master's own: a listening socket in its loop, and short talks with whoever comes in.

What is said there is a subclass's: ``admin`` speaks HTTP, ``control`` JSON lines. Both know a request by its end and give
one answer to each.

Rules
 1. Nothing blocks and nothing is unbounded: visitors, bytes of a request, seconds for one request and its answer. While
    an answer is not yet taken, or not yet known, nothing more is read.
 2. When the room is full the visitor who has been silent longest goes, not the one who comes: a probe must be answered
    while somebody holds connections open.
 3. A mistake in here costs one visitor, never the supervisor.
"""

from __future__ import annotations

import _socket
import errno
import logging
from typing import TYPE_CHECKING, Any

from prefork.primitives import EPOLLIN, EPOLLOUT, RawSocket, monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefork.listeners import Listener
    from prefork.loop import Loop

log = logging.getLogger("weego.master")

#: Visitors at one time. Probes, a scraper and a person make a handful; each costs a descriptor and at most 8 KiB.
MAX_VISITORS = 64

#: A request, head included. Browsers send up to 2 KiB of it, and servers commonly allow 8 (nginx, Apache).
MAX_REQUEST_BYTES = 8192

#: From the moment a visitor comes, or its last answer was ready, to the end of the next request, answer taken.
REQUEST_SECONDS = 5.0

#: Visitors let in per turn of the loop: a flood must not keep the master from its children.
ACCEPTS_PER_TURN = 16

#: Between two looks at who has been here too long, and before accepting again without descriptors or memory.
SWEEP_SECONDS = 1.0

_NOT_NOW = (errno.EAGAIN, errno.EINTR, errno.ECONNABORTED)
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Visitor:
    """One connection."""

    def __init__(self, sock: RawSocket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.unsent = b""
        self.deadline: float | None = monotonic() + REQUEST_SECONDS
        """None while the answer waits for something of ours, which has a deadline of its own."""
        self.is_leaving = False
        """All is said; what still comes in is read and dropped, so that our answer is not reset away."""
        self.is_gone = False
        self.awaits: str | None = None
        """What the held answer waits for, in one word."""


class Door:
    """Open while it has a listener, which it owns."""

    #: What ends a request.
    END = b"\n"

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._visitors: dict[int, Visitor] = {}
        self._is_sweeping = False
        self.listener: Listener | None = None

    # -- what a subclass says -------------------------------------------------------------------------------------------

    def greet(self, visitor: Visitor) -> None:
        """Somebody came in."""

    def serve(self, visitor: Visitor, request: bytes) -> None:
        """Answer one request (its end cut off) by ``answer``, now or, after ``hold``, later."""
        raise NotImplementedError

    def refuse(self, visitor: Visitor) -> None:
        """Answer a request that is longer than MAX_REQUEST_BYTES."""
        raise NotImplementedError

    # -- opening and closing ----------------------------------------------------------------------------------------------

    def open(self, listener: Listener | None) -> None:
        """Listen there from now on, and no longer where it did; None: nowhere. Visitors inside may finish."""
        if listener is self.listener:
            return
        if self.listener is not None:
            self._loop.unwatch(self.listener.fileno())
            self.listener.close()
        self.listener = listener
        if listener is not None:
            self._loop.watch(listener.fileno(), self._accept)

    def close(self) -> None:
        """Close everything."""
        self.open(None)
        for visitor in list(self._visitors.values()):
            self._drop(visitor)

    def fds(self) -> Iterator[int]:
        """Descriptors that no child may inherit, but for the listener's."""
        yield from self._visitors

    # -- answering --------------------------------------------------------------------------------------------------------

    def answer(self, visitor: Visitor, data: bytes, *, last: bool) -> None:
        """Send; ``last``: and close. To a visitor who has left: nothing."""
        if visitor.is_gone:
            return
        visitor.unsent += data
        visitor.is_leaving |= last
        visitor.deadline = monotonic() + REQUEST_SECONDS
        self._sweep_later()
        self._send(visitor)

    def hold(self, visitor: Visitor, awaits: str = "an answer") -> None:
        """The answer comes later, by ``answer_held``."""
        visitor.deadline, visitor.awaits = None, awaits
        self._loop.change(visitor.sock.fileno(), 0)  # but a hang-up is always told

    def answer_held(self, visitor: Visitor, data: bytes) -> None:
        """The answer to the request that was held; then go on with what came after it."""
        visitor.awaits = None
        self.answer(visitor, data, last=False)
        self._serve_next(visitor)

    # -- an upgrade -------------------------------------------------------------------------------------------------------

    def is_holding(self, *, besides: str) -> bool:
        """Whether a visitor waits for anything but ``besides``."""
        return any(visitor.awaits not in (None, besides) for visitor in self._visitors.values())

    def leave_visitors(self, fds: list[int]) -> list[dict[str, Any]]:
        """The visitors, as plain values for a successor's ``take_visitor``; their descriptors are added to ``fds``."""
        fds.extend(self._visitors)
        return [
            {
                "fd": fd,
                "received": visitor.received.decode("latin-1"),
                "unsent": visitor.unsent.decode("latin-1"),
                "is_leaving": visitor.is_leaving,
                "awaits": visitor.awaits,
            }
            for fd, visitor in self._visitors.items()
        ]

    def release(self, awaits: str) -> Callable[[str | None], None]:
        """A call that answers the visitors who wait for that now: None is good news, a line says what went wrong."""
        return lambda _: None

    def take_visitor(self, plain: dict[str, Any], fd: int) -> Visitor:
        """Go on with a predecessor's visitor."""
        visitor = Visitor(RawSocket(fileno=fd))
        visitor.received += plain["received"].encode("latin-1")
        visitor.unsent = plain["unsent"].encode("latin-1")
        visitor.is_leaving = plain["is_leaving"]
        self._visitors[fd] = visitor
        self._loop.watch(fd, lambda: self._guarded(visitor))
        self._sweep_later()
        if plain["awaits"] is not None:
            self.hold(visitor, plain["awaits"])
        elif visitor.unsent:
            self._send(visitor)
        return visitor

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self.listener is not None
        for _ in range(ACCEPTS_PER_TURN):
            try:
                fd, _address = self.listener.sock._accept()  # type: ignore[attr-defined]
            except OSError as error:
                if error.errno in _OUT_OF:
                    self._pause(error)
                elif error.errno not in _NOT_NOW:
                    raise
                return
            self._let_in(RawSocket(fileno=fd))

    def _let_in(self, sock: RawSocket) -> None:
        sock.setblocking(False)
        if len(self._visitors) >= MAX_VISITORS and not self._make_room():
            sock.close()
            return
        visitor = Visitor(sock)
        self._visitors[sock.fileno()] = visitor
        self._loop.watch(sock.fileno(), lambda: self._guarded(visitor))
        self._sweep_later()
        self.greet(visitor)
        self._guarded(visitor)  # a request mostly comes along with the connection

    def _make_room(self) -> bool:
        late = [visitor for visitor in self._visitors.values() if visitor.deadline is not None]
        if not late:
            return False
        self._drop(min(late, key=lambda visitor: visitor.deadline or 0.0))
        return True

    def _pause(self, error: OSError) -> None:
        """Out of descriptors: the listener stays readable, and must not keep the loop spinning."""
        listener = self.listener
        assert listener is not None
        log.warning("%s: cannot accept: %s", listener.actual, error.strerror)
        self._loop.change(listener.fileno(), 0)

        def resume() -> None:
            if self.listener is listener:
                self._loop.change(listener.fileno(), EPOLLIN)

        self._loop.after(SWEEP_SECONDS, resume)

    def _guarded(self, visitor: Visitor) -> None:
        try:
            self._on_event(visitor)
        except Exception:
            log.exception("a mistake in the master; it goes on")
            self._drop(visitor)

    def _on_event(self, visitor: Visitor) -> None:
        if visitor.is_gone:
            return
        if visitor.deadline is None:  # nothing but a hang-up was asked for
            self._drop(visitor)
        elif visitor.unsent:
            self._send(visitor)
            self._serve_next(visitor)
        else:
            self._receive(visitor)

    def _receive(self, visitor: Visitor) -> None:
        try:
            data = visitor.sock.recv(MAX_REQUEST_BYTES + 1 - len(visitor.received))
        except OSError as error:
            if error.errno not in _NOT_NOW:
                self._drop(visitor)
            return
        if not data:
            self._drop(visitor)
        elif not visitor.is_leaving:
            visitor.received += data
            self._serve_next(visitor)

    def _serve_next(self, visitor: Visitor) -> None:
        """Serve what has been received whole, as long as answers are known and taken at once."""
        while not (visitor.is_gone or visitor.is_leaving or visitor.unsent or visitor.deadline is None):
            request, end, rest = visitor.received.partition(self.END)
            if not end:
                if len(visitor.received) > MAX_REQUEST_BYTES:
                    visitor.received.clear()
                    self.refuse(visitor)
                return
            visitor.received = rest
            self.serve(visitor, bytes(request))

    def _send(self, visitor: Visitor) -> None:
        try:
            while visitor.unsent:
                visitor.unsent = visitor.unsent[visitor.sock.send(visitor.unsent, _socket.MSG_NOSIGNAL) :]
            if visitor.is_leaving:
                visitor.received.clear()
                visitor.sock.shutdown(_socket.SHUT_WR)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                self._drop(visitor)
                return
        self._loop.change(visitor.sock.fileno(), EPOLLOUT if visitor.unsent else EPOLLIN)

    def _drop(self, visitor: Visitor) -> None:
        if not visitor.is_gone:
            visitor.is_gone = True
            del self._visitors[visitor.sock.fileno()]
            self._loop.unwatch(visitor.sock.fileno())
            visitor.sock.close()

    def _sweep_later(self) -> None:
        if not self._is_sweeping:
            self._is_sweeping = True
            self._loop.after(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Drop whoever has been here too long. One timer for all, and none while nobody is here."""
        self._is_sweeping = False
        now = monotonic()
        for visitor in list(self._visitors.values()):
            if visitor.deadline is not None and visitor.deadline < now:
                self._drop(visitor)
        if any(visitor.deadline is not None for visitor in self._visitors.values()):
            self._sweep_later()

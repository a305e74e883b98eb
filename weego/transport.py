"""How a call is carried: the two ways to wait, and the pool of connections that carry one call at a time.

A **channel** is one client's choice of protocol (`weego/channel.py` has the table): it makes a transport for each way of waiting. A
**transport** belongs to one way of waiting – with gevent's hub, or blocking the thread – and carries calls of its channel's protocol: it
is handed the Call, the address and the arguments, and gives back the value. What a sequence id, a header or a stream is, only the channel
and its connections know.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from codec.errors import ClosedError, Unavailable
from governance.call import Call
from poller.address import Address
from poller.clock import monotonic
from poller.loop import Loop, loop_of
from poller.pool import Pool, Pooled, PoolStatistics
from poller.slots import DEFAULT_MAX_WAITING, Slots
from weego.heartbeat import ALIVE, SILENT, Hearts, HubBeat, ThreadBeat

if TYPE_CHECKING:
    from poller.tls import TLS

__all__ = ["BlockingTransport", "Channel", "Exchanges", "HubTransport", "PoolLimits", "Transport"]


@dataclass(frozen=True)
class PoolLimits:
    """Bounds of a client's connections; seconds and bytes. Each channel uses those that mean something to it."""

    max_idle: int
    max_idle_total: int
    idle_timeout: float
    connect_timeout: float
    max_message: int
    tls: TLS | None = None
    heartbeat: float = 0.0
    min_idle: int = 0
    max_active: int = 0
    max_waiting: int = DEFAULT_MAX_WAITING
    wait_timeout: float = 0.0

    def pool(self) -> Pool[Any]:
        """A pool of these bounds."""
        return Pool(
            max_idle=self.max_idle, max_idle_total=self.max_idle_total, idle_timeout=self.idle_timeout, min_idle=self.min_idle
        )

    def slots(self, make_event: Callable[[], Any], lock: AbstractContextManager[Any]) -> Slots | None:
        """What bounds the connections in use; None: nothing does."""
        return Slots(self.max_active, self.max_waiting, self.wait_timeout, make_event, lock) if self.max_active else None

    def tls_for(self, address: Address) -> TLS | None:
        """The TLS to speak with `address`: what the client was given, the usual one for ``tcps://``, or none."""
        if self.tls is None and address.is_secure:
            return usual_tls()
        return self.tls

    def connect_deadline(self, deadline: float) -> float:
        """Until when a connection may take to be made for a call with this deadline (0: none); monotonic seconds."""
        latest = monotonic() + self.connect_timeout
        return min(latest, deadline) if deadline else latest


@cache
def usual_tls() -> TLS:
    """TLS with the system's authorities."""
    from poller.tls import TLS

    return TLS()


class Transport(Protocol):
    """Carries calls."""

    def call(self, call: Call, address: Address, args: tuple[Any, ...]) -> Any:
        """One attempt at `address`: the method's value, None for a oneway method, a stream object for a streaming one.

        Facts that come with the answer go into `call` (`Call.answer`). Raises RpcError, an exception of the IDL, or EncodeError.
        `Unavailable.sent` is False when the peer cannot have seen anything of the call: it may be repeated anywhere.
        """

    def warm_up(self, address: Address, count: int, deadline: float) -> int:
        """Have so many idle connections to `address`, as far as the protocol needs several; how many were made. Raises Unavailable."""

    def forget(self, address: str) -> None:
        """Nobody will call that address any more: close what is idle there. From any thread."""

    def close(self) -> None:
        """Close all connections; those with calls under way when these end. From any thread."""

    def statistics(self) -> PoolStatistics:
        """Of the connections."""

    def after_fork(self) -> None:
        """In a forked child: the connections are the parent's; close our copies of them and forget them."""


class Channel(Protocol):
    """The protocol of one client."""

    limits: PoolLimits

    def with_hub(self, hub: Any) -> Transport:
        """A transport that waits with this gevent hub. It belongs to the hub's thread."""

    def blocking(self) -> Transport:
        """A transport that waits in the calling thread; any number of threads may use it."""


# ---- connections that carry one call at a time ---------------------------------------------------------------------------


class OneCallAtATime(Pooled, Protocol):
    """A connection that a call has to itself until its answer is there."""

    @property
    def address(self) -> str:
        """Where it goes."""

    @property
    def is_reusable(self) -> bool:
        """Did the last call leave it between two messages?"""


class Exchanges(Protocol):
    """What a protocol with one call at a time brings along: its connections, and how a call goes over one.

    Connections are of its own classes, one for each way of waiting, and so are answers.
    """

    limits: PoolLimits

    def connect_with_hub(self, loop: Loop, address: Address, deadline: float, ended: Callable[[Any], None]) -> OneCallAtATime:
        """A new connection in `loop`, ready by `deadline`; `ended(connection)` is told when it ends while idle."""

    def connect_blocking(self, address: Address, deadline: float) -> OneCallAtATime:
        """A new connection for the calling thread, ready by `deadline`."""

    def exchange(self, connection: Any, call: Call, args: tuple[Any, ...]) -> Any:
        """Send the call, wait for the answer. A connection of which nothing is known any more is closed before this raises."""

    def is_last(self, answer: Any) -> bool:
        """Is the peer about to close the connection that brought this?"""

    def result(self, call: Call, answer: Any) -> Any:
        """The value in an answer, or what it says went wrong, raised."""

    def hearts(self) -> Hearts | None:
        """Who asks peers of idle connections whether they are there; None: nobody does."""


class _Pooling:
    """Take, call, give back: what both transports share.

    A connection from the pool that turns out to have died before the first byte left costs nothing: the call goes out again on another.
    """

    def __init__(self, channel: Exchanges) -> None:
        self._channel = channel
        self._exchange = channel.exchange
        self._pool: Pool[OneCallAtATime] = channel.limits.pool()
        self._slots = self._make_slots()
        self._made = 0
        self._closed = False
        self._hearts = channel.hearts()
        self._beat: HubBeat | ThreadBeat | None = None

    def call(self, call: Call, address: Address, args: tuple[Any, ...]) -> Any:
        """One attempt; see Transport."""
        if self._closed:
            raise ClosedError("the client is closed")
        if self._slots is None:
            return self._call(call, address, args)
        self._slots.enter(address.text, call.deadline_at)
        try:
            return self._call(call, address, args)
        finally:
            self._slots.leave(address.text)

    def _call(self, call: Call, address: Address, args: tuple[Any, ...]) -> Any:
        while (connection := self._take(address.text)) is not None:
            try:
                return self._run(connection, call, args)
            except Unavailable as error:
                if error.sent:
                    raise
        deadline = self._channel.limits.connect_deadline(call.deadline or 0.0)
        self._made += 1
        return self._run(self._connect(address, deadline), call, args)

    def _run(self, connection: OneCallAtATime, call: Call, args: tuple[Any, ...]) -> Any:
        try:
            answer = self._exchange(connection, call, args)
        except BaseException:
            # After an EncodeError the connection is as good as before; after all else it is closed already.
            self._release(connection, is_last=False)
            raise
        self._release(connection, self._channel.is_last(answer))
        return self._channel.result(call, answer)

    def _release(self, connection: OneCallAtATime, is_last: bool) -> None:
        if connection.is_reusable and not is_last and not self._closed:
            self._give(connection)
        else:
            connection.close()

    def _take(self, address: str) -> OneCallAtATime | None:
        return self._pool.take(address)

    def _give(self, connection: OneCallAtATime) -> None:
        self._pool.give(connection.address, connection)

    # Each of these by itself is what a lock of the pool is held for.

    def _due(self, hearts: Hearts) -> tuple[str, float, OneCallAtATime] | None:
        self._pool.prune()  # who was idle for too long is not asked but closed
        return self._pool.due(hearts.interval, hearts.wanted)

    def _asked(self, address: str, since: float, connection: OneCallAtATime, state: str) -> None:
        if state == ALIVE and connection.is_reusable and not self._closed:
            self._pool.give_back(address, since, connection)
        else:
            self._pool.lost(address, connection, all_of_it=state == SILENT)

    def _ask_all(self) -> bool:
        """Ask the peers of connections that were idle for long, one after the other, each out of the pool meanwhile. False: none is left to ask."""
        hearts = self._hearts
        assert hearts is not None
        while not self._closed and (due := self._due(hearts)) is not None:
            address, since, connection = due
            self._asked(address, since, connection, hearts.ask(connection))
        return len(self._pool) > 0 and not self._closed

    def _connect(self, address: Address, deadline: float) -> OneCallAtATime:
        raise NotImplementedError

    def _make_slots(self) -> Slots | None:
        raise NotImplementedError

    def warm_up(self, address: Address, count: int, deadline: float) -> int:
        """Have so many idle connections to `address`; see Transport."""
        made = 0
        for _ in range(min(count, self._pool.max_idle) - self._pool.idle_to(address.text)):
            self._give(self._connect(address, self._channel.limits.connect_deadline(deadline)))
            made += 1
        self._made += made
        return made

    def close(self) -> None:
        """Close all idle connections; those under way when their calls end."""
        self._closed = True
        self._pool.close()

    def statistics(self) -> PoolStatistics:
        """Of the pool."""
        found = self._pool.statistics()
        kind = "long" if self._pool.max_idle else "short"
        if self._slots is None:
            return replace(found, kind=kind, made=self._made)
        slots = self._slots
        return replace(found, kind=kind, made=self._made, active=slots.active, waiting=slots.waiting, refused=slots.refused)


class HubTransport(_Pooling):
    """Waits with a gevent hub: other greenlets go on meanwhile. Belongs to the hub's thread."""

    def __init__(self, channel: Exchanges, hub: Any) -> None:
        super().__init__(channel)
        self.hub = hub
        self.loop: Loop = loop_of(hub)
        self._pruner: Any = None
        if self._hearts is not None:
            self._beat = HubBeat(self.loop, self._hearts.interval, self._ask_all)

    def _connect(self, address: Address, deadline: float) -> OneCallAtATime:
        return self._channel.connect_with_hub(self.loop, address, deadline, self._ended)

    def _make_slots(self) -> Slots | None:
        from gevent.event import Event

        return self._channel.limits.slots(Event, nullcontext())

    def forget(self, address: str) -> None:
        """See Transport."""
        in_hub_thread(self.hub, lambda: self._pool.forget(address))

    def _ended(self, connection: OneCallAtATime) -> None:
        self._pool.discard(connection.address, connection)

    def _give(self, connection: OneCallAtATime) -> None:
        super()._give(connection)
        if self._pruner is None and len(self._pool):
            self._pruner = self.loop.call_later(self._channel.limits.idle_timeout / 2 + 0.001, self._prune)
        if self._beat is not None:
            self._beat.start()

    def _prune(self) -> None:
        self._pruner = None
        self._pool.prune()
        if len(self._pool) and not self._closed:
            self._pruner = self.loop.call_later(self._channel.limits.idle_timeout / 2 + 0.001, self._prune)

    def after_fork(self) -> None:
        """The loop closes our copies of the descriptors; a new one is made when the next call asks for it."""
        self.loop.close()

    def close(self) -> None:
        """Close all idle connections; those under way when their calls end. From another thread: soon."""
        self._closed = True
        in_hub_thread(self.hub, self._close)

    def _close(self) -> None:
        self._pool.close()
        if self._beat is not None:
            self._beat.stop()
        if self._pruner is not None:
            self._pruner.cancel()
            self._pruner = None


class BlockingTransport(_Pooling):
    """Waits in the thread itself; any thread may call."""

    def __init__(self, channel: Exchanges) -> None:
        super().__init__(channel)
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[OneCallAtATime] = weakref.WeakSet()
        if self._hearts is not None:
            self._beat = ThreadBeat(self._hearts.interval, self._ask_all)

    def _connect(self, address: Address, deadline: float) -> OneCallAtATime:
        connection = self._channel.connect_blocking(address, deadline)
        with self._lock:
            self._connections.add(connection)
        return connection

    def _make_slots(self) -> Slots | None:
        return self._channel.limits.slots(threading.Event, threading.Lock())

    def forget(self, address: str) -> None:
        """See Transport."""
        with self._lock:
            self._pool.forget(address)

    def _take(self, address: str) -> OneCallAtATime | None:
        with self._lock:
            return super()._take(address)

    def _give(self, connection: OneCallAtATime) -> None:
        with self._lock:
            super()._give(connection)
        if self._beat is not None:
            self._beat.start()

    def _due(self, hearts: Hearts) -> tuple[str, float, OneCallAtATime] | None:
        with self._lock:
            return super()._due(hearts)

    def _asked(self, address: str, since: float, connection: OneCallAtATime, state: str) -> None:
        with self._lock:
            super()._asked(address, since, connection, state)

    def after_fork(self) -> None:
        """Without the lock: who held it is not in this process. Those in use too: the threads that used them are not here either."""
        self._closed = True
        for connection in list(self._connections):
            connection.close()

    def close(self) -> None:
        """Close all idle connections; those under way when their calls end."""
        with self._lock:
            super().close()
        if self._beat is not None:
            self._beat.stop()


def in_hub_thread(hub: Any, action: Any) -> None:
    """Run `action()` in the thread of gevent's `hub`: now if that is this one or there is none any more, else soon."""
    from gevent._hub_local import get_hub_if_exists  # gevent has no public way to ask without making one

    if get_hub_if_exists() is hub or hub.loop is None or hub.thread_ident not in sys._current_frames():
        action()
    else:
        hub.loop.run_callback_threadsafe(action)

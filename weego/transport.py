"""Two ways to carry a call, behind one interface: with gevent's hub, and blocking the thread.

A transport takes a connection from its pool or makes one, runs the call on it, and gives it back. A connection from the pool that turns out to
have died before the first byte left costs nothing: the call goes out again on a fresh one.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any, Protocol

from greenlet import getcurrent

from codec.errors import ApplicationError, ApplicationErrorType, ClosedError, Unavailable, UsageError
from codec.thrift import Reply, Route
from poller.address import Address
from poller.clock import monotonic
from poller.dialer import connect_blocking, connect_with_hub
from poller.loop import Loop, loop_of
from poller.pool import Pool, PoolStatistics
from weego.blocking import BlockingExchange
from weego.exchange import IN_THE_LOOP, Exchange

__all__ = ["BlockingTransport", "HubTransport", "PoolLimits", "Transport"]

# Refusals after which Kitex closes the connection (`default_server_handler.go`: what fails before the handler is found or called).
_DISMISSALS = frozenset(
    (ApplicationErrorType.UNKNOWN_METHOD, ApplicationErrorType.PROTOCOL_ERROR, ApplicationErrorType.UNKNOWN_SERVICE)
)


class PoolLimits:
    """Bounds of a client's pool and connections; seconds and bytes."""

    def __init__(
        self, *, max_idle: int, max_idle_total: int, idle_timeout: float, connect_timeout: float, max_message: int, framing: str
    ) -> None:
        self.max_idle = max_idle
        self.max_idle_total = max_idle_total
        self.idle_timeout = idle_timeout
        self.connect_timeout = connect_timeout
        self.max_message = max_message
        self.framing = framing

    def pool(self) -> Pool[Any]:
        """A pool of these bounds."""
        return Pool(max_idle=self.max_idle, max_idle_total=self.max_idle_total, idle_timeout=self.idle_timeout)


class Transport(Protocol):
    """Carries calls."""

    def call(
        self,
        address: Address,
        route: Route,
        args: tuple[object, ...],
        seqid: int,
        deadline: float,
        ints: dict[int, str] | None,
        strings: dict[str, str] | None,
    ) -> Reply | None:
        """One attempt at `address`: the Reply, or None for a oneway method. Raises RpcError or EncodeError."""

    def close(self) -> None:
        """Close all connections."""

    def statistics(self) -> PoolStatistics:
        """Of the pool."""

    def after_fork(self) -> None:
        """In a forked child: the connections are the parent's; close our copies of them and forget them."""


class _Pooling:
    """Take, call, give back: what both transports share."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._pool = limits.pool()
        self._closed = False

    def call(
        self,
        address: Address,
        route: Route,
        args: tuple[object, ...],
        seqid: int,
        deadline: float,
        ints: dict[int, str] | None,
        strings: dict[str, str] | None,
    ) -> Reply | None:
        if self._closed:
            raise ClosedError("the client is closed")
        while (exchange := self._take(address.text)) is not None:
            try:
                return self._run(exchange, route, args, seqid, deadline, ints, strings)
            except Unavailable as error:
                if error.sent:
                    raise
        return self._run(self._connect(address, deadline), route, args, seqid, deadline, ints, strings)

    def _run(
        self,
        exchange: Any,
        route: Route,
        args: tuple[object, ...],
        seqid: int,
        deadline: float,
        ints: dict[int, str] | None,
        strings: dict[str, str] | None,
    ) -> Reply | None:
        try:
            reply: Reply | None = exchange.call(route, args, seqid, deadline, ints, strings)
        except BaseException:
            # After an EncodeError the connection is as good as before; after all else it is closed already.
            self._release(exchange, None)
            raise
        self._release(exchange, reply)
        return reply

    def _release(self, exchange: Any, reply: Reply | None) -> None:
        # "crrst": the peer is about to close this connection and asks not to use it again (Kitex, graceful shutdown).
        asked_to_leave = reply is not None and reply.header is not None and "crrst" in reply.header.strings
        if exchange.is_reusable and not asked_to_leave and not _is_dismissed(reply) and not self._closed:
            self._give(exchange)
        else:
            exchange.close()

    def _connect_deadline(self, deadline: float) -> float:
        latest = monotonic() + self._limits.connect_timeout
        return min(latest, deadline) if deadline else latest

    def _take(self, address: str) -> Any:
        return self._pool.take(address)

    def _give(self, exchange: Any) -> None:
        self._pool.give(exchange.address, exchange)

    def _connect(self, address: Address, deadline: float) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Close all idle connections; those under way when their calls end."""
        self._closed = True
        self._pool.close()

    def statistics(self) -> PoolStatistics:
        """Of the pool."""
        return self._pool.statistics()


class HubTransport(_Pooling):
    """Waits with a gevent hub: other greenlets go on meanwhile. Belongs to the hub's thread."""

    def __init__(self, limits: PoolLimits, hub: Any) -> None:
        super().__init__(limits)
        self.hub = hub
        self.loop: Loop = loop_of(hub)
        self._pruner: Any = None

    def _connect(self, address: Address, deadline: float) -> Exchange:
        if getcurrent() is self.hub:
            raise UsageError(IN_THE_LOOP)
        fd = connect_with_hub(address, self._connect_deadline(deadline), self.hub)
        try:
            return Exchange(self.loop, fd, address.text, self._limits.framing, self._limits.max_message, self._ended)
        except BaseException:
            os.close(fd)
            raise

    def _ended(self, exchange: Exchange) -> None:
        self._pool.discard(exchange.address, exchange)

    def _give(self, exchange: Any) -> None:
        super()._give(exchange)
        if self._pruner is None and len(self._pool):
            self._pruner = self.loop.call_later(self._limits.idle_timeout / 2 + 0.001, self._prune)

    def _prune(self) -> None:
        self._pruner = None
        self._pool.prune()
        if len(self._pool) and not self._closed:
            self._pruner = self.loop.call_later(self._limits.idle_timeout / 2 + 0.001, self._prune)

    def after_fork(self) -> None:
        """The loop closes our copies of the descriptors; a new one is made when the next call asks for it."""
        self.loop.close()

    def close(self) -> None:
        """Close all idle connections; those under way when their calls end. From another thread: soon."""
        from gevent._hub_local import get_hub_if_exists  # gevent has no public way to ask without making one

        hub = self.hub
        self._closed = True
        if get_hub_if_exists() is hub or hub.loop is None or hub.thread_ident not in sys._current_frames():
            self._close()
        else:
            hub.loop.run_callback_threadsafe(self._close)

    def _close(self) -> None:
        self._pool.close()
        if self._pruner is not None:
            self._pruner.cancel()
            self._pruner = None


class BlockingTransport(_Pooling):
    """Waits in the thread itself; any thread may call."""

    def __init__(self, limits: PoolLimits) -> None:
        super().__init__(limits)
        self._lock = threading.Lock()
        self._exchanges: weakref.WeakSet[BlockingExchange] = weakref.WeakSet()

    def _connect(self, address: Address, deadline: float) -> BlockingExchange:
        fd = connect_blocking(address, self._connect_deadline(deadline))
        exchange = BlockingExchange(fd, address.text, self._limits.framing, self._limits.max_message)
        with self._lock:
            self._exchanges.add(exchange)
        return exchange

    def _take(self, address: str) -> Any:
        with self._lock:
            return super()._take(address)

    def _give(self, exchange: Any) -> None:
        with self._lock:
            super()._give(exchange)

    def after_fork(self) -> None:
        """Without the lock: who held it is not in this process. Those in use too: the threads that used them are not here either."""
        self._closed = True
        for exchange in list(self._exchanges):
            exchange.close()

    def close(self) -> None:
        """Close all idle connections; those under way when their calls end."""
        with self._lock:
            super().close()


def _is_dismissed(reply: Reply | None) -> bool:
    """Is the peer about to close the connection without saying so? Kitex does after it refused a call, and only TTHeader could announce it."""
    error = None if reply is None or reply.header is not None else reply.error
    return isinstance(error, ApplicationError) and error.type in _DISMISSALS

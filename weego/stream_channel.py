"""TTHeaderStreaming as a client's protocol: which connections there are, and which of them a stream goes over.

Every client of a Thrift service has this beside the channel of its plain calls. With a hub, streams share connections: a further one is made
when those there are carry STREAMS_EACH, up to `max_idle` of them; then they carry more. In threads each stream has a connection of a
pool to itself.
"""

from __future__ import annotations

import _socket
import os
import threading
import weakref
from typing import Any, Final

from greenlet import getcurrent

from codec.errors import ClosedError, Unavailable, UsageError
from codec.spec import MethodSpec, ServiceSpec
from codec.ttheader import IntKey
from codec.ttstream import StreamMethod
from governance.call import Call, current
from poller.address import Address
from poller.clock import monotonic
from poller.dialer import connect_blocking, connect_with_hub, secure_blocking, secure_with_hub
from poller.loop import Loop, loop_of
from poller.pool import Pool, PoolStatistics
from weego.exchange import IN_THE_LOOP
from weego.stream_blocking import BlockingStreamLink
from weego.stream_client import HubStreamLink, StreamCall, StreamLink
from weego.thrift_channel import beside
from weego.transport import PoolLimits, in_hub_thread

__all__ = ["StreamChannel"]

# Streams on one connection from which the next stream gets another one. The protocol has no windows: streams of one connection wait for each other.
STREAMS_EACH: Final = 32
# Times one attempt is repeated because the connection was found dead before anything had left.
_MOST_DEAD: Final = 5
# While the client closes: how often it looks whether its streams have ended (seconds).
_CLOSING: Final = 0.02


class StreamChannel:
    """How streams of one client become frames. `caller` names this side where no call is being served."""

    def __init__(self, spec: ServiceSpec, *, limits: PoolLimits, caller: str = "", service_name: str = "") -> None:
        self.spec = spec
        self.limits = limits
        self._caller = caller
        self._service_name = service_name or spec.name
        self._methods: dict[MethodSpec, StreamMethod] = {}

    def with_hub(self, hub: Any) -> StreamHubTransport:
        """A transport that waits with this gevent hub."""
        return StreamHubTransport(self, hub)

    def blocking(self) -> StreamBlockingTransport:
        """A transport that waits in the calling thread."""
        return StreamBlockingTransport(self)

    def open(self, link: StreamLink, call: Call, args: tuple[Any, ...]) -> StreamCall:
        """Begin the call on this connection."""
        method = self._methods.get(call.spec)
        if method is None:
            method = self._methods.setdefault(call.spec, StreamMethod(call.spec))
        ints, strings = beside(call, self._caller)
        ints[IntKey.TO_SERVICE] = self._service_name
        strings = {"isn": self.spec.name, **strings}
        serving = current()
        caller = self._caller or (serving.service if serving is not None else "")
        return link.open(call, method, args, ints, strings, serving, caller)


class _StreamTransport:
    """What both ways of waiting share."""

    def __init__(self, channel: StreamChannel) -> None:
        self._channel = channel
        self._closed = False

    def call(self, call: Call, address: Address, args: tuple[Any, ...]) -> StreamCall:
        """One attempt; see Transport."""
        dead = 0
        while True:
            if self._closed:
                raise ClosedError("the client is closed")
            link = self._link(address, call.deadline or 0.0)
            try:
                return self._open(link, call, args)
            except Unavailable as error:
                dead += 1
                if error.sent or dead > _MOST_DEAD:
                    raise

    def warm_up(self, address: Address, count: int, deadline: float) -> int:
        """See Transport: a stream has a connection made for it."""
        return 0

    def forget(self, address: str) -> None:
        """See Transport: connections that nobody calls any more are closed after `idle_timeout`."""

    def _link(self, address: Address, deadline: float) -> Any:
        raise NotImplementedError

    def _open(self, link: Any, call: Call, args: tuple[Any, ...]) -> StreamCall:
        raise NotImplementedError


class StreamHubTransport(_StreamTransport):
    """Waits with a gevent hub. Belongs to the hub's thread."""

    def __init__(self, channel: StreamChannel, hub: Any) -> None:
        super().__init__(channel)
        self.hub = hub
        self.loop: Loop = loop_of(hub)
        self._links: dict[str, list[HubStreamLink]] = {}
        self._dialing: dict[str, Any] = {}  # gevent Events: set when a connection was made, or could not be
        self._pruner: Any = None
        self._reused = self._dead = self._timed_out = 0

    def _open(self, link: HubStreamLink, call: Call, args: tuple[Any, ...]) -> StreamCall:
        return self._channel.open(link, call, args)

    def _link(self, address: Address, deadline: float) -> HubStreamLink:
        if getcurrent() is self.hub:
            raise UsageError(IN_THE_LOOP)
        text = address.text
        while True:
            links = [link for link in self._links.get(text, ()) if not link.is_leaving]
            best = min(links, key=lambda link: (link.is_paused, link.streams), default=None)
            is_good = best is not None and not best.is_paused and best.streams < STREAMS_EACH
            if best is not None and (is_good or len(links) >= self._channel.limits.max_idle):
                self._reused += 1
                return best
            dialing = self._dialing.get(text)
            if dialing is None:
                return self._dial(address, deadline)
            if best is not None:
                self._reused += 1
                return best
            dialing.wait()

    def _dial(self, address: Address, deadline: float) -> HubStreamLink:
        from gevent.event import Event

        text = address.text
        limits = self._channel.limits
        until = limits.connect_deadline(deadline)
        event = self._dialing[text] = Event()
        try:
            fd = connect_with_hub(address, until, self.hub)
            try:
                tls = limits.tls_for(address)
                session = secure_with_hub(fd, tls, address, until, self.hub) if tls else None
                link = HubStreamLink(self.loop, fd, text, limits.max_message, session=session, on_change=self._changed)
            except BaseException:
                os.close(fd)
                raise
            if self._closed:
                link.close()
                raise ClosedError("the client was closed during the call")
            self._links.setdefault(text, []).append(link)
        finally:
            del self._dialing[text]
            event.set()
        if self._pruner is None:
            self._pruner = self.loop.call_later(limits.idle_timeout / 2 + 0.001, self._prune)
        return link

    def _changed(self, link: HubStreamLink) -> None:
        if link.is_leaving:
            links = self._links.get(link.address, [])
            if link in links:
                links.remove(link)
                self._dead += 1

    def _prune(self) -> None:
        self._pruner = None
        oldest = monotonic() - self._channel.limits.idle_timeout
        for links in list(self._links.values()):
            for link in list(links):
                if not link.streams and link.connection.last_active < oldest:
                    self._timed_out += 1
                    link.close()
        if any(self._links.values()) and not self._closed:
            self._pruner = self.loop.call_later(self._channel.limits.idle_timeout / 2 + 0.001, self._prune)

    def statistics(self) -> PoolStatistics:
        """Of the connections: `idle` are those without a stream, `reused` counts streams on one that was there."""
        idle = sum(not link.streams for links in self._links.values() for link in links)
        return PoolStatistics(idle, self._reused, self._dead, 0, self._timed_out, kind="streams")

    def after_fork(self) -> None:
        """The loop closes our copies of the descriptors; a new one is made when the next call asks for it."""
        self.loop.close()

    def close(self) -> None:
        """Close idle connections now, those under way when their streams end. From another thread: soon."""
        self._closed = True
        in_hub_thread(self.hub, self._close)

    def _close(self) -> None:
        if self._pruner is not None:
            self._pruner.cancel()
            self._pruner = None
        for links in list(self._links.values()):
            for link in list(links):
                if not link.streams:
                    link.close()
        if any(self._links.values()):
            self._pruner = self.loop.call_later(_CLOSING, self._close)


class StreamBlockingTransport(_StreamTransport):
    """Waits in the thread itself; any thread may call."""

    def __init__(self, channel: StreamChannel) -> None:
        super().__init__(channel)
        self._lock = threading.Lock()
        self._pool: Pool[BlockingStreamLink] = channel.limits.pool()
        self._all: weakref.WeakSet[BlockingStreamLink] = weakref.WeakSet()

    def _link(self, address: Address, deadline: float) -> BlockingStreamLink:
        with self._lock:
            link = self._pool.take(address.text)
        if link is not None:
            return link
        limits = self._channel.limits
        until = limits.connect_deadline(deadline)
        fd = connect_blocking(address, until)
        tls = limits.tls_for(address)
        session = None
        if tls is not None:
            sock, session = secure_blocking(fd, tls, address, until).take_apart()
        else:
            sock = _socket.socket(fileno=fd)
        link = BlockingStreamLink(sock, address.text, limits.max_message, session=session)
        with self._lock:
            self._all.add(link)
        return link

    def _open(self, link: BlockingStreamLink, call: Call, args: tuple[Any, ...]) -> StreamCall:
        try:
            stream = self._channel.open(link, call, args)
        except BaseException:
            self._give(link)
            raise
        stream.on_end = self._give
        return stream

    def _give(self, link: StreamLink) -> None:
        assert isinstance(link, BlockingStreamLink)
        if link.is_reusable and not self._closed:
            with self._lock:
                self._pool.give(link.address, link)
        else:
            link.close()

    def statistics(self) -> PoolStatistics:
        """Of the pool."""
        return self._pool.statistics()

    def after_fork(self) -> None:
        """Without the lock: who held it is not in this process."""
        self._closed = True
        for link in list(self._all):
            link.abandon()

    def close(self) -> None:
        """Close all idle connections; those under way when their streams end."""
        self._closed = True
        with self._lock:
            self._pool.close()

"""gRPC as a client's protocol: which connections there are, and which of them a call goes over.

A few connections carry all calls: a further one is made only when those there are have as many streams as their peer allows, and when
there are `max_idle` of them, calls wait for a stream to end. A thread with a hub has its own, all other threads share theirs. A call that its peer
never looked at is repeated on another connection at once.
"""

from __future__ import annotations

import _socket
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from codec.errors import ClosedError, DeadlineExceeded, Unavailable
from codec.protobuf import ProtobufMethodSpec
from codec.spec import ServiceSpec
from poller.address import Address
from poller.clock import monotonic
from poller.dialer import connect_blocking, connect_with_hub, secure_blocking, secure_with_hub
from poller.loop import Loop, loop_of
from poller.pool import PoolStatistics
from weego.grpc_blocking import BlockingLink
from weego.grpc_carrier import GrpcCarrier, checked_compression
from weego.grpc_client import GrpcMethod, Link
from weego.grpc_hub import HubLink
from weego.transport import PoolLimits, in_hub_thread

if TYPE_CHECKING:
    from codec.h2.connection import H2Connection

__all__ = ["GrpcChannel", "Traffic", "traffic_of"]

# gRPC names itself in the TLS handshake (PROTOCOL-HTTP2.md).
PROTOCOLS: Final = ("h2",)
# Seconds after which a transport that is closed looks again whether its calls have ended.
_ENDING: Final = 0.02


class GrpcChannel:
    """How calls of one client become gRPC, and answers their values."""

    def __init__(
        self,
        spec: ServiceSpec,
        *,
        limits: PoolLimits,
        authority: str | None = None,
        compression: str | None = None,
        wait_for_ready: bool = False,
        keepalive_time: float = 0.0,
        keepalive_timeout: float = 20.0,
        caller: str = "",
    ) -> None:
        self.spec = spec
        self.limits = limits
        self.compression = checked_compression(compression)
        self.wait_for_ready = wait_for_ready
        self.keepalive_time = keepalive_time
        self.keepalive_timeout = keepalive_timeout
        self.caller = caller
        self._authority = authority
        self._methods: dict[Any, GrpcMethod] = {}

    def with_hub(self, hub: Any) -> GrpcHubTransport:
        """A transport that waits with this gevent hub."""
        return GrpcHubTransport(self, hub)

    def blocking(self) -> GrpcBlockingTransport:
        """A transport that waits in the calling thread."""
        return GrpcBlockingTransport(self)

    def method(self, spec: ProtobufMethodSpec) -> GrpcMethod:
        """What a call of the method needs, made once."""
        found = self._methods.get(spec)
        if found is None:
            made = GrpcMethod(spec, self.spec.full_name, spec.request.encode, spec.response.decode)
            found = self._methods.setdefault(spec, made)
        return found

    def authority(self, address: Address) -> str:
        """Whom calls are for: the host as the target names it, or what the client was told."""
        if self._authority is not None:
            return self._authority
        if address.is_unix:
            return "localhost"
        return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


class Traffic(NamedTuple):
    """Calls of connections: how many ended with an answer, whatever its status, how many without, and messages both ways."""

    well: int = 0
    badly: int = 0
    open: int = 0
    sent: int = 0
    received: int = 0

    def __add__(self, other: Any) -> Traffic:
        return Traffic(*map(int.__add__, self, other))


def traffic_of(protocol: H2Connection) -> Traffic:
    """Of one connection so far."""
    return Traffic(
        protocol.streams_well, protocol.streams_badly, len(protocol.streams), protocol.messages_sent, protocol.messages_received
    )


class _GrpcTransport(GrpcCarrier):
    """What both ways of waiting share, beside what each call needs (GrpcCarrier)."""

    def __init__(self, channel: GrpcChannel, hub: Any = None) -> None:
        super().__init__(channel, hub)
        self._channel = channel
        self._made = 0
        self._leaving: list[Any] = []  # Links that take no further call, and may have some under way
        self._past: dict[str, Traffic] = {}  # by address, of connections that are over

    def traffic(self) -> dict[str, tuple[list[Any], Traffic]]:
        """By address: the Links there are, and what went over those that are over."""
        self._settle()
        links: dict[str, list[Any]] = {address: [] for address in self._past}
        for link in [*(each for some in list(self._links.values()) for each in some), *self._leaving]:
            links.setdefault(link.address, []).append(link)
        return {address: (found, self._past.get(address, Traffic())) for address, found in links.items()}

    def _left(self, link: Any) -> None:
        """It is none of those there are any more."""
        self._leaving.append(link)
        self._settle()

    def _settle(self) -> None:
        over = [link for link in self._leaving if not link.streams]
        self._leaving = [link for link in self._leaving if link.streams]
        for link in over:
            self._past[link.address] = self._past.get(link.address, Traffic()) + traffic_of(link.protocol)

    def warm_up(self, address: Address, count: int, deadline: float) -> int:
        """Have a connection to `address`, which all calls share; see Transport."""
        before = self._made
        self._link(address, self._channel.limits.connect_deadline(deadline))
        return self._made - before

    def forget(self, address: str) -> None:
        """See Transport: connections that nobody calls any more are closed after `idle_timeout`."""

    def _link(self, address: Address, deadline: float) -> Link:
        """A connection that a call may begin on, made if need be; when there may be no more, who asks waits for it."""
        raise NotImplementedError

    def _sleep(self, seconds: float) -> None:
        raise NotImplementedError


class GrpcHubTransport(_GrpcTransport):
    """Waits with a gevent hub. Belongs to the hub's thread."""

    def __init__(self, channel: GrpcChannel, hub: Any) -> None:
        super().__init__(channel, hub)
        self.hub = hub
        self.loop: Loop = loop_of(hub)
        self._dialing: dict[str, int] = {}
        self._news: dict[str, Any] = {}  # gevent Events: set when calls that wait for a stream should look again
        self._pruner: Any = None
        self._dead = self._timed_out = 0

    def _link(self, address: Address, deadline: float) -> HubLink:
        while True:
            best: HubLink | None = None
            links = self._links.get(address.text, ())
            for link in links:
                if link.can_open and (best is None or link.streams < best.streams):
                    best = link
            if best is not None:
                self._reused += 1
                return best
            dialing = self._dialing.get(address.text, 0)
            if len(links) + dialing < self._channel.limits.max_idle and (not dialing or links):
                return self._dial(address, deadline)
            self._wait(address.text, links, deadline)

    def _dial(self, address: Address, deadline: float) -> HubLink:
        text = address.text
        self._made += 1
        limits = self._channel.limits
        until = limits.connect_deadline(deadline)
        self._dialing[text] = self._dialing.get(text, 0) + 1
        try:
            fd = connect_with_hub(address, until, self.hub)
            try:
                tls = limits.tls_for(address)
                session = secure_with_hub(fd, tls, address, until, self.hub, PROTOCOLS) if tls else None
                if session is not None and session.alpn not in (*PROTOCOLS, ""):
                    raise Unavailable(f"{text} does not speak HTTP/2 (ALPN)", sent=False, instance=text)
                link = HubLink(
                    self.loop,
                    fd,
                    text,
                    self._channel.authority(address),
                    limits.max_message,
                    session=session,
                    keepalive_time=self._channel.keepalive_time,
                    keepalive_timeout=self._channel.keepalive_timeout,
                    caller=self._channel.caller,
                    on_change=self._changed,
                )
            except BaseException:
                os.close(fd)
                raise
            if self._closed:
                link.close()
                raise ClosedError("the client was closed during the call")
            self._links.setdefault(text, []).append(link)
        finally:
            self._dialing[text] -= 1
            self._wake(text)
        if self._pruner is None:
            self._pruner = self.loop.call_later(limits.idle_timeout / 2 + 0.001, self._prune)
        return link

    def _wait(self, text: str, links: Any, deadline: float) -> None:
        """Until a stream has ended, a connection was made or failed."""
        from gevent.event import Event

        event = self._news.get(text)
        if event is None:
            event = self._news[text] = Event()
        event.clear()
        for link in links:
            link.wants_change = True
        if not event.wait(deadline - monotonic() if deadline else None):
            raise DeadlineExceeded(f"all streams to {text} were in use until the deadline", instance=text)

    def _wake(self, text: str) -> None:
        event = self._news.get(text)
        if event is not None:
            event.set()

    def _changed(self, link: HubLink) -> None:
        if link.is_leaving:
            links = self._links.get(link.address, [])
            if link in links:
                links.remove(link)
                self._left(link)
                self._dead += 1
        self._wake(link.address)

    def _sleep(self, seconds: float) -> None:
        import gevent

        gevent.sleep(seconds)

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
        """Of the connections: `idle` are those without a call, `reused` counts calls on one that was there."""
        idle = sum(not link.streams for links in self._links.values() for link in links)
        return PoolStatistics(idle, self._reused, self._dead, 0, self._timed_out, kind="grpc", made=self._made)

    def after_fork(self) -> None:
        """The loop closes our copies of the descriptors; a new one is made when the next call asks for it."""
        self.loop.close()

    def close(self) -> None:
        """Close idle connections now, those under way when their calls end. From another thread: soon."""
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
                else:
                    link.wants_change = True
        if any(self._links.values()):
            self._pruner = self.loop.call_later(_ENDING, self._close)
        for text in self._news:
            self._wake(text)


class GrpcBlockingTransport(_GrpcTransport):
    """Waits in the thread itself; any thread may call."""

    def __init__(self, channel: GrpcChannel) -> None:
        super().__init__(channel)
        # Over what follows, and `_links`. Whoever only looks for a connection does so without: the lists are never changed, but replaced.
        self._news = threading.Condition()
        self._dialing: dict[str, int] = {}
        self._all: weakref.WeakSet[BlockingLink] = weakref.WeakSet()
        self._dead = self._timed_out = 0

    def _link(self, address: Address, deadline: float) -> BlockingLink:
        while (found := self._best(address.text)) is not None:
            if found.streams or monotonic() - found.last_used <= self._channel.limits.idle_timeout:
                self._reused += 1
                return found
            self._forget(found)
            self._timed_out += 1
            # Never while `_news` is held: whoever is inside of a link may want that.
            found.close_soon()
        return self._another(address, deadline)

    def _best(self, text: str) -> BlockingLink | None:
        """The connection with the fewest calls on which another may begin."""
        best: BlockingLink | None = None
        for link in self._links.get(text, ()):
            if link.can_open and (best is None or link.streams < best.streams):
                best = link
        return best

    def _another(self, address: Address, deadline: float) -> BlockingLink:
        """A new connection, if there may be one; else wait until a call may begin on one of those there are."""
        text = address.text
        with self._news:
            while True:
                for link in self._links.get(text, ()):
                    if link.is_leaving:
                        self._forget(link)
                        self._dead += 1
                    else:
                        link.wants_change = True  # before one looks, or what changes now is missed
                found = self._best(text)
                if found is not None:
                    return found
                links, dialing = self._links.get(text, ()), self._dialing.get(text, 0)
                if len(links) + dialing < self._channel.limits.max_idle and (not dialing or links):
                    self._dialing[text] = dialing + 1
                    break
                if not self._news.wait(max(0.0, deadline - monotonic()) if deadline else None):
                    raise DeadlineExceeded(f"all streams to {text} were in use until the deadline", instance=text)
                if self._closed:
                    raise ClosedError("the client was closed during the call")
        made: BlockingLink | None = None
        try:
            made = self._dial(address, deadline)
        finally:
            with self._news:
                self._dialing[text] -= 1
                if made is not None:
                    self._links[text] = [*self._links.get(text, ()), made]
                self._news.notify_all()
        if self._closed:
            made.close()
            raise ClosedError("the client was closed during the call")
        return made

    def _dial(self, address: Address, deadline: float) -> BlockingLink:
        limits = self._channel.limits
        until = limits.connect_deadline(deadline)
        fd = connect_blocking(address, until)
        tls = limits.tls_for(address)
        session = None
        if tls is not None:
            sock, session = secure_blocking(fd, tls, address, until, PROTOCOLS).take_apart()
            if session.alpn not in (*PROTOCOLS, ""):
                sock.close()
                raise Unavailable(f"{address.text} does not speak HTTP/2 (ALPN)", sent=False, instance=address.text)
        else:
            sock = _socket.socket(fileno=fd)
        link = BlockingLink(
            sock,
            address.text,
            self._channel.authority(address),
            limits.max_message,
            session=session,
            keepalive_time=self._channel.keepalive_time,
            keepalive_timeout=self._channel.keepalive_timeout,
            caller=self._channel.caller,
            on_change=self._changed,
        )
        self._all.add(link)
        return link

    def _forget(self, link: BlockingLink) -> None:
        with self._news:
            self._links[link.address] = [each for each in self._links.get(link.address, ()) if each is not link]
            self._left(link)

    def _changed(self, link: BlockingLink) -> None:
        with self._news:
            self._news.notify_all()

    def _sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def statistics(self) -> PoolStatistics:
        """Of the connections: `idle` are those without a call, `reused` counts calls on one that was there."""
        idle = sum(not link.streams and not link.is_leaving for links in self._links.values() for link in links)
        return PoolStatistics(idle, self._reused, self._dead, 0, self._timed_out, kind="grpc", made=self._made)

    def after_fork(self) -> None:
        """Without the lock: who held it is not in this process."""
        self._closed = True
        for link in list(self._all):
            link.abandon()

    def close(self) -> None:
        """Close all idle connections; those under way when their calls end."""
        self._closed = True
        with self._news:
            links = [link for links in self._links.values() for link in links]
            self._links = {}
            self._news.notify_all()
        for link in links:
            link.close_soon()

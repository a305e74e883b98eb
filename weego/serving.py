"""One process's share of serving: a loop, listeners, and the connections they bring. Used by `Server` and by the workers."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from gevent.event import Event
from gevent.hub import get_hub

from codec.grpc import DEFAULT_MAX_MESSAGE as DEFAULT_MAX_GRPC_MESSAGE
from codec.h2.limits import MAX_STREAMS
from codec.plan import DEFAULT_MAX_DECODED
from codec.thrift import DEFAULT_MAX_MESSAGE
from governance.chain import Middleware
from governance.shedder import Shedder
from poller.connection import Connection, Limits, has_ended
from poller.listener import Listener
from poller.liveness import probe_fd
from poller.loop import loop_of
from weego.backlog import Backlog
from weego.detect import DetectFront, Detector, PrefixDetector
from weego.dispatch import Dispatcher
from weego.extend import ServerProtocol, protocols
from weego.extend_front import UserFront
from weego.grpc_server import GrpcFront, GrpcRoute
from weego.grpc_web import WebFront
from weego.heap import keep_freed
from weego.idleness import Idleness
from weego.log import Finished
from weego.routes import Govern, TallyOf, build, build_grpc, build_streams
from weego.stream_server import DEFAULT_MAX_QUEUED, DEFAULT_MAX_STREAMS, StreamDetector, StreamFront
from weego.thrift_front import ThriftFront

if TYPE_CHECKING:
    from poller.tls import ServerTLS
    from weego.grpc_services import Health

__all__ = ["GrpcOptions", "Serving", "ServingLimits", "StreamOptions"]

log = logging.getLogger("weego.worker")

# How long a peer may take nothing of its answers before it is given up (seconds): attack case TH-13.
WRITE_TIMEOUT: Final = 30.0
# What every HTTP/2 connection begins with, as far as it tells it from HTTP/1 and Thrift (RFC 9113, 3.4).
HTTP2_PREFACE: Final = b"PRI * HTTP/2"
# How a request of HTTP/1 begins; only gRPC-Web's POST and OPTIONS lead anywhere, the others are told so.
HTTP1_METHODS: Final = (b"POST ", b"OPTIONS ", b"GET ", b"HEAD ", b"PUT ", b"DELETE ", b"PATCH ")
# Descriptors kept for everything that is not a served connection: logs, listeners, the user's own clients.
RESERVED_FDS: Final = 128
# While draining: how often connections are looked at (seconds). Most leave at the very end of a call and need no look.
DRAIN_TICK: Final = 0.01
# Looks in a row that must find a connection idle before a server that stops closes it: a request may be on its way.
IDLE_LOOKS: Final = 3
# Limits in time are kept to within a quarter of the shortest, and looked at this often at most and at least (seconds).
SWEEP_LEAST: Final = 0.05
SWEEP_MOST: Final = 1.0
# Connections beyond max_connections_total: how many are let in to be told so, those after them wait in the kernel; and how long each may take with its
# first call (seconds), before it is closed.
MOST_SURPLUS: Final = 64
SURPLUS_PATIENCE: Final = 2.0


@dataclass(frozen=True)
class ServingLimits:
    """Bounds of one process. Times in seconds, 0 for none; sizes in bytes."""

    max_connections: int | None = None
    max_connections_total: int = 0
    max_message: int = DEFAULT_MAX_MESSAGE
    max_decoded: int = DEFAULT_MAX_DECODED
    max_concurrency: int = 10_000
    idle_timeout: float = 600.0
    frame_timeout: float = 30.0
    write_timeout: float = WRITE_TIMEOUT
    call_timeout: float = 0.0
    named_only: bool = False


@dataclass(frozen=True)
class GrpcOptions:
    """How gRPC is served. Times in seconds, sizes in bytes; `web_origins` None: any."""

    max_message: int = DEFAULT_MAX_GRPC_MESSAGE
    max_streams: int = MAX_STREAMS
    keepalive_time: float = 7200.0
    keepalive_timeout: float = 20.0
    health: bool = True
    reflection: bool = True
    channelz: bool = False
    web_origins: tuple[str, ...] | None = None


@dataclass(frozen=True)
class StreamOptions:
    """How streams of Thrift services are served, each bound that of one connection; sizes in bytes."""

    max_streams: int = DEFAULT_MAX_STREAMS
    max_queued: int = DEFAULT_MAX_QUEUED


class _UserDetector(Detector):
    """Asks a protocol of the user's."""

    def __init__(self, protocol: type[ServerProtocol], front: UserFront) -> None:
        super().__init__(protocol.name, front)
        self.protocol = protocol

    def matches(self, head: bytes) -> bool | None:
        return self.protocol.detect(head)


class Serving:
    """Serves `services` on the hub of this thread. Make it after fork.

    `may_accept` is asked before a connection is taken in; `changed` is told after the number of connections changed.
    `tally_of(service, method)` gives what counts the calls of a method, without names of those that there is no method for.
    """

    def __init__(
        self,
        services: Iterable[object],
        *,
        middleware: Sequence[Middleware] = (),
        govern: Govern | None = None,
        shedder: Shedder | None = None,
        limits: ServingLimits | None = None,
        fallback: object = None,
        grpc: GrpcOptions | None = None,
        streaming: StreamOptions | None = None,
        access: Finished | None = None,
        may_accept: Callable[[], bool] | None = None,
        tally_of: TallyOf | None = None,
    ) -> None:
        self.limits = limits or ServingLimits()
        services = tuple(services)
        self._build = partial(
            build,
            services,
            middleware,
            tally_of=tally_of,
            timeout=self.limits.call_timeout,
            fallback=fallback,
            named_only=self.limits.named_only,
        )
        routes, named = self._build(govern=govern)
        keep_freed()
        self.hub = get_hub()
        self.loop = loop_of(self.hub)
        self._idleness: Idleness | None = None
        self.connection_limits = Limits()
        self._surplus_limits = Limits(SURPLUS_PATIENCE, SURPLUS_PATIENCE, SURPLUS_PATIENCE)
        self._count_all: Callable[[], int] = lambda: self.connections
        self.dispatcher = Dispatcher(
            self.loop,
            access=access,
            max_concurrency=self.limits.max_concurrency,
        )
        self.dispatcher.tally_of = tally_of
        self._shed(shedder)
        self._thrift = ThriftFront(
            self.dispatcher, routes, named, max_message=self.limits.max_message, max_decoded=self.limits.max_decoded
        )
        # Asked in this order; Thrift takes whatever nobody else knows.
        self.detectors: list[Detector] = [
            _UserDetector(each, UserFront(self.dispatcher, each, named, max_message=self.limits.max_message)) for each in protocols()
        ]
        self._build_streams = partial(
            build_streams,
            services,
            middleware,
            tally_of=tally_of,
            timeout=self.limits.call_timeout,
            fallback=fallback,
            named_only=self.limits.named_only,
        )
        self._stream_options = streaming or StreamOptions()
        methods, by_service = self._build_streams(govern=govern)
        self.streams = StreamFront(self.dispatcher, methods, by_service)
        if by_service:
            self.detectors.append(StreamDetector("ttheader-streaming", self.streams))
        self.detectors.append(Detector("thrift", self._thrift))
        self.grpc: GrpcFront | None = None
        self._grpc_web: GrpcFront | None = None
        self._grpc_options = grpc or GrpcOptions()
        self.health: Health | None = None
        self._build_grpc = partial(build_grpc, services, middleware, tally_of=tally_of, timeout=self.limits.call_timeout)
        self._pools: list[Any] = [service.__weego_pool__ for service in services if hasattr(service, "__weego_pool__")]
        routes_of_grpc = self._build_grpc(govern=govern)
        specs = [getattr(service, "__spec__") for service in services]  # noqa: B009 - build has seen that it is there
        if protos := {spec.full_name for spec in specs if spec.kind == "protobuf"}:  # also one that follows its IDL and has no methods yet
            self._serve_grpc(routes_of_grpc, protos, self._grpc_options)
        self.dispatcher.entrance = DetectFront(self.dispatcher, self.detectors)
        self._govern = govern
        self._own_paths: set[bytes] = {b"/" + spec.full_name.encode() for spec in specs}
        for service in services:
            follow = getattr(service, "__weego_follow__", None)
            if follow is not None:
                follow(self._reroute)
        self.accepted = 0
        self.follow(self.limits)
        self._gate = may_accept
        self._listeners: list[Listener] = []
        self._done = Event()
        self._ticker: Any = None
        self._give: Callable[[Connection], bool] | None = None
        self._looks: dict[Connection, int] = {}

    def follow(self, limits: ServingLimits, grpc: GrpcOptions | None = None, streaming: StreamOptions | None = None) -> None:
        """Keep to other limits from now on: those in time at once, those of a message's size on connections to come. The time limit of calls stays,
        and of `grpc` what is no limit.
        """
        self.limits = limits
        self._grpc_options = options = grpc or self._grpc_options
        for front, keepalive_time in ((self.grpc, options.keepalive_time), (self._grpc_web, 0.0)):
            if front is not None:
                front.follow(min(limits.max_message, options.max_message), options.max_streams, keepalive_time, options.keepalive_timeout)
        times = (limits.idle_timeout, limits.frame_timeout, limits.write_timeout)
        shortest = min((seconds for seconds in times if seconds), default=SWEEP_MOST * 4)
        # The loop is the hub's: another server may have asked for more frequent looks.
        self.loop.set_sweep_interval(min(max(shortest / 4, SWEEP_LEAST), SWEEP_MOST, self.loop.sweep_interval))
        shared = self.connection_limits
        shared.idle_timeout, shared.frame_timeout, shared.write_timeout = times
        self.dispatcher.max_concurrency = limits.max_concurrency
        self._thrift.max_message, self._thrift.max_decoded = limits.max_message, limits.max_decoded
        self._stream_options = streaming = streaming or self._stream_options
        self.streams.max_message = limits.max_message
        self.streams.max_streams, self.streams.max_queued = streaming.max_streams, streaming.max_queued
        for methods in self.streams.services.values():
            for each in methods.values():
                each.max_decoded = limits.max_decoded
        self.max_connections = clamp_connections(limits.max_connections)
        total = limits.max_connections_total
        self.dispatcher.has_room = (lambda: self._count_all() <= total) if total else None
        self.dispatcher.total = f"max_connections_total, {total} connections to all workers"

    def count_all(self, count: Callable[[], int]) -> None:
        """`count()` says how many connections the service has in all processes, those of this one included."""
        self._count_all = count

    def _serve_grpc(self, routes: list[GrpcRoute], names: set[str], options: GrpcOptions) -> None:
        self.grpc = GrpcFront(
            self.dispatcher,
            routes,
            max_message=min(self.limits.max_message, options.max_message),
            max_streams=options.max_streams,
            keepalive_time=options.keepalive_time,
            keepalive_timeout=options.keepalive_timeout,
            origins=options.web_origins,
        )
        self._grpc_web = WebFront(self.dispatcher, self.grpc)
        self.detectors[:0] = [
            PrefixDetector("http2", self.grpc, HTTP2_PREFACE),
            PrefixDetector("http1", self._grpc_web, *HTTP1_METHODS),
        ]
        self.grpc.services.update(names)
        own: list[Any] = []
        if options.health:
            from weego.grpc_services import Health

            self.health = Health(names)
            own.append(self.health.service)
        if options.reflection:
            from weego.grpc_services import reflection_services

            own += reflection_services(lambda: names, lambda: [pool() for pool in self._pools])
        if options.channelz:
            from weego.grpc_channelz import channelz_service

            own.append(channelz_service(self.dispatcher))
        for route in build_grpc(own, tally_of=self.dispatcher.tally_of):
            if route.path not in self.grpc.routes:  # a program may bring its own
                self.grpc.add(route)
                names.add(route.path[1:].rpartition(b"/")[0].decode())

    def _shed(self, shedder: Shedder | None) -> None:
        """Refuse what `shedder` says; None: nothing. Calls that wait are served either way."""
        if self._idleness is not None:
            self._idleness.close()
            self._idleness = None
        self.dispatcher.queue = None  # calls that wait in the one there was stay its own, and the loop goes on with it
        if shedder is not None:
            queue = self.dispatcher.queue = Backlog(self.dispatcher, shedder)
            self._idleness = Idleness(self.hub, queue.idle)

    def govern(self, govern: Govern, shedder: Shedder | None = None) -> None:
        """Put other policies above the handlers, from the next call on; calls under way keep theirs."""
        self._govern = govern
        self._shed(shedder)
        _, named = self._build(govern=govern)
        for name, methods in named.items():
            for method, route in methods.items():  # connections know their routes by heart, so those stay
                self._thrift.services[name][method].target = route.target
        _, streams = self._build_streams(govern=govern)
        for name, found in streams.items():
            for method, fresh in found.items():
                self.streams.services[name][method].target = fresh.target
        if self.grpc is not None:
            for each in self._build_grpc(govern=govern):
                self.grpc.add(each)

    def _reroute(self) -> None:
        """A service that follows an IDL has other methods now; the handlers of those that it keeps stay, which look up what the IDL says."""
        routes, named = self._build(govern=self._govern)
        for kept, fresh in [(self._thrift.routes, routes), *((self._thrift.services[name], named[name]) for name in named)]:
            for method in [method for method in kept if method not in fresh]:
                del kept[method]
            for method, route in fresh.items():
                kept.setdefault(method, route)
        if self.grpc is not None:
            fresh_paths = {each.path: each for each in self._build_grpc(govern=self._govern)}
            owners = self._own_paths
            for path in [path for path in self.grpc.routes if path not in fresh_paths and path.rpartition(b"/")[0] in owners]:
                del self.grpc.routes[path]
            for each in fresh_paths.values():
                self.grpc.add(each)

    # ---- taking in ---------------------------------------------------------------------------------------------------

    def listen(self, fds: Iterable[int], tls: Iterable[ServerTLS | None] = ()) -> None:
        """Accept on these listening, non-blocking sockets, which stay the caller's; `tls` says for each, in the same order, whether with TLS."""
        for fd, secured in zip_longest(fds, tls):
            probe_fd(fd)
            if secured is not None:
                secured.load()
                interval = max(secured.handshake_timeout / 4, SWEEP_LEAST)
                self.loop.set_sweep_interval(min(interval, self.loop.sweep_interval))
            listener = Listener(self.hub, fd, partial(self._accept, secured), self._may_accept)
            self._listeners.append(listener)
            listener.start()

    def _accept(self, tls: ServerTLS | None, fd: int) -> None:
        self.accepted += 1
        self.dispatcher.gate(self.take(fd, tls=tls), self._surplus_limits)

    def take(self, fd: int, data: bytes = b"", *, tls: ServerTLS | None = None) -> Connection:
        """Serve the connected socket `fd`, of which `data` was read already."""
        try:
            connection = self.dispatcher.connect(fd, self.connection_limits, data, tls)
        except BaseException:
            os.close(fd)
            raise
        if self.dispatcher.draining:  # a hand-over that was refused, or the last of the listening queue
            connection.watch_idle = True
            self._done.clear()
        return connection

    def is_taken_by_others(self, head: bytes) -> bool:
        """Whether a protocol of the user's may take a connection that begins so."""
        return any(each.matches(head) is not False for each in self.detectors if isinstance(each, _UserDetector))

    def _may_accept(self) -> bool:
        if len(self.dispatcher.connections) >= self.max_connections or self.dispatcher.surplus >= MOST_SURPLUS:
            return False
        return self._gate is None or self._gate()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self.dispatcher.connections)

    def snapshot(self) -> list[dict[str, Any]]:
        """The limit of connections that all workers share, if there is one, as the other limits show theirs."""
        total = self.limits.max_connections_total
        if not total:
            return []
        refused = self.dispatcher.turned_away
        return [{"name": "max_connections_total", "rate": 0, "concurrency": total, "current": self._count_all(), "refused": refused}]

    @property
    def abuse(self) -> dict[str, int]:
        """How often peers were shown the door for abuse of HTTP/2, by kind."""
        return {} if self.grpc is None else self.grpc.abuse

    # ---- leaving -----------------------------------------------------------------------------------------------------

    def stop_accepting(self, *, drain_queue: Iterable[int] = ()) -> None:
        """Leave the listening sockets to others. Those in `drain_queue` (indexes) have no others: take in what is queued there first."""
        wanted = set(drain_queue)
        for index, listener in enumerate(self._listeners):
            listener.stop()
            if index in wanted:
                listener.drain()
        self._listeners = []

    def drain(self, give: Callable[[Connection], bool] | None = None) -> None:
        """Take no more connections; finish the calls under way; then close each connection, or `give` it away between two messages.

        `give(connection)` returns False when it could not; it is asked again. Without `give`, and with TLS, whose keys stay here, a
        connection is closed once it has been idle for a few looks in a row, so that a request already on its way is answered first.
        """
        self._give = give
        self.dispatcher.draining = True
        self.dispatcher.leaving = give is None
        self.dispatcher.on_between = self._between
        self.dispatcher.leave()
        if self.health is not None:
            self.health.leave(handed_over=give is not None)
        for connection in list(self.dispatcher.connections):
            connection.watch_idle = True
            self._between(connection)
        if self._ticker is None:
            self._ticker = self.hub.loop.timer(DRAIN_TICK, DRAIN_TICK)
            self._ticker.start(self._tick)
        self.check_done()

    def announce_leaving(self, *, on: bool) -> None:
        """Serve all that comes, and ask the peers of protocols that can say so to go elsewhere; or no longer.

        Who is here now is told once, by GOAWAY or a control frame, and TTHeader with each answer. Who comes nevertheless has a reason, and is not
        sent round in circles.
        """
        if not self.dispatcher.draining and self.dispatcher.leaving != on:
            self.dispatcher.leaving = on
            if on:
                self.dispatcher.leave()
            if self.health is not None:
                self.health.pretend(lame=on)

    def give_some(self, count: int, give: Callable[[Connection], bool]) -> int:
        """Give up to `count` plain connections that stand between two messages away; how many it were. Those idle longest go first: they
        notice least.
        """
        if self.dispatcher.draining:
            return 0
        idle = [each for each in self.dispatcher.connections if each.is_between and each.is_portable]
        idle.sort(key=lambda connection: connection.last_active)
        given = 0
        for connection in idle:
            if given == count:
                break
            given += give(connection)
        return given

    def _between(self, connection: Connection) -> None:
        if self._give is not None and connection.is_between and connection.is_portable:
            self._give(connection)

    def _tick(self) -> None:
        for connection in list(self.dispatcher.connections):
            is_given = self._give is not None and connection.is_portable
            if is_given and connection.is_between:
                self._between(connection)
            elif not is_given and connection.is_quiet and not has_ended(connection.fd):
                looks = self._looks[connection] = self._looks.get(connection, 0) + 1
                if looks >= IDLE_LOOKS:
                    del self._looks[connection]
                    connection.close()
            else:
                self._looks.pop(connection, None)
        self.check_done()

    def check_done(self) -> None:
        """Look whether the drain is through."""
        if not self.dispatcher.connections and not self.dispatcher.inflight:
            self._done.set()

    def wait_drained(self, deadline: float) -> bool:
        """Wait until `drain` is through or the monotonic clock says `deadline`. Returns whether it is through."""
        self.check_done()  # the last connection may have ended since the last tick
        while not self._done.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._done.wait(left)
        return True

    def close(self) -> None:
        """End everything at once. The loop stays: it is the hub's, and clients may use it."""
        self.stop_accepting()
        if self._idleness is not None:
            self._idleness.close()
            self._idleness = None
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker.close()
            self._ticker = None
        self.dispatcher.close()


def clamp_connections(wanted: int | None) -> int:
    """`wanted` connections, or as many as the limit of open files allows; the limit is raised as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    room = max(1, soft - RESERVED_FDS) if soft != resource.RLIM_INFINITY else 2**31 - 1
    if wanted is None:
        return room
    if wanted > room:
        log.warning(
            "[limits] max_connections = %d does not fit the limit of %d open files; taking %d (raise it with ulimit -n)",
            wanted, soft, room,
        )  # fmt: skip
        return room
    return wanted

"""What generated clients stand on."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast

from codec.errors import ClosedError, RpcError, UsageError
from codec.spec import ServiceSpec
from codec.thrift import DEFAULT_MAX_MESSAGE
from governance.balancers.rotation import RoundRobin
from governance.chain import Middleware, compose
from governance.discovery import Resolver, Static
from governance.instance import Balancer, Instance
from governance.policy import ClientPolicy
from poller.address import Address, parse
from poller.clock import monotonic
from poller.pool import DEFAULT_IDLE_TIMEOUT, DEFAULT_MAX_IDLE, DEFAULT_MAX_IDLE_TOTAL, PoolStatistics
from poller.slots import DEFAULT_MAX_WAITING
from weego.channel import STREAMING, ChannelOptions, choose, streams_of
from weego.discovery import close, resolver_of
from weego.governed import Governed
from weego.invoker import LONGEST_TIMEOUT, Invoker, checked_timeout
from weego.settings import SCHEME, ClientSettings, Known, known, remember
from weego.tasks import hub_of_this_thread
from weego.transport import Channel, PoolLimits, Transport

if TYPE_CHECKING:
    from poller.tls import TLS

__all__ = ["Client", "follow", "governance", "stats", "warm_up"]

log = logging.getLogger("weego.governance")

# Kitex's default (`pkg/rpcinfo`: DefaultConnTimeout 50 ms) suits one data centre; this one is seen by people on laptops too.
DEFAULT_CONNECT_TIMEOUT: Final = 1.0
# A shorter one would be work for nothing: the kernel counts in seconds, and calls notice as soon.
_SHORTEST_HEARTBEAT: Final = 0.1

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client(Invoker):
    """A client of one service; derive from it only through generated code.

        with EchoClient("tcp://127.0.0.1:8888", timeout=0.5) as echo:
            echo.echo(Request(message="hi"))

    `target` is one address or several (``tcp://host:port``, ``unix:///path``), where to find them (``file://run/registry/echo``,
    ``dns://host:port``, a Resolver), or ``service://name``, as the configuration has it. `policy` says what is done for calls – breakers,
    retries, balancing … (docs/governance.md); without one, calls to fixed addresses go round them and nothing more, and calls to
    instances that are found get the defaults. With `tls`, or for ``tcps://host:port`` with the system's authorities, the connections are
    encrypted and the server is who it says. `framing` is buffered, framed (the
    usual one, as in Kitex), ttheader or ttheader-framed; `protocol` is binary or compact. With `checksum`, each call on TTHeader carries a CRC-32C
    of its payload, which the peer may check, and the answer's is checked; `compression` names a compressor ("zlib", or one
    of `weego.extend.register_compressor`) for its payload, which weego's servers answer in kind and Kitex's do not read. `payload` names a payload codec (`weego.extend.register_payload_codec`)
    that takes Thrift's place inside the TTHeader. `timeout` bounds each call, in seconds, unless the call names its own; a handler's
    call inherits what is left of the deadline it serves. `middleware` wraps every call, the first outermost. `caller` and `service_name`
    tell the peer who calls whom, on TTHeader. With pool="shared", on TTHeader, many calls are under way on each of `shared_connections` connections
    to an address; else a call has a connection to itself, and at most `max_idle` connections to one address and `max_idle_total` in all wait for the
    next call, for `idle_timeout` seconds; `min_idle` to an address stay for as long as they live. With `heartbeat`, the peer of a connection that was silent for so many
    seconds (0: never) is asked whether it is there, on TTHeader by a message and else by TCP's keepalive, so that one that has vanished is known before a call
    meets it. With `max_active`, where a call has its connection to itself, no more than that are in use to one address: `max_waiting` further calls wait, for `wait_timeout` seconds or (0) until their
    deadline, and get ResourceExhausted.

    Protobuf services are called by gRPC. There `compression` (gzip, deflate, zstd) is that of the requests; with `wait_for_ready` a call waits
    for a peer that cannot be reached, until its deadline; after `keepalive_time` seconds of silence during a call (0: never) the peer is asked
    whether it is there, and given up after `keepalive_timeout`; `authority` is whom the call is for, if not the target's host.

    May be used from any thread, and in a gevent program from any greenlet. Calls raise the exceptions of the IDL as they are, RpcError and
    its subclasses for all else that happens to a call, EncodeError for an argument that does not fit the IDL, ClosedError after `close`.
    """

    __spec__: ClassVar[ServiceSpec]

    def __init__(
        self,
        target: str | Sequence[str] | Resolver,
        *,
        policy: ClientPolicy | None = None,
        framing: str | None = None,
        protocol: str = "binary",
        checksum: bool = False,
        pool: str = "exclusive",
        shared_connections: int = 1,
        compression: str = "",
        payload: str = "",
        timeout: float | None = None,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        middleware: Sequence[Middleware] = (),
        balancer: Balancer | None = None,
        caller: str = "",
        service_name: str = "",
        max_message: int = DEFAULT_MAX_MESSAGE,
        max_idle: int = DEFAULT_MAX_IDLE,
        max_idle_total: int = DEFAULT_MAX_IDLE_TOTAL,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        heartbeat: float = 0.0,
        min_idle: int = 0,
        max_active: int = 0,
        max_waiting: int = DEFAULT_MAX_WAITING,
        wait_timeout: float = 0.0,
        tls: TLS | None = None,
        wait_for_ready: bool = False,
        keepalive_time: float = 0.0,
        keepalive_timeout: float = 20.0,
        authority: str | None = None,
    ) -> None:
        if getattr(type(self), "__spec__", None) is None:
            raise UsageError(f"{type(self).__name__} is no generated client; use the one that `weego gen` wrote for the service")
        settings = known().client(target) if isinstance(target, str) and target.startswith(SCHEME) else None
        self._configured = str(target) if settings is not None and policy is None else ""
        """The target of a client that goes by the configuration, and follows it when it changes."""
        limits = {
            "max_idle": max_idle,
            "max_idle_total": max_idle_total,
            "idle_timeout": idle_timeout,
            "heartbeat": heartbeat,
            "connect_timeout": connect_timeout,
            "min_idle": min_idle,
            "max_active": max_active,
            "max_waiting": max_waiting,
            "wait_timeout": wait_timeout,
        }
        self._warm_up = settings.warm_up if settings is not None else 0
        if settings is not None:
            service_name = service_name or str(target).removeprefix(SCHEME)
            pool = settings.pool or pool
            target, policy, caller, framing = _configured(settings, policy, caller, framing, limits)
        name, make = choose(self.__spec__, framing, protocol, payload)
        if limits["max_active"] and (name == "grpc" or pool == "shared"):
            raise UsageError(
                f"{type(self).__name__}: max_active = {limits['max_active']} bounds connections that carry a call each, and here each carries many; "
                'for the calls there is "concurrency" of [client.…] or a LimitRule, for the connections '
                + ("max_idle" if name == "grpc" else "shared_connections")
            )
        limits["heartbeat"] = _heartbeat(limits["heartbeat"], name)
        resolver = _resolver(target)
        self._addresses = {} if resolver is not None else _addresses(target)
        self._timeout = None if timeout is None else checked_timeout(timeout)
        self._service_name = service_name or self.__spec__.name
        if tls is not None:
            tls.context()  # a file that cannot be read shows here, not at the first call
        options = ChannelOptions(
            spec=self.__spec__,
            framing=name,
            limits=PoolLimits(max_message=max_message, tls=tls, **limits),  # type: ignore[arg-type]
            caller=caller,
            service_name=self._service_name,
            checksum=checksum,
            shared=_shared(pool, shared_connections),
            compression=compression,
            payload=payload,
            wait_for_ready=wait_for_ready,
            keepalive_time=keepalive_time,
            keepalive_timeout=keepalive_timeout,
            authority=authority,
        )
        self._channel: Channel = make(options)
        self._options = options
        self._streams: Channel | None = None  # the channel of streams beside it, made when the first is opened
        self._carries_streams = name in STREAMING
        self._governed = None
        if policy is None and resolver is None:
            self._balancer = balancer or RoundRobin()
            self._balancer.update([Instance(text) for text in self._addresses])
            if balancer is None and len(self._addresses) == 1:
                [self._only] = self._addresses.values()
            self._handler = compose(self._attempts, middleware) if middleware else None
        else:
            policy = policy or ClientPolicy()
            if balancer is not None:
                policy = replace(policy, balancer=lambda: balancer)
            self._governed = Governed(
                self._service_name,
                resolver or Static([Instance(text) for text in self._addresses]),
                policy,
                self._carry,
                middleware=middleware,
                memory=known().memory,
                on_gone=self._gone,
            )
            self._handler = self._governed.handle
        self._streams_apart = self.__spec__.kind == "thrift"
        self._transports = {}
        _clients.add(self)

    # ---- a call: see Invoker; here is what only some of them need -----------------------------------------------------

    def _follow(self, fresh: Known) -> None:
        """Go by what the configuration says now: the policy, and how long connecting may take."""
        if not self._configured or self._governed is None:
            return
        try:
            settings = fresh.client(self._configured)
        except UsageError:
            return  # what is known now says nothing of it
        self._governed.follow(settings.policy)
        if settings.connect_timeout is not None:
            self._channel.limits = replace(self._channel.limits, connect_timeout=settings.connect_timeout)
            if self._streams is not None:
                self._streams.limits = self._channel.limits

    def _stream(self, spec: Any, args: tuple[Any, ...], timeout: float | None) -> Any:
        """Open a call that sends or receives more than one message; its stream, as `codec.streams` describes it."""
        if self._carries_streams or spec.kind == "thrift":
            return self._invoke(spec, args, timeout)
        raise UsageError(
            f"{self._service_name}.{spec.name} streams, and this client's transport carries no streams; choose framing=\"grpc\""
        )

    def _gone(self, addresses: Sequence[str]) -> None:
        """There are no such instances any more."""
        for text in addresses:
            address = self._addresses.pop(text, None)
            if address is not None:
                for transport in list(self._transports.values()):
                    transport.forget(address.text)

    # ---- transports --------------------------------------------------------------------------------------------------

    def _transport(self, spec: Any) -> Transport:
        """The one for this thread, for calls of `spec` (None: those that do not stream): with its hub if it has one, else the blocking one, which all such
        threads share.

        Streams of a Thrift service have one of their own: Kitex's servers take either calls or streams on a connection.
        """
        if self._is_closed:  # since the call began: what is made now would stay open
            raise ClosedError(f"this {type(self).__name__} was closed during the call")
        hub = hub_of_this_thread()
        is_stream = spec is not None and (spec.server_streaming or spec.client_streaming) and spec.kind == "thrift"
        key = (hub, "streams") if is_stream else hub
        transport = self._transports.get(key)
        if transport is None:
            channel = self._stream_channel() if is_stream else self._channel
            fresh = channel.blocking() if hub is None else channel.with_hub(hub)
            transport = self._transports.setdefault(key, fresh)
        return transport

    def _stream_channel(self) -> Channel:
        if self._streams is None:
            self._streams = streams_of(replace(self._options, limits=self._channel.limits))
        return self._streams

    def statistics(self) -> list[PoolStatistics]:
        """Of the pools: one for each way calls were carried."""
        return [transport.statistics() for transport in self._transports.values()]

    def close(self) -> None:
        """Close all connections. Calls under way in other threads or greenlets finish."""
        self._is_closed = True
        _clients.discard(self)
        try:
            if self._governed is not None:
                self._governed.close()  # waits a little, and so may be interrupted
        finally:
            transports, self._transports = self._transports, {}
            for transport in transports.values():
                transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        Client.close(self)  # an IDL may have a method of that name

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open"
        found = ", ".join(self._addresses) if self._governed is None else repr(self._governed.directory)
        return f"<{type(self).__name__} {state} to {found}>"


def stats() -> list[dict[str, Any]]:
    """Every open client of this process: its class, the service it calls, its pools, and what its policies know (None: it has none). Plain values."""
    return [
        {
            "client": type(client).__name__,
            "service": client._service_name,
            "pools": [asdict(pool) for pool in Client.statistics(client)],  # an IDL may have a method of that name
            "governance": None if client._governed is None else client._governed.snapshot(),
        }
        for client in list(_clients)
    ]


def governance() -> list[dict[str, Any]]:
    """What the policies of this process's clients know: instances, breakers, limits, counts. Plain values, for `weego ctl`."""
    return [client._governed.snapshot() for client in list(_clients) if client._governed is not None]


def follow(fresh: Known) -> None:
    """Clients of ``service://name``, those that there are and those to come, go by this from now on; unless the program gave them a policy."""
    remember(fresh)
    for client in list(_clients):
        client._follow(fresh)


def warm_up(client: Client, connections: int = 1, timeout: float = 5.0) -> list[RpcError]:
    """Connect `client` to each instance of its service now, so that its first calls need not; within `timeout` seconds in all.

    Makes idle connections until there are `connections` to each instance; where calls share connections, one. Returns the errors of those that
    could not be reached. Raises NoInstance when the service has no instance.
    """
    deadline = monotonic() + timeout
    governed = client._governed
    if governed is None:
        addresses = list(client._addresses.values())
    else:
        governed.directory.require()
        addresses = [client._address(each.address) for each in governed.directory.instances]
    problems: list[RpcError] = []
    transport = client._transport(None)
    for address in addresses:
        try:
            transport.warm_up(address, connections, deadline)
        except RpcError as error:
            problems.append(error)
    return problems


def warm_up_configured() -> None:
    """Warm up the clients whose configuration says so. What cannot be reached is logged: it is tried again when it is called."""
    for client in list(_clients):
        if client._warm_up:
            try:
                problems = warm_up(client, client._warm_up)
            except RpcError as error:
                problems = [error]
            for problem in problems:
                log.warning("warming up %r: %s", client, problem)


def check_target(target: str) -> None:
    """UsageError when a client could not be made for this target."""
    resolver = _resolver(target)
    if resolver is None:
        _addresses(target)
    else:
        close(resolver)


def _resolver(target: object) -> Resolver | None:
    """What finds the instances; None when the target names them."""
    if isinstance(target, str):
        return resolver_of(target)
    return None if isinstance(target, list | tuple | set) or not hasattr(target, "resolve") else cast("Resolver", target)


def _addresses(target: object) -> dict[str, Address]:
    addresses = [parse(text.strip()) for text in _targets(target)]
    if not addresses:
        raise UsageError("a client needs at least one address")
    return {address.text: address for address in addresses}


def _configured(
    settings: ClientSettings, policy: ClientPolicy | None, caller: str, framing: str | None, limits: dict[str, Any]
) -> tuple[Any, ClientPolicy, str, str | None]:
    """The configuration's settings where the program gives none; `limits` is changed in place."""
    given = settings.given()
    framing = framing or given.pop("framing", None)
    given.pop("framing", None)
    limits.update(given)
    return settings.target, policy or settings.policy, caller or settings.caller, framing


def _shared(pool: object, connections: object) -> int:
    if pool not in ("exclusive", "shared"):
        raise UsageError(f"unknown pool {pool!r}; choose exclusive (a connection carries one call at a time) or shared (many)")
    if type(connections) is not int or connections < 1:
        raise UsageError(f"shared_connections must be a number of connections, 1 or more, got {connections!r}")
    return connections if pool == "shared" else 0


def _heartbeat(seconds: object, framing: str) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not (seconds == 0 or _SHORTEST_HEARTBEAT <= seconds <= LONGEST_TIMEOUT):
        raise UsageError(f"heartbeat must be a number of seconds, {_SHORTEST_HEARTBEAT:g} or more, or 0 for none; got {seconds!r}")
    if seconds and framing in STREAMING:
        raise UsageError(f"heartbeat is for Thrift's framings; framing={framing!r} has its own: keepalive_time")
    return float(seconds)


def _targets(target: object) -> list[str]:
    texts = target.split(",") if isinstance(target, str) else list(target) if isinstance(target, list | tuple | set) else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"a client's target is one address or several, such as \"tcp://127.0.0.1:8888\"; got {target!r}")
    return texts


def _after_fork() -> None:
    """A child shares no connection with its parent: it forgets them all and makes its own."""
    for client in list(_clients):
        transports, client._transports = client._transports, {}
        for transport in transports.values():
            transport.after_fork()


os.register_at_fork(after_in_child=_after_fork)

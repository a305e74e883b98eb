"""A server inside a program or a test: the same serving as a worker's, without the master."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import gevent
from gevent._hub_local import get_hub_if_exists  # gevent has no public way to ask without making one
from gevent.event import Event
from gevent.monkey import is_module_patched

from codec.errors import ClosedError, UsageError
from codec.spec import Service
from governance.call import current
from governance.chain import Middleware
from governance.discovery import Registration, Registry
from governance.instance import Instance
from poller.loop import loop_of
from prefork.application import Listen, LoadError
from prefork.listeners import BindError, Listener, bind, close_all, resolve
from weego.announce import Announcer, address_of
from weego.discovery import close, registry_of
from weego.governed_config import ServerGovernance
from weego.log import access_log as configured_access_log
from weego.serving import GrpcOptions, Serving, ServingLimits, StreamOptions

if TYPE_CHECKING:
    from poller.tls import ServerTLS

__all__ = ["Server"]

DEFAULT_GRACE = 30.0

_servers: weakref.WeakSet[Server] = weakref.WeakSet()


class Server:
    """Serves objects of generated service bases.

        with Server([EchoService()], listen=["tcp://127.0.0.1:0"]) as server:
            client = EchoClient(server.addresses[0])

    `services` is one object or several; `listen` has one address or several, ``tcp://host:port`` (port 0: any) or ``unix:///path``.
    With `tls`, all of them want TLS; `ServerTLS.reload` has new connections get new certificates.
    `middleware` wraps every handler, the first outermost. Where methods of several services have one name, `fallback` serves callers that name no
    service (only TTHeader and gRPC do), or else the first; with `named_only` callers must.
    `governance` is what [governance] of a configuration makes: limits, access rules, shedding. With `registry` (a URL such as
    ``file://run/registry``, or a Registry) the server announces its first address as an instance of `name`, by default its first service's.
    `grpc` says how services of a .proto are served, `streaming` what streams of Thrift services may cost.
    The limits are those of the configuration's [limits]: seconds and bytes. With `access_log`, each call is a line of the logger
    "weego.access".

    `start` serves in the background: on the running hub if this thread uses gevent already, else in a thread of its own.
    `serve_forever` serves in this thread until `stop`. Raises UsageError when an address cannot be listened on, and ServiceError
    when an object cannot be served.
    """

    def __init__(
        self,
        services: Iterable[object] | Service,
        *,
        listen: str | Sequence[str] = ("tcp://127.0.0.1:8888",),
        tls: ServerTLS | None = None,
        middleware: Sequence[Middleware] = (),
        governance: ServerGovernance | None = None,
        registry: str | Registry | None = None,
        name: str = "",
        access_log: bool = False,
        max_connections: int | None = None,
        max_message: int = ServingLimits.max_message,
        max_decoded: int = ServingLimits.max_decoded,
        max_concurrency: int = ServingLimits.max_concurrency,
        idle_timeout: float = ServingLimits.idle_timeout,
        frame_timeout: float = ServingLimits.frame_timeout,
        write_timeout: float = ServingLimits.write_timeout,
        timeout: float = 0.0,
        fallback: Service | None = None,
        named_only: bool = False,
        grpc: GrpcOptions | None = None,
        streaming: StreamOptions | None = None,
    ) -> None:
        if isinstance(services, Service):
            services = [services]
        addresses = [listen] if isinstance(listen, str) else list(listen)
        if not addresses:
            raise UsageError("a server needs at least one address: listen=[\"tcp://127.0.0.1:8888\"]")
        self._services = list(services)
        self._middleware = list(middleware)
        self._governance = governance
        self._registry = registry_of(registry) if isinstance(registry, str) else registry
        self._owns_registry = isinstance(registry, str)
        self._name = name
        self._announcer: Announcer | None = None
        self._fallback = fallback
        self._limits = ServingLimits(
            max_connections=max_connections,
            max_message=max_message,
            max_decoded=max_decoded,
            max_concurrency=max_concurrency,
            idle_timeout=idle_timeout,
            frame_timeout=frame_timeout,
            write_timeout=write_timeout,
            call_timeout=timeout,
            named_only=named_only,
        )
        self._grpc = grpc
        self._streaming = streaming
        self._access_log = access_log
        self._tls = tls
        if tls is not None:
            tls.load()
        self._listeners: list[Listener] = []
        self._serving: Serving | None = None
        self._hub: Any = None
        self._stopped: Event | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        _servers.add(self)
        try:
            for address in addresses:
                wanted = Listen(address)
                self._listeners.append(bind(wanted, resolve(wanted)))
        except (BindError, LoadError) as error:
            close_all(self._listeners)
            raise UsageError(str(error)) from None
        self._addresses = [listener.actual for listener in self._listeners]

    @property
    def addresses(self) -> list[str]:
        """Where the server listens, with the ports that were chosen."""
        return list(self._addresses)

    @property
    def serving(self) -> Serving | None:
        """What serves, once started: for statistics."""
        return self._serving

    def start(self) -> Self:
        """Serve in the background. Returns the server."""
        if self._closed:
            raise ClosedError("the server was stopped; make a new one")
        if self._serving is not None or self._thread is not None:
            raise UsageError("the server was started already")
        if get_hub_if_exists() is not None or is_module_patched("threading"):  # where threads are greenlets there is one hub
            try:
                self._open()
            except BaseException:
                self._closed = True
                close_all(self._listeners)
                raise
            return self
        started = threading.Event()
        failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._run_thread, args=(started, failure), name="weego-server", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            self._thread.join()
            self._closed = True
            close_all(self._listeners)
            raise failure[0]
        return self

    def _run_thread(self, started: threading.Event, failure: list[BaseException]) -> None:
        try:
            try:
                self._open()
            except BaseException as error:
                failure.append(error)
                return
            finally:
                started.set()
            assert self._stopped is not None
            self._stopped.wait()
        finally:
            if not self._closed:  # ended by an error and not by `stop`: nobody would answer any more
                self._closed = True
                close_all(self._listeners)
            hub = get_hub_if_exists()
            if hub is not None:
                loop_of(hub).close()
                hub.destroy(destroy_loop=True)

    def _open(self) -> None:
        self._stopped = Event()
        serving = Serving(
            self._services,
            middleware=self._middleware,
            govern=self._governance.middleware if self._governance else None,
            shedder=self._governance.shedder if self._governance else None,
            limits=self._limits,
            grpc=self._grpc,
            streaming=self._streaming,
            access=configured_access_log() if self._access_log else None,
            fallback=self._fallback,
        )
        serving.listen([listener.fileno() for listener in self._listeners], [self._tls] * len(self._listeners))
        self._hub = serving.hub
        self._serving = serving
        if self._registry is not None:
            name = self._name or type(self._services[0]).__spec__.name  # type: ignore[attr-defined]
            instance = Instance(address_of(self._listeners[0].sock), started=time.time())
            self._announcer = Announcer(self._registry, Registration(name, instance))
            self._announcer.start()

    def serve_forever(self) -> None:
        """Serve until `stop` is called from another greenlet or thread, or the process gets a KeyboardInterrupt."""
        if self._closed:
            raise ClosedError("the server was stopped; make a new one")
        if self._thread is None and self._serving is None:
            self._open()
        try:
            if self._thread is not None:
                self._thread.join()
            else:
                assert self._stopped is not None
                self._stopped.wait()
        except KeyboardInterrupt:
            self.stop()

    def stop(self, grace: float = DEFAULT_GRACE) -> None:
        """Take no more connections, finish the calls under way for at most `grace` seconds, then close everything.

        Returns when all that is done; called by a handler, whose own call is one of those under way, at once.
        """
        if self._closed:
            return
        self._closed = True
        if self._serving is None or self._hub.loop is None:  # never started, or the hub ended before us
            close_all(self._listeners)
        elif current() is None and get_hub_if_exists() is self._hub:
            self._shut(grace)
        else:
            done = threading.Event()
            self._hub.loop.run_callback_threadsafe(gevent.spawn, self._shut, grace, done)
            if current() is not None:
                return
            if self._thread is not None:
                self._thread.join()
            else:
                done.wait()

    def _shut(self, grace: float, done: threading.Event | None = None) -> None:
        assert self._serving is not None
        assert self._stopped is not None
        try:
            if self._announcer is not None:
                self._announcer.withdraw()
            if self._owns_registry and self._registry is not None:
                close(self._registry)
            self._serving.stop_accepting(drain_queue=range(len(self._listeners)))
            close_all(self._listeners)
            self._serving.drain()
            self._serving.wait_drained(time.monotonic() + grace)
            self._serving.close()
        finally:
            self._stopped.set()
            if done is not None:
                done.set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._closed else "serving" if self._serving else "new"
        return f"<Server {state} on {', '.join(self.addresses) or 'nothing'}>"


def _after_fork() -> None:
    """A child does not serve: its copies of the listening sockets would keep the port open when the parent is gone."""
    for server in list(_servers):
        server._closed = True
        if server._serving is not None:
            server._serving.stop_accepting()
        for listener in server._listeners:
            listener.sock.close()  # not the listener: the path of a unix socket is the parent's


os.register_at_fork(after_in_child=_after_fork)

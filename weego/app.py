"""The assembly under the master: what the loader loads, and what each worker runs.

The master makes an `App`, which holds the path of the configuration and nothing else. `load` runs in the loader, a child: it reads the
configuration, patches the standard library, imports the user's classes. `run` runs in each worker, forked from the loader.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import select
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import weego
from prefork.application import Listen, LoadError, NotWarm, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from governance.chain import Middleware
    from governance.memory import Memory
    from poller.tls import ServerTLS
    from prefork import Ready, Worker
    from weego.announce import Announcer
    from weego.center import Center
    from weego.config import Client, Config, ListenTls
    from weego.governed_config import ServerGovernance
    from weego.serving import GrpcOptions, Serving, ServingLimits, StreamOptions
    from weego.tallies import Tallies

__all__ = ["App", "check", "run_master"]

STDERR: Final = 2
ROOMS: Final = ("codec", "poller", "governance", "idlc", "prefork")
# What a worker needs and the loader does not: imported once, in the loader, so that a replacement is ready the sooner.
FOR_WORKERS: Final = ("weego.idl_reflection", "weego.serving", "weego.spool", "weego.stub", "weego.validation", "weego.worker")
# What `load` imports after the patch, so that it gets the patched standard library.
AFTER_PATCH: Final = ("governance.memory", "weego.governed_config", "weego.settings", "weego.tallies", "weego.center", "weego.client", "weego.discovery")
LOG_KEYS: Final = ("level", "format", "access", "file", "access_file")


class App:
    """The application of one configuration file, for `prefork.Master`."""

    def __init__(self, conf: str, master_output: int = STDERR) -> None:
        self.conf = conf
        self._master_output = master_output
        self.config: Config | None = None
        self.classes: list[type[Any]] = []
        self.middleware: list[Middleware] = []
        self.memory: Memory | None = None
        self._governance: ServerGovernance | None = None
        self._shared_fd: int | None = None
        self._tallies: Tallies | None = None
        self._is_patched = False  # by `warm_up`
        self.tls: list[ServerTLS | None] = []
        self._center: Center[Config] | None = None
        self._clients: Mapping[str, Client] = {}  # by which those of this worker go

    def share(self, fd: int) -> None:
        """Where counts go that outlive a generation."""
        self._shared_fd = fd

    def obstacle(self) -> str | None:
        """A loader that this master forks has this master's code, and would import the rest of another weego's."""
        found = version_on_disk()
        if found is None or found == weego.__version__:
            return None
        return f"weego {found} has been installed, and the master is {weego.__version__} still: `weego ctl upgrade --reload`, or USR2 and then HUP, brings the new one to all"

    def warm_up(self, settings: Settings) -> None:
        """Import what `load` imports before it comes to the user's classes, in the same order, and patch if this configuration does."""
        from prefork import identity  # noqa: F401 -- for `load`
        from weego import config as configuration
        from weego import log

        # The master's files are not this process's, which would keep them open when they have been moved away.
        log.setup({"level": "warning", "format": "text"}, "base", fd=self._master_output)
        import_rooms()
        self._is_patched = configuration.from_plain(dict(settings.config)).server.patch
        if self._is_patched:
            from gevent import monkey

            monkey.patch_all()
            for name in AFTER_PATCH:
                importlib.import_module(name)

    def load(self) -> Settings:
        """Read the configuration and import the services. LoadError names the mistake in one line."""
        from weego import config as configuration
        from weego import config_ways

        try:
            config = configuration.load(self.conf)
        except configuration.ConfigError as error:
            raise LoadError(str(error)) from None
        _open_log(self.conf, config)
        if self._master_output != STDERR:
            os.close(self._master_output)  # this process's copy of it
        owner = become(self.conf, config)
        import_rooms()
        if self._is_patched and not config.server.patch:
            raise NotWarm
        if config.server.patch and not self._is_patched:
            from gevent import monkey

            monkey.patch_all()
        if config.server.app_dir not in sys.path:
            sys.path.insert(0, config.server.app_dir)
        self.config = config
        self.memory = self._govern(config)
        self.classes = [
            load_service(configuration.locate(self.conf, "service", index, "class"), service.class_)
            for index, service in enumerate(config.service)
        ]
        self.middleware = [
            load_middleware(configuration.locate(self.conf, "server", "middleware"), name) for name in config.server.middleware
        ]
        self._check_urls(config)
        self.tls = [
            listen_tls(configuration.locate(self.conf, "listen", index, "tls"), each.tls) for index, each in enumerate(config.listen)
        ]
        return Settings(
            name=config.server.name,
            workers=config.server.worker_count(),
            listen=tuple(Listen(each.address, each.backlog, each.mode) for each in config.listen),
            graceful_timeout=float(config.server.graceful_timeout),
            boot_timeout=float(config.server.boot_timeout),
            hang_timeout=float(config.server.hang_timeout),
            max_requests=config.server.max_requests,
            max_lifetime=float(config.server.max_lifetime),
            max_memory=int(config.server.max_memory),
            umask=config.server.umask,
            owner=owner,
            pidfile=config.server.pidfile,
            admin=Listen(config.admin.address) if config.admin else None,
            control=config.server.control,
            kill_memory=int(config.server.kill_memory),
            rebalance=config.server.rebalance,
            config=configuration.to_plain(config),
            ways=config_ways.ways(config),
            files=tuple(tls_files(config)),
            extra={
                "log": {name: getattr(config.log, name) for name in LOG_KEYS} | {"owner": owner},
            },
        )

    def _govern(self, config: Config) -> Memory:
        """The memory that policies count in, for all workers; clients made from now on go by the configuration."""
        from codec.errors import UsageError
        from governance.memory import Memory
        from weego.governed_config import known_of
        from weego.settings import remember
        from weego.tallies import open_tallies

        # Breakers, rates and budgets are facts of other servers and of the load, not of this generation: they live as long as the master.
        memory = Memory.shared() if self._shared_fd is None else Memory.behind(self._shared_fd)
        self._tallies = None if self._shared_fd is None else open_tallies(self._shared_fd)
        if self._tallies is not None:
            memory.tally_of = self._tallies.client
        try:
            remember(known_of(config, memory))
        except UsageError as error:
            raise LoadError(f"{self.conf}: [client] {error}") from None
        return memory

    def _check_urls(self, config: Config) -> None:
        """LoadError for a URL that means nothing. After the services are imported: they may bring schemes of their own."""
        from codec.errors import UsageError
        from weego import config as configuration
        from weego.center import source_of
        from weego.client import check_target
        from weego.discovery import close, registry_of

        place: tuple[str, ...] = ("registry", "url")
        try:
            if config.registry is not None:
                close(registry_of(config.registry.url))
            if config.config_center is not None:
                place = ("config_center", "url")
                source_of(config.config_center.url, config.server.name).close()
            for name, client in config.client.items():
                place = ("client", name, "target")
                if client.target is not None:
                    check_target(client.target)
        except UsageError as error:
            title = ".".join(place[:-1])
            raise LoadError(f"{configuration.locate(self.conf, *place)}: [{title}] {place[-1]}: {error}") from None

    def _announcer(self, config: Config, worker: Worker) -> Announcer | None:
        """What tells the registry of this service; only one of the workers speaks."""
        registry = config.registry
        if registry is None:
            return None
        import psutil

        from governance.discovery import Registration
        from governance.instance import Instance
        from prefork import scoreboard
        from weego.announce import Announcer, Word, address_of
        from weego.discovery import registry_of

        try:  # all workers say the same, or the registry would see changes
            started = psutil.Process(worker.board.cells[scoreboard.H_MASTER_PID] or os.getppid()).create_time()
        except psutil.Error:
            started = 0.0
        address = registry.announce or address_of(worker.listeners[0])
        instance = Instance(address, registry.weight, registry.zone, dict(registry.tags), round(started, 2))
        word = Word(worker.board, worker.index)
        return Announcer(
            registry_of(registry.url),
            Registration(config.server.name, instance, float(registry.ttl)),
            word.is_ours,
            lambda on: worker.row.__setitem__(scoreboard.SPEAKS, int(on)),
            word.is_theirs,
        )

    def after_fork(self) -> None:
        """gevent's own state belongs to the process it was made in."""
        import gevent

        gevent.reinit()

    def run(self, worker: Worker) -> None:
        """Serve as `worker` until told to leave."""
        import gc

        from weego import endings, log, overview
        from weego.client import warm_up_configured
        from weego.governed_config import ServerGovernance
        from weego.idl_reflection import reflection
        from weego.serving import Serving
        from weego.validation import validate_arguments
        from weego.worker import Body

        assert self.config is not None
        config = self.config
        self._clients = config.client
        try:
            log.setup(config.log, f"worker {worker.slot}", threaded=True)
        except OSError as error:
            raise LoadError(f"[log]: {error.filename} cannot be opened: {error.strerror}") from None
        if self._tallies is not None:
            self._tallies.stripe = worker.slot
        services = [make_service(cls) for cls in self.classes]
        body: Body | None = None
        assert self.memory is not None
        governance = self._governance = ServerGovernance(config.governance, self.memory)
        serving = Serving(
            [*services, reflection(services)] if config.server.reflection else services,
            middleware=[*self.middleware, *([validate_arguments] if config.server.validate else [])],
            govern=governance.middleware,
            shedder=governance.shedder,
            limits=serving_limits(config),
            fallback=next((made for made, wanted in zip(services, config.service, strict=True) if wanted.fallback), None),
            grpc=grpc_options(config),
            streaming=stream_options(config),
            access=log.access_log() if config.log.access else None,
            may_accept=lambda: body is not None and body.may_accept(),
            tally_of=self._tallies.server if self._tallies is not None else None,
        )
        warm_up_configured()  # with the hub, which there is now
        # What was imported lives as long as the process: the collector need not walk it, and the pages stay shared with the loader.
        gc.collect()
        gc.freeze()
        body = Body(
            worker,
            serving,
            self.tls,
            follow=lambda settings: self._follow(settings, serving),
            announcer=self._announcer(config, worker),
            view=lambda: overview.view(self._governance, serving),
            refused=lambda: serving.dispatcher.turned_away + (self._governance.refused() if self._governance is not None else 0),
            at_end=endings.run,
        )
        self._watch_center(config, serving)
        try:
            body.run()
        finally:
            if self._center is not None:
                self._center.stop()

    def _watch_center(self, config: Config, serving: Serving) -> None:
        """From now on this worker's settings are as the config centre has them."""
        if config.config_center is None:
            return
        from weego.center import Center, source_of

        self._center = Center(
            source_of(config.config_center.url, config.server.name),
            config,
            lambda fresh: self._settle(fresh, serving),
            cache=config.config_center.cache,
        )
        self._center.start(float(config.config_center.wait))

    def _follow(self, settings: Settings, serving: Serving) -> None:
        """What `ways` calls hot, as far as it is a worker's affair."""
        from weego import config as configuration
        from weego import log

        self.config = configuration.from_plain(dict(settings.config))
        log.set_level(self.config.log.level)
        if self._center is not None:
            self._center.rebase(self.config)
            self._settle(self._center.effective, serving)
        else:
            self._settle(self.config, serving)

    def _settle(self, config: Config, serving: Serving) -> None:
        """Go by these settings from the next call on."""
        from weego.client import follow
        from weego.governed_config import ServerGovernance, known_of

        serving.follow(serving_limits(config), grpc_options(config), stream_options(config))
        if self.memory is not None:  # counters go on under the names of their limits
            governance = self._governance = ServerGovernance(config.governance, self.memory, before=self._governance)
            serving.govern(governance.middleware, governance.shedder)
            if config.client != self._clients:
                follow(known_of(config, self.memory))
                self._clients = config.client


def grpc_options(config: Config) -> GrpcOptions:
    """What a configuration says of gRPC."""
    from weego.serving import GrpcOptions

    grpc = config.grpc
    return GrpcOptions(
        max_message=int(grpc.max_message),
        max_streams=grpc.max_streams,
        keepalive_time=float(grpc.keepalive_time),
        keepalive_timeout=float(grpc.keepalive_timeout),
        health=grpc.health,
        reflection=grpc.reflection,
        channelz=grpc.channelz,
        web_origins=None if grpc.web_origins == "*" else tuple(grpc.web_origins.split()),
    )


def stream_options(config: Config) -> StreamOptions:
    """What a configuration says of streams of Thrift services."""
    from weego.serving import StreamOptions

    return StreamOptions(max_streams=config.streaming.max_streams, max_queued=int(config.streaming.max_queued))


def serving_limits(config: Config) -> ServingLimits:
    """The bounds of one process that a configuration sets."""
    from weego.serving import ServingLimits

    limits = config.limits
    return ServingLimits(
        max_connections=None if limits.max_connections == "auto" else limits.max_connections,
        max_connections_total=limits.max_connections_total,
        max_message=int(limits.max_message),
        max_decoded=int(limits.max_decoded),
        max_concurrency=limits.max_concurrency,
        idle_timeout=float(limits.idle_timeout),
        frame_timeout=float(limits.frame_timeout),
        named_only=config.server.named_only,
    )


def _open_log(conf: str, config: Config) -> None:
    """The log as it is configured, for what the loader says; LoadError if a file cannot be opened."""
    from weego import config as configuration
    from weego import log

    try:
        log.setup(config.log, "loader")
    except OSError as error:
        key = "file" if error.filename == config.log.file else "access_file"
        where = configuration.locate(conf, "log", key)
        raise LoadError(f"{where}: [log] {key}: {error.filename} cannot be opened: {error.strerror}") from None


def become(conf: str, config: Config) -> tuple[int, int] | None:
    """Be the user and group that the configuration names, for good, before any code of theirs runs; who they are. LoadError if not."""
    from prefork import identity
    from weego import config as configuration
    from weego import log

    server = config.server
    if server.umask is not None:
        os.umask(server.umask)
    try:
        wanted = identity.resolve(server.user or None, server.group or None)
        if wanted is None:
            return None
        log.give_to(wanted.uid, wanted.gid)
        identity.become(wanted)
    except LoadError as error:
        key = str(error).partition(":")[0]
        raise LoadError(f"{configuration.locate(conf, 'server', key)}: [server] {error}") from None
    return wanted.uid, wanted.gid


def version_on_disk() -> str | None:
    """That of the weego that an import would find now; None if it cannot be told."""
    try:
        with open(weego.__file__, encoding="utf-8") as file:
            found = re.search(r'^__version__ = "([^"]+)"', file.read(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None


def import_rooms() -> None:
    """Import weego's own packages before the user's folder can put others of their names in front. LoadError if one does already."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(weego.__file__)))
    for room in ROOMS:
        module = importlib.import_module(room)
        found = os.path.dirname(os.path.dirname(os.path.abspath(module.__file__ or "")))
        if found != home:
            raise LoadError(
                f"the package {room!r} at {os.path.dirname(module.__file__ or '?')} hides weego's own; rename it or take it off sys.path"
            )
    for name in FOR_WORKERS:
        importlib.import_module(name)


def tls_files(config: Config) -> Iterator[str]:
    """Certificates and keys, which a reload reads anew."""
    for listen in config.listen:
        if listen.tls is not None:
            named = [each for name in listen.tls.names for each in (name.cert, name.key)]
            yield from (each for each in (listen.tls.cert, listen.tls.key, listen.tls.client_ca, *named) if each)


def listen_tls(place: str, tls: ListenTls | None) -> ServerTLS | None:
    """The TLS of one listener (in file and line `place`), its files read: workers inherit it from the loader. LoadError if one is wrong."""
    if tls is None:
        return None
    from codec.errors import UsageError
    from poller.tls import ServerTLS  # after the patch: gevent wants ssl untouched

    found = ServerTLS(
        cert=tls.cert,
        key=tls.key,
        client_ca=tls.client_ca,
        client_optional=tls.client_optional,
        names={each.name: (each.cert, each.key) for each in tls.names},
        min_version=tls.min_version,
        ciphers=tls.ciphers,
        handshake_timeout=float(tls.handshake_timeout),
    )
    try:
        found.load()
    except UsageError as error:
        raise LoadError(f"{place}: [[listen]] tls: {str(error).removeprefix('TLS: ')}") from None
    return found


def load_middleware(place: str, name: str) -> Middleware:
    """The middleware that `name` (``package.module:name``, from file and line `place`) means. LoadError says what is wrong with it."""
    where = f'{place}: [server] middleware "{name}"'
    found: Middleware = _find(where, name, "name")
    if not callable(found):
        raise LoadError(f"{where} is a {type(found).__name__}; a middleware takes a handler and gives one")
    try:
        wrapped = found(lambda call, args: None)
    except Exception as error:
        raise LoadError(f"{where} failed: {_describe(error)}") from error
    if not callable(wrapped):
        raise LoadError(f"{where} gave a {type(wrapped).__name__}; a middleware takes a handler and gives one")
    return found


def _find(where: str, name: str, what: str) -> Any:
    """What ``package.module:name`` means."""
    module_name, colon, inner = name.partition(":")
    if not colon or not module_name or not inner:
        raise LoadError(f"{where}: write it as package.module:{what}")
    if module_name.split(".")[0] in (*ROOMS, "weego"):
        raise LoadError(f"{where}: {module_name.split('.')[0]} is a package of weego's own; give your module another name")
    module = _import(where, module_name)
    found: Any = module
    for part in inner.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise LoadError(f"{where}: {module_name} ({module.__file__}) has no {inner}")
    return found


def load_service(place: str, name: str) -> type[Any]:
    """The class that `name` (``package.module:Class``, from file and line `place`) means. LoadError says what is wrong with it."""
    where = f'{place}: [[service]] class = "{name}"'
    class_name = name.partition(":")[2]
    found = _find(where, name, "Class")
    from codec.spec import Service

    if not isinstance(found, type):
        raise LoadError(f"{where}: {class_name} is a {type(found).__name__}, not a class")
    if not issubclass(found, Service) or getattr(found, "__spec__", None) is None:
        raise LoadError(f"{where}: {class_name} does not implement a generated service base; derive it from what `weego gen` wrote")
    return found


def make_service(cls: type[Any]) -> Any:
    """An object of the user's class, made in the worker. LoadError when its constructor fails."""
    try:
        return cls()
    except Exception as error:
        raise LoadError(f"{cls.__module__}:{cls.__qualname__}() failed: {_describe(error)}") from error


def _import(where: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"{where}: cannot import {module_name}: {_describe(error)}") from error
    except SystemExit as error:
        raise LoadError(f"{where}: {module_name} called sys.exit({error.code!r}) while it was imported") from error


def _describe(error: BaseException) -> str:
    """The error with the place in the user's code, the innermost that is not the import machinery."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename not in (__file__, importlib.__file__)
    ]
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text


def check(conf: str) -> None:
    """Validate all that can be validated without binding. LoadError or ConfigError names the first mistake."""
    App(conf).load()


def run_master(conf: str) -> int:
    """Be the master of `conf` until told to stop; returns the exit code."""
    from prefork import Master
    from prefork.primitives import own_output
    from weego import log

    # Whoever should read our standard error may have stopped reading. Workers wait then, or lose time; the master must do neither.
    output = own_output(STDERR)
    # Until the configuration is read and all is well, a person at a terminal or a unit's journal wants one line: why it did not start.
    log.setup({"level": "warning", "format": "text"}, "master", fd=output)
    return Master(
        App(conf, output),
        version=weego.__version__,
        on_ready=lambda ready: announce(ready, output),
        on_change=lambda extra: take_log(extra, output),
        on_reopen=log.reopen,
    ).run()


def take_log(extra: Mapping[str, Any], output: int) -> None:
    """The master logs as its configuration says, from now on."""
    from weego import log

    settings = extra.get("log") or {}
    try:
        log.setup(settings, "master", fd=output)
    except OSError as error:  # the loader could; between the two somebody took it away
        log.setup({**settings, "file": None, "access_file": None}, "master", fd=output)
        logging.getLogger("weego.master").error("%s cannot be opened: %s; on standard error instead", error.filename, error.strerror)
    if settings.get("owner"):
        log.give_to(*settings["owner"])


def announce(ready: Ready, output: int = STDERR) -> None:
    """The banner, and the log settings of the configuration, now that they are known. Never blocks: nobody reads, no banner."""
    take_log(ready.extra, output)
    lines = [f"weego {ready.version}: {ready.name}, {ready.workers} worker{'s' if ready.workers != 1 else ''}, master {ready.pid}"]
    addresses = ", ".join(actual for _, actual in ready.listen)
    lines.append(f"  serving on {addresses}")
    if ready.admin:
        lines.append(f"  admin on {ready.admin}")
    lines.append(f"  stop: Ctrl-C   reload: kill -HUP {ready.pid}")
    has_room = select.poll()
    has_room.register(output, select.POLLOUT)
    with contextlib.suppress(OSError):
        if has_room.poll(0):
            os.write(output, ("\n".join(lines) + "\n").encode())

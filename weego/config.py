"""The configuration file: its types, and the strict reading of it.

The types below are the one description of the file: what `load` accepts, the defaults, the JSON Schema that editors use
(`python -m weego.config` prints it) and the keys that docs/configuration.md must explain all come from them. Each field says
what it means; `Between` bounds it. `config_keys` has what a table is made of, `config_reader` the reading, `config_checks` what types alone cannot
say, `config_writer` what is written.

    load(path)       the file as a Config, or one ConfigError that names file, line, key and what would be right
    locate(path, …)  "file:line" of a key, for what only the assembly can find wrong
    to_plain(config) the Config as builtins, to send through a pipe; from_plain reads it back
    dump(config)     the effective Config as a TOML document
    schema()         the JSON Schema

Nothing here touches the network or the user's code, and nothing is global: who needs a value is handed it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import msgspec

from prefork.application import MAX_WORKERS
from weego import config_writer, cpus, tomlmap
from weego.config_checks import check_governance, check_hedges, complete, complete_program
from weego.config_keys import Between, ConfigError, Table
from weego.config_reader import Reader, read, text_of
from weego.units import Duration, Size

__all__ = [
    "Admin",
    "Client",
    "Config",
    "ConfigError",
    "Limits",
    "Listen",
    "ListenTls",
    "Log",
    "NamedCertificate",
    "Server",
    "Service",
    "dump",
    "from_plain",
    "load",
    "locate",
    "schema",
    "to_plain",
]

DAY: Final = 86400.0


class Server(Table, frozen=True):
    """[server]: the process as a whole."""

    name: Annotated[str, "Service name: process title, registry, metrics."] = "weego"
    workers: Annotated[
        int | Literal["auto"],
        'Worker processes. "auto": the CPUs this process may use, cgroup quota included.',
        Between(1, MAX_WORKERS),
    ] = "auto"
    graceful_timeout: Annotated[
        Duration, "How long calls in progress may go on when a worker is stopped or replaced.", Between(0, DAY)
    ] = Duration(30)
    boot_timeout: Annotated[
        Duration, "How long a worker may take to load the services and report ready.", Between(0.1, DAY)
    ] = Duration(60)
    hang_timeout: Annotated[
        Duration,
        "A worker that could run and whose loop does not turn for so long writes its stacks, ends and is replaced; 0: never.",
        Between(0, DAY),
    ] = Duration(10)
    max_requests: Annotated[
        int,
        "A worker that has answered so many is replaced, one at a time and by up to half as much again for each; 0: never.",
        Between(0, 10**15),
    ] = 0
    max_lifetime: Annotated[
        Duration, "A worker of this age is replaced, spread like max_requests; 0: never.", Between(0, 365 * DAY)
    ] = Duration(0)
    max_memory: Annotated[
        Size, "A worker with more resident memory, in two samples 5 s apart, is replaced; 0: never.", Between(0, 2**62)
    ] = Size(0)
    kill_memory: Annotated[
        Size, "A worker with more resident memory is killed when its replacement is ready, at twice as much at once; 0: never.",
        Between(0, 2**62),
    ] = Size(0)
    rebalance: Annotated[
        bool, "Let a worker that has many more long-lived connections than another hand some over."
    ] = True
    app_dir: Annotated[
        str, "Folder that goes on sys.path and that relative paths start from; default: where weego-master was started."
    ] = "."
    patch: Annotated[
        bool, "Let gevent patch the standard library in each worker, so that blocking libraries cooperate."
    ] = True
    named_only: Annotated[bool, "Refuse calls that name no service: TTHeader and gRPC name it, framed and buffered messages cannot."] = (
        False
    )
    reflection: Annotated[bool, "Describe the Thrift services to who asks, so that `weego call` needs no IDL file."] = False
    validate: Annotated[bool, "Refuse calls whose arguments break rules of the IDL (vt.* annotations), before the handler sees them."] = (
        False
    )
    middleware: Annotated[
        tuple[str, ...], 'What wraps every handler, each as "package.module:name"; the first is outermost.'
    ] = ()
    user: Annotated[
        str, 'User, by name or number, that loader and workers become before they import a service; "": as started.'
    ] = ""
    group: Annotated[str, 'Group, likewise; "": the user\'s own.'] = ""
    umask: Annotated[
        int | None, "Permissions that new files do not get, in octal: 0o027; absent: as started.", Between(0, 0o777)
    ] = None
    control: Annotated[str | None, "Unix socket on which the master takes commands; absent: none."] = None
    pidfile: Annotated[str | None, "File that holds the master's process id while it runs; absent: none."] = None

    def worker_count(self) -> int:
        """The number of workers meant, with "auto" resolved for this machine."""
        return cpus.available() if self.workers == "auto" else self.workers


class NamedCertificate(Table, frozen=True):
    """One of [[listen]] tls.names: the certificate for clients that ask for this name."""

    name: Annotated[str, 'The name, as "shop.example.com" or "*.example.com".']
    cert: Annotated[str, "File of the certificate and its chain (PEM)."]
    key: Annotated[str | None, "File of its private key (PEM); absent: in the certificate's file."] = None


class ListenTls(Table, frozen=True):
    """[[listen]] tls: the address wants TLS. The files are read anew at each reload."""

    cert: Annotated[str, "File of the certificate and its chain (PEM)."]
    key: Annotated[str | None, "File of its private key (PEM); absent: in the certificate's file."] = None
    client_ca: Annotated[
        str | None, "File of authorities (PEM): clients must show a certificate that one of them signed; absent: none is asked for."
    ] = None
    client_optional: Annotated[bool, "With client_ca: clients without a certificate may come too."] = False
    min_version: Annotated[Literal["1.2", "1.3"], "The oldest version of TLS."] = "1.2"
    ciphers: Annotated[str | None, "Ciphers of TLS 1.2, in OpenSSL's notation; absent: OpenSSL's own choice."] = None
    handshake_timeout: Annotated[Duration, "How long a client may take for its handshake.", Between(0.1, DAY)] = Duration(10)
    names: tuple[NamedCertificate, ...] = ()


class Listen(Table, frozen=True):
    """[[listen]]: one address to serve on. Every protocol is detected on it."""

    example: ClassVar[str] = 'address = "tcp://127.0.0.1:8888"'

    address: Annotated[str, 'Where to listen: "tcp://host:port" or "unix:///path".']
    backlog: Annotated[
        int, "Connections the kernel may queue before they are accepted (it clamps to somaxconn).", Between(1, 65535)
    ] = 2048
    mode: Annotated[int | None, "Permissions of a unix socket, in octal: 0o660.", Between(0, 0o777)] = None
    tls: ListenTls | None = None


class Service(Table, frozen=True):
    """[[service]]: one class of yours to serve."""

    example: ClassVar[str] = 'class = "package.module:Class"'

    class_: Annotated[str, 'The class, as "package.module:Class"; it implements a generated service base.'] = msgspec.field(
        name="class"
    )
    fallback: Annotated[bool, "Serves callers that name no service, where methods of several services have one name."] = False


class Admin(Table, frozen=True):
    """[admin]: the listener for /livez, /readyz and /metrics; absent: none."""

    address: Annotated[str, 'Where to listen: "tcp://host:port" or "unix:///path".']


class Limits(Table, frozen=True):
    """[limits]: what one worker takes on."""

    max_connections: Annotated[
        int | Literal["auto"],
        'Connections open at one time. "auto": what the limit on open files allows; more than that is clamped.',
        Between(1, 10_000_000),
    ] = "auto"
    max_connections_total: Annotated[
        int,
        "Connections of all workers together; calls on more are answered with RESOURCE_EXHAUSTED; 0: no limit.",
        Between(0, 10_000_000),
    ] = 0
    max_message: Annotated[
        Size, "Largest message, either way; a larger one is refused before memory is given to it.", Between(1024, 2**31 - 1)
    ] = Size(16 * 2**20)
    max_decoded: Annotated[
        Size,
        "Memory that one message may become once decoded, about; one that asks for more is refused before it is made.",
        Between(65536, 2**40),
    ] = Size(256 * 2**20)
    max_concurrency: Annotated[
        int, "Calls in progress at one time; more are answered with RESOURCE_EXHAUSTED.", Between(1, 10_000_000)
    ] = 10_000
    idle_timeout: Annotated[
        Duration, "A connection with no call for so long is closed; 0: never.", Between(0, 365 * DAY)
    ] = Duration(600)
    frame_timeout: Annotated[
        Duration, "A message that has begun must be complete after so long, or its connection is closed; 0: no limit.",
        Between(0, DAY),
    ] = Duration(30)  # fmt: skip


class Grpc(Table, frozen=True):
    """[grpc]: how services of a .proto are served, and the services that weego brings."""

    max_message: Annotated[
        Size, "Largest message; [limits] max_message bounds it too.", Between(1024, 2**31 - 1)
    ] = Size(4 * 2**20)
    max_streams: Annotated[
        int, "Calls in progress on one connection; one more is refused, and clients wait.", Between(1, 100_000)
    ] = 100
    keepalive_time: Annotated[
        Duration, "A connection that is silent for so long is asked whether it still lives; 0: never.", Between(0, 365 * DAY)
    ] = Duration(7200)
    keepalive_timeout: Annotated[Duration, "How long that answer may take.", Between(0.1, DAY)] = Duration(20)
    health: Annotated[bool, "Serve grpc.health.v1.Health, which follows the drain."] = True
    reflection: Annotated[bool, "Serve grpc.reflection v1 and v1alpha, which tell any caller what there is."] = True
    channelz: Annotated[bool, "Serve grpc.channelz.v1, which tells any caller who is connected and what was called."] = False
    web_origins: Annotated[
        str, 'Origins whose scripts may call by gRPC-Web, with spaces between them; "*": all, "": none.'
    ] = "*"


class Streaming(Table, frozen=True):
    """[streaming]: what streams of Thrift services may cost, each bound that of one connection."""

    max_streams: Annotated[int, "Streams in progress; one more is refused.", Between(1, 1_000_000)] = 1024
    max_queued: Annotated[
        Size, "Bytes that may wait for handlers; beyond that the connection is not read.", Between(1024, 2**31 - 1)
    ] = Size(4 * 2**20)


class Log(Table, frozen=True):
    """[log]: what is written, and where."""

    level: Annotated[Literal["debug", "info", "warning", "error"], "The least severe lines that are written."] = "info"
    format: Annotated[
        Literal["auto", "text", "json"], '"auto": text in colour on a terminal, JSON lines anywhere else.'
    ] = "auto"
    access: Annotated[bool, "One line for each call."] = True
    file: Annotated[
        str | None, "File that lines are appended to; USR1 opens it again. Absent: standard error."
    ] = None
    access_file: Annotated[str | None, "Another file for the access log; absent: where the other lines go."] = None


Share = Between(0, 1)


class Registry(Table, frozen=True):
    """[registry]: where this service announces itself and finds others; absent: nowhere."""

    url: Annotated[
        str, 'Where: "file://run/registry", a folder that the services of a machine share, relative to app_dir; or "etcd://host:port,…".'
    ]
    ttl: Annotated[Duration, "An instance that is not heard of for so long is taken for gone.", Between(1, 3600)] = Duration(10)
    weight: Annotated[int, "Its share of the calls; others have 10.", Between(0, 1_000_000)] = 10
    zone: Annotated[str, "Where it runs, for clients that prefer their own zone."] = ""
    tags: Annotated[dict[str, str], "Tags, for clients that look for them."] = msgspec.field(default_factory=dict)
    announce: Annotated[
        str | None, "The address others should call; absent: the first [[listen]], with this machine's address for all of them."
    ] = None


class ConfigCenter(Table, frozen=True):
    """[config_center]: where [client.…], [governance] and limits of this service may be changed while it runs; absent: nowhere."""

    url: Annotated[str, 'Where: "etcd://host:port,…".']
    wait: Annotated[Duration, "How long a start waits for it before it goes on without.", Between(0, 60)] = Duration(2)
    cache: Annotated[str | None, "File that keeps the last good values, for starts while it is away; absent: none."] = None


class Limit(Table, frozen=True):
    """[[governance.limit]]: what is refused, counted over all workers."""

    name: Annotated[str, "What a refusal says."]
    rate: Annotated[float, "Calls a second; 0: any.", Between(0, 1e9)] = 0.0
    burst: Annotated[float, "Of these so many at once; 0: a tenth of a second's worth.", Between(0, 1e9)] = 0.0
    concurrency: Annotated[int, "Calls at one time; 0: any.", Between(0, 10_000_000)] = 0
    method: Annotated[str, 'Which methods, as a pattern: "*", "Get*", "Item.GetItem".'] = "*"
    caller: Annotated[str, "Which callers, as a pattern."] = "*"
    each_caller: Annotated[bool, "Every caller has that much for itself; else all share it."] = False
    certificate: Annotated[str, 'Which callers, as a pattern for the names in their client certificate; "*": with or without.'] = "*"


class Rule(Table, frozen=True):
    """[[governance.rule]]: who may call what; the first that fits decides."""

    allow: Annotated[bool, "Whether they may."]
    callers: Annotated[tuple[str, ...], "Names that peers give themselves, as patterns; none: anybody."] = ()
    methods: Annotated[tuple[str, ...], "Methods, as patterns; none: all."] = ()
    certificates: Annotated[tuple[str, ...], "Names in the client certificate, as patterns; none: with or without."] = ()


class Fault(Table, frozen=True):
    """[[governance.fault]]: trouble on purpose, for tests."""

    share: Annotated[float, "Of the calls that fit, from 0 to 1.", Share]
    delay: Annotated[Duration, "They wait so long.", Between(0, 3600)] = Duration(0)
    code: Annotated[
        Literal["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"] | None,
        "Then they fail with this; absent: they are served.",
    ] = None
    method: Annotated[str, "Which methods, as a pattern."] = "*"
    caller: Annotated[str, "Which callers, as a pattern."] = "*"


class Governance(Table, frozen=True):
    """[governance]: which calls this server takes on."""

    shed: Annotated[bool, "Refuse calls that would wait too long while the worker is overloaded."] = False
    shed_target: Annotated[Duration, "How long a call may wait in overload.", Between(0.0001, 60)] = Duration(0.005)
    shed_interval: Annotated[
        Duration, "Overload: all calls of so long a time waited longer than the target.", Between(0.001, 60)
    ] = Duration(0.1)
    default: Annotated[Literal["allow", "deny"], "What becomes of a call that no rule fits."] = "allow"
    limit: tuple[Limit, ...] = ()
    rule: tuple[Rule, ...] = ()
    fault: tuple[Fault, ...] = ()


class Method(Table, frozen=True):
    """[client.<service>.method.<Method>]: what differs for one method; absent: as for the client."""

    timeout: Annotated[Duration | None, "Of a call with all its attempts.", Between(0.001, DAY)] = None
    attempt_timeout: Annotated[Duration | None, "Of one attempt.", Between(0.001, DAY)] = None
    recv_timeout: Annotated[Duration | None, "Of a stream: how long to wait for one message.", Between(0.001, DAY)] = None
    send_timeout: Annotated[Duration | None, "Of a stream: how long to wait for room to send one.", Between(0.001, DAY)] = None
    idempotent: Annotated[bool | None, "May a call run twice? Absent: as the IDL says."] = None
    retries: Annotated[int | None, "Further attempts after one that failed.", Between(0, 5)] = None
    hedges: Annotated[int | None, "Further attempts beside one that is slow.", Between(0, 2)] = None
    hedge_after: Annotated[Duration | None, "What counts as slow.", Between(0.0001, 3600)] = None
    breaker: Annotated[bool | None, "Stop calling the method while it fails."] = None
    retry_backoff: Annotated[Duration | None, "Pause before the first of them.", Between(0, 60)] = None
    retry_duration: Annotated[Duration | None, "No further attempt after so long.", Between(0, DAY)] = None
    retry_error_rate: Annotated[float | None, "No retries while a larger share of attempts fails.", Share] = None
    breaker_error_rate: Annotated[float | None, "Share of failures in 10 s that opens it.", Share] = None
    breaker_min_sample: Annotated[int | None, "Calls in 10 s that it takes.", Between(1, 10**9)] = None
    rate: Annotated[float | None, "Calls a second that this service lets out.", Between(0, 1e9)] = None
    concurrency: Annotated[int | None, "Calls at one time that this service lets out.", Between(0, 10_000_000)] = None
    fallback: Annotated[str | None, 'Answers instead when a call failed: "package.module:function".'] = None


class Client(Table, frozen=True):
    """[client.<service>]: how this service calls that one, by a client of "service://<service>"."""

    target: Annotated[
        str | None, 'Addresses, "file://…", "etcd://…", "dns://…"; absent: it is found in the [registry] by its name.'
    ] = None
    framing: Annotated[
        Literal["buffered", "framed", "ttheader", "ttheader-framed", "grpc"] | None,
        "How calls are framed; absent: the usual way for the service.",
    ] = None
    timeout: Annotated[Duration | None, "Of a call with all its attempts; absent: none.", Between(0.001, DAY)] = None
    attempt_timeout: Annotated[Duration, "Of one attempt, not of streams; 0: as long as the call may take.", Between(0, DAY)] = Duration(0)
    recv_timeout: Annotated[Duration, "Of a stream: how long to wait for one message; 0: until its deadline.", Between(0, DAY)] = Duration(0)
    send_timeout: Annotated[Duration, "Of a stream: how long to wait for room to send one; 0: until its deadline.", Between(0, DAY)] = Duration(0)
    connect_timeout: Annotated[Duration, "Of making a connection.", Between(0.001, 3600)] = Duration(1)
    max_idle: Annotated[int, "Idle connections kept for an instance.", Between(0, 100_000)] = 10
    max_idle_total: Annotated[int, "Idle connections kept in all.", Between(0, 1_000_000)] = 100
    idle_timeout: Annotated[Duration, "How long they are kept.", Between(0.1, DAY)] = Duration(60)
    heartbeat: Annotated[Duration, "Ask the peer of one that was silent for so long whether it is there; 0: never.", Between(0, DAY)] = Duration(0)
    min_idle: Annotated[int, "So many of an instance are kept for longer than that.", Between(0, 100_000)] = 0
    max_active: Annotated[int, "Connections in use to an instance at one time; more calls wait; where one carries one call. 0: any.", Between(0, 1_000_000)] = 0
    max_waiting: Annotated[int, "Calls that may wait for one.", Between(0, 10_000_000)] = 1024
    wait_timeout: Annotated[Duration, "How long; 0: until the call's deadline.", Between(0, DAY)] = Duration(0)
    warm_up: Annotated[int, "Connections made to each instance before a worker takes calls.", Between(0, 1000)] = 0
    pool: Annotated[Literal["exclusive", "shared"], "A connection carries one call at a time, or (on TTHeader) many."] = "exclusive"
    balancer: Annotated[
        Literal[
            "p2c",
            "least_loaded",
            "round_robin",
            "weight_round_robin",
            "interleaved_weight_round_robin",
            "weight_random",
            "weight_random_alias",
            "consistent_hash",
        ],
        "Who is called next.",
    ] = "p2c"
    hash_key: Annotated[
        str | None, 'For consistent_hash, what calls with the same instance have in common: "field:req.user", "tag:user", "metadata:user".'
    ] = None
    zone: Annotated[str, 'Prefer instances of this zone; "": any.'] = ""
    tag: Annotated[str, 'Prefer instances that have the call\'s value of this tag; "": any.'] = ""
    slow_start: Annotated[Duration, "A fresh instance gets its whole share after so long; 0: at once.", Between(0, DAY)] = Duration(0)
    breaker: Annotated[bool, "Stop calling a method while it fails."] = True
    breaker_error_rate: Annotated[float, "Share of failures in 10 s that opens it.", Share] = 0.5
    breaker_min_sample: Annotated[int, "Calls in 10 s that it takes.", Between(1, 10**9)] = 200
    breaker_cooling: Annotated[Duration, "How long it stays open before one call is let through.", Between(0.1, 3600)] = Duration(5)
    instance_breaker: Annotated[bool, "The same for each instance: connections that fail, and timeouts."] = True
    ejection: Annotated[bool, "Leave out an instance that fails while others do not."] = True
    ejection_failures: Annotated[int, "Failures in a row that it takes.", Between(1, 10**6)] = 5
    ejection_time: Annotated[Duration, "For how long, at first.", Between(0.1, 120)] = Duration(5)
    retries: Annotated[int, "Further attempts after one that failed.", Between(0, 5)] = 2
    retry_backoff: Annotated[Duration, "Pause before the first of them, doubled each time, at random up to that; 0: none.", Between(0, 60)] = Duration(0)
    retry_duration: Annotated[Duration, "No further attempt after so long; 0: the deadline decides.", Between(0, DAY)] = Duration(0)
    retry_budget: Annotated[float, "Retries for each call, beside ten a second.", Share] = 0.2
    retry_error_rate: Annotated[float, "No retries while a larger share of attempts fails; 0: the budget decides.", Share] = 0.0
    hedges: Annotated[int, "Further attempts beside one that is slow; only idempotent methods.", Between(0, 2)] = 0
    hedge_after: Annotated[Duration, "What counts as slow.", Between(0, 3600)] = Duration(0)
    rate: Annotated[float, "Calls of each method a second that this service lets out; 0: any.", Between(0, 1e9)] = 0.0
    concurrency: Annotated[int, "Calls of each method at one time that it lets out; 0: any.", Between(0, 10_000_000)] = 0
    drop: Annotated[float, "Share of the calls that fail at once, to relieve a service in distress.", Share] = 0.0
    fallback: Annotated[str | None, 'Answers instead when a call failed: "package.module:function", called with (call, args, error).'] = None
    metrics: Annotated[bool, "Count calls, their ends and how long they take."] = True
    method: dict[str, Method] = msgspec.field(default_factory=dict)


class Config(Table, frozen=True, kw_only=True):
    """A whole configuration file. After `load` every path in it is absolute."""

    server: Server = Server()
    listen: tuple[Listen, ...]
    service: tuple[Service, ...]
    admin: Admin | None = None
    limits: Limits = Limits()
    grpc: Grpc = Grpc()
    streaming: Streaming = Streaming()
    log: Log = Log()
    governance: Governance = Governance()
    registry: Registry | None = None
    config_center: ConfigCenter | None = None
    client: dict[str, Client] = msgspec.field(default_factory=dict)


class Program(Table, frozen=True):
    """A file for a program that only calls: what `weego.configure` reads."""

    name: Annotated[str, "What the program calls itself towards the services it calls."] = ""
    registry: Registry | None = None
    config_center: ConfigCenter | None = None
    client: dict[str, Client] = msgspec.field(default_factory=dict)


# ---------------------------------------------------------------- reading


def load(path: str) -> Config:
    """Read, check and complete the file at `path`; relative paths in it become absolute. Raises ConfigError."""
    config, reader = read(path, Config)
    return complete(config, reader)


def load_program(path: str) -> Program:
    """Read and check a file with [registry] and [client.…] alone; relative paths start from its folder. Raises ConfigError."""
    program, reader = read(path, Program)
    return complete_program(program, os.path.dirname(os.path.abspath(path)), reader)


_Whole = TypeVar("_Whole", bound=Config | Program)

# What a config centre may change while a service runs, each table with its type.
OVERLAID: Final[dict[str, Any]] = {"client": Client, "governance": Governance, "limits": Limits}


def overlay(config: _Whole, document: dict[str, Any], where: str) -> _Whole:
    """`config` with the keys of a document in place of its own: [client.…], and of a server [governance] and [limits]. A list replaces the whole list.

    Raises ConfigError, whose file is `where`.
    """
    reader = Reader(where, {}, Config)
    known = [name for name in OVERLAID if hasattr(config, name)]
    changes: dict[str, Any] = {}
    for name, given in document.items():
        if name not in known:
            raise reader.error((name,), f"this table cannot come from a config centre; those that can are {', '.join(known)}")
        if not isinstance(given, dict):
            raise reader.error((name,), "expected a table")
        own = getattr(config, name)
        if name == "client":
            changes[name] = dict(own)
            for service, each in given.items():
                base = own.get(service, Client())
                made: Client = reader.table(Client, _without_none(_merged(plain_table(base), each)), (name, service))
                if made.target != base.target:
                    raise reader.error((name, service, "target"), "the target of a client cannot change while it runs")
                check_hedges(service, made, reader)
                changes[name][service] = made
        else:
            changes[name] = reader.table(OVERLAID[name], _without_none(_merged(plain_table(own), given)), (name,))
    fresh = msgspec.structs.replace(config, **changes)
    if isinstance(fresh, Config):
        check_governance(fresh, reader)
    return fresh


def plain_table(table: Table) -> dict[str, Any]:
    """A table as its document would have it."""
    plain: dict[str, Any] = msgspec.to_builtins(table, enc_hook=lambda value: value.__class__.__base__(value))
    return plain


def _without_none(value: Any) -> Any:
    """Without what is absent: None, and lists of nothing."""
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None and each not in ([], ())}
    if isinstance(value, list | tuple):
        return [_without_none(each) for each in value]
    return value


def _merged(base: Any, over: Any) -> Any:
    """Tables into each other, key by key; anything else as it stands in `over`."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{name: _merged(base.get(name), each) for name, each in over.items()}}


def locate(path: str, *keys: str | int) -> str:
    """The `path:line` of a key, for a complaint that only the assembly can make, such as `"service", 0, "class"`."""
    try:
        lines = tomlmap.positions(text_of(path))
    except (ConfigError, AssertionError, IndexError):  # the file was changed after it was read
        return path
    line = lines.get(keys)
    return f"{path}:{line}" if line else path


def to_plain(config: Config) -> dict[str, Any]:
    """The Config as dicts, lists, text and numbers, all of which json, marshal and pickle know."""
    plain: dict[str, Any] = msgspec.to_builtins(config, enc_hook=lambda value: value.__class__.__base__(value))
    return plain


def from_plain(plain: dict[str, Any]) -> Config:
    """What `to_plain` made, as a Config again. It is trusted: nothing is checked twice."""
    return msgspec.convert(plain, Config, dec_hook=lambda kind, value: kind(value))


def dump(config: Config) -> str:
    """The effective configuration, defaults included, as a TOML document that `load` reads back equal."""
    return config_writer.dump(config)


def schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors that complete and check TOML."""
    return config_writer.schema_of(Config)


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")

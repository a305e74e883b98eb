"""The configuration file: its types, and the strict reading of it.

The types below are the one description of the file: what `load` accepts, the defaults, the JSON Schema that editors use
(`python -m weego.config` prints it) and the keys that docs/configuration.md must explain all come from them. Each field says
what it means; `Between` bounds it.

    load(path)       the file as a Config, or one ConfigError that names file, line, key and what would be right
    locate(path, …)  "file:line" of a key, for what only the assembly can find wrong
    to_plain(config) the Config as builtins, to send through a pipe; from_plain reads it back
    dump(config)     the effective Config as a TOML document
    schema()         the JSON Schema

Nothing here touches the network or the user's code, and nothing is global: who needs a value is handed it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import tomllib
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from prefork.application import MAX_WORKERS
from weego import cpus, tomlmap
from weego.registries.url import absolute
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

# A worker says every 100 ms that its loop turns; ten times that is no hang yet, but what a large garbage collection may take.
LEAST_HANG_TIMEOUT: Final = 1.0
MAX_UNIX_PATH: Final = 107  # sockaddr_un.sun_path is 108 bytes with its closing zero (man 7 unix)
DAY: Final = 86400.0
OCTAL: Final = ("mode", "umask")  # keys whose numbers are permissions


class ConfigError(Exception):
    """A mistake in the configuration: `str()` is one line with file, line, key, what is wrong and what is allowed.

    The process answers with exit code 78 (EX_CONFIG of sysexits.h).
    """

    def __init__(self, file: str, line: int | None, where: str, problem: str) -> None:
        self.file = file
        self.line = line
        self.where = where
        self.problem = problem
        super().__init__(file, line, where, problem)

    def __str__(self) -> str:
        position = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (position, self.where, self.problem) if part)


@dataclass(frozen=True)
class Between:
    """The numbers a field may have, both ends included."""

    least: float
    most: float


# ---------------------------------------------------------------- the file


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file: immutable, and an unknown key is an error."""


class Server(_Table, frozen=True):
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


class NamedCertificate(_Table, frozen=True):
    """One of [[listen]] tls.names: the certificate for clients that ask for this name."""

    name: Annotated[str, 'The name, as "shop.example.com" or "*.example.com".']
    cert: Annotated[str, "File of the certificate and its chain (PEM)."]
    key: Annotated[str | None, "File of its private key (PEM); absent: in the certificate's file."] = None


class ListenTls(_Table, frozen=True):
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


class Listen(_Table, frozen=True):
    """[[listen]]: one address to serve on. Every protocol is detected on it."""

    address: Annotated[str, 'Where to listen: "tcp://host:port" or "unix:///path".']
    backlog: Annotated[
        int, "Connections the kernel may queue before they are accepted (it clamps to somaxconn).", Between(1, 65535)
    ] = 2048
    mode: Annotated[int | None, "Permissions of a unix socket, in octal: 0o660.", Between(0, 0o777)] = None
    tls: ListenTls | None = None


class Service(_Table, frozen=True):
    """[[service]]: one class of yours to serve."""

    class_: Annotated[str, 'The class, as "package.module:Class"; it implements a generated service base.'] = msgspec.field(
        name="class"
    )
    fallback: Annotated[bool, "Serves callers that name no service, where methods of several services have one name."] = False


class Admin(_Table, frozen=True):
    """[admin]: the listener for /livez, /readyz and /metrics; absent: none."""

    address: Annotated[str, 'Where to listen: "tcp://host:port" or "unix:///path".']


class Limits(_Table, frozen=True):
    """[limits]: what one worker takes on."""

    max_connections: Annotated[
        int | Literal["auto"],
        'Connections open at one time. "auto": what the limit on open files allows; more than that is clamped.',
        Between(1, 10_000_000),
    ] = "auto"
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


class Grpc(_Table, frozen=True):
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
    web_origins: Annotated[
        str, 'Origins whose scripts may call by gRPC-Web, with spaces between them; "*": all, "": none.'
    ] = "*"


class Streaming(_Table, frozen=True):
    """[streaming]: what streams of Thrift services may cost, each bound that of one connection."""

    max_streams: Annotated[int, "Streams in progress; one more is refused.", Between(1, 1_000_000)] = 1024
    max_queued: Annotated[
        Size, "Bytes that may wait for handlers; beyond that the connection is not read.", Between(1024, 2**31 - 1)
    ] = Size(4 * 2**20)


class Log(_Table, frozen=True):
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


class Registry(_Table, frozen=True):
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


class ConfigCenter(_Table, frozen=True):
    """[config_center]: where [client.…], [governance] and limits of this service may be changed while it runs; absent: nowhere."""

    url: Annotated[str, 'Where: "etcd://host:port,…".']
    wait: Annotated[Duration, "How long a start waits for it before it goes on without.", Between(0, 60)] = Duration(2)
    cache: Annotated[str | None, "File that keeps the last good values, for starts while it is away; absent: none."] = None


class Limit(_Table, frozen=True):
    """[[governance.limit]]: what is refused, counted over all workers."""

    name: Annotated[str, "What a refusal says."]
    rate: Annotated[float, "Calls a second; 0: any.", Between(0, 1e9)] = 0.0
    burst: Annotated[float, "Of these so many at once; 0: a tenth of a second's worth.", Between(0, 1e9)] = 0.0
    concurrency: Annotated[int, "Calls at one time; 0: any.", Between(0, 10_000_000)] = 0
    method: Annotated[str, 'Which methods, as a pattern: "*", "Get*", "Item.GetItem".'] = "*"
    caller: Annotated[str, "Which callers, as a pattern."] = "*"
    each_caller: Annotated[bool, "Every caller has that much for itself; else all share it."] = False
    certificate: Annotated[str, 'Which callers, as a pattern for the names in their client certificate; "*": with or without.'] = "*"


class Rule(_Table, frozen=True):
    """[[governance.rule]]: who may call what; the first that fits decides."""

    allow: Annotated[bool, "Whether they may."]
    callers: Annotated[tuple[str, ...], "Names that peers give themselves, as patterns; none: anybody."] = ()
    methods: Annotated[tuple[str, ...], "Methods, as patterns; none: all."] = ()
    certificates: Annotated[tuple[str, ...], "Names in the client certificate, as patterns; none: with or without."] = ()


class Fault(_Table, frozen=True):
    """[[governance.fault]]: trouble on purpose, for tests."""

    share: Annotated[float, "Of the calls that fit, from 0 to 1.", Share]
    delay: Annotated[Duration, "They wait so long.", Between(0, 3600)] = Duration(0)
    code: Annotated[
        Literal["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"] | None,
        "Then they fail with this; absent: they are served.",
    ] = None
    method: Annotated[str, "Which methods, as a pattern."] = "*"
    caller: Annotated[str, "Which callers, as a pattern."] = "*"


class Governance(_Table, frozen=True):
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


class Method(_Table, frozen=True):
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


class Client(_Table, frozen=True):
    """[client.<service>]: how this service calls that one, by a client of "service://<service>"."""

    target: Annotated[
        str | None, 'Addresses, "file://…", "etcd://…", "dns://…"; absent: it is found in the [registry] by its name.'
    ] = None
    framing: Annotated[
        Literal["buffered", "framed", "ttheader", "ttheader-framed", "grpc"] | None,
        "How calls are framed; absent: the usual way for the service.",
    ] = None
    timeout: Annotated[Duration | None, "Of a call with all its attempts; absent: none.", Between(0.001, DAY)] = None
    attempt_timeout: Annotated[Duration, "Of one attempt; 0: as long as the call may take.", Between(0, DAY)] = Duration(0)
    recv_timeout: Annotated[Duration, "Of a stream: how long to wait for one message; 0: until its deadline.", Between(0, DAY)] = Duration(0)
    send_timeout: Annotated[Duration, "Of a stream: how long to wait for room to send one; 0: until its deadline.", Between(0, DAY)] = Duration(0)
    connect_timeout: Annotated[Duration, "Of making a connection.", Between(0.001, 3600)] = Duration(1)
    max_idle: Annotated[int, "Idle connections kept for an instance.", Between(0, 100_000)] = 10
    max_idle_total: Annotated[int, "Idle connections kept in all.", Between(0, 1_000_000)] = 100
    idle_timeout: Annotated[Duration, "How long they are kept.", Between(0.1, DAY)] = Duration(60)
    heartbeat: Annotated[Duration, "Ask the peer of one that was silent for so long whether it is there; 0: never.", Between(0, DAY)] = Duration(0)
    min_idle: Annotated[int, "So many of an instance are kept for longer than that.", Between(0, 100_000)] = 0
    max_active: Annotated[int, "Connections in use to an instance at one time; more calls wait. 0: any.", Between(0, 1_000_000)] = 0
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


class Config(_Table, frozen=True, kw_only=True):
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


class Program(_Table, frozen=True):
    """A file for a program that only calls: what `weego.configure` reads."""

    name: Annotated[str, "What the program calls itself towards the services it calls."] = ""
    registry: Registry | None = None
    config_center: ConfigCenter | None = None
    client: dict[str, Client] = msgspec.field(default_factory=dict)


# ---------------------------------------------------------------- reading


def load(path: str) -> Config:
    """Read, check and complete the file at `path`; relative paths in it become absolute. Raises ConfigError."""
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from None
    reader = _Reader(path, tomlmap.positions(text))
    return _complete(reader.table(Config, document, ()), reader)


def load_program(path: str) -> Program:
    """Read and check a file with [registry] and [client.…] alone; relative paths start from its folder. Raises ConfigError."""
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from None
    reader = _Reader(path, tomlmap.positions(text))
    program: Program = reader.table(Program, document, ())
    folder = os.path.dirname(os.path.abspath(path))
    return msgspec.structs.replace(
        program,
        registry=program.registry and _registry(program.registry, folder, reader),
        config_center=program.config_center and _config_center(program.config_center, folder, reader),
        client={name: _client(name, client, program, folder, reader) for name, client in program.client.items()},
    )


_Whole = TypeVar("_Whole", bound=Config | Program)

# What a config centre may change while a service runs, each table with its type.
OVERLAID: Final[dict[str, Any]] = {"client": Client, "governance": Governance, "limits": Limits}


def overlay(config: _Whole, document: dict[str, Any], where: str) -> _Whole:
    """`config` with the keys of a document in place of its own: [client.…], and of a server [governance] and [limits]. A list replaces the whole list.

    Raises ConfigError, whose file is `where`.
    """
    reader = _Reader(where, {})
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
                _check_hedges(service, made, reader)
                changes[name][service] = made
        else:
            changes[name] = reader.table(OVERLAID[name], _without_none(_merged(plain_table(own), given)), (name,))
    fresh = msgspec.structs.replace(config, **changes)
    if isinstance(fresh, Config):
        _check_governance(fresh, reader)
    return fresh


def plain_table(table: _Table) -> dict[str, Any]:
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
        lines = tomlmap.positions(_text(path))
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


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise ConfigError(path, None, "", (error.strerror or str(error)).lower()) from None
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, line, "", "not UTF-8: TOML files are") from None


def _syntax_error(path: str, text: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    message = str(error)
    if match := re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message, re.DOTALL):
        message, line = match[1], int(match[2])
    else:
        message, line = message.removesuffix(" (at end of document)"), len(text.splitlines())
    return ConfigError(path, line, "", f"not valid TOML: {message[:1].lower()}{message[1:]}")


@dataclass(frozen=True)
class _Key:
    """One field of a table as the reader, the schema and the docs see it."""

    name: str  # in the file
    field: str  # in Python
    type: Any
    required: bool
    default: Any
    doc: str
    bounds: Between | None


@cache
def _keys(table: type[_Table]) -> dict[str, _Key]:
    keys = {}
    for field in msgspec.structs.fields(table):
        kind, notes = field.type, []
        if typing.get_origin(kind) is Annotated:
            kind, *notes = typing.get_args(kind)
        keys[field.encode_name] = _Key(
            name=field.encode_name,
            field=field.name,
            type=kind,
            required=field.required,
            default=None if field.required else _default(field),
            doc=next((note for note in notes if isinstance(note, str)), ""),
            bounds=next((note for note in notes if isinstance(note, Between)), None),
        )
    return keys


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


class _Reader:
    """Plain TOML values into tables, with every complaint at its line."""

    def __init__(self, file: str, lines: dict[tomlmap.Path, int]) -> None:
        self.file = file
        self.lines = lines

    def table(self, kind: type[_Table], values: object, path: tomlmap.Path) -> Any:
        if not isinstance(values, dict):
            raise self.error(path, "expected a table")
        keys = _keys(kind)
        for name in values:
            if name not in keys:
                raise self.error((*path, name), self.unknown(kind, name))
        arguments = {}
        for key in keys.values():
            if key.name in values:
                arguments[key.field] = self.value(key, values[key.name], (*path, key.name))
            elif key.required:
                raise self.error((*path, key.name), f"missing: {_meaning(key)}")
        return kind(**arguments)

    def value(self, key: _Key, value: object, path: tomlmap.Path) -> Any:
        kind = key.type
        if (table := _table_of(kind)) is None:
            return self.leaf(key, value, path)
        if typing.get_origin(kind) is dict:
            if not isinstance(value, dict):
                raise self.error(path, f"there may be several, each with its name: write [{'.'.join(map(str, path))}.NAME]")
            return {name: self.table(table, each, (*path, name)) for name, each in value.items()}
        if typing.get_origin(kind) is not tuple:
            return self.table(table, value, path)
        if not isinstance(value, list):
            raise self.error(path, f"there may be several: write [[{key.name}]] with double brackets")
        if not value:
            raise self.error(path, f"missing: {_meaning(key)}")
        return tuple(self.table(table, element, (*path, index)) for index, element in enumerate(value))

    def leaf(self, key: _Key, value: object, path: tomlmap.Path) -> Any:
        for kind in _options(key.type):
            try:
                result = _convert(kind, value)
            except ValueError:
                continue
            in_bounds = not key.bounds or isinstance(result, str) or key.bounds.least <= result <= key.bounds.most
            if in_bounds:
                return result
        hint = "; write it in octal, as 0o660" if key.name in OCTAL else ""
        raise self.error(path, f"{_shown(value)} is not {_allowed(key)}{hint}")

    def unknown(self, table: type[_Table], name: str) -> str:
        """Why a key is not known, with the likely one: near in spelling, or the same in another table."""
        known = _keys(table)
        noun = "table" if table is Config else "key"
        for title, key in _keys(Config).items():
            other = _table_of(key.type)
            if other and other is not table and name in _keys(other):
                return f"unknown {noun}, did you mean {_title((title, 0))} {name}?"
        if close := difflib.get_close_matches(name, known, n=1):
            return f'unknown {noun}, did you mean "{close[0]}"?'
        return f"unknown {noun}; known here: {', '.join(known)}"

    def error(self, path: tomlmap.Path, problem: str) -> ConfigError:
        """A ConfigError at the path, or, for what is missing, at the table it is missing from."""
        at = path
        while at and at not in self.lines:
            at = at[:-1]
        return ConfigError(self.file, self.lines.get(at), _title(path), problem)


def _table_of(kind: Any) -> type[_Table] | None:
    """The table type in `Limits`, `Admin | None` or `tuple[Listen, ...]`; None for a plain value."""
    for option in (kind, *typing.get_args(kind)):
        if isinstance(option, type) and issubclass(option, _Table):
            return option
    return None


def _options(kind: Any) -> tuple[Any, ...]:
    """The members of a union, None left out: TOML has no null."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return tuple(option for option in typing.get_args(kind) if option is not type(None))
    return (kind,)


def _convert(kind: Any, value: object) -> Any:
    """One plain value to its type, exactly: no text for numbers, no numbers for booleans. ValueError if it is not one."""
    if kind in (Duration, Size):
        return kind.parse(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return msgspec.convert(value, kind, strict=True)


def _title(path: tomlmap.Path) -> str:
    """("listen", 0, "address") as the reader of the file sees it: [[listen]] address."""
    if not path:
        return ""
    table, rest = path[0], path[1:]
    key = _keys(Config).get(str(table))
    if key and typing.get_origin(key.type) is dict and rest:
        table, rest = f"{table}.{rest[0]}", rest[1:]
    several = typing.get_origin(key.type) is tuple if key else bool(rest) and isinstance(rest[0], int)
    names = ".".join(str(name) for name in rest if isinstance(name, str))
    return f"{'[[' if several else '['}{table}{']]' if several else ']'} {names}".strip()


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _meaning(key: _Key) -> str:
    if key.doc:
        return key.doc[0].lower() + key.doc[1:].rstrip(".")
    table = _table_of(key.type)
    examples = {Listen: 'address = "tcp://127.0.0.1:8888"', Service: 'class = "package.module:Class"'}
    return f"add at least one, such as: [[{key.name}]] {examples[table]}" if table in examples else ""


def _allowed(key: _Key) -> str:
    """What a key takes, in words."""
    return " or ".join(_words(kind, key.bounds) for kind in reversed(_options(key.type)))


def _words(kind: Any, bounds: Between | None) -> str:
    if typing.get_origin(kind) is Literal:
        choices = [f'"{choice}"' for choice in typing.get_args(kind)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        tuple[str, ...]: "a list of texts",
        dict[str, str]: "a table of texts",
        str: "text in quotes",
        bool: "true or false",
        Duration: 'a duration like "30s", "500ms" or "2m"',
        Size: 'a size like "16MiB", "64KiB" or "1MB"',
    }
    limits = ""
    if bounds and kind is not str:
        show = kind if kind in (Duration, Size) else (lambda number: f"{number:g}") if kind is float else int
        limits = f" from {show(bounds.least)} to {show(bounds.most)}"
    return words[kind] + limits


# ---------------------------------------------------------------- what types alone cannot say


def _complete(config: Config, reader: _Reader) -> Config:
    """The checks across keys; then every path absolute."""
    app_dir = os.path.abspath(os.path.expanduser(config.server.app_dir))
    if not os.path.isdir(app_dir):
        raise reader.error(("server", "app_dir"), f"no such folder: {app_dir}")
    if not config.server.name.strip() or not config.server.name.isprintable():
        raise reader.error(("server", "name"), f"{_shown(config.server.name)} is not a name: printable text, not empty")
    if 0 < config.server.hang_timeout < LEAST_HANG_TIMEOUT:
        problem = f'"{config.server.hang_timeout}" is too short: calls may take as long; use "1s" or more, or 0 for never'
        raise reader.error(("server", "hang_timeout"), problem)
    server = msgspec.structs.replace(
        config.server,
        app_dir=app_dir,
        control=_socket_path(config.server.control, app_dir, reader, ("server", "control")),
        pidfile=_path(config.server.pidfile, app_dir, reader, ("server", "pidfile")),
    )
    taken: dict[str, str] = {}
    listen = tuple(
        msgspec.structs.replace(
            entry,
            address=_address(entry.address, app_dir, reader, ("listen", index, "address"), taken),
            tls=entry.tls and _tls(entry.tls, app_dir, reader, ("listen", index, "tls")),
        )
        for index, entry in enumerate(config.listen)
    )
    for index, entry in enumerate(listen):
        if entry.mode is not None and entry.address.startswith("tcp:"):
            raise reader.error(("listen", index, "mode"), "only a unix socket has permissions")
    admin = config.admin and msgspec.structs.replace(
        config.admin, address=_address(config.admin.address, app_dir, reader, ("admin", "address"), taken)
    )
    seen = set()
    for index, service in enumerate(config.service):
        path = ("service", index, "class")
        if not _CLASS.fullmatch(service.class_):
            raise reader.error(path, f'{_shown(service.class_)} is not of the form "package.module:Class"')
        if service.class_ in seen:
            raise reader.error(path, f"{_shown(service.class_)} is served twice")
        seen.add(service.class_)
        if service.fallback and any(other.fallback for other in config.service[:index]):
            raise reader.error(("service", index, "fallback"), "one service can be the fallback, and another one is already")
    log = msgspec.structs.replace(
        config.log,
        file=_path(config.log.file, app_dir, reader, ("log", "file")),
        access_file=_path(config.log.access_file, app_dir, reader, ("log", "access_file")),
    )
    _check_governance(config, reader)
    return msgspec.structs.replace(
        config,
        server=server,
        listen=listen,
        admin=admin,
        log=log,
        registry=config.registry and _registry(config.registry, app_dir, reader),
        config_center=config.config_center and _config_center(config.config_center, app_dir, reader),
        client={name: _client(name, client, config, app_dir, reader) for name, client in config.client.items()},
    )


_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


def _check_governance(config: Config, reader: _Reader) -> None:
    governance = config.governance
    names = set()
    for index, limit in enumerate(governance.limit):
        path = ("governance", "limit", index, "name")
        if not limit.rate and not limit.concurrency:
            raise reader.error(path, f"{_shown(limit.name)} limits nothing: give it a rate, a concurrency or both")
        if limit.name in names:
            raise reader.error(path, f"{_shown(limit.name)} is the name of another limit")
        names.add(limit.name)
    if governance.shed_target > governance.shed_interval:
        raise reader.error(("governance", "shed_target"), "longer than shed_interval")


def _registry(registry: Registry, app_dir: str, reader: _Reader) -> Registry:
    if not _SCHEME.match(registry.url):
        raise reader.error(("registry", "url"), f'{_shown(registry.url)} is not of the form "file://folder" or "etcd://host:port"')
    if registry.announce is not None and not _TCP.fullmatch(registry.announce):
        raise reader.error(("registry", "announce"), f'{_shown(registry.announce)} is not "tcp://host:port"')
    return msgspec.structs.replace(registry, url=_url(registry.url, app_dir))


def _config_center(center: ConfigCenter, app_dir: str, reader: _Reader) -> ConfigCenter:
    if not _SCHEME.match(center.url):
        raise reader.error(("config_center", "url"), f'{_shown(center.url)} is not of the form "etcd://host:port"')
    cache = _path(center.cache, app_dir, reader, ("config_center", "cache"))
    return msgspec.structs.replace(center, url=_url(center.url, app_dir), cache=cache)


def _client(name: str, client: Client, config: Config | Program, app_dir: str, reader: _Reader) -> Client:
    if client.target is None and config.registry is None:
        raise reader.error(("client", name, "target"), "nobody says where it is: give a target here, or a [registry]")
    _check_hedges(name, client, reader)
    return msgspec.structs.replace(client, target=client.target and _url(client.target, app_dir))


def _check_hedges(name: str, client: Client, reader: _Reader) -> None:
    unsure: list[tuple[tomlmap.Path, int, Duration]] = [(("client", name, "hedges"), client.hedges, client.hedge_after)]
    for key, method in client.method.items():
        unsure.append((("client", name, "method", key, "hedges"), method.hedges or 0, method.hedge_after or client.hedge_after))
    for path, hedges, after in unsure:
        if hedges and not after:
            raise reader.error(path, "hedges need hedge_after, the time after which an attempt counts as slow")


def _url(url: str, app_dir: str) -> str:
    """A URL with the paths in it absolute."""
    if not url.startswith("file://"):
        return absolute(url, app_dir)
    return "file://" + os.path.normpath(os.path.join(app_dir, os.path.expanduser(url.removeprefix("file://"))))


_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>\d+)")


def _address(address: str, app_dir: str, reader: _Reader, path: tomlmap.Path, taken: dict[str, str]) -> str:
    """A listening address, checked, with the path of a unix socket absolute."""
    if match := _TCP.fullmatch(address):
        if int(match["port"]) > 65535:
            raise reader.error(path, f"{_shown(address)}: a port is a number from 0 to 65535")
    elif address.startswith("unix://"):
        address = f"unix://{_socket_path(address.removeprefix('unix://'), app_dir, reader, path)}"
    else:
        raise reader.error(path, f'{_shown(address)} is not "tcp://host:port" or "unix:///path"')
    if address in taken and not address.endswith(":0"):
        raise reader.error(path, f"{_shown(address)} is already used by {taken[address]}")
    taken[address] = _title(path)
    return address


def _path(value: str | None, app_dir: str, reader: _Reader, path: tomlmap.Path) -> str | None:
    if value is None:
        return None
    if not value or "\0" in value:
        raise reader.error(path, f"{_shown(value)} is not a path")
    return os.path.normpath(os.path.join(app_dir, os.path.expanduser(value)))


def _tls(tls: ListenTls, app_dir: str, reader: _Reader, path: tomlmap.Path) -> ListenTls:
    """With the paths of its files absolute."""
    if tls.client_optional and tls.client_ca is None:
        raise reader.error((*path, "client_optional"), "means nothing without client_ca")
    files = {name: _path(getattr(tls, name), app_dir, reader, (*path, name)) for name in ("cert", "key", "client_ca")}
    names = []
    for index, entry in enumerate(tls.names):
        where = (*path, "names", index)
        pair = {name: _path(getattr(entry, name), app_dir, reader, (*where, name)) for name in ("cert", "key")}
        names.append(msgspec.structs.replace(entry, **pair))
    return msgspec.structs.replace(tls, **files, names=tuple(names))


def _socket_path(value: str | None, app_dir: str, reader: _Reader, path: tomlmap.Path) -> str | None:
    absolute = _path(value, app_dir, reader, path)
    if absolute is not None and len(os.fsencode(absolute)) > MAX_UNIX_PATH:
        raise reader.error(path, f"{_shown(absolute)} is longer than the {MAX_UNIX_PATH} bytes a unix socket may have")
    return absolute


# ---------------------------------------------------------------- writing


def dump(config: Config) -> str:
    """The effective configuration, defaults included, as a TOML document that `load` reads back equal."""
    blocks: list[str] = []
    for key in _keys(Config).values():
        _dump(key.name, key, getattr(config, key.field), blocks)
    return "\n\n".join(blocks) + "\n"


def _dump(title: str, key: _Key, value: Any, blocks: list[str]) -> None:
    """The table or tables of one key; what is inside them stands in their lines."""
    if value is None:
        return
    if isinstance(value, dict):
        for name, each in value.items():
            _dump(f"{title}.{json.dumps(name)}", key, each, blocks)
        return
    several = isinstance(value, tuple)
    tables: tuple[_Table, ...] = value if several else (value,)
    for table in tables:
        pairs = [(entry.name, getattr(table, entry.field)) for entry in _keys(type(table)).values()]
        header = f"[[{title}]]" if several else f"[{title}]"
        blocks.append("\n".join([header, *(f"{name} = {_toml(name, v)}" for name, v in pairs if v is not None and v != ())]))


def _toml(name: str, value: object) -> str:
    if isinstance(value, (Duration, Size)):
        return f'"{value}"'
    if name in OCTAL:
        return f"0o{value:o}"
    if isinstance(value, _Table):
        pairs = [(key.name, getattr(value, key.field)) for key in _keys(type(value)).values()]
        return "{ " + ", ".join(f"{key} = {_toml(key, each)}" for key, each in pairs if each is not None and each != ()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(name, each) for each in value) + "]"
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key)} = {_toml(name, each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors that complete and check TOML."""
    document = _table_schema(Config)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "weego server configuration",
        **document,
    }


def _table_schema(table: type[_Table]) -> dict[str, Any]:
    keys = _keys(table)
    return {
        "description": " ".join((table.__doc__ or "").split()),
        "type": "object",
        "additionalProperties": False,
        "required": [key.name for key in keys.values() if key.required],
        "properties": {key.name: _key_schema(key) for key in keys.values()},
    }


def _key_schema(key: _Key) -> dict[str, Any]:
    if (table := _table_of(key.type)) is not None:
        inner = _table_schema(table)
        if typing.get_origin(key.type) is dict:
            return {"type": "object", "additionalProperties": inner}
        return {"type": "array", "minItems": 1, "items": inner} if typing.get_origin(key.type) is tuple else inner
    options = [_leaf_schema(kind, key.bounds) for kind in _options(key.type)]
    result: dict[str, Any] = {"description": key.doc}
    result.update(options[0] if len(options) == 1 else {"anyOf": options})
    if key.default is not None:
        shown = isinstance(key.default, (Duration, Size))
        result["default"] = str(key.default) if shown else list(key.default) if isinstance(key.default, tuple) else key.default
    return result


def _leaf_schema(kind: Any, bounds: Between | None) -> dict[str, Any]:
    if typing.get_origin(kind) is Literal:
        return {"enum": list(typing.get_args(kind))}
    if kind in (Duration, Size):
        pattern = r"^\s*(\d+(\.\d+)?\s*(us|ms|s|m|h|d)\s*)+$" if kind is Duration else r"^\s*\d+(\.\d+)?\s*([kKmMgG]i?)?[bB]\s*$"
        number = {"type": "number" if kind is Duration else "integer"}
        return {"anyOf": [{"type": "string", "pattern": pattern}, number]}
    if kind == tuple[str, ...]:
        return {"type": "array", "items": {"type": "string"}}
    if kind == dict[str, str]:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    result: dict[str, Any] = {"type": {int: "integer", float: "number", str: "string", bool: "boolean"}[kind]}
    if bounds and kind in (int, float):
        result.update(minimum=bounds.least, maximum=bounds.most)
    return result


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")

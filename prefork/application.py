"""What the room is given: an application to load and run, and its settings as plain values.

The master never sees more of the application than this. ``load`` and ``run`` are called in child processes, so that
neither a broken config nor a broken import can touch the process that supervises.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefork.worker import Worker

__all__ = (
    "EX_CONFIG",
    "EX_OSERR",
    "EX_SOFTWARE",
    "MAX_LISTENERS",
    "MAX_WORKERS",
    "Application",
    "Listen",
    "LoadError",
    "NotWarm",
    "Settings",
)

EX_SOFTWARE = 70
"""Something broke that no config explains (sysexits.h)."""
EX_OSERR = 71
"""The system refused: a port in use, no permission, no processes."""
EX_CONFIG = 78
"""The config or the application it names is wrong."""

#: Workers of one generation. The scoreboard has a row for each worker of four generations (one that serves, one that
#: boots, two that drain).
MAX_WORKERS = 256

#: Listeners. They travel to the loader in one message with the channel and the scoreboard, and the kernel carries at
#: most 253 descriptors in one (SCM_MAX_FD).
MAX_LISTENERS = 240


class LoadError(Exception):
    """A mistake of the user's, told in one clear line. The master logs it without a traceback and exits with 78."""


class NotWarm(Exception):
    """Of ``Application.load``: what ``warm_up`` has done does not suit this config. Load in a process where it was not called."""


class Listen(NamedTuple):
    """One address to listen on."""

    address: str
    """``tcp://host:port``, port 0 for any free one, or ``unix:///path``."""
    backlog: int = 1024
    """Connections the kernel queues while no worker accepts; clamped by the kernel to net.core.somaxconn."""
    mode: int | None = None
    """Permission bits of a unix socket; None: by the umask."""


class Settings(NamedTuple):
    """What the master must know about a generation. Times are seconds."""

    name: str
    workers: int
    listen: tuple[Listen, ...]
    graceful_timeout: float = 30.0
    """For calls in flight, when a worker leaves or the server stops."""
    boot_timeout: float = 60.0
    """For ``load`` and, again, for each worker until it is ready."""
    hang_timeout: float = 10.0
    """For a worker whose loop does not turn although it could; then it is replaced. 0: never."""
    stop_grace: float = 30.0
    """For a worker that somebody stopped, a debugger perhaps. It is replaced at once, and killed after this."""
    max_requests: int = 0
    """That a worker answers before it is replaced; a slot's share is up to half as much again. 0: no limit, here and below."""
    max_lifetime: float = 0.0
    """Of a worker, spread likewise."""
    max_memory: int = 0
    """Resident bytes of a worker, in two samples in a row, before it is replaced."""
    kill_memory: int = 0
    """Resident bytes of a worker at which it is killed, as soon as its replacement is ready; at twice as much, at once."""
    rebalance: bool = True
    """Let a worker that has many more connections than another give it some."""
    umask: int | None = None
    """Of the master, for the sockets it makes; None: as it was started."""
    owner: tuple[int, int] | None = None
    """User and group that unix sockets to listen on are given, for they are made by the master, which may be root."""
    pidfile: str | None = None
    admin: Listen | None = None
    """Where the master answers probes and tells its metrics."""
    control: str | None = None
    """Absolute path of the unix socket on which the master takes questions and orders."""
    extra: Mapping[str, Any] = MappingProxyType({})
    """Opaque here: plain values (JSON) that the assembly wants back in ``Ready``."""
    config: Mapping[str, Any] = MappingProxyType({})
    """The whole configuration as plain nested values: to show, to compare, and for the order ``Hot``."""
    ways: Mapping[str, str] = MappingProxyType({})
    """Dotted key of ``config``, or the beginning of one → how a change of it takes effect (``prefork.changes``); others: by new workers."""
    files: tuple[str, ...] = ()
    """What is read besides code when a generation loads, such as certificates: a change of it is a change of code."""
    code: str = ""
    """A fingerprint of what was imported, which the loader adds; "": not known."""

    @property
    def doors(self) -> dict[str, Listen]:
        """What the master itself listens on, by purpose. Only its own user may come near the control socket."""
        doors = {}
        if self.admin is not None:
            doors["admin"] = self.admin
        if self.control is not None:
            doors["control"] = Listen(f"unix://{self.control}", mode=0o600)
        return doors

    def encode(self) -> bytes:
        """As JSON. Raises LoadError if a value is not plain or out of range."""
        self._check()
        plain = self._asdict() | {
            "listen": [tuple(listen) for listen in self.listen],
            "extra": dict(self.extra),
            "config": dict(self.config),
            "ways": dict(self.ways),
            "files": list(self.files),
        }
        try:
            return json.dumps(plain).encode()
        except (TypeError, ValueError) as error:
            raise LoadError(f"settings are not plain values: {error}") from None

    @classmethod
    def decode(cls, data: bytes) -> Settings:
        """The reverse of ``encode``."""
        plain = json.loads(data)
        plain["listen"] = tuple(Listen(*listen) for listen in plain["listen"])
        plain["admin"] = plain["admin"] and Listen(*plain["admin"])
        plain["owner"] = plain["owner"] and tuple(plain["owner"])
        plain["files"] = tuple(plain["files"])
        return cls(**plain)

    def _check(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise LoadError(f"workers: {self.workers} is out of range, use 1 to {MAX_WORKERS}")
        if not self.listen:
            raise LoadError("nothing to listen on: add a [[listen]] section")
        if len(self.listen) > MAX_LISTENERS:
            raise LoadError(f"{len(self.listen)} listeners, {MAX_LISTENERS} is the most")
        addresses = [listen.address for listen in (*self.listen, *self.doors.values())]
        for address in addresses:
            if addresses.count(address) > 1 and not address.endswith(":0"):
                raise LoadError(f"{address}: listed twice; each [[listen]], admin and control need their own")
        for what in ("graceful_timeout", "boot_timeout", "hang_timeout", "stop_grace", "max_lifetime"):
            seconds = getattr(self, what)
            if not seconds >= 0:
                raise LoadError(f"{what}: {seconds} is not a duration in seconds")


class Application(Protocol):
    """What the assembly hands to the master. Made in the master, so it should hold little: the config's path.

    It may also have ``share(self, fd: int) -> None``: called in each loader before ``load``, with an empty memfd that lives as long as the server
    does, through reloads, dead loaders and upgrades, and is closed here after ``load``. What is to outlive a generation goes in there. Old and new
    code may have it mapped at the same time. From ``tally.OFFSET`` on it holds, if the application likes, what ``tally`` says, and the master reads that.

    It may also have ``obstacle(self) -> str | None``: called in the master before each reload; a line says why there can be none. The code of the
    framework that the master has and that on disk may have become strangers. It must not wait for anything.

    It may also have ``warm_up``, see ``Warm``.

    It may also have ``after_fork(self) -> None``: called first in each new worker, before ``run``. An application that
    imports gevent calls ``gevent.reinit()`` there, for workers are forked by the plain system call.
    """

    def load(self) -> Settings:
        """In the loader process: parse the config, import user code. What it leaves on ``self`` is there in ``run``.

        Raises LoadError for a mistake of the user's, NotWarm to be called again where ``warm_up`` was not. No thread may be running when it returns.
        """

    def run(self, worker: Worker) -> None:
        """In a worker process: get ready, serve until told to leave, return."""


class Warm(Application, Protocol):
    """An application whose reloads are to cost no more than its user's own imports."""

    def warm_up(self, settings: Settings) -> None:
        """In the process that loaders are forked from (``base``), with the settings that serve: import what every generation will, in the order in
        which ``load`` does and none of the user's code, and let go of what the master has open for it, such as log files.

        ``load`` is called in a child of that process, or in one where this never was. No thread may be running when it returns.
        """

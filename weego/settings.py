"""What this process knows of the services it calls: the [client.…] and [registry] tables of its configuration.

Under `weego-master` the worker sets it before any service of the user's is made; a program of its own calls `weego.configure("client.toml")`. A client
of ``service://item`` then is what ``[client.item]`` says, and finds its instances in the registry where the table gives no target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from codec.errors import UsageError
from governance.memory import Memory
from governance.policy import ClientPolicy
from weego.registries.url import with_service

__all__ = ["ClientSettings", "Known", "known", "remember"]

SCHEME: Final = "service://"


@dataclass(frozen=True)
class ClientSettings:
    """Of the clients of one service. None: as the client says itself, or its default."""

    target: str | tuple[str, ...]
    policy: ClientPolicy = field(default_factory=ClientPolicy)
    framing: str | None = None
    caller: str = ""
    connect_timeout: float | None = None
    max_idle: int | None = None
    max_idle_total: int | None = None
    idle_timeout: float | None = None
    heartbeat: float | None = None
    min_idle: int | None = None
    max_active: int | None = None
    max_waiting: int | None = None
    wait_timeout: float | None = None
    warm_up: int = 0
    pool: str | None = None

    def given(self) -> dict[str, Any]:
        """The connection settings that are given."""
        names = (
            "framing", "connect_timeout", "max_idle", "max_idle_total", "idle_timeout", "heartbeat", "min_idle", "max_active", "max_waiting", "wait_timeout",
        )  # fmt: skip
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Known:
    """All of it. `memory` is what policies count in: shared with the other workers where there are any."""

    clients: dict[str, ClientSettings] = field(default_factory=dict)
    registry: str = ""
    caller: str = ""
    memory: Memory = field(default_factory=Memory)

    def client(self, target: str) -> ClientSettings:
        """What ``service://name`` means. UsageError when nothing says it."""
        name = target.removeprefix(SCHEME)
        found = self.clients.get(name)
        if found is not None and found.target:
            return found
        if not self.registry:
            raise UsageError(
                f"{target}: nobody says where {name!r} is; add [client.{name}] target = \"…\", or a [registry], to the configuration"
            )
        from dataclasses import replace

        target = with_service(self.registry, name)
        return replace(found, target=target) if found is not None else ClientSettings(target, caller=self.caller)


_known = Known()


def known() -> Known:
    """What this process knows."""
    return _known


def remember(fresh: Known) -> None:
    """From now on clients that are made go by this."""
    global _known
    _known = fresh

"""prefork: keep N processes alive and replace them without losing a request. Knows nothing of RPC.

| file | its job |
|---|---|
| ``application`` | what is handed in: ``Application``, ``Settings``, ``Listen``, ``LoadError`` |
| ``master`` | the supervisor: its life, its signals, its end |
| ``reloads`` | its generations, one after another |
| ``changes``, ``fingerprint``, ``following`` | what a reload changes; reloads without new workers |
| ``upgrade``, ``legacy`` | the master becomes new code; what it leaves to that |
| ``balance`` | long-lived connections, spread anew |
| ``stacks`` | where a worker is just now |
| ``views`` | what workers have to tell of themselves |
| ``loaders``, ``crew`` | its loaders; its workers |
| ``family`` | its children as processes: channels, exits, zombies |
| ``generation`` | its records |
| ``loader`` | the process that loads user code and forks workers |
| ``base``, ``bases`` | the process that loaders are forked from; the master's side of it |
| ``worker`` | a worker process, as its body sees it |
| ``orders`` | what a worker's body is told |
| ``handover`` | live connections from worker to worker |
| ``scoreboard`` | shared memory: states, gauges, counters, the connection-count gate |
| ``channel`` | messages and descriptors between two processes |
| ``listeners`` | listening sockets |
| ``door`` | short talks with visitors, in the master's loop |
| ``admin``, ``metrics`` | probes and Prometheus' page over HTTP |
| ``control`` | questions and orders over a unix socket |
| ``status`` | what the master knows of itself, for these |
| ``priority`` | who loads gives way to those who serve |
| ``backoff``, ``pidfile``, ``loop``, ``report``, ``primitives`` | small parts |

The names below are loaded when they are used: the master pays for nothing that only workers need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefork.application import Application, Listen, LoadError, NotWarm, Settings
    from prefork.handover import MAX_HANDOVER_BYTES
    from prefork.master import Master, Ready
    from prefork.orders import (
        Adopt,
        Adopted,
        Drain,
        Hot,
        Lame,
        LogLevel,
        MasterGone,
        Order,
        Refused,
        Reopen,
        Serve,
        Share,
        Stacks,
        Stop,
        View,
    )  # fmt: skip
    from prefork.scoreboard import Scoreboard, may_accept
    from prefork.worker import Worker

_HOME = {
    "application": ("Application", "Listen", "LoadError", "NotWarm", "Settings"),
    "handover": ("MAX_HANDOVER_BYTES",),
    "master": ("Master", "Ready"),
    "orders": (
        "Adopt", "Adopted", "Drain", "Hot", "Lame", "LogLevel", "MasterGone", "Order", "Refused", "Reopen", "Serve", "Share", "Stacks", "Stop",
        "View",
    ),
    "scoreboard": ("Scoreboard", "may_accept"),
    "worker": ("Worker",),
}

__all__ = (
    "MAX_HANDOVER_BYTES", "Adopt", "Adopted", "Application", "Drain", "Hot", "Lame", "Listen", "LoadError", "LogLevel", "Master",
    "MasterGone", "NotWarm", "Order", "Ready", "Refused", "Reopen", "Scoreboard", "Serve", "Settings", "Share", "Stacks", "Stop", "View", "Worker",
    "may_accept",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"prefork.{module}"), name)
    raise AttributeError(f"module 'prefork' has no attribute {name!r}")

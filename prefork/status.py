"""What a master knows of itself, as plain values: for the probes, the metrics and the control socket."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from prefork import scoreboard
from prefork.primitives import getpid, monotonic, monotonic_ns

if TYPE_CHECKING:
    from prefork.generation import Generation, WorkerProcess
    from prefork.master import Master

#: Why a worker was replaced. ``boot``: it never got ready; ``exit``, ``signal``: how it ended after that; ``leave``: it asked to
#: leave, which SIGTERM makes it do; ``oom``: the kernel killed it for memory; ``oversize``: it had more than ``kill_memory``; ``stopped``, ``hung``: see ``prefork.watch``; ``recycled``: see ``prefork.recycle``.
RESTART_REASONS = ("boot", "exit", "signal", "oom", "leave", "stopped", "hung", "oversize", "recycled")

#: Counters of the scoreboard that are worth reporting, by column.
COUNTERS = {
    "requests": scoreboard.REQUESTS,
    "errors": scoreboard.ERRORS,
    "accepted": scoreboard.ACCEPTED,
    "handed_over": scoreboard.HANDED_OVER,
    "adopted": scoreboard.ADOPTED,
    "refused": scoreboard.REFUSED_CALLS,
    "log_dropped": scoreboard.LOG_DROPPED,
    "client_calls": scoreboard.CLIENT_CALLS,
    "client_errors": scoreboard.CLIENT_ERRORS,
    "client_retries": scoreboard.CLIENT_RETRIES,
    "client_hedges": scoreboard.CLIENT_HEDGES,
}

#: Kinds of abuse of HTTP/2 that are counted, each in a column of its own from ``FIRST_ABUSE`` on; new ones go to the end.
ABUSES = (
    "resets",
    "stream_errors",
    "refused_streams",
    "continuations",
    "empty_frames",
    "header_list",
    "settings",
    "too_many_pings",
    "goaways",
    "priorities",
    "window_updates",
    "window_stall",
    "small_frames",
    "overhead",
)

GAUGES = {"connections": scoreboard.CONNECTIONS, "inflight": scoreboard.INFLIGHT}

_PAGE = os.sysconf("SC_PAGE_SIZE")


class History:
    """What has happened since the master started."""

    def __init__(self) -> None:
        self.reloads = {"success": 0, "failure": 0}
        self.reload_error: str | None = None
        """Why the last reload failed; None: it did not, or there was none."""
        self.config_time = time.time()
        """When the config that serves took effect, seconds since 1970."""
        self.restarts = dict.fromkeys(RESTART_REASONS, 0)

    def take_over(self, plain: dict[str, Any]) -> None:
        """Go on from a predecessor's ``vars``; what it did not count begins at zero."""
        for name, value in plain.items():
            own = getattr(self, name, None)
            if isinstance(own, dict):
                own.update(value)
            else:
                setattr(self, name, value)

    def reloaded(self, error: str | None) -> None:
        """A reload has ended."""
        self.reload_error = error
        self.reloads["failure" if error else "success"] += 1
        if error is None:
            self.config_time = time.time()


class Health(NamedTuple):
    """The answers to the probes: for each the reasons why not, and none means yes."""

    live: tuple[str, ...]
    ready: tuple[str, ...]
    started: tuple[str, ...]


def health(master: Master) -> Health:
    """Live: at least one worker is alive, or will not be again. Ready: new connections are served. Started: somebody ever served."""
    stopping = ("the server is stopping",) if master.is_stopping else ()
    alive = any(_pid(worker) is not None for worker in master.family.workers.values())
    current = master.current
    is_ready = current is not None and bool(current.ready)
    return Health(
        live=() if alive or stopping else ("no worker is alive",),
        ready=stopping
        + (("the server is drained (weego ctl resume ends that)",) if master.crew.is_lame else ())
        + (() if is_ready else ("no worker is ready",)),
        started=() if master.has_served else ("no worker has been ready yet",),
    )


def status(master: Master) -> dict[str, Any]:
    """The server as a whole."""
    current = master.current
    settings = current.settings if current is not None else None
    return {
        "name": settings.name if settings else None,
        "version": master.version,
        "pid": getpid(),
        "state": _state(master),
        "uptime": round(monotonic() - master.started, 3),
        "generation": current.number if current else 0,
        "workers": current.size if current else 0,
        "ready": len(current.ready) if current else 0,
        "base": master.bases.current.pid if master.bases.current is not None and master.bases.current.is_warm else None,
        "draining": sum(worker.is_draining for worker in master.family.workers.values()),
        "troubles": troubles(master),
        "listen": [listener.actual for listener in current.listeners] if current else [],
        "admin": master.address_of("admin"),
        "control": master.address_of("control"),
        "reloads": dict(master.history.reloads),
        "reload_error": master.history.reload_error,
        "restarts": dict(master.history.restarts),
    }


def workers(master: Master) -> list[dict[str, Any]]:
    """Each worker there is, oldest generation first, and then each slot whose next worker must wait."""
    everyone = sorted(master.family.workers.values(), key=lambda worker: (worker.generation.number, worker.slot))
    rows = [_worker(master, worker) for worker in everyone]
    if master.current is not None:
        rows += [_gap(master.current, slot) for slot in sorted(master.current.respawns)]
    return rows


def troubles(master: Master) -> list[str]:
    """What a person should look at, a line each."""
    found = []
    if master.current is not None:
        for slot, timer in sorted(master.current.respawns.items()):
            found.append(
                f"worker {slot} has died young {master.current.backoff(slot).young_deaths} times, the next one in"
                f" {max(0.0, timer.when - monotonic()):.1f} s; the last one {master.current.last_failures.get(slot, 'died')}"
            )
        if master.current.loader is None:
            found.append("there is no loader, so no worker can be replaced; a new one is on its way")
    for worker in master.family.workers.values():
        what = trouble(master, worker)
        if what is not None:
            found.append(f"{worker!r} is {what}")
    return found


def trouble(master: Master, worker: WorkerProcess) -> str | None:
    """What is wrong with a worker, in one word."""
    return "oversize" if worker.is_oversize else master.watch.trouble(worker)


def _gap(generation: Generation, slot: int) -> dict[str, Any]:
    """A slot with nobody in it."""
    return {
        "slot": slot,
        "generation": generation.number,
        "pid": None,
        "state": "waiting",
        "uptime": 0.0,
        "beat_age": None,
        **dict.fromkeys(GAUGES | COUNTERS, 0),
        "memory": 0,
        "retry_in": round(max(0.0, generation.respawns[slot].when - monotonic()), 3),
        "young_deaths": generation.backoff(slot).young_deaths,
        "failure": generation.last_failures.get(slot),
    }


def _worker(master: Master, worker: WorkerProcess) -> dict[str, Any]:
    row = master.board.row(worker.index)
    columns = GAUGES | COUNTERS
    return {
        "slot": worker.slot,
        "generation": worker.generation.number,
        "pid": _pid(worker),
        "state": trouble(master, worker) or scoreboard.STATE_NAMES[row[scoreboard.STATE]],
        "uptime": round(worker.uptime, 3),
        "beat_age": round((monotonic_ns() - row[scoreboard.BEAT_NS]) / 1e9, 3),
        **{name: row[column] for name, column in columns.items()},
        "memory": resident_bytes(_pid(worker)),
    }


def stats(master: Master) -> dict[str, Any]:
    """Sums over all workers; counters over the dead too, so they never go backwards."""
    board = master.board
    return {name: board.total(column) for name, column in (GAUGES | COUNTERS).items()} | {"memory": memory(master)}


def states(master: Master) -> dict[str, int]:
    """How many workers are in each state."""
    counts = dict.fromkeys(scoreboard.STATE_NAMES[1:], 0)
    for index in master.board.rows():
        if index in master.family.workers:
            counts[scoreboard.STATE_NAMES[master.board.row(index)[scoreboard.STATE]]] += 1
    return counts


def memory(master: Master) -> dict[str, int]:
    """Resident bytes of the master, the loaders, the base, each slot's worker, and those that drain. Shared pages count in each."""
    sums = {"master": resident_bytes(getpid()), "loader": 0}
    for loader in master.family.loaders:
        sums["loader"] += resident_bytes(loader.pid)
    for base in master.family.bases:
        sums["base"] = sums.get("base", 0) + resident_bytes(base.pid)
    for worker in workers_by_slot(master):
        name = "draining" if worker.is_draining else f"worker {worker.slot}"
        sums[name] = sums.get(name, 0) + resident_bytes(_pid(worker))
    return sums


def workers_by_slot(master: Master) -> list[WorkerProcess]:
    """All workers, in order of slots."""
    return sorted(master.family.workers.values(), key=lambda worker: worker.slot)


def resident_bytes(pid: int | None) -> int:
    """Resident memory of a process of ours; 0 if it is gone, or not born."""
    if pid is None:
        return 0
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _pid(worker: WorkerProcess) -> int | None:
    """It may have told its pid before its loader has."""
    return worker.pid or worker.told_pid


def _state(master: Master) -> str:
    if master.is_stopping:
        return "stopping"
    if master.current is None or not master.has_served:
        return "starting"
    if master.crew.is_lame:
        return "draining"
    if master.incoming is not None and not master.incoming.is_trial:
        return "reloading"
    serving = len(master.current.ready) + len(master.crew.replaces)  # who is to be replaced serves until then
    return "degraded" if serving < master.current.size else "serving"

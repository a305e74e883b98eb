"""What a master leaves to its successor in an upgrade, as plain values and open descriptors, and how the successor takes over.

The document is JSON in a memfd. Descriptors keep their numbers over the execution of the new program. Times are CLOCK_MONOTONIC, which
is the machine's and not the process's. What follows from other facts is not in it: timers are set anew from deadlines, pidfds opened anew
from pids, which are unreaped children's and so certainly theirs.

``FORMAT`` is the version of the document *and* of what master, loaders and workers say to each other (``channel``, ``handover``), for the children are the
old code's and hand their connections to those of the new: raise it with any change that an older one would not understand.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from prefork.application import Listen, Settings
from prefork.channel import Channel
from prefork.generation import Generation, LoaderProcess, WorkerProcess
from prefork.listeners import Listener
from prefork.pidfile import Pidfile
from prefork.primitives import RawSocket, monotonic, set_title
from prefork.scoreboard import Scoreboard

if TYPE_CHECKING:
    from prefork.generation import Process
    from prefork.master import Master

log = logging.getLogger("weego.master")

FORMAT = 1


class Unfit(Exception):
    """The new code cannot go on from there; the text says why."""


def encode(plain: dict[str, Any]) -> bytes:
    """For the memfd."""
    return json.dumps(plain).encode()


def read(fd: int) -> dict[str, Any]:
    """The document; its descriptor is closed. Raises Unfit."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    plain: dict[str, Any] = json.loads(data)
    if plain.get("format") != FORMAT:
        raise Unfit(
            f"it speaks format {FORMAT} and the running server {plain.get('format')}: restart the server instead"
        )
    return plain


def examine(plain: dict[str, Any]) -> None:
    """Try all that can be tried without being the master. Raises Unfit."""
    try:
        Scoreboard.attach(plain["board"]).close()
        generations = {each["number"]: _generation(each, None) for each in plain["generations"]}
        for each in plain["workers"]:
            _worker(each, generations[each["generation"]], Channel.closed())
        missing = {
            "listeners",
            "current",
            "loader",
            "visitors",
            "history",
            "systemd",
            "pidfile",
            "master",
        } - plain.keys()
        if missing:
            raise KeyError(*sorted(missing))
    except ValueError as error:
        raise Unfit(str(error)) from None
    except (KeyError, TypeError) as error:
        raise Unfit(
            f"it does not understand what the running server leaves: {error!r}; restart the server instead"
        ) from None


# -- leaving ----------------------------------------------------------------------------------------------------------------


def pack(master: Master) -> tuple[dict[str, Any], list[int]]:
    """The document, and the descriptors that must stay open."""
    current = master.current
    assert current is not None
    generations = {worker.generation.number: worker.generation for worker in master.family.workers.values()}
    generations[current.number] = current
    listeners = current.all_listeners
    fds = [master.board.fd, master.shared_fd, *(listener.fileno() for listener in listeners)]
    loader = current.loader
    pidfile = master.pidfile
    if pidfile is not None:
        fds.append(pidfile.fd)
    plain = {
        "format": FORMAT,
        "version": master.version,
        "board": master.board.fd,
        "shared": master.shared_fd,
        "listeners": [_plain_listener(listener) for listener in listeners],
        "generations": [_plain_generation(each, listeners) for each in generations.values()],
        "current": current.number,
        "loader": _plain_process(loader, fds) | {"is_current": loader.settings is current.settings} if loader is not None else None,
        "workers": [_plain_worker(worker, fds) for worker in master.family.workers.values()],
        "replaces": {slot: worker.index for slot, worker in master.crew.replaces.items()},
        "visitors": [
            each | {"door": purpose} for purpose, door in master.doors.items() for each in door.leave_visitors(fds)
        ],
        "history": vars(master.history),
        "systemd": master.systemd.leave(),
        "pidfile": {"path": pidfile.path, "fd": pidfile.fd} if pidfile is not None else None,
        "master": {
            "started": master.started,
            "umask": master.umask,
            "has_served": master.has_served,
            "last_number": master.reloads.last_number,
            "then_reload": master.upgrade.then_reload,
            "is_lame": master.crew.is_lame,
            "log_level": master.crew.log_level,
        },
    }
    return plain, fds


def _plain_listener(listener: Listener) -> dict[str, Any]:
    return {"fd": listener.fileno(), "listen": tuple(listener.listen), **listener.leave()}


def _plain_generation(generation: Generation, listeners: list[Listener]) -> dict[str, Any]:
    now = monotonic()
    return {
        "number": generation.number,
        "started": generation.started,
        "size": generation.size,
        "settings": generation.settings.encode().decode(),
        "listeners": [listeners.index(each) for each in generation.listeners],
        "doors": {purpose: listeners.index(each) for purpose, each in generation.doors.items()},
        "respawns": {slot: max(0.0, timer.when - now) for slot, timer in generation.respawns.items()},
        "young_deaths": {slot: backoff.young_deaths for slot, backoff in generation.backoffs.items()},
        "last_failures": generation.last_failures,
        "loader_deaths": generation.loader_backoff.young_deaths,
    }


def _plain_process(process: Process, fds: list[int]) -> dict[str, Any]:
    channel: dict[str, Any] | None = None
    if not process.channel.is_closed:
        fd, queue = process.channel.leave()
        fds.append(fd)
        fds.extend(each for _, many in queue for each in many)
        channel = {"fd": fd, "queue": [(data.decode(), many) for data, many in queue]}
    return {
        "pid": process.pid,
        "channel": channel,
        "started": process.started,
        "failure": process.failure,
        "is_doomed": process.is_doomed,
    }


def _plain_worker(worker: WorkerProcess, fds: list[int]) -> dict[str, Any]:
    if worker.stacks_fd >= 0:
        fds.append(worker.stacks_fd)
    return _plain_process(worker, fds) | {
        "stacks_fd": worker.stacks_fd,
        "is_current": worker.settings is worker.generation.settings,
        "generation": worker.generation.number,
        "slot": worker.slot,
        "index": worker.index,
        "holds_slot": worker.generation.workers.get(worker.slot) is worker,
        "is_ready": worker.is_ready,
        "is_leaving": worker.is_leaving,
        "is_draining": worker.is_draining,
        "is_oversize": worker.is_oversize,
        "drain_deadline": worker.drain_deadline,
        "told_pid": worker.told_pid,
    }


# -- taking over ------------------------------------------------------------------------------------------------------------


def take_over(master: Master, plain: dict[str, Any]) -> None:
    """Be what the predecessor was. The loop is there and turns afterwards; signals are blocked."""
    _take_facts(master, plain)
    listeners = [_listener(each) for each in plain["listeners"]]
    generations = {each["number"]: _generation(each, listeners) for each in plain["generations"]}
    current = master.current = generations[plain["current"]]
    set_title(f"weego: master [{current.settings.name}]")
    if plain["pidfile"] is not None:
        master.pidfile = Pidfile.inherited(plain["pidfile"]["path"], _own(plain["pidfile"]["fd"]))
    for each in plain["workers"]:
        _take_worker(master, generations[each["generation"]], each)
    for slot, index in plain["replaces"].items():
        master.crew.replaces[int(slot)] = master.family.workers[index]
    if plain["loader"] is not None:
        _take_loader(master, current, plain["loader"])
    else:
        master.loaders.revive(current)
    saved = next(each for each in plain["generations"] if each["number"] == current.number)
    for slot, delay in saved["respawns"].items():
        master.crew.plan_respawn(current, int(slot), delay)
    master.reloads.open_doors(current)
    for visitor in plain["visitors"]:
        master.doors[visitor["door"]].take_visitor(visitor, _own(visitor["fd"]))


def _take_facts(master: Master, plain: dict[str, Any]) -> None:
    facts = plain["master"]
    master.started, master.umask, master.has_served = facts["started"], facts["umask"], facts["has_served"]
    master.is_announced = True
    master.reloads.last_number = facts["last_number"]
    master.upgrade.then_reload = facts["then_reload"]
    master.crew.is_lame, master.crew.log_level = facts["is_lame"], facts["log_level"]
    master.history.take_over(plain["history"])


def _own(fd: int) -> int:
    """Ours, and nobody's who is executed by us."""
    os.set_inheritable(fd, False)
    return fd


def _listener(plain: dict[str, Any]) -> Listener:
    listener = Listener(Listen(*plain["listen"]), RawSocket(fileno=_own(plain["fd"])), None)
    listener.take_over(plain)
    return listener


def _generation(plain: dict[str, Any], listeners: list[Listener] | None) -> Generation:
    generation = Generation(plain["number"])
    generation.started, generation.size = plain["started"], plain["size"]
    generation.settings = Settings.decode(plain["settings"].encode())
    if listeners is not None:
        generation.listeners = [listeners[index] for index in plain["listeners"]]
        generation.doors = {purpose: listeners[index] for purpose, index in plain["doors"].items()}
    for slot, deaths in plain["young_deaths"].items():
        generation.backoff(int(slot)).young_deaths = deaths
    generation.last_failures = {int(slot): line for slot, line in plain["last_failures"].items()}
    generation.loader_backoff.young_deaths = plain["loader_deaths"]
    return generation


def _channel(plain: dict[str, Any] | None) -> Channel:
    if plain is None:
        return Channel.closed()
    queue = [(data.encode(), [_own(fd) for fd in fds]) for data, fds in plain["queue"]]
    return Channel(RawSocket(fileno=_own(plain["fd"])), queue)


def _take_process(process: Process, plain: dict[str, Any]) -> None:
    process.started, process.is_doomed = plain["started"], plain["is_doomed"]
    process.failure = tuple(plain["failure"]) if plain["failure"] else None


def _take_loader(master: Master, generation: Generation, plain: dict[str, Any]) -> None:
    loader = generation.loader = LoaderProcess(_channel(plain["channel"]), generation)
    _take_process(loader, plain)
    loader.is_loaded = True
    loader.settings = generation.settings if plain["is_current"] else generation.settings._replace()
    master.family.loaders.add(loader)
    master.family.listen(loader, lambda: master.loaders.read(loader))
    master.family.born(loader, plain["pid"])


def _worker(plain: dict[str, Any], generation: Generation, channel: Channel) -> WorkerProcess:
    worker = WorkerProcess(channel, generation, plain["slot"], plain["index"])
    _take_process(worker, plain)
    for fact in ("is_ready", "is_leaving", "is_draining", "is_oversize", "told_pid"):
        setattr(worker, fact, plain[fact])
    if not plain["is_current"]:
        worker.settings = worker.settings._replace()  # others than its generation's: it is told when it is ready
    return worker


def _take_worker(master: Master, generation: Generation, plain: dict[str, Any]) -> None:
    worker = _worker(plain, generation, _channel(plain["channel"]))
    if plain["stacks_fd"] >= 0:
        worker.stacks_fd = _own(plain["stacks_fd"])
    master.family.workers[worker.index] = worker
    if plain["holds_slot"]:
        generation.workers[worker.slot] = worker
    master.family.listen(worker, lambda: master.crew.read(worker))
    master.family.born(worker, plain["pid"])
    if plain["drain_deadline"] is not None:
        master.family.kill_after(worker, plain["drain_deadline"])
    elif worker.is_draining:  # it was about to be ended
        master.family.kill_after(worker, monotonic())
    if not worker.is_ready:
        master.crew.limit_boot(worker)

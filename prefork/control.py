"""The control socket: questions and orders for the master, one JSON object per line, one in answer.

    {"do": "status"}                  → {"ok": true, "result": {…}}
    {"do": "reload", "wait": true}    → {"ok": false, "error": "conf/server.toml:12: …"}

Who may speak is decided twice: the socket's file has mode 0600, and the
kernel tells the uid at the other end, which must be the master's or root's.
"""

from __future__ import annotations

import _socket
import json
import os
import struct
from typing import TYPE_CHECKING, Any

from prefork import status
from prefork.application import MAX_WORKERS
from prefork.door import MAX_REQUEST_BYTES, Door

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefork.changes import Change
    from prefork.door import Visitor
    from prefork.generation import Generation, WorkerProcess
    from prefork.loop import Loop
    from prefork.master import Master

#: struct ucred: pid, uid, gid (man 7 unix).
_UCRED = struct.Struct("3i")


#: The log names it so.
WHO = "control socket"

LEVELS = ("debug", "info", "warning", "error")

#: What the arguments of a command may be.
_KINDS = {bool: "true or false", int: "a number", str: "a text"}

#: A command's result when it holds the visitor and answers later.
_LATER = object()


class _Refused(Exception):
    """The command cannot be carried out; the text says why."""


class Control(Door):
    """The door for people and their scripts. A command is a method, its keyword arguments, all flags, are those of the request."""

    def __init__(self, loop: Loop, master: Master) -> None:
        super().__init__(loop)
        self._master = master
        self._commands: dict[str, tuple[Callable[..., object], dict[str, type]]] = {
            "status": (lambda _: status.status(master), {}),
            "workers": (lambda _: status.workers(master), {}),
            "stats": (lambda _: status.stats(master), {}),
            "health": (lambda _: status.health(master)._asdict(), {}),
            "config": (self._config, {}),
            "stacks": (self._stacks, {"slot": int}),
            "view": (self._view, {}),
            "reload": (self._reload, {"wait": bool, "full": bool}),
            "diff": (self._diff, {}),
            "upgrade": (self._upgrade, {"reload": bool}),
            "drain": (self._drain, {}),
            "resume": (self._resume, {}),
            "scale": (self._scale, {"by": int, "to": int}),
            "restart_worker": (self._restart_worker, {"slot": int}),
            "log_level": (self._log_level, {"level": str}),
            "reopen": (self._reopen, {}),
            "stop": (self._stop, {"fast": bool}),
        }

    def greet(self, visitor: Visitor) -> None:
        """Who is there? Somebody else's user is told to go."""
        credentials = visitor.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
        _pid, uid, _gid = _UCRED.unpack(credentials)
        if uid not in (0, os.geteuid()):
            self.answer(visitor, _failure(f"uid {uid} may not speak here, only uid {os.geteuid()} and root"), last=True)

    def serve(self, visitor: Visitor, request: bytes) -> None:
        """Answer one line."""
        try:
            command, flags = self._parse(request)
            result = command(visitor, **flags)
        except _Refused as error:
            self.answer(visitor, _failure(str(error)), last=False)
            return
        if result is not _LATER:
            self.answer(visitor, _success(result), last=False)

    def refuse(self, visitor: Visitor) -> None:
        """The line is too long."""
        self.answer(visitor, _failure(f"a request may have {MAX_REQUEST_BYTES} bytes"), last=True)

    def _parse(self, request: bytes) -> tuple[Callable[..., object], dict[str, Any]]:
        """Raises _Refused."""
        try:
            flags = json.loads(request)
            name = flags.pop("do")
        except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
            raise _Refused('a request is a JSON object on one line, such as {"do": "status"}') from None
        if not isinstance(name, str) or name not in self._commands:
            raise _Refused(f"unknown command {json.dumps(name)}; there are {', '.join(self._commands)}")
        command, known = self._commands[name]
        for flag, value in flags.items():
            if flag not in known:
                raise _Refused(f"{name} takes no {json.dumps(flag)}")
            if type(value) is not known[flag]:
                raise _Refused(f"{name}: {flag} is {_KINDS[known[flag]]}")
        return command, flags

    # -- commands ---------------------------------------------------------------------------------------------------------

    def _config(self, _visitor: Visitor) -> object:
        return dict(self._current().settings.config)

    def _reload(self, visitor: Visitor, *, wait: bool = False, full: bool = False) -> object:
        if self._master.is_stopping:
            raise _Refused("the server is stopping")
        if not wait:
            self._master.reloads.ask(WHO, full=full)
            return {}

        self.hold(visitor, "reload")
        self._master.reloads.ask(WHO, lambda error: self._tell(visitor, error), full=full)
        return _LATER

    def _diff(self, visitor: Visitor) -> object:
        self._current()
        if self._master.incoming is not None:
            raise _Refused("a reload is under way; ask again when it has ended")

        def told(changes: list[Change], error: str | None) -> None:
            found = [change._asdict() for change in changes]
            self.answer_held(visitor, _failure(error) if error else _success(found))

        self.hold(visitor)
        self._master.reloads.ask_changes(told)
        return _LATER

    def _upgrade(self, visitor: Visitor, *, reload: bool = False) -> object:
        self.hold(visitor, "upgrade")
        self._master.upgrade.ask(WHO, lambda error: self._tell(visitor, error), then_reload=reload)
        return _LATER

    def release(self, awaits: str) -> Callable[[str | None], None]:
        """A call that answers the visitors who wait for that now."""
        visitors = [visitor for visitor in self._visitors.values() if visitor.awaits == awaits]

        def tell(error: str | None) -> None:
            for visitor in visitors:
                self._tell(visitor, error)

        return tell

    def _tell(self, visitor: Visitor, error: str | None) -> None:
        """How it ended, what somebody has waited for."""
        self.answer_held(visitor, _failure(error) if error else _success(status.status(self._master)))

    def _stop(self, _visitor: Visitor, *, fast: bool = False) -> object:
        self._master.ask_stop(WHO, fast=fast)
        return {}

    def _drain(self, _visitor: Visitor) -> object:
        self._current()
        self._master.crew.set_lame(WHO, on=True)
        return {}

    def _resume(self, _visitor: Visitor) -> object:
        self._current()
        self._master.crew.set_lame(WHO, on=False)
        return {}

    def _scale(self, _visitor: Visitor, *, by: int | None = None, to: int | None = None) -> object:
        current = self._current()
        if to is not None:
            if by is not None or not 1 <= to <= MAX_WORKERS:
                raise _Refused(f"scale: to {to} workers is out of range, use 1 to {MAX_WORKERS}")
            by = to - current.size
        if by is None:
            raise _Refused("scale: say by how many workers, or to how many")
        self._master.resize(by, WHO)
        return {"workers": current.size, "after_reload": self._master.incoming is not None}

    def _restart_worker(self, _visitor: Visitor, *, slot: int | None = None) -> object:
        worker = self._worker(slot)
        if not worker.is_ready or worker.is_leaving:
            raise _Refused(f"worker {slot} is {'leaving' if worker.is_leaving else 'starting'} already")
        self._master.crew.replace_first(worker, "is restarted by weego ctl", "leave")
        return {"pid": worker.pid}

    def _stacks(self, visitor: Visitor, *, slot: int | None = None) -> object:
        worker = self._worker(slot)

        def told(text: str, error: str | None) -> None:
            found = {"slot": slot, "pid": worker.pid, "stacks": text}
            self.answer_held(visitor, _failure(f"worker {slot}: {error}") if error else _success(found))

        self.hold(visitor)
        self._master.stacks.ask(worker, told)
        return _LATER

    def _view(self, visitor: Visitor) -> object:
        """What all workers that serve have to tell of themselves."""
        workers = [worker for worker in self._current().workers.values() if worker.is_ready]
        if not workers:
            return []
        self.hold(visitor)
        self._master.views.ask(workers, lambda found: self.answer_held(visitor, _success(found)))
        return _LATER

    def _log_level(self, _visitor: Visitor, *, level: str | None = None) -> object:
        self._current()
        if level not in LEVELS:
            raise _Refused(f"log_level: {json.dumps(level)} is none; there are {', '.join(LEVELS)}")
        self._master.crew.set_log_level(level)
        return {}

    def _reopen(self, _visitor: Visitor) -> object:
        self._master.reopen(WHO)
        return {}

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _current(self) -> Generation:
        """The generation that serves. Raises _Refused."""
        if self._master.is_stopping or self._master.current is None:
            raise _Refused(f"the server is {'stopping' if self._master.is_stopping else 'starting'}")
        return self._master.current

    def _worker(self, slot: int | None) -> WorkerProcess:
        """Who holds a slot, or will leave it. Raises _Refused."""
        current = self._current()
        worker = current.workers.get(-1 if slot is None else slot) or self._master.crew.replaces.get(-1 if slot is None else slot)
        if worker is None:
            raise _Refused(f"no worker {slot}; there are {', '.join(map(str, sorted(current.workers))) or 'none'}")
        return worker


def _success(result: object) -> bytes:
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"


def _failure(error: str) -> bytes:
    return json.dumps({"ok": False, "error": error}).encode() + b"\n"

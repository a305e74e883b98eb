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
from typing import TYPE_CHECKING

from prefork import status
from prefork.door import MAX_REQUEST_BYTES, Door

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefork.door import Visitor
    from prefork.loop import Loop
    from prefork.master import Master

#: struct ucred: pid, uid, gid (man 7 unix).
_UCRED = struct.Struct("3i")


#: A command's result when it holds the visitor and answers later.
_LATER = object()


class _Refused(Exception):
    """The command cannot be carried out; the text says why."""


class Control(Door):
    """The door for people and their scripts. A command is a method, its keyword arguments, all flags, are those of the request."""

    def __init__(self, loop: Loop, master: Master) -> None:
        super().__init__(loop)
        self._master = master
        self._commands: dict[str, tuple[Callable[..., object], tuple[str, ...]]] = {
            "status": (lambda _: status.status(master), ()),
            "workers": (lambda _: status.workers(master), ()),
            "stats": (lambda _: status.stats(master), ()),
            "health": (lambda _: status.health(master)._asdict(), ()),
            "reload": (self._reload, ("wait",)),
            "stop": (self._stop, ("fast",)),
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

    def _parse(self, request: bytes) -> tuple[Callable[..., object], dict[str, bool]]:
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
            if not isinstance(value, bool):
                raise _Refused(f"{name}: {flag} is true or false")
        return command, flags

    def _reload(self, visitor: Visitor, *, wait: bool = False) -> object:
        if self._master.is_stopping:
            raise _Refused("the server is stopping")
        if not wait:
            self._master.ask_reload("control socket")
            return {}

        def done(error: str | None) -> None:
            self.answer_held(visitor, _failure(error) if error else _success(status.status(self._master)))

        self.hold(visitor)
        self._master.ask_reload("control socket", done)
        return _LATER

    def _stop(self, _visitor: Visitor, *, fast: bool = False) -> object:
        self._master.ask_stop("control socket", fast=fast)
        return {}


def _success(result: object) -> bytes:
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"


def _failure(error: str) -> bytes:
    return json.dumps({"ok": False, "error": error}).encode() + b"\n"

"""Sockets that systemd holds for us: opened by it before we start (sd_listen_fds(3)), or kept by it while we are away (its fd store).

    [Socket] ListenStream=…         the socket is there before the server, and connections wait in it
    FileDescriptorStoreMax=16       what the master has bound is given to systemd as well, so that connections wait in it, and are not refused,
                                    even while a master that was killed is replaced

What is inherited is matched to ``[[listen]]`` and the rest by its address. What nobody wants is closed. The path of a unix socket that systemd made is
never unlinked.
"""

from __future__ import annotations

import _socket
import logging
import os
from typing import TYPE_CHECKING, Any

from prefork.primitives import RawSocket, close_quietly, getpid

if TYPE_CHECKING:
    from prefork.listeners import Place

log = logging.getLogger("weego.master")

#: SD_LISTEN_FDS_START.
FIRST_FD = 3

#: Name of our descriptors in the store; that of the others comes from a unit.
STORED = "weego"


class Inherited:
    """The listening sockets this process was started with."""

    def __init__(self) -> None:
        self._found: list[tuple[RawSocket, bool]] = []
        is_ours = os.environ.pop("LISTEN_PID", "") == str(getpid())
        count = os.environ.pop("LISTEN_FDS", "")
        names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
        if not is_ours or not count.isdigit():
            return
        for number in range(int(count)):
            fd = FIRST_FD + number
            name = names[number] if number < len(names) else ""
            try:
                os.set_inheritable(fd, False)
                sock = RawSocket(fileno=fd)
            except OSError as error:
                log.warning("systemd passes descriptor %d (%s), which is no socket: %s", fd, name, error.strerror)
                close_quietly(fd)
                continue
            if sock.type == _socket.SOCK_STREAM and sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
                sock.setblocking(False)
                self._found.append((sock, name == STORED))
            else:
                log.warning("systemd passes descriptor %d (%s), which is no listening stream socket; closed", fd, name)
                sock.close()

    def take(self, place: Place) -> tuple[RawSocket, bool] | None:
        """The socket that listens at ``place``, and whether it was once our own; None: there is none."""
        family, target = place
        for index, (sock, is_stored) in enumerate(self._found):
            if sock.family == family and _is_same(sock.getsockname(), target):
                del self._found[index]
                return sock, is_stored
        return None

    def close_rest(self) -> None:
        """All that is wanted has been taken."""
        for sock, is_stored in self._found:
            if not is_stored:  # of our own: an address that is no longer configured
                log.warning("systemd passes a socket that listens on %s, which no [[listen]] names; closed", _shown(sock))
            sock.close()
        self._found.clear()

    def fds(self) -> list[int]:
        """Descriptors that no child may inherit."""
        return [sock.fileno() for sock, _ in self._found]


def _is_same(name: Any, target: Any) -> bool:
    if isinstance(name, (str, bytes)):
        return bool(os.fsdecode(name) == target)
    host, port = target[:2]
    return bool(port != 0 and (host, port) == (name[0], name[1]))  # port 0 is any, and so none that could be meant


def _shown(sock: RawSocket) -> str:
    name = sock.getsockname()
    return f"unix://{os.fsdecode(name)}" if isinstance(name, (str, bytes)) else f"tcp://{name[0]}:{name[1]}"

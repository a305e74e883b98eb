"""Listening sockets: made once by the master, shared by every worker, kept over reloads.

Rules
 1. A listener lives until no generation wants its address. A reload that keeps the address keeps the very socket, and
    with it the connections in its queue.
 2. It is closed, never shut down: ``shutdown`` kills it for every process at once and resets what is queued.
 3. A path of a unix socket is taken over only when it is a socket that nobody listens on. It is unlinked by the master
    that bound it, and only while it is still the same file.
 4. Names are resolved by the loader, for a resolver may block and the master may not.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from prefork.application import Listen, LoadError
from prefork.primitives import RawSocket, getaddrinfo, make_parent

if TYPE_CHECKING:
    from collections.abc import Iterable

# <asm-generic/socket.h>
_SO_DETACH_FILTER = 27

_FORMS = "use tcp://host:port or unix:///path"

#: A place to bind, as it travels from loader to master: address family and what ``bind`` takes.
Place = tuple[int, Any]


class BindError(Exception):
    """An address cannot be listened on; the text says which, why, and what to do."""


def resolve(listen: Listen) -> Place:
    """The place an address names. May ask a name server. Raises LoadError if the address is none."""
    address = listen.address
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        if not path.startswith("/"):
            raise LoadError(f"{address}: a unix socket needs an absolute path, as in unix:///run/echo.sock")
        if len(os.fsencode(path)) > 107:  # sizeof(sockaddr_un.sun_path) - 1
            raise LoadError(f"{address}: the path is longer than the 107 bytes a unix socket's may have")
        return _socket.AF_UNIX, path
    if not address.startswith("tcp://"):
        raise LoadError(f"{address}: unknown kind of address, {_FORMS}")
    host, colon, port = address.removeprefix("tcp://").rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise LoadError(f"{address}: not an address, {_FORMS}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise LoadError(f"{address}: an IPv6 host goes into brackets, as in tcp://[::1]:{port}")
    name = None if host == "*" else host.strip("[]")
    try:
        found = getaddrinfo(name, int(port), 0, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE)
    except OSError as error:
        raise LoadError(f"{address}: unknown host {host!r} ({error.strerror})") from None
    found.sort(key=lambda entry: entry[0] != _socket.AF_INET)  # "localhost" is 127.0.0.1 to most clients
    return int(found[0][0]), found[0][4]


class Listener:
    """One bound, listening socket."""

    def __init__(self, listen: Listen, sock: RawSocket, path: str | None) -> None:
        self.listen = listen
        self.sock = sock
        self._path = path
        self.is_activated = False
        self._identity = _identity(path) if path else None

    def __repr__(self) -> str:
        return f"<Listener {self.actual}>"

    def fileno(self) -> int:
        """The descriptor, which every worker gets a copy of."""
        return self.sock.fileno()

    @property
    def actual(self) -> str:
        """The address with the port the kernel chose, if it was to choose."""
        if self._path is not None:
            return f"unix://{self._path}"
        host, port = self.sock.getsockname()[:2]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    @property
    def queued(self) -> int | None:
        """Connections that wait to be accepted; None: the kernel does not say, as for unix sockets."""
        if self._path is not None:
            return None
        # struct tcp_info of <linux/tcp.h>: of a listening socket tcpi_unacked is the length of the queue.
        return int.from_bytes(self.sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 32)[24:28], sys.byteorder)

    def disown(self) -> None:
        """The socket is systemd's: it outlives us, and its path is not ours to unlink."""
        self.is_activated = True
        self._identity = None

    def leave(self) -> dict[str, Any]:
        """What a successor of this process must know besides the descriptor: plain values for its ``take_over``."""
        return {"path": self._path, "identity": self._identity, "is_activated": self.is_activated}

    def take_over(self, plain: dict[str, Any]) -> None:
        """The reverse."""
        self._path, self.is_activated = plain["path"], plain["is_activated"]
        self._identity = tuple(plain["identity"]) if plain["identity"] else None

    def adjust(self, listen: Listen) -> None:
        """Take the backlog and mode of a new generation for the same address."""
        if listen.backlog != self.listen.backlog:
            self.sock.listen(listen.backlog)
        if self._path is not None and listen.mode is not None and listen.mode != self.listen.mode:
            os.chmod(self._path, listen.mode)
        self.listen = listen

    def close(self) -> None:
        """Close this copy and unlink the path, if it is still ours. Workers that hold a copy may go on accepting."""
        if self._path is not None and self._identity is not None and _identity(self._path) == self._identity:
            os.unlink(self._path)
        self._identity = None
        self.sock.close()


def bind(listen: Listen, place: Place, owner: tuple[int, int] | None = None) -> Listener:
    """Bind and listen; the socket is non-blocking and close-on-exec. ``owner``: user and group that the file of a unix socket
    gets. Raises BindError.
    """
    family, target = place
    if family == _socket.AF_UNIX:
        make_parent(target)
        _clear_path(listen.address, target)
    elif isinstance(target, list):  # JSON has no tuples
        target = tuple(target)
    sock = RawSocket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    try:
        if family == _socket.AF_UNIX:
            _bind_path(sock, target, listen.mode)
            if owner is not None:
                os.chown(target, *owner, follow_symlinks=False)
        else:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)  # past TIME_WAIT, not past a listener
            if family == _socket.AF_INET6:
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            sock.bind(target)
        sock.listen(listen.backlog)
    except OSError as error:
        sock.close()
        raise BindError(_why(listen.address, error)) from None
    return Listener(listen, sock, target if family == _socket.AF_UNIX else None)


def take(listen: Listen, sock: RawSocket, *, is_stored: bool) -> Listener:
    """A listener of a socket that systemd passed. ``is_stored``: it was bound by a master before us, so its path is ours to unlink."""
    try:
        # A worker that outlived its master may have made it deaf, as one does that closes for good (``closing``).
        sock.setsockopt(_socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError:
        pass
    sock.listen(listen.backlog)
    path = sock.getsockname() if sock.family == _socket.AF_UNIX else None
    listener = Listener(listen, sock, os.fsdecode(path) if path is not None else None)
    if not is_stored:
        listener.disown()
    return listener


def close_all(listeners: Iterable[Listener]) -> None:
    """Close each."""
    for listener in listeners:
        listener.close()


def _bind_path(sock: RawSocket, path: str, mode: int | None) -> None:
    if mode is None:
        sock.bind(path)
        return
    before = os.umask(0o777 & ~mode)  # so that the socket never has more permissions than it should
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    os.chmod(path, mode)


def _clear_path(address: str, path: str) -> None:
    """Unlink a socket file that nobody listens on. Raises BindError if what is there is anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BindError(_why(address, error)) from None
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(f"cannot listen on {address}: the file there is not a socket; move it, or choose another path")
    probe = RawSocket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    try:
        probe.connect(path)
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:  # stale: its owner is gone
            os.unlink(path)
            return
        if error.errno == errno.ENOENT:
            return
        if error.errno not in (errno.EAGAIN, errno.EINPROGRESS, errno.EPROTOTYPE):
            raise BindError(_why(address, error)) from None
    finally:
        probe.close()
    raise BindError(f"cannot listen on {address}: another process listens there; stop it, or choose another path")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _why(address: str, error: OSError) -> str:
    advice = {
        errno.EADDRINUSE: "; another process listens there: stop it, or choose another address",
        errno.EADDRNOTAVAIL: "; this machine has no such address",
        errno.EACCES: "; ports below 1024 need root or CAP_NET_BIND_SERVICE" if address.startswith("tcp") else "",
        errno.ENOENT: "; create its folder first",
    }
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return f"cannot listen on {address}: {reason}{advice.get(error.errno or 0, '')}"

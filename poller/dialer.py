"""Making connections: one way that waits with the hub, and one that blocks the thread.

Both give a connected descriptor with Nagle's delay off, or raise Unavailable with `sent` False: nothing has left, the call may be repeated
anywhere. Every address a name resolves to is tried in the resolver's order until one answers.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Callable, Iterable
from typing import Any

from codec.errors import DeadlineExceeded, Unavailable
from poller.address import Address
from poller.clock import monotonic

__all__ = ["connect_blocking", "connect_with_hub"]

_WRITE = 2  # gevent's bit for "writable"
_IN_PROGRESS = (errno.EINPROGRESS, errno.EAGAIN, errno.EWOULDBLOCK)


def connect_blocking(address: Address, deadline: float) -> int:
    """A connected, blocking descriptor; waits in this thread until `deadline` (monotonic seconds)."""

    def finish(sock: _socket.socket, target: Any) -> int:
        sock.settimeout(_left(address, deadline))
        try:
            return sock.connect_ex(target)
        except TimeoutError:
            return errno.ETIMEDOUT

    fd = _first(address, deadline, _socket.getaddrinfo, finish)
    os.set_blocking(fd, True)
    return fd


def connect_with_hub(address: Address, deadline: float, hub: Any) -> int:
    """A connected, non-blocking descriptor; this greenlet waits until `deadline`, the others go on."""

    def finish(sock: _socket.socket, target: Any) -> int:
        sock.setblocking(False)
        error = sock.connect_ex(target)
        if error not in _IN_PROGRESS:
            return error
        if error != errno.EINPROGRESS:
            return error  # a unix socket whose queue is full: there is nothing to wait for
        if not _wait_writable(hub, sock.fileno(), _left(address, deadline)):
            return errno.ETIMEDOUT
        return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)

    return _first(address, deadline, hub.resolver.getaddrinfo, finish)


def _first(
    address: Address, deadline: float, resolve: Callable[..., Any], finish: Callable[[_socket.socket, Any], int]
) -> int:
    last = "no address"
    for family, target in _targets(address, resolve):
        sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            error = finish(sock, target)
            if error == 0:
                if family != _socket.AF_UNIX:
                    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                return sock.detach()
        finally:
            sock.close()
        if error == errno.ETIMEDOUT:
            _left(address, deadline)  # raises when it was our deadline and not the kernel's
        last = os.strerror(error).lower()
    raise Unavailable(f"cannot connect to {address.text}: {last}", sent=False, instance=address.text)


def _targets(address: Address, resolve: Callable[..., Any]) -> Iterable[tuple[int, Any]]:
    if address.is_unix:
        return [(int(_socket.AF_UNIX), address.path)]
    try:
        found = resolve(address.host, address.port, address.family, _socket.SOCK_STREAM)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(f"cannot resolve {address.host!r}: {reason}", sent=False, instance=address.text) from None
    return [(int(entry[0]), entry[4]) for entry in found]


def _left(address: Address, deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise DeadlineExceeded(f"no connection to {address.text} in time", instance=address.text)
    return left


def _wait_writable(hub: Any, fd: int, seconds: float) -> bool:
    from gevent.timeout import Timeout

    watcher = hub.loop.io(fd, _WRITE)
    timeout = Timeout(seconds)
    timeout.start()
    try:
        hub.wait(watcher)
    except Timeout as expired:
        if expired is not timeout:
            raise
        return False
    else:
        return True
    finally:
        timeout.close()
        watcher.close()

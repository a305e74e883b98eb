"""Making connections, and the TLS on them: one way that waits with the hub, and one that blocks the thread.

Both give a connected descriptor with Nagle's delay off, or raise Unavailable with `sent` False: nothing has left, the call may be repeated
anywhere. Every address a name resolves to is tried in the resolver's order until one answers; each has its share of the time that is left,
so that one which never answers does not cost the others their turn.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from codec.errors import Origin, Unavailable
from poller.address import Address
from poller.clock import monotonic
from poller.liveness import probe

if TYPE_CHECKING:
    from poller.tls import TLS, SecureSocket, Session

__all__ = ["connect_blocking", "connect_with_hub", "secure_blocking", "secure_with_hub"]

_READ, _WRITE = 1, 2  # gevent's bits for "readable" and "writable"
_READ_SIZE = 65536
_IN_PROGRESS = (errno.EINPROGRESS, errno.EAGAIN, errno.EWOULDBLOCK)


def connect_blocking(address: Address, deadline: float) -> int:
    """A connected, blocking descriptor; waits in this thread until `deadline` (monotonic seconds).

    Only the resolver may take longer: nothing can interrupt it.
    """

    def finish(sock: _socket.socket, target: Any, seconds: float) -> int:
        sock.settimeout(seconds)
        until = monotonic() + seconds
        error = sock.connect_ex(target)
        # The socket module says "try again" when its own timeout has passed.
        return errno.ETIMEDOUT if error in _IN_PROGRESS and monotonic() >= until else error

    fd = _first(address, deadline, _socket.getaddrinfo, finish)
    os.set_blocking(fd, True)
    return fd


def connect_with_hub(address: Address, deadline: float, hub: Any) -> int:
    """A connected, non-blocking descriptor; this greenlet waits until `deadline`, the others go on."""

    def finish(sock: _socket.socket, target: Any, seconds: float) -> int:
        sock.setblocking(False)
        error = sock.connect_ex(target)
        if error != errno.EINPROGRESS:
            return error  # "try again" is a unix socket whose queue is full: there is nothing to wait for
        if not _wait_for(hub, _WRITE, sock.fileno(), seconds):
            return errno.ETIMEDOUT
        return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)

    def resolve(host: str, port: int, family: int, kind: int) -> Any:
        from gevent.timeout import Timeout

        # An address in figures needs no resolver, whose threads cost more than the connection.
        with contextlib.suppress(OSError):
            return _socket.getaddrinfo(host, port, family, kind, 0, _socket.AI_NUMERICHOST)
        with Timeout(max(0.0, deadline - monotonic()), _OutOfTime):
            return hub.resolver.getaddrinfo(host, port, family, kind)

    return _first(address, deadline, resolve, finish)


def secure_with_hub(fd: int, tls: TLS, address: Address, deadline: float, hub: Any, protocols: Sequence[str] = ()) -> Session:
    """Do the TLS handshake on the connected, non-blocking `fd`, which stays the caller's. Raises Unavailable, with `sent` False."""
    sock = _socket.socket(fileno=fd)

    def wait(kind: int) -> None:
        left = deadline - monotonic()
        if left <= 0 or not _wait_for(hub, kind, fd, left):
            raise _OutOfTime

    def receive() -> bytes:
        while True:
            try:
                return sock.recv(_READ_SIZE)
            except BlockingIOError:
                wait(_READ)

    def send(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[sock.send(rest, _socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                wait(_WRITE)

    try:
        return _secure(tls, address, protocols, receive, send)
    finally:
        sock.detach()


def secure_blocking(fd: int, tls: TLS, address: Address, deadline: float, protocols: Sequence[str] = ()) -> SecureSocket:
    """Do the TLS handshake on the connected, blocking `fd`, which the SecureSocket owns from now on. Raises Unavailable, with `sent` False."""
    from poller.tls import SecureSocket

    sock = _socket.socket(fileno=fd)

    def wait() -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise _OutOfTime
        sock.settimeout(left)

    def receive() -> bytes:
        wait()
        return sock.recv(_READ_SIZE)

    def send(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            wait()
            rest = rest[sock.send(rest, _socket.MSG_NOSIGNAL) :]

    try:
        return SecureSocket(sock, _secure(tls, address, protocols, receive, send))
    except BaseException:
        sock.close()
        raise


def _secure(
    tls: TLS, address: Address, protocols: Sequence[str], receive: Callable[[], bytes], send: Callable[[bytes], None]
) -> Session:
    from poller.tls import TlsError, handshake  # only who wants TLS pays for OpenSSL

    try:
        session = tls.session(address.host, protocols)
        handshake(session, receive, send)
    except TlsError as error:
        raise _failure(address, f"cannot connect to {address.text}: TLS: {error}") from None
    except TimeoutError:
        raise _failure(address, f"cannot connect to {address.text}: TLS: no answer in time") from None
    except OSError as error:
        raise _failure(address, f"cannot connect to {address.text}: TLS: {_reason(error)}") from None
    return session


class _OutOfTime(TimeoutError):
    """The resolver, or the other side of a handshake, was not done in time."""

    def __init__(self, *_: object) -> None:
        super().__init__(errno.ETIMEDOUT, "no answer in time")


def _first(
    address: Address, deadline: float, resolve: Callable[..., Any], finish: Callable[[_socket.socket, Any, float], int]
) -> int:
    last = "no address"
    targets = _targets(address, resolve)
    for index, (family, target) in enumerate(targets):
        left = deadline - monotonic()
        if left <= 0:
            last = "no answer in time"
            break
        try:
            sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        except OSError as error:  # out of descriptors, or a family this machine does not have
            last = _reason(error)
            continue
        try:
            number = finish(sock, target, left / (len(targets) - index))
            if number == 0:
                if family != _socket.AF_UNIX:
                    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                    probe(sock)
                return sock.detach()
            last = "no answer in time" if number == errno.ETIMEDOUT else os.strerror(number).lower()
        except OSError as error:
            last = _reason(error)
        finally:
            sock.close()
    raise _failure(address, f"cannot connect to {address.text}: {last}")


def _targets(address: Address, resolve: Callable[..., Any]) -> list[tuple[int, Any]]:
    if address.is_unix:
        return [(int(_socket.AF_UNIX), address.path)]
    try:
        found = resolve(address.host, address.port, address.family, _socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _failure(address, f"cannot resolve {address.host!r}: {_reason(error)}") from None
    return [(int(entry[0]), entry[4]) for entry in found]


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _failure(address: Address, text: str) -> Unavailable:
    return Unavailable(text, sent=False, instance=address.text, origin=Origin.NETWORK)


def _wait_for(hub: Any, kind: int, fd: int, seconds: float) -> bool:
    from gevent.timeout import Timeout

    watcher = hub.loop.io(fd, kind)
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

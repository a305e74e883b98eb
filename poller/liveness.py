"""Noticing that the other side has vanished, without a word from it: a power cut, a pulled cable, a firewall that forgot.

A closed socket says so (FIN, reset). A vanished peer says nothing, and without probes a connection to it stays open for ever, and a call on it
waits for its whole deadline. Two clocks of the kernel end that: keepalive asks an idle connection whether it is there, and TCP_USER_TIMEOUT
bounds how long sent bytes may stay without an acknowledgement (RFC 5482), which by default is a quarter of an hour of retransmissions.
"""

from __future__ import annotations

import _socket
import contextlib
from typing import Final

__all__ = ["IDLE", "INTERVAL", "PROBES", "USER_TIMEOUT", "probe", "probe_every"]

# Seconds without traffic before the first probe, between probes, and how many may go unanswered: a peer is missed after about a minute.
# gRPC's servers probe no more often than every ten seconds; NATs forget idle connections after some minutes.
IDLE: Final = 30
INTERVAL: Final = 10
PROBES: Final = 3
# Seconds that sent bytes may wait for an acknowledgement: as long as an answer may stay untaken (`weego.serving.WRITE_TIMEOUT`).
USER_TIMEOUT: Final = 30
# The same, however often a peer is asked: a few lost packets are no vanished peer.
LEAST_USER_TIMEOUT: Final = 5


def probe(sock: _socket.socket, idle: float = IDLE, interval: float = INTERVAL, user_timeout: float = USER_TIMEOUT) -> None:
    """Have the kernel watch a TCP socket's peer; seconds. On a listening socket: those of all connections it will accept, which inherit it (Linux)."""
    if sock.family not in (_socket.AF_INET, _socket.AF_INET6):
        return
    # A socket that is no TCP socket, or is going already: nothing to watch.
    with contextlib.suppress(OSError):
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, _whole(idle))
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, _whole(interval))
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, PROBES)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))


def probe_every(fd: int, seconds: float) -> None:
    """Have the kernel ask the peer of a descriptor, which stays the caller's, after so many seconds without traffic; it is missed after twice as many."""
    sock = _socket.socket(fileno=fd)
    try:
        # With a user timeout, that and not the count of probes decides when it is enough (tcp(7)).
        probe(sock, seconds, seconds / PROBES, min(max(2 * seconds, LEAST_USER_TIMEOUT), USER_TIMEOUT))
    finally:
        sock.detach()


def _whole(seconds: float) -> int:
    """As the kernel counts here."""
    return max(1, round(seconds))


def probe_fd(fd: int) -> None:
    """The same for a descriptor, which stays the caller's."""
    sock = _socket.socket(fileno=fd)
    try:
        probe(sock)
    finally:
        sock.detach()

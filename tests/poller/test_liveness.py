"""The kernel watches both ends of a TCP connection."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from poller.address import parse
from poller.clock import monotonic
from poller.dialer import connect_blocking
from poller.liveness import IDLE, INTERVAL, PROBES, USER_TIMEOUT, probe_fd
from tests.support.echo_stub import Echo
from weego import Server


def options(sock: socket.socket) -> tuple[int, ...]:
    alive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    return (alive, *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names))


WATCHED = (1, IDLE, INTERVAL, PROBES, USER_TIMEOUT * 1000)


def test_both_ends_are_watched() -> None:
    """The dialer's, and whatever a listening socket accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe_fd(listener.fileno())
        fd = connect_blocking(parse(f"tcp://127.0.0.1:{listener.getsockname()[1]}"), monotonic() + 10)
        with socket.socket(fileno=fd) as client, listener.accept()[0] as served:
            assert options(client) == WATCHED
            assert options(served) == WATCHED


def test_unix_sockets_need_no_watch(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        probe_fd(listener.fileno())
        fd = connect_blocking(parse(f"unix://{tmp_path / 's'}"), monotonic() + 10)
        socket.socket(fileno=fd).close()


class EchoService(Echo):
    pass


def test_a_server_watches_what_it_accepts() -> None:
    with Server([EchoService()], listen="tcp://127.0.0.1:0") as server:
        [listener] = server._listeners
        with socket.socket(fileno=os.dup(listener.fileno())) as twin:
            assert options(twin) == WATCHED

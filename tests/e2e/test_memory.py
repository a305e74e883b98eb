"""What an idle connection costs: 10 000 of them on one worker."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.wire import STRING, call
from tests.support.need import missing
from tests.support.service import App, Server, memory, until

CONNECTIONS = 10_000
# Worker memory per idle connection, in bytes: the bound of the design.
ALLOWED = 4096
# The worker and this process each hold one end of every connection, and keep some descriptors for all else.
NEEDED_FILES = 12_000
EACH_TIME = 500
# Where the figures are left for whoever wants to see more than pass or fail (`pytest -s` shows them).
HEADLINE = "memory of one worker per idle connection of {count}: {before:.0f} bytes untouched, {after:.0f} bytes after one request"


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < NEEDED_FILES:
        missing(f"a hard limit of {NEEDED_FILES} open files (it is {hard})", f"ulimit -Hn {NEEDED_FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def connections(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """So many connections; they end with RST, for 10 000 ports in TIME_WAIT would be in the way of other tests."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket()
            held.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.settimeout(30)
            sock.connect(("127.0.0.1", server.port))
        yield held
    finally:
        for sock in held:
            sock.close()


def open_sockets(pid: int) -> int:
    """Descriptors of a process; counting names costs less than reading where each leads."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_idle_connections(app: App, many_files: None) -> None:
    with app.serve() as server:
        worker = server.worker()
        request = call("echo", (1, STRING, "x" * 100), seqid=1)
        with connections(server, 1) as held:  # so that what the very first call imports is there
            _use(held, request)
            files = open_sockets(worker) - 1
        until(lambda: open_sockets(worker) <= files, "that connection to be gone")
        base = memory(worker)
        with connections(server, CONNECTIONS) as held:
            until(lambda: open_sockets(worker) >= files + CONNECTIONS, "all connections to be accepted")
            untouched = memory(worker)
            _use(held, request)
            used = memory(worker)
            before = max(untouched[kind] - base[kind] for kind in ("rss", "private")) / CONNECTIONS
            after = max(used[kind] - base[kind] for kind in ("rss", "private")) / CONNECTIONS
            print(HEADLINE.format(count=CONNECTIONS, before=before, after=after))
            assert before <= ALLOWED
            assert after <= ALLOWED
        # All at once they go, by RST; the worker lives and serves.
        until(lambda: open_sockets(worker) <= files, "the connections to be gone")
        with connections(server, 1) as held:
            _use(held, request)
        assert server.worker() == worker


@pytest.mark.slow
def test_memory_of_connections_that_come_and_go_is_given_back(app: App) -> None:
    with app.serve() as server:
        worker = server.worker()
        request = call("echo", (1, STRING, "x" * 2000), seqid=1)

        def rounds(count: int) -> None:
            for _ in range(count):
                with connections(server, 200) as held:
                    _use(held, request)

        rounds(5)
        base = memory(worker)["rss"]
        rounds(20)
        # 4 000 connections and as many calls later; a kilobyte lost with each would show as 4 MB.
        assert memory(worker)["rss"] < base + (2 << 20)


def _use(held: list[socket.socket], request: bytes) -> None:
    """One call on each connection."""
    size = len(request)
    for at in range(0, len(held), EACH_TIME):
        some = held[at : at + EACH_TIME]
        for sock in some:
            sock.sendall(request)
        for sock in some:
            got = 0
            # A reply is as long as the request: same name, same text; only the field of the struct has another number.
            while got < size:
                data = sock.recv(size - got)
                assert data
                got += len(data)

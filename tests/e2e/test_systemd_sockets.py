"""A server's sockets outlive it where systemd holds them: the end of one server must not make them deaf for the next."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.wire import Wire
from tests.prefork.test_activation import PLACE, Store
from tests.support.service import MASTER, App, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def app(tmp_path: Path, no_leaks: None) -> App:
    return App(tmp_path / "app")


def start(app: App, sock: socket.socket, name: str, **environment: str) -> subprocess.Popen[bytes]:
    """weego-master with a listening socket that systemd passes."""
    fd = sock.fileno()
    with open(app.folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", PLACE, str(fd), sys.executable, MASTER, str(app.conf)],
            stderr=log, stdout=log, pass_fds=[fd], start_new_session=True,
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": name, **environment},
        )  # fmt: skip


def answered(port: int) -> None:
    """Somebody serves at the other end of the queue."""
    with Wire(f"tcp://127.0.0.1:{port}") as wire:
        wire.tell()


def test_a_socket_of_systemds_serves_one_server_after_another(app: App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        app.write_conf(listen=[f"tcp://127.0.0.1:{sock.getsockname()[1]}"], workers=2)
        for _ in range(3):
            master = start(app, sock, "app.socket")
            try:
                answered(sock.getsockname()[1])  # the second time it has waited in the queue, which was never deaf
            finally:
                master.send_signal(signal.SIGTERM)
                assert master.wait(30) == 0


def test_a_kept_socket_survives_a_killed_master(app: App, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "notify"))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    app.write_conf(listen=[f"tcp://127.0.0.1:{port}"], workers=2, server='graceful_timeout = "1s"')
    with open(app.folder / "log", "ab") as log:
        master = subprocess.Popen(
            [sys.executable, MASTER, str(app.conf)], stderr=log, stdout=log, start_new_session=True,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )  # fmt: skip
    try:
        store.until("READY=1")
        (kept,) = store.kept
        answered(port)
        master.kill()
        master.wait()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as early:  # while the old workers go, or after
            master = start(app, kept, "weego", NOTIFY_SOCKET=str(tmp_path / "notify"))
            store.until("READY=1")
            answered(port)
            assert early.fileno() >= 0
    finally:
        master.send_signal(signal.SIGTERM)
        assert master.wait(30) == 0
        store.close()
        store.sock.close()
        until(lambda: not _group(master.pid), "everybody to be gone")


def _group(pid: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(path.parent.name)
    return found

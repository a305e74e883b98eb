"""What the service manager is told. The manager is a datagram socket of the test's."""

import os
import signal
import socket
import time

import pytest

from prefork import systemd
from tests.prefork.harness import PATIENCE, Server

pytestmark = [pytest.mark.timeout(120)]


class Manager:
    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.settimeout(PATIENCE)
        self.told = []

    def wait(self, word):
        """The next message that has this line."""
        while True:
            message = self.sock.recv(4096).decode().splitlines()
            self.told.append(message)
            if word in message:
                return message

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    address = str(tmp_path / "notify") if request.param == "path" else f"@weego-test-{os.getpid()}-{tmp_path.name}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with Manager(address) as manager:
        yield manager


@pytest.mark.e2e
def test_a_life(manager, tmp_path, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    (tmp_path / "spy.py").write_text(
        "import os\nassert not {'NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID'} & set(os.environ)\n"
    )
    with Server(tmp_path, code="spy") as s:
        assert "STATUS=generation 1 serves with 2 workers" in manager.wait("READY=1")
        manager.wait("WATCHDOG=1")
        manager.wait("WATCHDOG=1")
        before = time.monotonic_ns() // 1000
        s.signal(signal.SIGHUP)
        (said,) = [line for line in manager.wait("RELOADING=1") if line.startswith("MONOTONIC_USEC=")]
        assert before <= int(said.partition("=")[2]) <= time.monotonic_ns() // 1000
        assert "STATUS=generation 2 serves with 2 workers" in manager.wait("READY=1")
        s.configure(code="no_such_module")
        s.signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        (status,) = [line for line in manager.wait("READY=1") if line.startswith("STATUS=")]
        assert status.startswith("STATUS=reload failed: ")
        s.signal(signal.SIGTERM)
        manager.wait("STOPPING=1")
        assert s.wait_exit() == 0
    assert sum("STOPPING=1" in message for message in manager.told) == 1
    assert ["READY=1"] not in manager.told


def test_nobody_listens(monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notifier = systemd.Notifier()
    assert "NOTIFY_SOCKET" not in os.environ
    notifier.stopping()
    assert "systemd was not told STOPPING=1" in caplog.text
    caplog.clear()
    systemd.Notifier().stopping()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("interval", "pid", "seconds"), [("2000000", None, 2.0), ("2000000", "1", 0.0), ("", None, 0.0), ("x", None, 0.0)]
)
def test_the_watchdog_may_be_meant_for_somebody_else(monkeypatch, interval, pid, seconds):
    monkeypatch.setenv("WATCHDOG_USEC", interval)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert systemd.Notifier().interval == seconds


def test_a_status_is_one_line(manager):
    systemd.Notifier().ready("first\nsecond")
    assert manager.wait("READY=1") == ["READY=1", "STATUS=first second"]

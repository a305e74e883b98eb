"""Sockets that systemd opens for us, and those it keeps: with its own systemd-socket-activate, and with a stand-in for its store."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.prefork.harness import PATIENCE, Client, Server, until
from tests.support.need import program
from tests.support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


#: Puts descriptors where systemd does, at 3, 4, …, and becomes the server.
PLACE = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",") if fd]
for number, fd in enumerate(fds):
    os.dup2(fd, 100 + number)
for number in range(len(fds)):
    os.dup2(100 + number, 3 + number)
    os.close(100 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Passed(Server):
    """A server that is started with listening sockets, as systemd passes them."""

    sockets = ()
    names = ""

    def start(self, *arguments):
        (self.folder / "ready.json").unlink(missing_ok=True)
        fds = [sock.fileno() for sock in self.sockets]
        command = [sys.executable, f"{self.root}/tests/prefork/echo_app.py", str(self.folder), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        if fds:
            environment |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": self.names}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PLACE, ",".join(map(str, fds)), *command],
                stderr=log, stdout=log, env=environment, start_new_session=True, pass_fds=fds,
            )  # fmt: skip
        return self


@contextlib.contextmanager
def listening(*addresses):
    with contextlib.ExitStack() as stack:
        sockets = []
        for address in addresses:
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            sock = stack.enter_context(socket.socket(family))
            if family == socket.AF_INET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(16)
            sockets.append(sock)
        yield sockets


def tcp(sock):
    return f"tcp://127.0.0.1:{sock.getsockname()[1]}"


def test_what_is_passed_is_served_and_what_is_queued_too(tmp_path):
    path = str(tmp_path / "s.sock")
    with listening(("127.0.0.1", 0), path, ("127.0.0.1", 0)) as sockets, Client(tcp(sockets[0])) as early:
        early.send(b"before anybody was there")
        s = Passed(tmp_path, listen=[f"unix://{path}", tcp(sockets[0])])
        s.sockets, s.names = sockets, "one:two:three"
        with s:
            assert early.receive() == b"before anybody was there"
            with Client(f"unix://{path}") as client:
                assert client.call(b"x") == b"x"
            assert f"systemd passes a socket that listens on {tcp(sockets[2])}, which no [[listen]] names; closed" in s.log
            s.reload()
            assert early.call(b"y") == b"y"
            s.signal(signal.SIGTERM)
            assert s.wait_exit() == 0
        assert os.path.exists(path), "it is systemd's"
        with Client(tcp(sockets[0])):
            pass  # … as is the port, for the next start


def test_variables_that_are_meant_for_another_process_are_let_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    (tmp_path / "spy.py").write_text("import os\nassert not {'LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES'} & set(os.environ)\n")
    with Server(tmp_path, code="spy") as s, s.connect() as client:
        assert client.call(b"x") == b"x"
        assert "systemd" not in s.log


def test_what_is_no_listening_socket_is_told_and_closed(tmp_path):
    with open(os.devnull, "rb") as nothing, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        s = Passed(tmp_path)
        s.sockets, s.names = [nothing, datagrams], "a"
        with s:
            assert "systemd passes descriptor 3 (a), which is no socket" in s.log
            assert "systemd passes descriptor 4 (), which is no listening stream socket; closed" in s.log


def test_systemd_itself(tmp_path):
    activate = program("systemd-socket-activate", "apt-get install systemd")
    port = free_port()
    s = Server(tmp_path, listen=[f"tcp://127.0.0.1:{port}"])
    with open(s.folder / "log", "ab") as log:
        s.process = subprocess.Popen(
            [activate, "-l", f"127.0.0.1:{port}", "-E", f"PYTHONPATH={s.root}", sys.executable, f"{s.root}/tests/prefork/echo_app.py", tmp_path],
            stderr=log, stdout=log, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: "Listening on" in s.log, "systemd to listen")
        with Client(f"tcp://127.0.0.1:{port}") as client:  # which starts the server
            assert client.call(b"x") == b"x"
        assert "the socket is there already, from systemd" in s.log
    finally:
        s.__exit__()


class Store:
    """systemd's side of the fd store."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.sock.settimeout(PATIENCE)
        self.kept = []

    def until(self, word):
        while True:
            data, fds, _, _ = socket.recv_fds(self.sock, 4096, 4)
            lines = data.decode().splitlines()
            if "FDSTORE=1" in lines:
                assert "FDNAME=weego" in lines
                self.kept += [socket.socket(fileno=fd) for fd in fds]
            elif "FDSTOREREMOVE=1" in lines:
                self.close()
            if word in lines:
                return

    def close(self):
        for sock in self.kept:
            sock.close()
        self.kept = []


def test_a_master_is_killed_and_nobody_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    store = Store(str(tmp_path / "notify"))
    path, port = str(tmp_path / "s.sock"), free_port()
    listen = [f"tcp://127.0.0.1:{port}", f"unix://{path}"]
    s = Passed(tmp_path, listen=listen, graceful_timeout=1.0)
    try:
        s.start().wait_ready()
        store.until("READY=1")
        assert [sock.family for sock in store.kept] == [socket.AF_INET, socket.AF_UNIX]
        family = s.children()
        s.process.kill()
        s.process.wait()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), "the old workers to be gone")
        waiting = [Client(address) for address in listen]
        for client in waiting:
            client.send(b"is anybody there?")
        s.sockets, s.names = store.kept, "weego:weego"
        s.start().wait_ready()
        for client in waiting:
            assert client.receive() == b"is anybody there?"
            client.close()
        store.until("READY=1")
        # an address that is gone is given up by the store as well
        s.sockets = []
        s.configure(listen=listen[:1])
        s.reload()
        store.until("READY=1")
        assert len(store.kept) == 1
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0
        store.until("STOPPING=1")
        store.until("FDSTOREREMOVE=1")
        with pytest.raises(ConnectionRefusedError):
            Client(listen[0])
        assert not os.path.exists(path), "its own path is unlinked"
    finally:
        store.close()
        store.sock.close()
        s.__exit__()

"""Questions and orders to a real master."""

import json
import os
import signal
import socket
import stat

import pytest

from prefork import control as control_module
from prefork.application import Listen
from prefork.control import Control
from prefork.listeners import bind, resolve
from prefork.loop import Loop
from tests.prefork.harness import PATIENCE, Server, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path):
    def make(**conf):
        return Server(tmp_path, control=f"{tmp_path}/run/control.sock", **conf)

    return make


class Line:
    """A connection to the control socket."""

    def __init__(self, server):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(server.conf["control"])
        self.file = self.sock.makefile("rb")

    def send(self, request):
        self.sock.sendall(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")

    def hear(self):
        return json.loads(self.file.readline())

    def ask(self, request):
        self.send(request)
        return self.hear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()


def ask(server, **request):
    with Line(server) as line:
        answer = line.ask(request)
    assert answer["ok"], answer
    return answer["result"]


def test_the_socket_is_private_and_comes_and_goes(server, tmp_path):
    path = tmp_path / "run/control.sock"
    with server() as s:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert s.ready["control"] == f"unix://{path}"
        s.process.kill()  # so that its file stays behind
        s.process.wait()
    assert path.exists()
    with s:
        assert ask(s, do="status")["pid"] == s.process.pid
        (tmp_path / "second").mkdir()
        second = Server(tmp_path / "second", control=str(path)).start()
        assert second.wait_exit() == 71
        assert "another process listens there" in second.errors[0]
        assert ask(s, do="status")["pid"] == s.process.pid
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0
    assert not path.exists()


def test_status_workers_stats_and_health(server):
    with server(name="hello", workers=2) as s, s.connect() as client:
        pid, _ = client.who()
        status = ask(s, do="status")
        assert (status["name"], status["state"], status["generation"]) == ("hello", "serving", 1)
        assert (status["workers"], status["ready"], status["draining"]) == (2, 2, 0)
        assert status["listen"] == [s.address]
        workers = ask(s, do="workers")
        assert {worker["pid"] for worker in workers} == s.workers()
        (busy,) = [worker for worker in workers if worker["pid"] == pid]
        assert (busy["state"], busy["connections"], busy["requests"]) == ("ready", 1, 1)
        assert all(worker["memory"] > 1 << 20 for worker in workers)
        stats = ask(s, do="stats")
        assert (stats["connections"], stats["requests"]) == (1, 1)
        assert set(stats["memory"]) == {"master", "loader", "worker 0", "worker 1"}
        assert ask(s, do="health") == {"live": [], "ready": [], "started": []}


def test_several_requests_on_one_connection(server):
    with server(workers=1) as s, Line(s) as line:
        line.send(b'{"do": "health"}\n{"do": "status"}\n{"do": ')
        assert line.hear()["ok"]
        assert line.hear()["result"]["pid"] == s.process.pid
        assert line.ask(b'"stats"}\n')["ok"]


@pytest.mark.parametrize(
    ("request_line", "complaint"),
    [
        (b"\n", "a request is a JSON object"),
        (b"[]\n", "a request is a JSON object"),
        (b"[" * 8000 + b"\n", "a request is a JSON object"),
        (b"\xff\xfe\n", "a request is a JSON object"),
        (b"{}\n", "a request is a JSON object"),
        (b'{"do": "reloaad"}\n', 'unknown command "reloaad"; there are status, '),
        (b'{"do": ["status"]}\n', "unknown command"),
        (b'{"do": "stop", "wait": true}\n', 'stop takes no "wait"'),
        (b'{"do": "stop", "fast": "no"}\n', "stop: fast is true or false"),
        (b"x" * 9000 + b"\n", "a request may have 8192 bytes"),
    ],
)
def test_what_is_no_request_is_told_so(server, request_line, complaint):
    with server(workers=1) as s, Line(s) as line:
        answer = line.ask(request_line)
        assert not answer["ok"]
        assert complaint in answer["error"]
        assert s.process.poll() is None


def test_reload_with_and_without_waiting(server):
    with server() as s:
        assert ask(s, do="reload") == {}
        s.wait_log("reload done")
        result = ask(s, do="reload", wait=True)
        assert (result["generation"], result["ready"]) == (3, 2)
        assert result["reloads"] == {"success": 2, "failure": 0}
        s.configure(boot="load_error")
        with Line(s) as line:
            answer = line.ask({"do": "reload", "wait": True})
            assert answer == {"ok": False, "error": "worker 0 did not boot: conf.json: the database is not there"}
            assert line.ask({"do": "status"})["result"]["reload_error"] == answer["error"]


def test_who_waits_during_a_reload_waits_for_the_next(server):
    """The one under way may have read the config before it was changed."""
    with server() as s:
        s.configure(sleep_load=0.5)
        with Line(s) as first, Line(s) as second, Line(s) as third:
            first.send({"do": "reload", "wait": True})
            s.wait_log("generation 2 loads")
            s.configure(sleep_load=0)
            second.send({"do": "reload", "wait": True})
            third.send({"do": "reload", "wait": True})
            assert first.hear()["result"]["generation"] == 2
            assert second.hear()["result"]["generation"] == 3
            assert third.hear()["result"]["generation"] == 3


def test_who_waits_and_hangs_up_is_forgotten(server):
    with server() as s:
        s.configure(sleep_load=0.5)
        with Line(s) as line:
            line.send({"do": "reload", "wait": True})
            s.wait_log("generation 2 loads")
        s.wait_log("reload done")
        assert ask(s, do="status")["generation"] == 2
    assert s.errors == []


def test_a_stop_answers_those_who_wait(server):
    with server() as s:
        s.configure(sleep_load=30)
        with Line(s) as line:
            line.send({"do": "reload", "wait": True})
            s.wait_log("generation 2 loads")
            assert ask(s, do="stop") == {}
            assert line.hear() == {"ok": False, "error": "the server is stopping"}
        assert s.wait_exit() == 0


def test_stop_and_stop_faster(server):
    with server(never_drains=True, graceful_timeout=60) as s:
        ask(s, do="stop")
        status = ask(s, do="status")
        assert status["state"] == "stopping"
        with Line(s) as line:
            assert line.ask({"do": "reload"}) == {"ok": False, "error": "the server is stopping"}
        ask(s, do="stop", fast=True)
        assert s.wait_exit() == 0


def test_a_reload_moves_it(server, tmp_path):
    with server() as s:
        s.configure(control=f"{tmp_path}/elsewhere.sock")
        s.reload()
        assert ask(s, do="status")["control"] == f"unix://{tmp_path}/elsewhere.sock"
        assert not (tmp_path / "run/control.sock").exists()


def test_children_hold_none_of_it(server):
    """Or a dead master's control socket would look alive."""
    with server() as s, Line(s) as line:
        line.ask({"do": "status"})
        s.reload()
        until(lambda: not s.workers(1), "generation 1 to leave")
        with open("/proc/net/unix") as file:
            inodes = {words[6] for words in map(str.split, file) if s.conf["control"] in words[7:]}
        assert inodes
        for pid in s.children():
            for name in os.listdir(f"/proc/{pid}/fd"):
                assert os.readlink(f"/proc/{pid}/fd/{name}") not in {f"socket:[{inode}]" for inode in inodes}


def test_other_users_are_sent_away(tmp_path, monkeypatch):
    loop = Loop()
    control = Control(loop, None)
    listen = Listen(f"unix://{tmp_path}/s", mode=0o600)
    control.open(bind(listen, resolve(listen)))
    monkeypatch.setattr(control_module, "_UCRED", type("Ucred", (), {"size": 12, "unpack": lambda _: (1, 4242, 4242)}))
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(f"{tmp_path}/s")
            sock.sendall(b'{"do": "stop"}\n')
            loop._turn()
            answer = json.loads(sock.makefile("rb").readline())
            assert not answer["ok"]
            assert "uid 4242 may not speak here" in answer["error"]
    finally:
        control.close()
        loop.close()

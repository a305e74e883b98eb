"""Workers that do not turn, under a master: what it calls them, and what becomes of them."""

import contextlib
import json
import os
import signal
import socket
import time

import pytest

from tests.prefork.harness import PATIENCE, Server, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path):
    return lambda **conf: Server(tmp_path, **conf)


def before(log, first, second):
    """Whether the lines are there, in this order."""
    return 0 <= log.find(first) < log.find(second)


@pytest.mark.parametrize(("body", "meaning"), [(b"sleep 3600", "blocked"), (b"spin", "spinning")])
def test_a_hung_worker_is_replaced_then_tells_its_stacks_then_dies(server, body, meaning):
    with server(workers=1, hang_timeout=1.0) as s, s.connect() as client:
        pid, _ = client.who()
        client.send(body)
        s.wait_log("was killed by SIGABRT")
        assert pid not in s.workers()
        with s.connect() as other:
            assert other.who()[0] != pid
        log = s.log
        assert f"is late: {meaning}" in log
        assert f"{meaning}" in next(line for line in log.splitlines() if "hangs: its loop has not turned" in line)
        assert log.rfind("is ready after") < log.find("SIGABRT, its stacks follow")
        assert before(log, "SIGABRT, its stacks follow", "Fatal Python error: Aborted")
        assert "in answer" in log, "the stack of the handler"


def states(server):
    """As `weego ctl workers` tells them."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(server.conf["control"])
        sock.sendall(b'{"do": "workers"}\n')
        return [worker["state"] for worker in json.loads(sock.makefile().readline())["result"]]


def test_a_worker_that_is_only_late_is_left_alone(server, tmp_path):
    with server(workers=1, control=str(tmp_path / "control")) as s, s.connect() as client:
        pid, _ = client.who()
        assert states(s) == ["ready"]
        client.send(b"sleep 2.5")
        until(lambda: states(s) == ["blocked"], "it to be late")
        assert client.receive() == b"sleep 2.5"
        s.wait_log("turns again")
        assert client.who()[0] == pid
        assert states(s) == ["ready"]
        assert "is late: blocked" in s.log
        assert "replacement" not in s.log


def test_a_starved_worker_is_not_ended_for_it(server):
    """It has all to do and one CPU, on which it comes last; when the CPU is its own, it is what it is: spinning."""
    with server(workers=1, hang_timeout=1.0) as s, s.connect() as client:
        pid, _ = client.who()
        hog = int(client.call(b"hog"))
        try:
            client.send(b"spin")
            s.wait_log("is late: starved")
            time.sleep(3)
            assert pid in s.workers()
            assert "hangs" not in s.log
        finally:
            os.kill(hog, signal.SIGKILL)
        s.wait_log("hangs: its loop has not turned")
        s.wait_log("was killed by SIGABRT")


def test_with_hang_timeout_zero_nobody_is_ended(server):
    with server(workers=1, hang_timeout=0.0) as s, s.connect() as client:
        pid, _ = client.who()
        assert client.call(b"sleep 3") == b"sleep 3"
        assert client.who()[0] == pid
        assert "hangs" not in s.log


def test_a_stopped_worker_is_replaced_at_once_and_drains_when_it_goes_on(server):
    with server(workers=1) as s, s.connect() as client:
        pid, _ = client.who()
        os.kill(pid, signal.SIGSTOP)
        try:
            with s.connect() as other:
                assert other.who()[0] != pid
            assert pid in s.workers()
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: pid not in s.workers(), "it to drain")
        assert client.who()[0] != pid, "its connection went over"
        assert "is late: stopped" in s.log
    assert "SIGKILL" not in s.log
    assert s.errors == []


def test_each_trouble_has_its_name_among_the_workers(server, tmp_path):
    """In the log, too; memory is in test_memory.py, and who crashes at boot in test_control_orders.py."""
    with server(workers=3, hang_timeout=3.0, control=str(tmp_path / "control")) as s:
        with contextlib.ExitStack() as stack:
            clients = {}
            while len(clients) < 3:
                client = stack.enter_context(s.connect())
                clients.setdefault(client.who()[0], client)
            (stopped, _), (_, spinning), (_, blocked) = clients.items()
            os.kill(stopped, signal.SIGSTOP)
            try:
                spinning.send(b"spin")
                blocked.send(b"sleep 3600")
                found = set()
                until(lambda: found.update(states(s)) or found >= {"stopped", "spinning", "blocked", "hung"}, "all names")
            finally:
                os.kill(stopped, signal.SIGCONT)
            for meaning in ("stopped", "spinning", "blocked"):
                assert f"is late: {meaning}" in s.log
            until(lambda: s.log.count("was killed by SIGABRT") == 2, "the end of both")


def test_a_worker_that_stays_stopped_is_killed_after_the_grace(server):
    with server(workers=2, stop_grace=1.0) as s:
        victim = min(s.workers())
        os.kill(victim, signal.SIGSTOP)
        until(lambda: victim not in s.workers(), "it to be killed")
        until(lambda: len(s.workers()) == 2, "two workers")
        s.wait_log("was killed by SIGKILL")
        assert "worker 0 gen 1" in s.log


def test_a_stop_of_the_server_does_not_wait_for_the_stopped(server):
    with server(workers=2, graceful_timeout=0.5) as s:
        os.kill(min(s.workers()), signal.SIGSTOP)
        s.wait_log("is late: stopped")
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0


def test_a_reload_with_a_hung_and_a_stopped_worker(server):
    with server(workers=2, hang_timeout=PATIENCE, stop_grace=2.0) as s, s.connect() as client:
        hung, _ = client.who()
        (stopped,) = s.workers() - {hung}
        client.send(b"sleep 3600")
        s.wait_log("is late: blocked")
        os.kill(stopped, signal.SIGSTOP)
        s.configure(graceful_timeout=1.0, name="other")
        s.wait_log("is late: stopped")
        s.reload()
        with s.connect() as other:
            assert other.who()[1] == 2
        until(lambda: stopped not in s.workers(), "the stopped one to be gone")
        s.signal(signal.SIGQUIT)
        assert s.wait_exit() == 0


def test_a_stopped_master_holds_nothing_against_its_workers(server):
    with server(workers=2, hang_timeout=1.0) as s:
        workers = s.workers()
        for pid in (s.process.pid, *workers):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        for pid in (*workers, s.process.pid):
            os.kill(pid, signal.SIGCONT)
        with s.connect() as client:
            client.who()
        s.wait_log("the master was not running")
        assert s.workers() >= workers
        assert "hangs" not in s.log
        assert "SIGKILL" not in s.log

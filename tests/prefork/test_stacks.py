"""Where a worker is just now, whatever state it is in."""

import json
import os
import signal
import socket

import pytest

from tests.prefork.harness import PATIENCE, Server, until
from tests.prefork.test_upgrade import ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path):
    return lambda **conf: Server(tmp_path, control=str(tmp_path / "control"), workers=1, **conf)


def stacks(s, slot=0):
    return ask(s.folder / "control", do="stacks", slot=slot)


def test_of_a_worker_that_is_well(server):
    with server() as s:
        answer = stacks(s)["result"]
        assert answer["pid"] in s.workers()
        assert "in run" in answer["stacks"]
        assert "echo_app.py" in answer["stacks"]


@pytest.mark.parametrize(("body", "where"), [(b"sleep 3600", "in answer"), (b"spin", "in answer")])
def test_of_a_worker_whose_loop_does_not_turn(server, body, where):
    """Asked at once, and again when it is known to be late."""
    with server() as s, s.connect() as client:
        client.send(body)
        until(lambda: ask(s.folder / "control", do="workers")["result"][0]["beat_age"] > 0.3, "it to be busy")
        for _ in range(2):
            text = stacks(s)["result"]["stacks"]
            assert text.startswith("its loop does not turn; threads only:")
            assert where in text
            s.wait_log("is late")
        assert text.count("Current thread") == 1, "the first dump is not in the second"


def test_of_a_stopped_one_there_are_none(server):
    with server() as s:
        (pid,) = s.workers()
        os.kill(pid, signal.SIGSTOP)
        s.wait_log("is late: stopped")
        until(lambda: len(s.workers()) == 2, "its replacement")
        assert "in run" in stacks(s)["result"]["stacks"], "the slot is another's by now"
        os.kill(pid, signal.SIGCONT)


def test_of_one_that_dies_meanwhile(server):
    with server() as s, s.connect() as client:
        (pid,) = s.workers()
        client.send(b"sleep 3600")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(PATIENCE)
            asking.connect(str(s.folder / "control"))
            asking.sendall(b'{"do": "stacks", "slot": 0}\n')
            ask(s.folder / "control", do="status")  # who comes later is answered later: by now that has been heard
            os.kill(pid, signal.SIGKILL)
            answer = json.loads(asking.makefile().readline())
        # A machine that is slow enough has the stacks by signal before.
        assert answer.get("error") == "worker 0: it has died" or "in answer" in answer["result"]["stacks"]


def test_of_nobody(server):
    with server() as s:
        assert stacks(s, 7)["error"] == "no worker 7; there are 0"
        assert ask(s.folder / "control", do="stacks")["error"] == "no worker None; there are 0"


def test_by_signal_on_standard_error(server):
    with server() as s:
        (pid,) = s.workers()
        os.kill(pid, signal.SIGPWR)
        s.wait_log("Current thread")
        with s.connect() as client:
            assert client.who()[0] == pid, "it does not end for it"


def test_after_an_upgrade(server):
    with server() as s, s.connect() as client:
        assert ask(s.folder / "control", do="upgrade")["ok"]
        client.send(b"sleep 3600")
        assert "in answer" in stacks(s)["result"]["stacks"]

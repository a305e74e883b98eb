"""Orders over the control socket that change what a running server does."""

import os
import signal
import socket

import pytest

from tests.prefork.harness import Server, until
from tests.prefork.test_upgrade import ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def running(tmp_path):
    with Server(tmp_path, control=str(tmp_path / "control"), admin="tcp://127.0.0.1:0") as s:
        yield s


def order(s, do, **arguments):
    answer = ask(s.folder / "control", do=do, **arguments)
    assert answer["ok"], answer
    return answer["result"]


def refused(s, do, **arguments):
    answer = ask(s.folder / "control", do=do, **arguments)
    assert not answer["ok"]
    return answer["error"]


def test_drain_and_resume(running):
    s = running
    with s.connect() as client:
        assert client.call(b"lame") == b"0"
        order(s, "drain")
        until(lambda: client.call(b"lame") == b"1", "the worker to know")
        health = order(s, "health")
        assert health["ready"] == ["the server is drained (weego ctl resume ends that)"]
        assert health["live"] == []
        assert order(s, "status")["state"] == "draining"
        with s.connect() as other:
            assert other.call(b"x") == b"x", "who comes all the same is served"
        # workers to come, of this generation and the next, and the next master are told too
        order(s, "restart_worker", slot=0)
        s.reload()
        assert order(s, "upgrade")
        until(lambda: len(s.workers(2)) == 2 and len(s.workers()) == 2, "the new generation")
        with s.connect() as other:
            assert other.call(b"lame") == b"1"
        order(s, "resume")
        until(lambda: client.call(b"lame") == b"0", "the worker to know")
        assert order(s, "health")["ready"] == []


def test_scale(running):
    s = running
    assert order(s, "scale", by=2) == {"workers": 4, "after_reload": False}
    until(lambda: len(s.workers()) == 4, "four workers")
    assert order(s, "scale", to=1)["workers"] == 1
    until(lambda: len(s.workers()) == 1, "one worker")
    assert order(s, "scale", by=-5)["workers"] == 1, "the last one stays"
    assert "1 to 256" in refused(s, "scale", to=0)
    assert "1 to 256" in refused(s, "scale", to=300)
    assert "by how many" in refused(s, "scale")
    s.reload()
    until(lambda: len(s.workers(2)) == 2, "as many as are configured")


def test_restart_worker(running):
    s = running
    with s.connect() as client:
        before = client.who()[0]
        slot = next(each["slot"] for each in order(s, "workers") if each["pid"] == before)
        assert order(s, "restart_worker", slot=slot) == {"pid": before}
        until(lambda: client.who()[0] != before, "its connection to go over")
        until(lambda: before not in s.workers(), "it to be gone")
        assert order(s, "status")["restarts"]["leave"] == 1
    assert "no worker 9; there are 0, 1" in refused(s, "restart_worker", slot=9)


def test_log_level(running):
    s = running
    order(s, "log_level", level="error")
    os.kill(min(s.workers()), signal.SIGKILL)
    until(lambda: len(order(s, "workers")) == 2 and order(s, "status")["restarts"]["signal"] == 1, "a replacement")
    assert "was killed" not in s.log
    assert "there are debug, info, warning, error" in refused(s, "log_level", level="loud")


def test_reopen(running):
    order(running, "reopen")
    running.wait_log("control socket: reopening log files")


def test_config_is_what_the_application_shows(tmp_path):
    with Server(tmp_path, control=str(tmp_path / "control"), config={"a": {"b": [1, None]}}) as s:
        assert order(s, "config") == {"a": {"b": [1, None]}}


def test_a_slot_that_waits_is_shown(tmp_path):
    with Server(tmp_path, control=str(tmp_path / "control"), workers=2) as s:
        until(lambda: _crash(s), "a slot that has to wait")
        waiting = [each for each in order(s, "workers") if each["state"] == "waiting"]
        if waiting:  # it may be over by now
            assert waiting[0]["young_deaths"] >= 2
            assert waiting[0]["failure"] == "was killed by SIGKILL"


def _crash(s):
    for pid in s.workers():
        os.kill(pid, signal.SIGKILL)
    return any("has died young" in line for line in order(s, "status")["troubles"])


def test_arguments_have_types(running):
    assert refused(running, "stacks", slot="0") == "stacks: slot is a number"
    assert refused(running, "log_level", level=1) == "log_level: level is a text"
    assert refused(running, "stacks", slot=True) == "stacks: slot is a number"


def test_who_crashes_at_boot_is_shown_with_the_reason(tmp_path):
    with Server(tmp_path, control=str(tmp_path / "control"), workers=1) as s:
        s.configure(boot_fails_slots=[1])
        s.reload()
        order(s, "scale", to=2)
        until(lambda: any(each["state"] == "waiting" for each in order(s, "workers")), "slot 1 to wait")
        until(lambda: any("worker 1 has died young" in line for line in order(s, "status")["troubles"]), "it to be told")
        (waiting,) = until(lambda: [each for each in order(s, "workers") if each["state"] == "waiting"], "it to wait")
        assert (waiting["slot"], waiting["pid"]) == (1, None)
        assert waiting["failure"] == "exited with status 6"
        assert order(s, "status")["state"] == "degraded"
        assert order(s, "status")["restarts"]["boot"] >= 2
        assert order(s, "health")["ready"] == [], "the other serves"
        s.configure(boot_fails_slots=[])
        s.reload()
        order(s, "scale", to=2)
        until(lambda: order(s, "status")["state"] == "serving" and len(s.workers()) == 2, "two workers")


def test_a_stop_answers_who_asks_what_a_reload_would_change(tmp_path):
    with Server(tmp_path, control=str(tmp_path / "control"), sleep_load=1.0) as s:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(tmp_path / "control"))
            sock.sendall(b'{"do": "diff"}\n')
            until(lambda: len(s.children("loader")) == 2, "the loader that looks")
            s.signal(signal.SIGTERM)
            assert b"the server is stopping" in sock.makefile("rb").readline()
        assert s.wait_exit() == 0

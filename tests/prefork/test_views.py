"""What workers tell of themselves, as the master collects it."""

import os
import signal

import pytest

from tests.prefork.harness import Server, until
from tests.prefork.test_upgrade import ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path):
    return lambda **conf: Server(tmp_path, control=str(tmp_path / "control"), **conf)


def view(s):
    return ask(s.folder / "control", do="view")["result"]


def test_all_workers_are_asked(server):
    long = "é" * 300_000
    with server(workers=3, view=long) as s:
        found = view(s)
        assert [each["slot"] for each in found] == [0, 1, 2]
        assert {each["pid"] for each in found} == set(s.workers())
        assert all(each["view"] == long for each in found)


def test_one_that_does_not_answer_is_said_to_be_missing(server):
    with server(workers=2, tells_nothing=True) as s:
        assert [each["error"] for each in view(s)] == ["no answer within 2 s"] * 2
        assert ask(s.folder / "control", do="status")["ok"], "the master was not held up"


def test_one_that_dies_meanwhile(server):
    with server(workers=1, tells_nothing=True) as s:
        (pid,) = s.workers()
        os.kill(pid, signal.SIGKILL)
        found = view(s)
        assert found == [] or found[0].get("error") in ("it has died", "no answer within 2 s")
        until(lambda: s.workers() and s.workers() != {pid}, "its replacement")

"""Who loads gives way, and nobody who serves is left nicer for it."""

import os
import resource
import signal

import psutil
import pytest

from prefork.priority import STEPS, Priority, may_return
from tests.prefork.harness import Server, until

ALL, NONE = "CapEff:\t000001ffffffffff\n", "Name:\tx\nCapEff:\t0000000000000000\n"
ONLY = "CapEff:\t0000000000800000\n"


@pytest.mark.parametrize(
    ("status", "nice", "limit", "may"),
    [
        (NONE, 0, 0, False),
        (NONE, 0, 19, False),
        (NONE, 0, 20, True),
        (NONE, 5, 15, True),
        (NONE, 5, 14, False),
        (NONE, 0, resource.RLIM_INFINITY, True),
        (ALL, 0, 0, True),
        (ONLY, 0, 0, True),
        ("", 0, 0, False),
    ],
)
def test_who_may_come_back(status, nice, limit, may):
    assert may_return(status, nice, limit) == may


def test_who_may_not_come_back_does_not_go(monkeypatch):
    priority = Priority()
    priority.may_return = False
    monkeypatch.setattr(os, "setpriority", lambda *_: pytest.fail("changed"))
    priority.give_way(os.getpid())
    priority.take_back(os.getpid())


def test_a_child_that_is_gone_is_no_mistake():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    Priority().give_way(pid)


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_loader_gives_way_while_it_loads_beside_those_who_serve(tmp_path):
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if not Priority().may_return:
        pytest.skip("this user may not: ulimit -e 20, or CAP_SYS_NICE")

    def niceness(s, title):
        return [psutil.Process(pid).nice() for pid in s.children(title)]

    with Server(tmp_path) as s:
        assert niceness(s, "") == [usual] * 3, "the first generation has nobody to give way to"
        s.configure(sleep_load=1.0)
        s.signal(signal.SIGHUP)
        until(lambda: usual + STEPS in niceness(s, "loader"), "the new loader to give way")
        until(lambda: "reload done" in s.log, "the reload")
        until(lambda: len(s.children()) == 3, "the old ones to go")
        assert niceness(s, "") == [usual] * 3
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGKILL)
        until(lambda: s.children("loader") and loader not in s.children("loader"), "a loader in its place")
        assert niceness(s, "loader") == [usual], "workers may be waiting for it"

"""Reloads that need no new workers, and those that do."""

import os
import signal
import time

import pytest

from tests.prefork.harness import Server, until
from tests.prefork.test_upgrade import ask

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

WAYS = {"log": "hot", "limits": "hot", "limits.fixed": "workers", "pidfile": "restart", "listen": "listeners"}


@pytest.fixture
def server(tmp_path):
    (tmp_path / "app_code.py").write_text("import app_more\n")
    (tmp_path / "app_more.py").write_text("X = 1\n")
    (tmp_path / "app_late.py").write_text("X = 1\n")
    for file in tmp_path.glob("app_*.py"):
        os.utime(file, (1e9, 1e9))  # but a change of the inode is of now, and too young to be sure of
    time.sleep(0.6)
    config = {"log": {"level": "info"}, "limits": {"calls": 10, "fixed": 1}}
    return lambda **conf: Server(
        tmp_path, **{"control": str(tmp_path / "control"), "code": "app_code", "config": config, "ways": WAYS} | conf
    )


def config(level="info", calls=10, fixed=1, **more):
    return {"log": {"level": level}, "limits": {"calls": calls, "fixed": fixed}, **more}


def test_what_is_hot_reaches_workers_that_run(server):
    with server(workers=3) as s, s.connect() as client:
        before, who = s.workers(), client.who()
        s.configure(config=config("debug", 20))
        s.reload()
        assert s.workers() == before
        assert client.who() == who
        assert b'"calls": 20' in client.call(b"config")
        s.wait_log("without new workers, generation 1 goes on: log.level = debug, limits.calls = 20")
        status = ask(s.folder / "control", do="status")["result"]
        assert (status["generation"], status["reloads"]["success"]) == (1, 1)
        # who comes later has the same from its loader
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(s.workers()) == 3 and not s.workers() & before, "new workers")
        with s.connect() as other:
            assert b'"calls": 20' in other.call(b"config")
            assert other.who()[1] == 1
        assert len(s.children("loader")) == 1
        s.configure(config=config("debug", 20, fixed=2))
        s.reload()
        assert not any("gen 1 " in title for title in s.children().values() if "loader" in title)
        with s.connect() as other:
            assert other.who()[1] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"config": config(calls=20, fixed=2)},
        {"config": config(calls=20), "name": "other"},
        {"config": config(calls=20), "listen": ["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]},
        {},
    ],
    ids=["something else too", "the name", "an address more", "nothing"],
)
def test_what_is_not_only_hot_needs_new_workers(server, change):
    with server() as s:
        before = s.workers()
        s.configure(**change)
        s.reload()
        until(lambda: not s.workers() & before, "new workers")
        assert "without new workers" not in s.log


@pytest.mark.parametrize("file", ["app_code.py", "app_more.py", "app_late.py"])
def test_changed_code_needs_new_workers(server, file):
    """Also that of a module which nobody has imported yet."""
    with server() as s:
        before = s.workers()
        with open(s.folder / file, "a") as code:
            code.write("Y = 2\n")
        s.configure(config=config(calls=20))
        s.reload()
        until(lambda: not s.workers() & before, "new workers")
        assert "without new workers" not in s.log


def test_code_that_may_have_changed_after_it_was_read_needs_new_workers(server, tmp_path):
    later = time.time() + 3600
    os.utime(tmp_path / "app_more.py", (later, later))
    with server() as s:
        before = s.workers()
        s.configure(config=config(calls=20))
        s.reload()
        until(lambda: not s.workers() & before, "new workers")
        assert "without new workers" not in s.log


def test_a_changed_file_is_as_good_as_changed_code(server, tmp_path):
    (tmp_path / "cert.pem").write_text("one")
    time.sleep(0.6)
    with server(files=[str(tmp_path / "cert.pem")]) as s:
        before = s.workers()
        (tmp_path / "cert.pem").write_text("two")
        s.configure(config=config(calls=20))
        s.reload()
        until(lambda: not s.workers() & before, "new workers")


def test_who_cannot_follow_is_replaced(server):
    with server() as s:
        before = s.workers()
        s.configure(config=config(calls=20, cannot_follow="for a reason"), ways=WAYS | {"cannot_follow": "hot"})
        s.reload()
        until(lambda: not s.workers() & before, "new workers")
        assert "cannot follow: for a reason; new workers instead" in s.log
        assert s.log.count("reload done") == 1


def test_who_does_not_answer_is_replaced(server):
    with server() as s:
        before = s.workers()
        s.configure(config=config(calls=20, cannot_follow="silently"), ways=WAYS | {"cannot_follow": "hot"})
        s.reload()
        until(lambda: not s.workers() & before, "new workers")
        assert "did not answer within 5 s; new workers instead" in s.log


def test_the_masters_own_affairs_are_hot(server):
    with server(config={}) as s:
        before = s.workers()
        s.configure(admin="tcp://127.0.0.1:0", graceful_timeout=5.0, max_requests=10**6)
        s.reload()
        assert s.workers() == before
        assert ask(s.folder / "control", do="status")["result"]["admin"]
        s.configure(workers=4)
        s.reload()
        until(lambda: len(s.workers()) == 4, "two workers more")
        assert before < s.workers()
        s.configure(workers=1)
        s.reload()
        until(lambda: len(s.workers()) == 1, "one worker")
        assert s.workers() < before


def test_more_workers_than_configured_are_there_until_the_next_reload(server):
    with server(workers=2) as s:
        for signum, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 1)):
            s.signal(signum)
            until(lambda count=count: len(s.workers()) == count, "one more, or one less")
            s.configure(config=config(calls=count))
            s.reload()
            until(lambda: len(s.workers()) == 2, "the config's number again")
        assert s.log.count("without new workers, generation 1 goes on: limits.calls") == 2


def test_a_loader_that_dies_after_the_config_has_changed_is_replaced_by_another(server):
    """Its successor has read another config and so is none; the reload for that needs no new workers, and its own loader has nothing to do."""
    with server(workers=2) as s:
        s.configure(config=config(calls=20))
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGKILL)
        s.wait_log("the loader died and the configuration has changed since: reloading")
        s.wait_log("reload done in")
        s.wait_log("takes over, generation 1")
        before = s.workers()
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(s.workers()) == 2 and s.workers() != before, "a new worker")


def test_full_means_new_workers(server):
    with server() as s:
        before = s.workers()
        s.configure(config=config(calls=20))
        assert ask(s.folder / "control", do="reload", wait=True, full=True)["result"]["generation"] == 2
        until(lambda: not s.workers() & before, "new workers")


def test_a_worker_that_dies_meanwhile_holds_nothing_up(server):
    with server(workers=2, sleep_load=0.3) as s:
        victim = min(s.workers())
        s.configure(config=config(calls=20))
        os.kill(victim, signal.SIGSTOP)
        s.wait_log("is late: stopped")
        s.signal(signal.SIGHUP)
        s.wait_log("generation 2 loaded")
        os.kill(victim, signal.SIGKILL)
        s.wait_log("reload done")
        until(lambda: len(s.workers()) == 2 and victim not in s.workers(), "its replacement")
        with s.connect() as client:
            assert b'"calls": 20' in client.call(b"config")


def test_after_an_upgrade_too(server):
    with server() as s:
        before = s.workers()
        assert ask(s.folder / "control", do="upgrade")["ok"]
        s.configure(config=config(calls=20))
        s.reload()
        assert s.workers() == before
        with s.connect() as client:
            assert b'"calls": 20' in client.call(b"config")


def test_diff_tells_and_changes_nothing(server):
    with server() as s:
        before, control = s.workers(), s.folder / "control"
        assert ask(control, do="diff")["result"] == []
        s.configure(config=config(calls=20, fixed=2), name="other")
        found = {each["what"]: each for each in ask(control, do="diff")["result"]}
        assert found["limits.calls"] == {"what": "limits.calls", "before": 10, "after": 20, "how": "hot"}
        assert found["limits.fixed"]["how"] == "workers"
        with open(s.folder / "app_more.py", "a") as code:
            code.write("Y = 2\n")
        s.configure(code="no_such_module")
        answer = ask(control, do="diff")
        assert not answer["ok"]
        assert "no_such_module" in answer["error"]
        assert s.workers() == before
        status = ask(control, do="status")["result"]
        assert (status["generation"], status["reloads"]) == (1, {"success": 0, "failure": 0})
        assert len(s.children("loader")) == 1
        s.configure(code="app_code")
        s.reload()
        assert "reload done" in s.log

"""The base: reloads cost the user's imports only, always find fresh code, and do without it when they must."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from tests.prefork.harness import Server, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MODULE = "import os\nWORD = {word!r}\nPID = os.getpid()\n"


@pytest.fixture
def server(tmp_path):
    class Warm(Server):
        def __init__(self, **conf):
            super().__init__(tmp_path, warm="weego_test_library", **conf)
            (tmp_path / "library").mkdir()
            self.install("one")

        def install(self, word, more=""):
            """Another version of the library, old enough for the base to be sure of what it has read."""
            path = tmp_path / "library/weego_test_library.py"
            path.write_text(MODULE.format(word=word) + more)
            until(lambda: time.time() - path.stat().st_ctime > 0.6, "the file to be half a second old")

        def start(self, *arguments):
            return super().start("--warm", *arguments)

        def wait_warm(self, times=1):
            self.wait_log("is warm", times)
            (pid,) = self.children("base")
            return pid

        def ask(self):
            """What a new connection finds: word and pid of who imported the library, and the generation."""
            with self.connect() as client:
                word, pid, generation = client.call(b"warm").split()
                return word.decode(), int(pid), int(generation)

    return Warm


def test_loaders_come_from_the_base_and_are_the_masters_children(server):
    with server() as s:
        base = s.wait_warm()
        assert s.ask()[0] == "one"
        assert s.ask()[1] != base, "the first generation was there before"
        s.reload()
        assert s.ask() == ("one", base, 2)
        s.reload()
        assert s.ask() == ("one", base, 3)
        until(lambda: len(s.children()) == 4, "base, loader and workers to be left")
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGKILL)
        s.wait_log("takes over, generation 3")
        os.kill(min(s.workers()), signal.SIGKILL)
        until(lambda: s.log.count("is ready after") == 7, "a worker of the loader that replaced it")
        assert s.children("base") == {base: "weego: base"}
    assert "reaped pid" not in s.log, "nobody was a stranger"


def test_the_base_has_nothing_of_the_masters_and_one_thread(server, tmp_path):
    with server(control=str(tmp_path / "control"), pidfile=str(tmp_path / "pid")) as s:
        base = psutil.Process(s.wait_warm())
        assert base.num_threads() == 1
        assert base.net_connections(kind="tcp") == []
        names = [os.readlink(f"/proc/{base.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{base.pid}/fd")]
        assert len([name for name in names if name.startswith("socket:")]) == 1, names
        assert not [name for name in names if "memfd:weego-shared" in name or name.endswith("/pid")], names


def test_what_is_installed_anew_is_what_a_reload_serves(server):
    with server() as s:
        base = s.wait_warm()
        s.install("two")
        s.reload()
        word, pid, generation = s.ask()
        assert (word, generation) == ("two", 2)
        assert pid != base
        fresh = s.wait_warm(2)
        s.reload()
        assert s.ask() == ("two", fresh, 3)
        assert s.log.count("has changed on disk") == 1


def test_a_library_that_appears_is_seen(server):
    with server() as s:
        base = s.wait_warm()
        (s.folder / "library/notes").write_text("")
        s.reload()
        assert s.ask()[1] == base
        (s.folder / "library/weego_test_other.py").write_text("")
        s.reload()
        assert s.ask()[1] != base


def test_a_library_that_is_broken_now_fails_the_reload_and_nothing_else(server):
    with server() as s:
        base, before = s.wait_warm(), s.workers()
        s.install("two", "import no_such_module\n")
        s.reload()
        assert "No module named 'no_such_module'" in s.log
        assert s.workers() == before
        s.wait_log("reloads import everything anew: ")
        assert not s.children("base")
        s.install("three")
        s.reload()
        assert s.ask()[0] == "three"
        assert s.ask()[1] != base


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_reload_does_without_a_base_that_does_not_answer(server, how):
    with server() as s:
        base = s.wait_warm()
        os.kill(base, signal.SIGSTOP)  # so that the order is under way when it dies
        s.signal(signal.SIGHUP)
        s.wait_log("generation 2 loads")
        if how == "killed":
            os.kill(base, signal.SIGKILL)
        s.wait_log("reload done")
        word, pid, generation = s.ask()
        assert (word, generation) == ("one", 2)
        assert pid != base
        assert s.log.count("does not answer: SIGKILL") == (how == "stopped")
        until(lambda: base not in s.children(), "the base to be gone")
        fresh = s.wait_warm(2)
        s.reload()
        assert s.ask() == ("one", fresh, 3)


def test_a_stop_while_the_base_does_not_answer(server):
    with server() as s:
        os.kill(s.wait_warm(), signal.SIGSTOP)
        s.signal(signal.SIGHUP)
        s.wait_log("generation 2 loads")
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0


def test_a_config_that_the_base_does_not_suit(server):
    with server() as s:
        base = s.wait_warm()
        s.configure(not_warm=True)
        s.reload()
        assert s.ask()[1:] != (base, 2)
        assert s.ask()[2] == 2
        s.wait_warm(2)
        s.reload()
        assert s.ask()[2] == 3
        assert s.log.count("reload done") == 2
        assert not s.errors


@pytest.mark.parametrize(
    ("more", "why"),
    [("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "a thread runs"), ("raise RuntimeError('only here')", "RuntimeError: only here")],
)
def test_a_base_that_is_of_no_use_is_not_tried_again(server, more, why):
    with server() as s:
        base = s.wait_warm()
        s.install("two", f"if 'base' in open('/proc/self/cmdline').read():\n    {more}\n")
        os.kill(base, signal.SIGKILL)
        s.wait_log("reloads import everything anew: ")
        assert why in s.log
        s.reload()
        assert s.ask()[0] == "two"
        assert not s.children("base")


def test_an_upgrade_leaves_no_base_behind_and_makes_its_own(server):
    with server() as s:
        base = s.wait_warm()
        s.signal(signal.SIGUSR2)
        s.wait_log("upgraded from weego test")
        fresh = s.wait_warm(2) if not s.children("base").get(base) else until(lambda: next(iter(set(s.children("base")) - {base}), 0), "a base of the new code")
        until(lambda: set(s.children("base")) == {fresh}, "the old base to be gone")
        s.reload()
        assert s.ask() == ("one", fresh, 2)


def test_the_base_ends_with_a_killed_master(server):
    with server() as s:
        base = psutil.Process(s.wait_warm())
        s.process.kill()
        s.process.wait()
        until(lambda: not base.is_running() or base.status() == psutil.STATUS_ZOMBIE, "the base to be gone")


def test_a_reload_before_the_base_is_warm(server):
    with server(slow_base=1.0) as s:
        s.reload()
        assert s.ask()[2] == 2
        base = s.wait_warm()
        s.reload()
        assert s.ask() == ("one", base, 3)


def test_many_reloads_and_stops_of_the_base_leave_nothing(server):
    with server() as s:
        for turn in range(1, 4):
            base = s.wait_warm(turn)
            s.signal(signal.SIGHUP)
            with contextlib.suppress(ProcessLookupError):
                os.kill(base, signal.SIGKILL)
            s.wait_log("reload done", turn)
        s.wait_warm(4)
        until(lambda: len(s.children()) == 4, "base, loader and workers to be left")


def test_no_reload_while_the_framework_on_disk_is_not_the_masters(server):
    with server() as s:
        s.wait_warm()
        before = s.workers()
        (s.folder / "obstacle").write_text("the one on disk is another")
        s.reload()
        assert "reload failed, generation 1 goes on: the one on disk is another" in s.log
        assert s.workers() == before
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGKILL)
        s.wait_log("takes over, generation 1")  # what serves is kept alive all the same
        (s.folder / "obstacle").unlink()
        s.reload()
        assert s.ask()[2] == 3

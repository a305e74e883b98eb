"""The upgrade in place, in real processes: same pid, same sockets, same children, new code."""

import json
import os
import shutil
import signal
import socket
import threading
import urllib.request

import psutil
import pytest

from tests.prefork.harness import PATIENCE, ROOT, Server, until
from tests.support.leaks import descriptors

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def server(tmp_path):
    """A server of a copy of the code, which a test may change."""
    code = tmp_path / "code"
    shutil.copytree(ROOT / "prefork", code / "prefork", ignore=shutil.ignore_patterns("__pycache__"))
    (code / "tests/prefork").mkdir(parents=True)
    shutil.copy(ROOT / "tests/prefork/echo_app.py", code / "tests/prefork/echo_app.py")

    class Copied(Server):
        root = code

        def change(self, file, old, new):
            path = code / file
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))

        def upgrade(self, **flags):
            return ask(self.folder / "control", do="upgrade", **flags)

    return lambda **conf: Copied(tmp_path, control=str(tmp_path / "control"), **conf)


def ask(path, **request):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(sock.makefile().readline())


def page(s):
    with urllib.request.urlopen(s.ready["admin"].replace("tcp", "http") + "/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_what_the_application_shares_outlives_generations_loaders_and_masters(server):
    with server() as s:

        def loaders():
            with s.connect() as client:
                return int(client.call(b"loaders"))

        assert loaders() == 1
        s.reload()
        assert loaders() == 2
        (loader,) = s.children("loader")
        os.kill(loader, signal.SIGKILL)
        s.wait_log("takes over, generation 2")
        assert loaders() == 3, "seen by workers that were there before, too"
        assert s.upgrade()["ok"]
        s.reload()
        assert loaders() == 4


NEW_VERSION = ("tests/prefork/echo_app.py", 'version="test"', 'version="newer"')


def test_the_master_becomes_new_code_and_nobody_notices(server):
    with server(admin="tcp://127.0.0.1:0", pidfile="pid") as s, s.connect() as client:
        pid, workers, loaders = s.process.pid, s.workers(), set(s.children("loader"))
        client.call(b"x")
        before, fds = page(s), descriptors(pid)
        s.change(*NEW_VERSION)
        s.change("tests/prefork/echo_app.py", 'b"%d %d" %', 'b"%d 100%d" %')
        s.signal(signal.SIGUSR2)
        s.wait_log("upgraded from weego test to newer")
        assert client.call(b"y") == b"y"
        assert (s.workers(), set(s.children("loader"))) == (workers, loaders)
        status = ask(s.folder / "control", do="status")["result"]
        assert (status["pid"], status["version"], status["state"]) == (pid, "newer", "serving")
        assert status["ready"] == 2
        until(lambda: len(descriptors(pid)) <= len(fds), "as many descriptors as before")
        after = page(s)
        counters = [name for name in before if "_total" in name]
        assert counters
        assert all(int(after[name]) >= int(before[name]) for name in counters)
        assert " ".join(psutil.Process(pid).cmdline()).strip() == "weego: master [echo]"
        # what has to work all the same: a death, a reload, a second master, the end
        (other,) = workers - {client.who()[0]}
        os.kill(other, signal.SIGKILL)
        until(lambda: len(s.workers()) == 2 and s.workers() != workers, "a replacement")
        s.reload()
        until(lambda: client.who()[1] == 1002, "the new code, which comes with the reload, and the connection stays")
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0
        assert not (s.folder / "pid").exists()
    assert s.errors == []


def test_upgrades_under_load_lose_nothing(server):
    with server(workers=3) as s:
        stop, answered, failures = threading.Event(), [], []

        def load():
            try:
                with s.connect() as client:
                    while not stop.is_set():
                        body = os.urandom(8)
                        assert client.call(body) == body
                        answered.append(1)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for number in range(3):
            assert s.upgrade()["ok"], number
            with s.connect() as client:
                client.call(b"a new connection")
        assert s.upgrade(reload=True)["result"]["generation"] == 2
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(answered) > 100
        assert s.log.count("upgraded from weego test to test") == 4
    assert s.errors == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("prefork/crew.py", "class Crew:", "class Crew"), "SyntaxError"),
        (("prefork/control.py", "import json", "import no_such_module"), "No module named 'no_such_module'"),
        (("prefork/legacy.py", "FORMAT = 1", "FORMAT = 2"), "it speaks format 2 and the running server 1"),
        (("prefork/scoreboard.py", "LAYOUT = 2", "LAYOUT = 99"), "it has layout 2 and this code 99; restart the server instead, its counters begin anew"),
        (("prefork/application.py", "    hang_timeout: float = 10.0", "    hung_timeout: float = 10.0"), "hang_timeout"),
    ],
    ids=["syntax", "import", "format", "scoreboard", "settings"],
)
def test_code_that_is_not_fit_changes_nothing(server, change, line):
    with server() as s, s.connect() as client:
        family = s.workers()
        old = (s.root / change[0]).read_text()
        s.change(*change)
        answer = s.upgrade()
        assert not answer["ok"]
        assert line in answer["error"]
        assert client.call(b"x") == b"x"
        assert s.workers() == family
        assert "upgrade failed, all goes on as it was" in s.errors[-1]
        (s.root / change[0]).write_text(old)
        assert s.upgrade()["ok"]


def test_new_code_that_never_answers_is_no_upgrade(server):
    with server() as s:
        s.change("prefork/upgrade.py", "EXAMINE_SECONDS = 30.0", "EXAMINE_SECONDS = 1.0")
        assert s.upgrade()["ok"]  # from here on it is as impatient as that
        s.change("tests/prefork/echo_app.py", "import logging\n", "import logging\nimport time\ntime.sleep(3600)\n")
        answer = s.upgrade()
        assert "not done within 1 s" in answer["error"]
        with s.connect() as client:
            assert client.call(b"x") == b"x"
        children = psutil.Process(s.process.pid).children()
        assert len(children) == 3, children


def test_signals_in_the_middle_are_not_lost(server):
    with server(workers=1) as s:
        s.change("prefork/legacy.py", "import json\n", "import json\nimport time\n")
        s.change("prefork/legacy.py", "    _take_facts(master, plain)\n", "    log.info('taking')\n    time.sleep(1)\n    _take_facts(master, plain)\n")
        s.signal(signal.SIGUSR2)
        s.wait_log("taking")
        s.signal(signal.SIGTTIN)
        until(lambda: len(s.workers()) == 2, "one worker more")
        s.signal(signal.SIGUSR2)
        s.wait_log("taking", 2)
        s.signal(signal.SIGHUP)
        s.wait_log("reload done")
        s.signal(signal.SIGUSR2)
        s.wait_log("taking", 3)
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0


def test_a_worker_that_dies_in_the_middle_is_replaced(server):
    with server() as s:
        s.change("prefork/legacy.py", "import json\n", "import json\nimport time\n")
        s.change("prefork/legacy.py", "    _take_facts(master, plain)\n", "    log.info('taking')\n    time.sleep(1)\n    _take_facts(master, plain)\n")
        before = s.workers()
        s.signal(signal.SIGUSR2)
        s.wait_log("taking")
        for pid in (*before, *s.children("loader")):
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(s.workers()) == 2 and not s.workers() & before, "two replacements")
        with s.connect() as client:
            assert client.call(b"x") == b"x"


def test_draining_workers_keep_their_deadline(server):
    with server(workers=1, never_drains=True, graceful_timeout=3) as s:
        old = s.workers()
        s.reload()
        assert s.upgrade()["ok"]
        assert old < s.workers()
        until(lambda: not s.workers() & old, "the end of the old worker")
        assert "did not leave in time: SIGKILL" in s.log


def test_when_there_can_be_none(server):
    with server(sleep_load=1) as s:
        s.signal(signal.SIGHUP)
        s.wait_log("reloading")
        assert s.upgrade()["error"] == "no upgrade: a reload is under way"
        s.wait_log("reload done")
        s.signal(signal.SIGUSR2)
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0


def test_counters_of_the_dead_and_the_living_go_on(server):
    with server(workers=2, admin="tcp://127.0.0.1:0") as s:
        name = "weego_requests_total"
        seen = 0
        for number in range(4):
            with s.connect() as client:
                for _ in range(10):
                    client.call(b"x")
            if number == 1:
                os.kill(min(s.workers()), signal.SIGKILL)
                s.wait_log("is ready", 3)
            assert int(page(s)[name]) >= seen + 10
            seen = int(page(s)[name])
            assert s.upgrade()["ok"]
            assert int(page(s)[name]) >= seen
        assert seen == 40
        assert page(s)['weego_worker_restarts_total{reason="signal"}'] == "1"

"""The master as the first process of a container: it is everybody's parent in the end, and no signal has a default action for it."""

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.prefork.harness import Client, Server, until
from tests.prefork.test_upgrade import ask
from tests.support.need import program

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Contained(Server):
    """A server in a namespace of processes of its own, in which its master has pid 1."""

    def start(self, *arguments):
        (self.folder / "ready.json").unlink(missing_ok=True)
        unshare = program("unshare", "apt-get install util-linux")
        command = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child"]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("needs the right to make a pid namespace: run as root")
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, sys.executable, f"{self.root}/tests/prefork/echo_app.py", str(self.folder), *arguments],
                stderr=log, stdout=log, env={**os.environ, "PYTHONPATH": str(self.root)}, start_new_session=True,
            )  # fmt: skip
        return self

    def wait_family(self):
        """From outside there is one child more between."""

    @property
    def master(self):
        """As seen from outside."""
        return psutil.Process(self.process.pid).children()[0]

    def signal(self, signum):
        with contextlib.suppress(IndexError, psutil.Error):
            self.master.send_signal(signum)


DAEMONS = """
import os
if os.fork() == 0:
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            os._exit(3)
    os._exit(0)
os.wait()
"""


def test_the_first_process_of_a_container(tmp_path):
    (tmp_path / "daemons.py").write_text(DAEMONS)
    control = tmp_path / "control"
    with Contained(tmp_path, code="daemons", control=str(control), pidfile=str(tmp_path / "pid")) as s:
        assert s.ready["pid"] == 1
        assert (tmp_path / "pid").read_text() == "1\n"
        until(lambda: [child.status() for child in s.master.children()].count("zombie") == 0, "the strangers to be reaped")
        assert len(s.master.children()) == 3
        # a stranger's exit code of 3 means nothing; a worker's death does
        worker = next(child for child in s.master.children() if "worker" in " ".join(child.cmdline()))
        worker.kill()
        s.wait_log("is ready", 3)
        s.reload()
        assert ask(control, do="upgrade")["result"]["pid"] == 1
        with s.connect() as client:
            assert client.call(b"x") == b"x"
        for signum in (signal.SIGUSR1, signal.SIGWINCH, signal.SIGTTIN):
            s.signal(signum)
        s.wait_log("SIGTTIN: 3 workers instead of 2")
        s.signal(signal.SIGTERM)
        assert s.wait_exit() == 0
        assert not (tmp_path / "pid").exists()


def test_a_second_container_with_the_same_pidfile(tmp_path):
    """Both masters have pid 1: the lock tells them apart, and not the number."""
    with Contained(tmp_path, pidfile=str(tmp_path / "pid")) as s:
        address = s.address
        other = Contained(tmp_path, pidfile=str(tmp_path / "pid"))
        other.start()
        assert other.process.wait(30) == 71
        assert "held by a running master (pid 1)" in s.log
        with Client(address) as client:
            assert client.call(b"x") == b"x"
    # and what a dead one has left, with the number of everybody's first process, is taken
    (tmp_path / "pid").write_text("1\n")
    with Contained(tmp_path, pidfile=str(tmp_path / "pid")) as s, s.connect() as client:
        assert client.call(b"x") == b"x"

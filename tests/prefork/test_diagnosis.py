"""What a process is doing, told from two looks at it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from prefork import diagnosis
from prefork.diagnosis import BLOCKED, SPINNING, STARVED, STOPPED, Pulse, denied, diagnose, feel
from tests.prefork.harness import until


@pytest.mark.parametrize(
    ("before", "now", "verdict", "lost"),
    [
        (Pulse("R", 1.0, 0.0), Pulse("T", 1.0, 0.0), STOPPED, 0.0),
        (Pulse("R", 1.0, 0.0), Pulse("t", 1.0, 0.0), STOPPED, 0.0),
        (Pulse("R", 1.0, 0.0), Pulse("R", 2.0, 0.0), SPINNING, 0.0),
        (Pulse("R", 1.0, 0.0), Pulse("R", 1.25, 0.75), SPINNING, 0.75),  # a quarter of a CPU is enough to turn a loop
        (Pulse("R", 1.0, 0.0), Pulse("R", 1.0, 0.0), STARVED, 1.0),  # a wait that has not ended is in no sum
        (Pulse("R", 1.0, 0.0), Pulse("S", 1.01, 0.9), STARVED, 0.9),
        (Pulse("R", 1.0, 0.0), Pulse("S", 1.01, 5.0), STARVED, 1.0),
        (Pulse("S", 1.0, 0.0), Pulse("S", 1.0, 0.0), BLOCKED, 0.0),
        (Pulse("S", 1.0, 0.0), Pulse("D", 1.0, 0.25), BLOCKED, 0.25),
        (Pulse("S", 1.0, 9.0), Pulse("S", 1.0, 0.0), BLOCKED, 0.0),
    ],
)
def test_the_verdicts(before, now, verdict, lost):
    assert diagnose(before, now, 1.0) == verdict
    assert denied(before, now, 1.0) == pytest.approx(lost)


def test_feeling_a_pulse():
    own = feel(os.getpid())
    assert own is not None
    assert own.state == "R"
    assert own.cpu > 0
    assert feel(2**22 + 1) is None


def test_a_name_may_hold_anything(tmp_path):
    program = tmp_path / ") R 1 ("
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        try:
            until(lambda: (pulse := feel(child.pid)) and pulse.state == "S", "sleep to sleep")
        finally:
            child.kill()


def test_real_processes(monkeypatch):
    for has_schedstat in (True, False):
        if not has_schedstat:  # the coarser times every kernel has
            read = diagnosis._read
            monkeypatch.setattr(diagnosis, "_read", lambda path, read=read: b"0 0 0" if "schedstat" in path else read(path))
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
            try:
                until(lambda child=child: (p := feel(child.pid)) and p.state == "R" and p.cpu > 0.1, "it to spin")
                before, began = feel(child.pid), time.monotonic()
                until(lambda child=child, before=before: feel(child.pid).cpu > before.cpu + 0.1, "it to go on")
                now, ended = feel(child.pid), time.monotonic()
                if ended - began < 0.5 and now.state == "R":  # else somebody else had the CPU
                    assert diagnose(before, now, ended - began) == SPINNING
                child.send_signal(signal.SIGSTOP)
                until(lambda child=child: feel(child.pid).is_stopped, "it to be stopped")
                assert diagnose(now, feel(child.pid), 1.0) == STOPPED
            finally:
                child.kill()

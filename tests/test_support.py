"""The suite's own tools: they must find what they are there to find."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support import need
from tests.support.leaks import descriptors, no_leaks
from tests.support.processes import Process, assert_clean


def python(code: str) -> Process:
    return Process([sys.executable, "-u", "-c", code])


def test_lines_are_waited_for() -> None:
    with python("import time; print('one'); time.sleep(0.2); print('port 42'); time.sleep(60)") as process:
        assert process.wait_for(r"port (\d+)")[1] == "42"
        process.signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    assert process.lines == ["one", "port 42"]


def test_a_line_that_never_comes_shows_what_came() -> None:
    with python("print('only this')") as process, pytest.raises(AssertionError, match="only this"):
        process.wait_for("something else")


def test_nothing_survives_the_block() -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid); input()"
    with no_leaks():
        with python(code) as process:
            child = int(process.wait_for(r"^\d+$")[0])
        assert has_ended(child)


def has_ended(pid: int, patience: float = 10.0) -> bool:
    """Gone, or a zombie that whoever adopts orphans here has not reaped yet; a killed process ends when it next runs."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("output", "clean"),
    [
        ("2026 worker 1 INFO fine", True),
        ("Traceback (most recent call last):", False),
        ("    Traceback (most recent call last):", False),
        ("2026 worker 1 WARNING slow", False),
        ('{"time":"x","level":"error"}', False),
        ('{"time":"x","level":"info"}', True),
    ],
)
def test_a_clean_log(output: str, *, clean: bool) -> None:
    if clean:
        assert_clean(output)
        return
    with pytest.raises(AssertionError, match="unexpected in the log"):
        assert_clean(output)
    assert_clean(output, allow=["."])


def test_leaks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.leaks.SETTLING", 0.2)
    with pytest.raises(AssertionError, match="descriptors"), no_leaks():
        fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="left over")
    with pytest.raises(AssertionError, match="left over"), no_leaks():
        thread.start()
    go.set()
    thread.join()
    with pytest.raises(AssertionError, match="children"), no_leaks():
        child = subprocess.Popen(["sleep", "60"])
    child.kill()
    child.wait()


def test_descriptors_of_another_process() -> None:
    with python("import time; print('up'); time.sleep(60)") as process:
        process.wait_for("up")
        assert set(descriptors(process.pid)) >= {0, 1, 2}


def test_a_missing_thing_is_a_skip_with_its_remedy_and_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEEGO_CI", "0")
    with pytest.raises(pytest.skip.Exception, match="apt-get install it"):
        need.program("no-such-program", "apt-get install it")
    monkeypatch.setenv("WEEGO_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="pip install no_such_module"):
        need.module("no_such_module")
    monkeypatch.setenv("WEEGO_IDL_CORPUS", "/nowhere")
    with pytest.raises(pytest.fail.Exception, match="WEEGO_IDL_CORPUS"):
        need.corpus()

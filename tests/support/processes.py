"""A child process whose lines can be waited for and which is gone when the test is.

    with Process([sys.executable, "bin/weego-master", conf]) as master:
        master.wait_for("listening")
        …
        master.signal(signal.SIGTERM)
        assert master.wait() == 0
    assert_clean(master.output)
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

# Generous: the machine may be busy, and no test asserts how long a thing took.
PATIENCE = 30.0


def freeze(pid: int) -> None:
    """Stop a process, and wait until it has stopped: a signal is only sent when `kill` returns, and what runs goes on until it is seen."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while not _is_stopped(pid):
        if time.monotonic() > deadline:
            raise AssertionError(f"process {pid} does not stop")
        time.sleep(0.001)


def _is_stopped(pid: int) -> bool:
    """All its threads."""
    for each in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            if each.joinpath("stat").read_text().rpartition(")")[2].split()[0] not in "Tt":
                return False
    return True


class Process:
    """A program in a session of its own, its output collected by line; leaving the block ends it with all its children."""

    def __init__(self, command: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.reading = threading.Event()
        """Clear it, and nobody reads what the program writes."""
        self.reading.set()
        self._more = threading.Condition()
        self.child = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, *, after: int = 0, patience: float = PATIENCE) -> re.Match[str]:
        """The first line from number `after` on that matches; fails with the whole output if it does not come."""
        deadline = time.monotonic() + patience
        with self._more:
            while True:
                for line in self.lines[after:]:
                    after += 1
                    if match := re.search(pattern, line):
                        return match
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(f"no line matches {pattern!r} in:\n{self.output}")
                self._more.wait(min(left, 0.1))

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code, with all output read."""
        try:
            code = self.child.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {patience} s:\n{self.output}") from None
        self._reader.join(patience)
        return code

    def stop(self, patience: float = PATIENCE) -> int:
        """TERM, then the exit code."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        return self.wait(patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The session has its leader's number: whatever the child left behind goes with it.
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()
        self.reading.set()
        self._reader.join(PATIENCE)
        assert self.child.stdout
        self.child.stdout.close()

    def _read(self) -> None:
        assert self.child.stdout
        for line in self.child.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
            self.reading.wait()
        with self._more:
            self._more.notify_all()


def assert_clean(output: str, *, allow: Sequence[str] = ()) -> None:
    """No traceback and no unexpected warning in the log of a server."""
    bad = re.compile(r"Traceback \(most recent call last\)|\b(WARNING|ERROR|CRITICAL)\b|\"level\":\"(warning|error|critical)\"")
    lines = [line for line in output.splitlines() if bad.search(line) and not any(re.search(each, line) for each in allow)]
    assert not lines, "unexpected in the log:\n" + "\n".join(lines) + "\n--- all of it:\n" + output

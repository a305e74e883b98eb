"""Log lines: their two formats, one write for each, and that logging never hurts who logs."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from weego import log
from weego.config import Log
from weego.log import Access

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"

Read = Callable[[], str]


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Put logging back as it was."""
    loggers = [logging.getLogger(name) for name in ("", "weego", "weego.access", "weego.worker", "py.warnings")]
    before = [(each.handlers[:], each.level, each.propagate, each.filters[:]) for each in loggers]
    yield
    logging.captureWarnings(capture=False)
    for logger, (handlers, level, propagate, filters) in zip(loggers, before, strict=True):
        for each in logger.handlers:
            if each not in handlers:
                each.close()
        logger.handlers[:], logger.propagate, logger.filters[:] = handlers, propagate, filters
        logger.setLevel(level)


@pytest.fixture
def pipe() -> Iterator[tuple[int, Read]]:
    """A descriptor to log to, and what was logged since the last look."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def read() -> str:
        try:
            return os.read(reader, 1 << 20).decode()
        except BlockingIOError:
            return ""

    yield writer, read
    os.close(reader)
    os.close(writer)


def setup(config: object, role: str, *, fd: int) -> None:
    """As in a process where nobody else logs: pytest's own handlers are taken off the root logger first."""
    logging.getLogger().handlers.clear()
    log.setup(config, role, fd=fd)  # type: ignore[arg-type]


class Done:
    """A call that is over, as the dispatcher tells of it, and its request."""

    def __init__(self, **changes: object) -> None:
        self.service, self.method, self.protocol, self.peer, self.caller = "Echo", "echo", "ttheader", "127.0.0.1:4242", ""
        self.elapsed: object = 0.000123
        self.size = 1050
        vars(self).update(changes)


def tell(write: log.Finished | None, *, code: int = 0, error: BaseException | None = None, **changes: object) -> None:
    """Have a line written about a call."""
    assert write
    done = Done(**changes)
    write(done, done, code, 1062, error)


# ---------------------------------------------------------------- formats


def test_text(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 3", fd=fd)
    logging.getLogger("weego.worker").info("ready, %d listeners", 2)
    logging.getLogger("app.models").warning("slow")
    first, second = read().splitlines()
    assert re.fullmatch(STAMP + " worker 3 INFO ready, 2 listeners", first)
    assert re.fullmatch(STAMP + " worker 3 WARNING app.models: slow", second)


def test_json(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup({"format": "json"}, "master", fd=fd)
    logging.getLogger("weego.master").error("naïve %s", "☃", extra={"slot": 3, "odd": object})
    line = json.loads(read())
    assert re.fullmatch(STAMP, line.pop("time"))
    assert line == {
        "level": "error",
        "role": "master",
        "pid": os.getpid(),
        "logger": "weego.master",
        "message": "naïve ☃",
        "slot": 3,
        "odd": repr(object),
    }


def test_auto_is_json_where_no_terminal_is(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(None, "master", fd=fd)
    logging.getLogger("weego.master").info("x")
    assert json.loads(read())["message"] == "x"


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_auto_is_text_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_colour: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    ours, theirs = pty.openpty()
    try:
        setup(None, "master", fd=theirs)
        logging.getLogger("weego.master").warning("x")
        line = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert ("\x1b[33mWARNING\x1b[0m" in line) == (not no_colour)
    assert line.rstrip().endswith(" x")


def test_an_exception_follows_indented(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    try:
        raise ValueError("inner\nmessage")
    except ValueError:
        logging.getLogger("weego.worker").exception("failed")
    head, *rest = read().splitlines()
    assert head.endswith("ERROR failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(row.startswith("    ") for row in rest)


def test_an_exception_in_json_is_one_line(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="json"), "worker 1", fd=fd)
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("weego.worker").exception("failed")
    (line,) = read().splitlines()
    assert json.loads(line)["exception"].endswith("ValueError: x")


def test_what_a_peer_sends_cannot_forge_a_line(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    logging.getLogger("weego.worker").warning("unknown method %s", "x\n2026 master INFO fine\x1b[2J\udcff")
    (line,) = read().splitlines()
    assert r"x\n2026 master INFO fine\x1b[2J\udcff" in line


# ---------------------------------------------------------------- behaviour


def test_levels(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(level="warning", format="text"), "master", fd=fd)
    logging.getLogger("weego.master").info("no")
    logging.getLogger("app").info("no")
    assert read() == ""


def test_setting_up_again_replaces(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    for role in ("master", "worker 1"):
        setup(Log(format="text"), role, fd=fd)
    logging.getLogger("weego.worker").info("once")
    logging.getLogger("app").info("once")
    assert [line.count("worker 1") for line in read().splitlines()] == [1, 1]


def test_warnings_are_lines(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        setup(Log(format="text"), "worker 1", fd=fd)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "WARNING py.warnings: " in read()


def test_a_broken_message_is_reported_and_not_raised(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    logging.getLogger("weego.worker").info("%d", "not a number")
    assert "test_log.py:" in read()


def test_a_closed_descriptor_is_survived() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    setup(Log(format="text"), "worker 1", fd=writer)
    logging.getLogger("weego.worker").info("to nobody")
    os.close(writer)
    logging.getLogger("weego.worker").info("to nothing")


def test_one_write_for_each_line(pipe: tuple[int, Read], monkeypatch: pytest.MonkeyPatch) -> None:
    fd, _ = pipe
    writes: list[bytes] = []
    setup(Log(format="text"), "worker 1", fd=fd)
    monkeypatch.setattr(os, "write", lambda _, data: writes.append(data) or len(data))
    try:
        raise ValueError
    except ValueError:
        logging.getLogger("weego.worker").exception("with traceback")
    assert len(writes) == 1
    assert writes[0].endswith(b"ValueError\n")


def test_a_child_may_log_whatever_its_parent_was_doing() -> None:
    """A fork while another thread logs must not leave a lock behind that nobody holds."""
    code = """
import logging, os, threading
from weego import log
log.setup({"format": "text"}, "parent", fd=os.open("/dev/null", os.O_WRONLY))
logger = logging.getLogger("weego.worker")
stop = False
def chatter():
    while not stop: logger.info("x")
thread = threading.Thread(target=chatter); thread.start()
for _ in range(20):
    pid = os.fork()
    if not pid:
        log.setup({"format": "text"}, "child", fd=os.open("/dev/null", os.O_WRONLY))
        logger.info("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop = True; thread.join()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (result.returncode, result.stderr) == (0, "")


# ---------------------------------------------------------------- access log


def test_access_text(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    write = log.access_log()
    tell(write)
    tell(write, code=14, error=RuntimeError("gone\naway"), caller="shop")
    first, second = read().splitlines()
    assert re.fullmatch(STAMP + r" worker 1 Echo.echo OK 0\.123ms 1050>1062 ttheader 127\.0\.0\.1:4242", first)
    assert second.endswith(r"127.0.0.1:4242 from=shop error=RuntimeError: gone\naway")
    assert " UNAVAILABLE " in second


def test_access_json(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="json"), "worker 1", fd=fd)
    tell(log.access_log(), code=13, error=ValueError('quo"te'), elapsed=12.5)
    line = json.loads(read())
    assert re.fullmatch(STAMP, line.pop("time"))
    assert line == {
        "level": "info",
        "role": "worker 1",
        "pid": os.getpid(),
        "logger": "weego.access",
        "service": "Echo",
        "method": "echo",
        "code": "INTERNAL",
        "elapsed": 12.5,
        "bytes_in": 1050,
        "bytes_out": 1062,
        "protocol": "ttheader",
        "peer": "127.0.0.1:4242",
        "error": 'ValueError: quo"te',
    }


def test_access_is_not_bound_to_the_level(pipe: tuple[int, Read]) -> None:
    setup(Log(level="error"), "worker 1", fd=pipe[0])
    assert log.access_log()


def test_access_off(pipe: tuple[int, Read]) -> None:
    setup(Log(access=False), "worker 1", fd=pipe[0])
    assert log.access_log() is None


def test_a_handler_of_the_users_gets_records(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logging.getLogger("weego.access").addHandler(handler)
    write = log.access_log()
    assert write
    tell(write)
    (record,) = seen
    entry = record.__dict__["access"]
    assert isinstance(entry, Access)
    assert (entry.service, entry.code, entry.bytes_in, entry.bytes_out) == ("Echo", "OK", 1050, 1062)
    assert abs(entry.start - time.time()) < 60
    assert "Echo.echo OK" in read()


def test_a_wrong_field_does_not_reach_the_call(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    write = log.access_log()
    tell(write, elapsed="long")
    tell(write, peer=None)
    assert read().count("access log line cannot be formatted") == 2


# ---------------------------------------------------------------- files


def test_a_file_and_another_for_calls(tmp_path: Path) -> None:
    setup(Log(file=str(tmp_path / "log/main"), access_file=str(tmp_path / "log/access")), "worker 1", fd=2)
    tell(log.access_log())
    logging.getLogger("weego.worker").warning("careful")
    assert json.loads((tmp_path / "log/main").read_text())["message"] == "careful"
    assert json.loads((tmp_path / "log/access").read_text())["method"] == "echo"


def test_reopening(tmp_path: Path, pipe: tuple[int, Read]) -> None:
    path = tmp_path / "main"
    setup(Log(file=str(path)), "worker 1", fd=2)
    logger = logging.getLogger("weego.worker")
    logger.warning("one")
    path.rename(tmp_path / "old")
    logger.warning("two")
    log.reopen()
    logger.warning("three")
    assert [json.loads(line)["message"] for line in (tmp_path / "old").read_text().splitlines()] == ["one", "two"]
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["three"]
    # What cannot be opened again goes on where it is, and says so there.
    path.rename(tmp_path / "older")
    path.mkdir()
    log.reopen()
    assert "cannot be opened again" in (tmp_path / "older").read_text()
    setup(None, "worker 1", fd=pipe[0])


def test_a_file_that_cannot_be_opened_changes_nothing(tmp_path: Path, pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "worker 1", fd=fd)
    for wrong in (
        Log(file=str(tmp_path)),
        Log(file=str(tmp_path / "a"), access_file=str(tmp_path / "no/such/folder")),
    ):
        with pytest.raises(OSError):
            setup(wrong, "worker 1", fd=fd)
    logging.getLogger("weego.worker").info("as before")
    assert read().endswith("as before\n")


def test_the_level_may_change(pipe: tuple[int, Read]) -> None:
    fd, read = pipe
    setup(Log(format="text"), "master", fd=fd)
    log.set_level("error")
    for name in ("weego.master", "app"):
        logging.getLogger(name).warning("no")
    assert read() == ""
    log.set_level("debug")
    for name in ("weego.master", "app"):
        logging.getLogger(name).debug("yes")
    assert read().count("yes") == 2


def test_lines_for_a_person(capfd: pytest.CaptureFixture[str]) -> None:
    log.stderr_line("weego-master: a\nb")
    assert capfd.readouterr().err == "weego-master: a\\nb\n"

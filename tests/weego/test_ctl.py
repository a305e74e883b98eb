"""`weego ctl` against a real master, and against whatever else may be at the other end of a path."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.prefork.harness import Server
from weego.cli import ctl as ctl_module
from weego.cli.commands import weego as group

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CONF = '[server]\n{server}\n[[listen]]\naddress = "tcp://127.0.0.1:0"\n[[service]]\nclass = "app:Echo"\n'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, name="hello", control=str(tmp_path / "c.sock")) as server:
        yield server


def ctl(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["ctl", *arguments])


def ask(server: Server, *arguments: str, code: int = 0) -> str:
    result = ctl("--socket", server.conf["control"], *arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


# ---------------------------------------------------------------- a server that runs


def test_status(server: Server) -> None:
    lines = ask(server, "status").splitlines()
    assert lines[0].startswith(f"hello is serving: weego test, master {server.process.pid}, ")
    assert lines[1:] == [
        "workers     2 of 2 ready",
        "generation  1; 0 reloads, 0 failed",
        "restarts    none",
        f"listen      {server.address}",
        "admin       none",
    ]
    assert json.loads(ask(server, "status", "--json"))["pid"] == server.process.pid


def test_workers(server: Server) -> None:
    header, *rows = ask(server, "workers").splitlines()
    assert header.split() == [
        "slot",
        "gen",
        "pid",
        "state",
        "connections",
        "inflight",
        "requests",
        "errors",
        "memory",
        "up",
    ]
    assert {int(row.split()[2]) for row in rows} == server.workers()
    assert [worker["slot"] for worker in json.loads(ask(server, "workers", "--json"))] == [0, 1]


def test_stats(server: Server) -> None:
    with server.connect() as client:
        client.who()
        lines = [line.rsplit("  ", 1) for line in ask(server, "stats").splitlines()]
    values = {name.strip(): value.strip() for name, value in lines}
    assert values["requests"] == values["connections"] == "1"
    assert values["memory of master"].endswith(" MiB")
    assert json.loads(ask(server, "stats", "--json"))["memory"].keys() >= {"master", "loader"}


def test_reload(server: Server) -> None:
    assert ask(server, "reload") == "reloading\n"
    server.wait_log("reload done")
    assert ask(server, "reload", "--wait") == "generation 3 serves with 2 workers\n"
    server.configure(workers=0)
    result = ctl("--socket", server.conf["control"], "reload", "--wait")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the last reload failed: workers: 0 is out of range" in ask(server, "status")


def test_the_error_of_a_reload_is_one_line_on_stderr(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    server.configure(workers=0)
    ask(server, "reload", "--wait", code=1)
    assert capfd.readouterr().err == "weego ctl: workers: 0 is out of range, use 1 to 256\n"


def test_health_and_stop(server: Server) -> None:
    assert ask(server, "health") == "ready\n"
    server.configure(never_drains=True, graceful_timeout=60)
    ask(server, "reload", "--wait")
    assert ask(server, "stop") == "stopping\n"
    assert ask(server, "health", code=1) == "the server is stopping\n"
    assert json.loads(ask(server, "health", "--json", code=1))["live"] == []
    ask(server, "stop", "--fast", "--json")
    assert server.wait_exit() == 0


def test_the_configuration_leads_to_the_socket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    Path("conf/server.toml").write_text(CONF.format(server='control = "c.sock"'))
    assert ctl("health").stdout == "ready\n"
    assert ctl("--conf", "conf/server.toml", "health").stdout == "ready\n"


def test_a_master_that_is_stopped(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctl_module, "ANSWER_SECONDS", 0.2)
    server.signal(signal.SIGSTOP)
    result = ctl("--socket", server.conf["control"], "status")
    server.signal(signal.SIGCONT)
    assert result.exit_code == 69
    assert "no answer within 0.2 s; is the master stopped?" in capfd.readouterr().err


# ---------------------------------------------------------------- nobody, or somebody else


def test_no_socket(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ctl("--socket", f"{tmp_path}/none", "status").exit_code == 69
    assert (
        capfd.readouterr().err
        == f"weego ctl: {tmp_path}/none: no such socket; is the server running, and is this the right path?\n"
    )


def test_nobody_listens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(f"{tmp_path}/s")
    assert ctl("--socket", f"{tmp_path}/s", "status").exit_code == 69
    assert "nobody listens there; the server is not running" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may everything")
def test_not_allowed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/s")
        sock.listen()
        os.chmod(f"{tmp_path}/s", 0)
        assert ctl("--socket", f"{tmp_path}/s", "status").exit_code == 77
    assert "permission denied" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code", "complaint"),
    [
        (b"", 69, "the server went away before it answered"),
        (b"HTTP/1.1 400 Bad Request\r\n", 69, "not a weego server"),
        (b"[]\n", 69, "not a weego server"),
        (b'{"ok": false, "error": "uid 7 may not speak here"}\n', 1, "uid 7 may not speak here"),
    ],
)
def test_strange_answers(
    answer: bytes, code: int, complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        listener.settimeout(30)

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.recv(1000)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        result = ctl("--socket", f"{tmp_path}/s", "status")
        thread.join()
    assert result.exit_code == code
    (line,) = capfd.readouterr().err.splitlines()
    assert complaint in line


# ---------------------------------------------------------------- which server?


def test_nothing_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ctl("status")
    assert result.exit_code == 2
    assert "which server? say --socket PATH or --conf CONF" in result.output
    assert ctl("--socket", "a", "--conf", "b", "status").exit_code == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(CONF.format(server=""), "[server] control is not set"), ("[servr]\n", "unknown table")],
)
def test_a_configuration_that_does_not_lead_there(
    text: str, complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.toml").write_text(text)
    assert ctl("--conf", f"{tmp_path}/x.toml", "status").exit_code == 78
    assert complaint in capfd.readouterr().err


def test_help_needs_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ctl("reload", "--help")
    assert result.exit_code == 0
    assert "--wait" in result.output


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59.9, "59s"), (185, "3m05s"), (7200 + 720, "2h12m"), (4 * 86400 + 3 * 3600, "4d03h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert ctl_module._duration(seconds) == shown

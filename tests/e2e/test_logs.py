"""Logs of a whole server: nobody waits for them, rotation loses nothing, what is lost is counted."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.load import Load
from tests.e2e.wire import STRING, Wire, call
from tests.support.need import ROOT
from tests.support.service import App, Server, until

ADMIN = '[admin]\naddress = "tcp://127.0.0.1:0"'


def metric(server: Server, name: str) -> int:
    """Of the admin listener's page."""
    host, _, port = server.process.wait_for(r"^  admin on tcp://(.*)")[1].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as admin:
        admin.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        page = b""
        while chunk := admin.recv(65536):
            page += chunk
    match = re.search(rf"^{name} (\d+)$", page.decode(), re.MULTILINE)
    assert match, page
    return int(match[1])


def many_calls(wire: Wire, count: int, text: str = "x") -> None:
    """So many, pipelined by hundreds; every one answered."""
    for start in range(0, count, 100):
        wire.send(b"".join(call("echo", (1, STRING, text), seqid=n) for n in range(start, start + 100)))
        for n in range(start, start + 100):
            assert wire.receive().seqid == n


def test_a_log_that_nobody_reads_holds_up_nobody(app: App) -> None:
    calls = 30_000  # lines of some 220 bytes: more than the pipe, the queue and what the thread holds together
    with app.serve(log='format = "json"', more=ADMIN, allow=["log lines were dropped"]) as server:
        server.process.reading.clear()
        with Wire(server.address) as wire:
            many_calls(wire, calls)
            until(lambda: metric(server, "weego_log_dropped_total"), "lines to be dropped")
            server.process.reading.set()
            lost = int(server.process.wait_for(r"(\d+) log lines were dropped")[1])
            until(lambda: metric(server, "weego_log_dropped_total") == lost, "the same number in the metrics")
            wire.call("echo", (1, STRING, "afterwards"))
            until(lambda: server.log.count('"method":"echo"') == calls - lost + 1, "all other lines")
        # A worker that is told to leave while nobody reads leaves all the same.
        server.process.reading.clear()
        with Wire(server.address) as wire:
            many_calls(wire, 500)
        server.signal(signal.SIGTERM)
        until(lambda: not psutil.pid_exists(server.pid) or server.process.child.poll() is not None, "the end of the master")
        server.process.reading.set()


def test_rotation_under_load_loses_no_line(app: App, tmp_path: Path) -> None:
    main, access = tmp_path / "log/main", tmp_path / "log/access"
    log = f"access = true\nformat = \"json\"\nfile = {json.dumps(str(main))}\naccess_file = {json.dumps(str(access))}"
    with app.serve(workers=2, log=log) as server:
        with Load(server.address, connections=8, idle=0, pace=0.002, newcomers=0) as load:
            for turn in range(3):
                answered = load.answered
                until(lambda answered=answered: load.answered > answered + 200, "some calls")  # type: ignore[misc]
                for path in (main, access):
                    path.rename(path.with_name(f"{path.name}.{turn}"))
                server.signal(signal.SIGUSR1)
                until(main.exists, "the master to open its file again")
                until(lambda: all(files(pid) == {str(main), str(access)} for pid in server.workers()), "the workers to open theirs")
        assert not load.failures
        server.reload_quietly(main)
    lines = [json.loads(line) for path in access.parent.glob("access*") for line in path.read_text().splitlines()]
    assert len(lines) == load.answered
    assert {line["code"] for line in lines} == {"OK"}
    text = "".join(path.read_text() for path in sorted(main.parent.glob("main*")))
    assert all(json.loads(line)["level"] == "info" for line in text.splitlines())
    assert text.count("is ready after") == 2
    assert "weego has stopped" in text
    assert "ready" not in server.log, "all lines go to the file"


def files(pid: int) -> set[str]:
    """Log files that a process has open."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            where = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if "/log/" in where:
            found.add(where)
    return found


def test_a_full_disk_costs_lines_and_no_call(app: App) -> None:
    with app.serve(log='access = true\nfile = "/dev/full"', more=ADMIN) as server, Wire(server.address) as wire:
        many_calls(wire, 500)
        until(lambda: metric(server, "weego_log_dropped_total") >= 500, "the lines to be counted")


def test_a_file_that_cannot_be_opened_is_a_mistake_in_the_configuration(app: App) -> None:
    with app.serve(allow=["reload failed"]) as server, Wire(server.address) as wire:
        before = wire.tell()
        app.write_conf(log='file = "no/such/folder/log"')
        line = server.reload_fails()
        assert re.search(r"server\.toml:\d+: \[log\] file: /.*/no/such/folder/log cannot be opened: No such file", line), line
        assert wire.tell() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else: run as root")
def test_another_user_writes_and_reopens_the_files_that_root_made(app: App, tmp_path: Path) -> None:
    try:
        command = [sys.executable, "-c", "import weego.server"]
        subprocess.run(command, cwd=ROOT, user="nobody", check=True, capture_output=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("the user nobody may not read this Python or this checkout: make both readable by all")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    log = tmp_path / "log/main"
    more = f'access = true\nformat = "json"\nfile = {json.dumps(str(log))}'
    with app.serve(server='user = "nobody"', log=more) as server, Wire(server.address) as wire:
        assert psutil.Process(server.worker()).uids().real != 0
        wire.call("echo", (1, STRING, "one"))
        until(lambda: '"method":"echo"' in log.read_text(), "the line")
        log.rename(tmp_path / "log/old")
        server.signal(signal.SIGUSR1)
        until(lambda: files(server.worker()) == {str(log)}, "the worker to open the file again")
        wire.call("echo", (1, STRING, "two"))
        until(lambda: '"method":"echo"' in log.read_text(), "the next line")

"""A person at work on a server that runs: weego ctl, reloads without new workers, upgrades, stacks."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.e2e.load import Load
from tests.e2e.wire import Wire, call
from tests.support.service import App, until
from weego.cli.commands import weego as group

Ctl = Callable[..., str]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def app(tmp_path: Path, no_leaks: None) -> App:
    return App(tmp_path / "app")


@pytest.fixture
def control(tmp_path: Path) -> str:
    return f"control = {json.dumps(str(tmp_path / 'control'))}"


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(group, ["ctl", "--socket", str(tmp_path / "control"), *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout

    return run


def wait_old_enough(app: App) -> None:
    """A file that has changed in the last moments may have changed after it was read: then no reload trusts it."""
    time.sleep(0.6)


def test_limits_and_log_level_without_new_workers(app: App, control: str, ctl: Ctl) -> None:
    wait_old_enough(app)
    with app.serve(workers=2, server=control) as server, Wire(server.address) as wire:
        before, who = server.workers(), wire.tell()[1]
        app.write_conf(workers=2, server=control, limits="max_concurrency = 7\nmax_message = 2048", log='level = "debug"\naccess = false')
        diff = ctl("reload", "--diff")
        assert "limits.max_concurrency  10000" in diff
        assert diff.count("at once") == 3
        assert diff.endswith("no new workers are needed\n")
        assert ctl("reload", "--wait") == "generation 1 serves with 2 workers\n"
        assert server.workers() == before
        assert wire.tell()[1] == who
        with Wire(server.address) as other:  # of a new connection, as the documentation says
            other.send(call("blob", (1, 11, b"x" * 4096)))
            assert other.rest() != b"", "an exception, and the end"
        config = ctl("config")
        assert "max_concurrency = 7" in config
        assert json.loads(ctl("config", "--json"))["limits"]["max_message"] == 2048
        # the file that comes out leads to the same
        app.conf.write_text(config)
        assert ctl("reload", "--diff") == "nothing has changed; a reload would start new workers all the same\n"


def test_policies_without_new_workers(app: App, control: str, ctl: Ctl) -> None:
    wait_old_enough(app)
    with app.serve(workers=2, server=control, allow=["was killed by SIGKILL", "no worker is ready"]) as server, Wire(server.address) as wire:
        before = server.workers()
        assert wire.tell()[0] == 1
        app.write_conf(workers=2, server=control, more='[governance]\ndefault = "deny"')
        assert ctl("reload", "--wait") == "generation 1 serves with 2 workers\n"
        assert server.workers() == before
        refused = wire.call("tell", (1, 11, "x")).error
        assert refused, "on a connection that was there before"
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(server.workers()) == 2 and not set(server.workers()) & set(before), "new workers")
        with Wire(server.address) as other:
            assert other.call("tell", (1, 11, "x")).error == refused, "who comes later goes by the same"
            app.write_conf(workers=2, server=control)
            ctl("reload", "--wait")
            assert other.tell()[0] == 1


def test_code_is_never_reloaded_by_half(app: App, control: str, ctl: Ctl) -> None:
    with app.serve(workers=2, server=control) as server, Wire(server.address) as wire:
        app.write_version(2)
        app.write_conf(workers=2, server=control, limits="max_concurrency = 7")
        ctl("reload", "--wait")
        until(lambda: wire.tell()[0] == 2, "the new code")


def test_upgrades_under_load(app: App, control: str, ctl: Ctl) -> None:
    with app.serve(workers=2, server=control) as server:
        before = server.workers()
        with Load(server.address, connections=16, idle=4, pace=0.002) as load:
            for _ in range(3):
                assert f"master {server.pid} is weego" in ctl("upgrade")
            server.signal(signal.SIGUSR2)
            server.wait_for("upgraded from weego")
            until(lambda: load.answered > 500, "some calls")
        assert not load.failures
        assert server.workers() == before
        assert "generation 2 serves" in ctl("upgrade", "--reload")
        until(lambda: not set(server.workers()) & set(before), "the old workers to leave")


def test_where_a_handler_is(app: App, control: str, ctl: Ctl) -> None:
    with app.serve(server=control) as server, Wire(server.address) as wire:
        wire.send(call("wait", (1, 4, 3.0), (2, 11, "x")))
        until(lambda: ", in wait" in ctl("stacks", "0"), "the handler's line, of a greenlet that waits")
        assert json.loads(ctl("stacks", "0", "--json"))["pid"] == server.worker()
        assert wire.receive()


def test_one_worker_is_replaced_and_a_crash_is_levelled_out(app: App, control: str, ctl: Ctl) -> None:
    with app.serve(workers=2, server=control, allow=["was killed by SIGKILL"]) as server:
        wires = [Wire(server.address) for _ in range(40)]
        for wire in wires:
            wire.__enter__()
        try:
            victim = wires[0].tell()[1]
            kept = [wire for wire in wires if wire.tell()[1] != victim]
            os.kill(victim, signal.SIGKILL)
            until(lambda: victim not in server.workers() and len(server.workers()) == 2, "a replacement")
            until(lambda: len({wire.tell()[1] for wire in kept}) == 2, "some to move")
            assert "leaves when its replacement is ready" in ctl("restart-worker", "1")
            assert all(wire.tell()[0] == 1 for wire in kept)
            counts = [each["connections"] for each in json.loads(ctl("workers", "--json")) if each["state"] == "ready"]
            assert sum(counts) >= len(kept)
        finally:
            for wire in wires:
                wire.__exit__(None, None, None)


def test_drain_resume_scale_loglevel_reopen(app: App, control: str, ctl: Ctl) -> None:
    with app.serve(workers=1, server=control) as server, Wire(server.address) as wire:
        assert ctl("drain") == "draining; /readyz says no\n"
        assert "drained" in ctl("health", code=1)
        assert ctl("status").splitlines()[0].startswith("probe is draining")
        assert wire.tell()[0] == 1
        assert ctl("resume") == "serving as ever\n"
        assert ctl("health") == "ready\n"
        assert ctl("scale", "+2") == "3 workers\n"
        assert ctl("scale", "-1") == "2 workers\n"
        assert ctl("scale", "1") == "1 workers\n"
        assert "8, +2 and -2 are" in CliRunner().invoke(group, ["ctl", "scale", "many"]).output
        assert ctl("loglevel", "error") == "logging from error on\n"
        assert ctl("reopen") == "reopening log files\n"
        assert "reopening" not in server.log
        assert ctl("stacks", "5", code=1) == ""

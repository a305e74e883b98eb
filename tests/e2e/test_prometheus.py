"""The metrics as Prometheus sees them: its own linter finds nothing, and a Prometheus of the test's own scrapes and answers queries."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_crash import KILLED
from tests.e2e.wire import EXCEPTION, REPLY, STRING, Wire
from tests.support import need
from tests.support.processes import Process
from tests.support.service import CALLING_CODE, App, Server, until

ADMIN = '[admin]\naddress = "tcp://127.0.0.1:0"'
REMEDY = "apt-get install prometheus"


def admin_of(server: Server) -> str:
    """host:port of the admin listener."""
    return server.process.wait_for(r"^  admin on tcp://(.*)")[1]


def page(admin: str) -> bytes:
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=30) as answer:
        return bytes(answer.read())


def samples(admin: str) -> dict[str, float]:
    """Values by name and labels."""
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in page(admin).decode().splitlines() if not line.startswith("#"))}


@contextlib.contextmanager
def calling(folder: Path) -> Iterator[Server]:
    """A server whose workers call another server of the same service for each `echo`."""
    with App(folder / "other").serve() as called:
        more = f'{ADMIN}\n[client.other]\ntarget = "{called.address}"\ntimeout = "20s"\n'
        with App(folder / "caller", code=CALLING_CODE).serve(workers=2, more=more, allow=KILLED) as server:
            yield server


def test_promtool_finds_nothing(tmp_path: Path) -> None:
    promtool = need.program("promtool", REMEDY)
    with calling(tmp_path) as server, Wire(server.address) as wire:
        assert wire.call("echo", (1, STRING, "x")).kind == REPLY
        server.reload_ok()
        text = page(admin_of(server))
        found = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=50, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")
    for side in (b"server", b"client"):
        assert b"# TYPE weego_" + side + b"_call_duration_seconds histogram" in text


def test_calls_are_counted_by_method_over_reloads_and_kills(tmp_path: Path) -> None:
    with calling(tmp_path) as server:
        admin = admin_of(server)

        def call(times: int) -> None:
            for _ in range(times):
                with Wire(server.address) as wire:
                    assert wire.call("echo", (1, STRING, "x")).kind == REPLY
                    assert wire.call("nothing").kind == EXCEPTION

        def counted(number: int) -> None:
            # A worker counts a call after its answer is on its way.
            unknown = 'weego_server_method_calls_total{service="other",method="other",code="UNIMPLEMENTED"}'
            until(lambda: samples(admin).get(unknown) == number, "the calls to be counted")
            found = samples(admin)
            for side in ("server", "client"):
                who = f'service="{"Probe" if side == "server" else "other"}",method="echo"'
                assert found[f'weego_{side}_method_calls_total{{{who},code="OK"}}'] == number
                assert found[f"weego_{side}_call_duration_seconds_count{{{who}}}"] == number
                assert found[f'weego_{side}_call_duration_seconds_bucket{{{who},le="+Inf"}}'] == number
                assert found[f"weego_{side}_call_duration_seconds_sum{{{who}}}"] > 0
            # What a peer made up has no label of its own.
            assert not any("nothing" in name for name in found)

        call(5)
        counted(5)
        old = set(server.workers())
        server.reload_ok()
        until(lambda: not old & set(server.remember()), "the old workers to go")
        call(5)
        counted(10)
        os.kill(server.workers()[0], signal.SIGKILL)
        call(5)
        counted(15)


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """One on loopback that scrapes `target` five times a second; its host:port."""
    program = need.program("prometheus", REMEDY)
    conf = folder / "prometheus.yml"
    conf.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: weego, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
    command = [program, f"--config.file={conf}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with Process(command) as process:
        process.wait_for("Server is ready to receive web requests")
        yield address
        process.stop()


def query(address: str, expression: str) -> dict[str, float]:
    """Values of an instant query, by the labels that differ."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    return {
        ",".join(f"{k}={v}" for k, v in sorted(each["metric"].items()) if k not in ("__name__", "instance", "job")): float(
            each["value"][1]
        )
        for each in found["data"]["result"]
    }


@pytest.mark.interop
def test_a_real_prometheus_scrapes_and_its_counters_never_go_back(app: App, tmp_path: Path) -> None:
    with app.serve(workers=2, more=ADMIN, allow=KILLED) as server, prometheus(tmp_path, admin_of(server)) as address:
        with Wire(server.address) as wire:
            for _ in range(50):
                wire.tell()
        until(lambda: query(address, "up") == {"": 1.0}, "a scrape")
        until(lambda: query(address, "weego_requests_total") == {"": 50.0}, "the requests")
        # Over a reload and the death of a worker.
        old = set(server.workers())
        server.reload_ok()
        until(lambda: not old & set(server.remember()), "the old workers to go")
        os.kill(server.workers()[0], signal.SIGKILL)
        with Wire(server.address) as wire:
            for _ in range(25):
                wire.tell()
        until(lambda: query(address, "weego_requests_total") == {"": 75.0}, "the requests of dead and living")
        until(lambda: query(address, 'weego_worker_restarts_total{reason="signal"}') == {"reason=signal": 1.0}, "the restart")
        assert query(address, "weego_reloads_total")["result=success"] == 1.0
        until(lambda: query(address, 'weego_workers{state="ready"}') == {"state=ready": 2.0}, "two workers")
        assert query(address, "resets(weego_requests_total[5m])") == {"": 0.0}
        # The alerts of docs/operations.md are expressions that it takes, and none of them fires.
        text = (need.ROOT / "docs/operations.md").read_text()
        lines = [line for line in text.splitlines() if line.startswith(("    weego_", "    increase("))]
        alerts = [line.partition("#")[0].strip() for line in lines]
        assert len(alerts) == 3
        for alert in alerts[:2]:
            assert query(address, alert) == {}, alert
        query(address, alerts[2])

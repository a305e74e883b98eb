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
from tests.e2e.wire import Wire
from tests.support import need
from tests.support.processes import Process
from tests.support.service import App, Server, until

ADMIN = '[admin]\naddress = "tcp://127.0.0.1:0"'
REMEDY = "apt-get install prometheus"


def admin_of(server: Server) -> str:
    """host:port of the admin listener."""
    return server.process.wait_for(r"^  admin on tcp://(.*)")[1]


def page(admin: str) -> bytes:
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=30) as answer:
        return bytes(answer.read())


def test_promtool_finds_nothing(app: App) -> None:
    promtool = need.program("promtool", REMEDY)
    with app.serve(workers=2, more=ADMIN) as server, Wire(server.address) as wire:
        wire.tell()
        server.reload_ok()
        found = subprocess.run(
            [promtool, "check", "metrics"], input=page(admin_of(server)), capture_output=True, timeout=50, check=False
        )
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


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

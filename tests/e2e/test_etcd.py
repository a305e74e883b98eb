"""A server under weego-master in a real etcd: one instance for all workers, through reload, crash and etcd's own death, withdrawn first."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from governance.instance import Instance
from tests.support.etcd import EtcdServer
from tests.support.service import App, until
from weego.registries.etcd import instance_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

FOLDER = "kitex/registry-etcd/probe/"


def announced(etcd: EtcdServer) -> list[Instance]:
    said = etcd.ctl("get", "--prefix", "--print-value-only", FOLDER)
    return [instance_of(line.encode()) for line in said.splitlines()]


def leases(etcd: EtcdServer) -> int:
    """All of them, whoever has them."""
    return int(etcd.ctl("lease", "list").split()[1])


def test_one_instance_for_all_workers_through_everything(tmp_path: Path) -> None:
    with EtcdServer(tmp_path) as etcd:
        app = App(tmp_path / "app")
        more = f'[registry]\nurl = "{etcd.url}"\nttl = "2s"\nweight = 20\nzone = "north"\ntags = {{ lane = "blue" }}\n'
        with app.serve(workers=3, more=more, allow=["died of", "SIGKILL", "is not announced"]) as server:
            until(lambda: announced(etcd), "the service is announced")
            (first,) = announced(etcd)
            assert (first.address, first.weight, first.zone, dict(first.tags)) == (server.address, 20, "north", {"lane": "blue"})
            assert first.started > 0
            assert leases(etcd) == 1
            server.reload_ok()
            assert announced(etcd) == [first]
            for pid in server.workers()[:2]:  # whoever speaks for the service dies: another goes on
                os.kill(pid, signal.SIGKILL)
            until(lambda: leases(etcd) == 1 and announced(etcd) == [first], "the lease of who died has ended")
            etcd.kill()
            server.wait_for("is not announced")
            etcd.start()
            until(lambda: announced(etcd) == [first], "it is there again")
            etcd.ctl("del", "--prefix", FOLDER)
            until(lambda: announced(etcd) == [first], "it is there again")
        assert announced(etcd) == []
        log = server.log
        assert log.index("withdrew probe") > log.index("announced probe")


def test_etcd_down_at_the_start(tmp_path: Path) -> None:
    """A server serves, and announces itself when etcd has come."""
    etcd = EtcdServer(tmp_path)
    with etcd:
        pass  # its ports are chosen
    app = App(tmp_path / "app")
    with contextlib.closing(etcd):
        with app.serve(more=f'[registry]\nurl = "{etcd.url}"\nttl = "2s"\n', allow=["is not announced"]) as server:
            server.wait_for("probe is not announced: etcd at .*: cannot connect")
            etcd.start()
            until(lambda: [each.address for each in announced(etcd)] == [server.address], "the service is announced")

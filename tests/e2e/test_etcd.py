"""A server under weego-master in a real etcd: one instance for all workers, through reload, crash and etcd's own death, withdrawn first."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from governance.instance import Instance
from tests.e2e.wire import REPLY, STRING, Wire
from tests.support.etcd import EtcdServer
from tests.support.service import WEEGO, App, run, until
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


def test_the_config_centre_changes_a_running_server(tmp_path: Path) -> None:
    """A limit, set and lifted in etcd, through a bad value, a reload and etcd's death; `weego ctl config --center` shows it."""
    with EtcdServer(tmp_path) as etcd:
        app = App(tmp_path / "app")
        limit = '[[governance.limit]]\nname = "center"\nrate = 0.001\nburst = 1\nmethod = "echo"\n'
        etcd.ctl("put", "/KitexConfig/probe/weego", limit)
        control = tmp_path / "ctl.sock"
        more = f'[config_center]\nurl = "{etcd.url}"\nwait = "3s"\ncache = "{tmp_path}/cache.json"\n'
        allow = ["is refused", "does not answer"]
        with app.serve(workers=2, server=f'control = "{control}"', more=more, allow=allow) as server, Wire(server.address) as wire:

            def is_limited() -> bool:
                return wire.call("echo", (1, STRING, "x")).kind != REPLY

            def shown() -> str:
                code, output = run([WEEGO, "ctl", "--socket", str(control), "config", "--center"])
                assert code == 0, output
                return output

            is_limited()
            until(is_limited, "the limit is in force from the start: the first call had what there was")
            assert 'name = "center"' in shown()
            etcd.ctl("put", "/KitexConfig/probe/weego", "[governance]\nshedd = true\n")
            server.wait_for(r"the value of weego is refused.*did you mean \\\"shed\\\"")
            assert is_limited()
            assert 'the value of weego is refused: weego: [governance] shedd: unknown key, did you mean "shed"?' in shown()
            etcd.ctl("put", "/KitexConfig/probe/weego", limit)
            etcd.kill()
            server.wait_for("the config centre does not answer")
            server.reload_ok()  # it starts with what it was told before
            until(is_limited, "the limit is in force in the new workers")
            etcd.start()
            etcd.ctl("put", "/KitexConfig/probe/limit", '{"qps_limit": 100000}')
            etcd.ctl("del", "/KitexConfig/probe/weego")
            until(lambda: not is_limited() and not is_limited(), "the limit is lifted")
            assert 'name = "qps_limit"' in shown()

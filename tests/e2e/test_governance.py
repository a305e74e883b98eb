"""Services under weego-master that find each other: announced once, through reloads and crashes, withdrawn first; and the shop."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from governance.file_registry import FileResolver
from tests.e2e.test_crash import KILLED
from tests.e2e.test_logs import metric
from tests.e2e.wire import DOUBLE, REPLY, STRING, Wire, call
from tests.support.need import ROOT, program
from tests.support.processes import Process
from tests.support.service import CALLING_CODE, PROBE_CODE, WEEGO, App, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def announced(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder / "registry" / "probe"))
    except FileNotFoundError:
        return []


def test_one_instance_for_all_workers_through_reload_and_crash(tmp_path: Path) -> None:
    app = App(tmp_path)
    more = '[registry]\nurl = "file://registry"\nttl = "2s"\nweight = 20\ntags = { lane = "blue" }\n'
    with app.serve(workers=3, more=more, allow=["died of", "SIGKILL"]) as server:
        until(lambda: announced(tmp_path), "the service is announced")
        resolver = FileResolver(str(tmp_path / "registry"), "probe")
        found = list(resolver.resolve())
        assert [(each.address, each.weight, dict(each.tags)) for each in found] == [(server.address, 20, {"lane": "blue"})]
        path = tmp_path / "registry" / "probe" / announced(tmp_path)[0]

        def renewed() -> bool:
            before = path.stat().st_mtime
            return until(lambda: path.stat().st_mtime > before, "the lease is renewed")

        renewed()
        server.reload_ok()
        assert renewed()
        # Whoever speaks for the service dies: another goes on.
        for pid in server.workers()[:2]:
            os.kill(pid, signal.SIGKILL)
        assert renewed()
        assert renewed()
        assert list(resolver.resolve()) == found
    assert announced(tmp_path) == []


@pytest.mark.parametrize("workers", [1, 4])
def test_a_limit_counts_over_all_workers(tmp_path: Path, workers: int) -> None:
    """The same limit, the same number of answers, whether one worker serves or four."""
    app = App(tmp_path)
    more = '[[governance.limit]]\nname = "all"\nrate = 0.001\nburst = 20\nmethod = "echo"\n[admin]\naddress = "tcp://127.0.0.1:0"\n'
    with app.serve(workers=workers, more=more) as server:
        served = refused = 0
        wires = [Wire(server.address) for _ in range(8)]
        try:
            for _ in range(10):
                for wire in wires:
                    answer = wire.call("echo", (1, STRING, "x"))
                    if answer.kind == REPLY:
                        served += 1
                    else:
                        assert "limit all, 0.001 calls a second" in answer.error[1]
                        refused += 1
        finally:
            for wire in wires:
                wire.socket.close()
        assert (served, refused) == (20, 60)
        until(lambda: metric(server, "weego_refused_requests_total") == 60, "the refusals in the metrics")


@pytest.mark.parametrize("workers", [1, 4])
def test_calls_at_one_time_are_counted_over_all_workers(tmp_path: Path, workers: int) -> None:
    """Who is let in stays until a file is there; whoever comes meanwhile is refused, whichever worker it reaches."""
    code = PROBE_CODE.format(version=1).replace("time.sleep(seconds)", 'while not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):\n            time.sleep(0.01)')
    app = App(tmp_path, code=code)
    more = '[[governance.limit]]\nname = "slow"\nconcurrency = 3\nmethod = "wait"\n'
    with app.serve(workers=workers, more=more) as server:
        wires = [Wire(server.address) for _ in range(8)]
        for wire in wires:
            wire.call("pid")
        for wire in wires:
            wire.send(call("wait", (1, DOUBLE, 1.0), (2, STRING, "x")))
        waiting = {wire.socket: wire for wire in wires}
        while len(waiting) > 3:
            ready, _, _ = select.select(list(waiting), [], [], 30)
            assert ready, f"{len(waiting)} got no answer"
            for each in ready:
                assert "limit slow, 3 calls at one time" in waiting.pop(each).receive().error[1]
        (tmp_path / "go").touch()
        assert [wire.receive().kind for wire in waiting.values()] == [REPLY] * 3
        for wire in wires:
            wire.socket.close()


@pytest.mark.parametrize("workers", [1, 4])
def test_the_workers_of_a_caller_have_one_breaker(tmp_path: Path, workers: int) -> None:
    """It opens after as many failures as it would in one worker, for all of them."""
    failing = PROBE_CODE.format(version=1).replace("        return text\n", '        raise RuntimeError("always")\n')
    called = App(tmp_path / "other", code=failing)
    with called.serve(allow=["Probe.echo: the handler failed"], more='[admin]\naddress = "tcp://127.0.0.1:0"\n') as other:
        app = App(tmp_path / "caller", code=CALLING_CODE)
        more = f'[client.other]\ntarget = "{other.address}"\ntimeout = "20s"\nretries = 0\nejection = false\ninstance_breaker = false\n'
        more += 'breaker_min_sample = 20\nbreaker_cooling = "1h"\n'
        with app.serve(workers=workers, more=more, allow=["Probe.echo: ", "breaker of other.echo: open"]) as server:
            wires = [Wire(server.address) for _ in range(8)]
            found = Counter("the breaker is open" in wire.call("echo", (1, STRING, "x")).error[1] for _ in range(5) for wire in wires)
            assert found == {False: 20, True: 20}
            assert metric(other, "weego_requests_total") == 20
            for wire in wires:
                wire.socket.close()


@pytest.mark.parametrize("workers", [1, 4])
def test_connections_are_counted_over_all_workers(tmp_path: Path, workers: int) -> None:
    """As many as there may be, through a crash and reloads, whether one worker serves or four."""
    app = App(tmp_path)
    conf = {"workers": workers, "server": 'control = "run/weego.sock"', "more": '[admin]\naddress = "tcp://127.0.0.1:0"\n'}
    wires: list[tuple[Wire, int]] = []  # with who serves them

    def is_let_in(limit: int) -> bool:
        wire = Wire(server.address)
        found = wire.call("pid")
        if found.kind == REPLY:
            wires.append((wire, found.number))
            return True
        assert f"limit max_connections_total, {limit} connections to all workers" in found.error[1]
        assert wire.rest() == b""
        wire.socket.close()
        return False

    with app.serve(limits="max_connections_total = 6", allow=[*KILLED, "no worker is ready"], **conf) as server:
        assert [is_let_in(6) for _ in range(9)] == [True] * 6 + [False] * 3
        until(lambda: metric(server, "weego_refused_requests_total") == 3, "the refusals in the metrics")
        with Process([WEEGO, "ctl", "--socket", str(app.folder / "run/weego.sock"), "limits"]) as process:
            assert process.wait(30) == 0, process.output
            assert re.search(r"server +max_connections_total +- +6 +6 +3", process.output), process.output
        wires.pop()[0].socket.close()
        until(lambda: is_let_in(6), "the place of one that went")
        # Those of a worker that is killed count no more.
        victim = wires[0][1]
        left = [each for each in wires if each[1] != victim]
        os.kill(victim, signal.SIGKILL)
        for wire, pid in wires:
            if pid == victim:
                assert wire.rest() == b""
                wire.socket.close()
        lost, wires = 6 - len(left), left
        assert lost > 0
        server.wait_for("SIGKILL")
        until(lambda: is_let_in(6), "a place of the dead")
        assert [is_let_in(6) for _ in range(lost + 2)] == [True] * (lost - 1) + [False] * 3
        # New workers take the connections over, and count them.
        server.reload_ok()
        assert [is_let_in(6) for _ in range(2)] == [False] * 2
        app.write_conf(limits="max_connections_total = 8", **conf)
        server.reload_ok()
        until(lambda: is_let_in(8), "the new limit")
        assert [is_let_in(8) for _ in range(3)] == [True, False, False]
        for wire, _ in wires:
            assert wire.call("pid").kind == REPLY
            wire.socket.close()


def test_ctl_shows_what_the_workers_know(tmp_path: Path) -> None:
    """A server whose workers call another one: two processes, one table."""
    other = App(tmp_path / "other")
    with other.serve() as called:
        app = App(tmp_path / "caller", code=CALLING_CODE)
        more = f'[client.other]\ntarget = "{called.address}"\ntimeout = "20s"\nwarm_up = 1\n[governance]\nshed = true\n[[governance.limit]]\nname = "all"\nconcurrency = 50\n'
        with app.serve(workers=2, more=more, server='control = "run/weego.sock"') as server:
            wires = [Wire(server.address) for _ in range(4)]
            for wire in wires:
                assert wire.call("echo", (1, STRING, "x")).kind == REPLY
                wire.socket.close()

            def shown(name: str) -> str:
                with Process([WEEGO, "ctl", "--socket", str(app.folder / "run/weego.sock"), name]) as process:
                    assert process.wait(30) == 0, process.output
                    return process.output

            assert re.search(rf"other +{called.address} +10 +- +- +closed", shown("instances"))
            assert re.search(r"other\.echo +closed +4 +0 +0", shown("breakers"))
            assert re.search(r"server +all +- +50 +0 +0", shown("limits"))
            assert re.search(r"other +long +0 +2 +0 +2 ", shown("pools")), "two workers, a warm connection of each"
            assert re.search(r"other\.echo +4 +0 +0 +0", shown("calls"))


def test_what_was_counted_outlives_reloads_dead_loaders_and_upgrades(tmp_path: Path) -> None:
    app = App(tmp_path)
    more = '[[governance.limit]]\nname = "all"\nrate = 0.001\nburst = 3\nmethod = "echo"\n'
    with app.serve(workers=2, more=more, allow=["the loader was killed", "SIGKILL"]) as server:

        def is_refused() -> bool:
            with Wire(server.address) as wire:
                return wire.call("echo", (1, STRING, "x")).kind != REPLY

        assert [is_refused() for _ in range(5)] == [False] * 3 + [True] * 2
        app.write_version(2)
        server.reload_ok()
        assert [is_refused() for _ in range(4)] == [True] * 4
        loader = next(pid for pid, title in server.remember().items() if "loader" in title)
        os.kill(loader, signal.SIGKILL)
        server.wait_for("takes over")
        for pid in server.workers():
            server.mark()
            os.kill(pid, signal.SIGKILL)
            server.wait_for(r"worker \d gen \d+ .* is ready")  # or the next one to be killed may be the only one that is
        assert [is_refused() for _ in range(4)] == [True] * 4
        server.signal(signal.SIGUSR2)
        server.wait_for("upgraded from weego")
        server.reload_ok()
        assert [is_refused() for _ in range(4)] == [True] * 4
        # Another limit under the same name is not held up by what the old one had promised.
        app.write_conf(workers=2, more=more.replace("0.001", "1000"))
        server.reload_ok()
        until(lambda: not is_refused(), "a call to be let through")  # it would take a thousand seconds otherwise


@pytest.mark.parametrize(("trouble", "more"), [("none", ()), ("kill", ()), ("fail", ()), ("none", ("--etcd",)), ("registry", ("--etcd",))])
def test_the_shop(trouble: str, more: tuple[str, ...]) -> None:
    if more:
        program("etcd", "apt-get install etcd-server")
    command = [sys.executable, str(ROOT / "examples/shop/run.py"), "--seconds", "9", "--rate", "20", "--trouble", trouble, *more]
    with Process(command, cwd=str(ROOT)) as process:
        assert process.wait(150) == 0, process.output
        last = process.lines[-1].split()
        assert int(last[0]) > 50, process.output
        assert int(last[-2]) == 0, process.output
        # What it shows of weego ctl.
        assert int(column(process.output, "calls", "stock.left", "calls")) > 50
        assert column(process.output, "breakers", "stock.left", "state") == "closed"
        assert column(process.output, "limits", "database", "refused") == "0"
        if trouble != "none":
            assert f"  -- {trouble}\n" in process.output.split("item.sock instances\n")[0]
            assert re.search(r"^    stock: by (file|etcd)://\S+/stock, heard \d", process.output, re.MULTILINE), process.output
        if trouble == "fail":
            assert int(column(process.output, "calls", "stock.left", "retries")) >= 1


def column(said: str, view: str, row: str, name: str) -> str:
    """What `weego ctl VIEW` said there, of the row that has this."""
    head, *rows = (re.split(r"  +", line.strip()) for line in said.split(f".sock {view}\n", 1)[1].splitlines())
    return dict(zip(head, next(each for each in rows if row in each), strict=True))[name]


def test_clients_follow_a_reload_without_new_workers(tmp_path: Path) -> None:
    with App(tmp_path / "other").serve() as called:
        app = App(tmp_path / "caller", code=CALLING_CODE)
        control = 'control = "run/weego.sock"'

        def ctl(*command: str) -> str:
            with Process([WEEGO, "ctl", "--socket", str(app.folder / "run/weego.sock"), *command]) as process:
                assert process.wait(60) == 0, process.output
                return process.output

        def configure(text: str) -> list[str]:
            app.write_conf(workers=1, more=f'[client.other]\ntarget = "{called.address}"\ntimeout = "20s"\n{text}', server=control)
            return ctl("reload", "--diff").splitlines()

        time.sleep(0.6)  # younger files are not trusted to be what was read
        plain = f'[client.other]\ntarget = "{called.address}"\ntimeout = "20s"\n'
        with app.serve(workers=1, more=plain, server=control, allow=(*KILLED, "no worker is ready")) as server, Wire(server.address) as wire:
            worker = server.worker()
            assert wire.call("echo", (1, STRING, "x")).kind == REPLY
            diff = configure("drop = 1.0\nretries = 1\n[client.other.method.tell]\ntimeout = \"1s\"\n")
            assert [line.split()[0] for line in diff if line.endswith("at once")] == ["client.other.retries", "client.other.drop", "client.other.method.tell.timeout"]
            assert diff[-1] == "no new workers are needed"
            ctl("reload", "--wait")
            assert server.worker() == worker
            assert "RESOURCE_EXHAUSTED" in wire.call("echo", (1, STRING, "x")).error[1]
            # Who takes the place of a worker goes by it too.
            os.kill(worker, signal.SIGKILL)
            until(lambda: server.workers() and server.workers() != [worker], "a new worker")
            with Wire(server.address) as fresh:
                assert "RESOURCE_EXHAUSTED" in fresh.call("echo", (1, STRING, "x")).error[1]
                diff = configure("max_active = 5\n")
                assert next(line for line in diff if line.startswith("client.other.max_active")).endswith("new workers")
                configure("")
                ctl("reload", "--wait")
                assert fresh.call("echo", (1, STRING, "x")).kind == REPLY

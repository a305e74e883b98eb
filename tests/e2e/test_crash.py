"""Processes that die: what they were doing is lost, nothing else."""

from __future__ import annotations

import os
import signal
import socket
import time

import psutil

from tests.e2e.load import Load
from tests.e2e.wire import DOUBLE, STRING, Closed, Wire, call, told
from tests.support.service import App, Server, until

KILLED = [r"worker \d gen \d+ .*SIGKILL"]


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill, and wait until it is dead."""
    os.kill(pid, number)
    until(lambda: is_dead(pid), f"the end of {pid}")


def is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_killed_worker_under_load_loses_only_its_own_calls(app: App) -> None:
    with app.serve(workers=2, allow=KILLED) as server:
        with Load(server.address, connections=32, idle=4, pace=0.005) as load:
            until(lambda: not load.behind(1), "the first answers")
            victim, other = server.workers()
            assert load.served_by(victim)
            survivors = set(load.served_by(other))
            kill(victim)
            dead = time.monotonic()
            until(lambda: len(server.workers()) == 2, "a replacement")
            fresh = (set(server.workers()) - {other}).pop()
            arrived, answered = load.arrived, load.answered
            until(lambda: load.arrived > arrived + 20 and load.answered > answered + 500, "life goes on")
            # The replacement takes its share of who comes now.
            with Load(server.address, connections=16, idle=0, pace=0.005, newcomers=0) as more:
                until(lambda: more.served_by(fresh), "work for the replacement")
            assert not more.failures
    for failure in load.failures:
        if failure.number is None:
            assert failure.began < dead, f"a connection that came after the death: {failure}"
        else:
            assert failure.pid == victim, failure
            assert failure.number not in survivors
    assert sum(failure.number is None for failure in load.failures) <= 2


def test_all_workers_killed_at_once(app: App) -> None:
    with app.serve(workers=2, allow=[*KILLED, "no worker is ready"]) as server:
        victims = server.workers()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        for victim in victims:
            until(lambda v=victim: is_dead(v), f"the end of {victim}")  # type: ignore[misc]
        # Not refused, whatever the state of the workers: the listener is the master's, and who comes waits in its queue.
        for _ in range(20):
            with Wire(server.address) as wire:
                assert wire.tell()[1] not in victims
        until(lambda: len(server.workers()) == 2, "both replacements")


def test_workers_that_are_killed_again_and_again(app: App) -> None:
    with app.serve(workers=2, allow=[*KILLED, "no worker is ready", "dies young"]) as server:
        for _ in range(4):
            kill(server.workers()[0])
            with Wire(server.address) as wire:
                wire.tell()
            until(lambda: len(server.workers()) == 2, "a replacement")


def test_a_handler_that_crashes_its_process(app: App) -> None:
    code = (app.folder / "app.py").read_text()
    app.write_code(code.replace("raise RuntimeError", "os.abort()\n        raise RuntimeError"))
    with app.serve(allow=[r"worker 0 gen 1 .*SIGABRT", "no worker is ready"]) as server, Wire(server.address) as wire:
        before = wire.tell()[1]
        wire.send(call("fail"))
        assert wire.rest() == b""
        with Wire(server.address) as other:
            assert other.tell()[1] not in (0, before)


def test_a_crash_loop_backs_off_and_a_reload_ends_it(app: App) -> None:
    good = (app.folder / "app.py").read_text()
    bad = good.replace("self.heard: list[str] = []", "import gevent; gevent.spawn_later(0.2, os._exit, 9)")
    app.write_code(bad)
    with app.serve(allow=[r"exited with status 9", "dies young", "no worker is ready"]) as server:
        begun = time.monotonic()
        # Any longer and it may have more, any slower and it has fewer: the bound of 8 in 5 s holds either way.
        while time.monotonic() < begun + 4 and server.log.count("exited with status 9") < 50:
            time.sleep(0.05)
        boots = server.log.count("exited with status 9")
        assert 3 <= boots <= 8, server.log
        assert "the next one in" in server.log
        assert psutil.Process(server.pid).cpu_times().user < 2
        app.write_code(good)
        server.reload_ok()
        with Wire(server.address) as wire:
            worker = until(lambda: wire.tell()[1], "an answer")
            assert worker == server.worker()


def test_term_ends_a_crash_loop(app: App) -> None:
    app.write_code(
        (app.folder / "app.py")
        .read_text()
        .replace("self.heard: list[str] = []", "import gevent; gevent.spawn_later(0.1, os._exit, 9)")
    )
    with app.serve(allow=[r"exited with status 9", "dies young", "no worker is ready"]) as server:
        server.wait_for("the next one in")
        server.signal(signal.SIGTERM)
        assert server.process.wait() == 0, server.log


def test_a_killed_loader_is_replaced_and_nobody_notices(app: App) -> None:
    with (
        app.serve(allow=["the loader was killed by SIGKILL", "no worker is ready", *KILLED]) as server,
        Wire(server.address) as wire,
    ):
        before = wire.tell()
        until(lambda: len(server.family()) == 2, "only the loader and the worker to be left")
        (loader,) = (pid for pid, title in server.remember().items() if "loader" in title)
        kill(loader)
        server.wait_for("takes over")
        assert wire.tell() == before
        kill(server.worker())
        with Wire(server.address) as other:  # forked from the new loader
            assert other.tell()[1] not in (before[1], loader)
        app.write_version(2)
        server.reload_ok()


def test_a_stopped_worker_holds_up_nobody_else(app: App) -> None:
    with app.serve(workers=2, allow=["is late: stopped"]) as server:
        victim, _ = server.workers()
        os.kill(victim, signal.SIGSTOP)
        try:
            # Whoever comes now is served by the other, or by the one that takes its place: the stopped one does not accept.
            for _ in range(20):
                with Wire(server.address) as wire:
                    assert wire.tell()[1] != victim
        finally:
            os.kill(victim, signal.SIGCONT)


# ---------------------------------------------------------------- the master dies


def test_workers_outlive_their_master_only_for_the_calls_they_have(app: App) -> None:
    with app.serve(workers=2, allow=["the master is gone"]) as server:
        port, pid = server.port, server.pid
        wires = [Wire(server.address) for _ in range(8)]
        for number, wire in enumerate(wires):
            wire.send(call("wait", (1, DOUBLE, 1.0), (2, STRING, f"call {number}"), seqid=number))
        until(lambda: len(server.family()) == 3, "all processes to be seen")
        with Wire(server.address) as other:
            other.tell()
        kill(pid)
        for number, wire in enumerate(wires):
            found = wire.receive()
            assert found.seqid == number
            told(found.text, f"call {number}")
            assert wire.rest() == b"", "and then it is closed"
            wire.close()
        server.assert_gone()
        _assert_free(port)
        # A new master takes its place at once.
        app.write_conf(listen=[f"tcp://127.0.0.1:{port}"])
        with Server(app.conf) as again, Wire(again.address) as wire:
            wire.tell()


def test_an_idle_server_whose_master_died_is_gone(app: App) -> None:
    with app.serve(workers=2, server=f'pidfile = "{app.folder}/pid"', allow=["the master is gone"]) as server:
        port, pid = server.port, server.pid
        with Wire(server.address) as idle:
            idle.tell()
            server.remember()
            kill(pid)
            assert idle.rest() == b""
        server.assert_gone()
        _assert_free(port)
        # The pidfile it could not remove stops nobody.
        with Server(app.conf) as again, Wire(again.address) as wire:
            assert int((app.folder / "pid").read_text()) == again.pid
            wire.tell()


def test_a_master_killed_in_the_middle_of_a_reload(app: App) -> None:
    with app.serve(allow=["the master is gone"]) as server, Wire(server.address) as wire:
        wire.tell()
        app.write_code("import time\ntime.sleep(30)\n")
        server.signal(signal.SIGHUP)
        server.wait_for("reloading, generation 2")
        until(lambda: sum("loader" in title for title in server.remember().values()) == 2, "the second loader")
        kill(server.pid)
        with_calls_done = wire.rest()
        assert with_calls_done == b""
        server.assert_gone()


def test_a_connection_dies_with_its_worker_by_a_reset_or_an_end(app: App) -> None:
    """A client sees at once that its worker is gone; it does not wait for an answer that cannot come."""
    with app.serve(allow=[*KILLED, "no worker is ready"]) as server, Wire(server.address) as wire:
        wire.send(call("wait", (1, DOUBLE, 60.0), (2, STRING, "never")))
        with Wire(server.address) as other:
            victim = other.tell()[1]
        kill(victim)
        try:
            wire.receive()
        except Closed as error:
            assert error.got == b""
        else:
            raise AssertionError("an answer from the dead")
        server.wait_for(rf"pid {victim}\).*SIGKILL")


def _assert_free(port: int) -> None:
    def is_free() -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen()
            except OSError:
                return False
            return True

    until(is_free, f"port {port} to be free")

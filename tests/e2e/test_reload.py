"""SIGHUP: new configuration and new code, and nobody notices but by the answers."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.reload_long import reloads
from tests.e2e.wire import DOUBLE, I32, STRING, Closed, Wire, call, told
from tests.support.service import PROBE_CODE, App, Server, until


def upgrade(app: App, server: Server, version: int) -> None:
    """Write code `version` and load it; returns when it serves."""
    app.write_version(version)
    server.reload_ok()


def renewed(wire: Wire, version: int) -> int:
    """Wait until code `version` answers on `wire`, which a draining worker may still serve for a moment; the pid of who answers."""
    return until(lambda: pid if (told := wire.tell())[0] == version and (pid := told[1]) else 0, f"code {version}")


# ---------------------------------------------------------------- nothing is lost


@pytest.mark.slow
def test_five_reloads_under_load_lose_nothing(app: App) -> None:
    with app.serve(workers=2) as server:
        # Paced, so that it is fair to whoever shares the machine; `make chaos` goes as fast as it can.
        result = reloads(app, server, hups=5, requests=4000, pace=0.01)
        until(lambda: len(server.family()) == 3, "only the loader and two workers to be left")
    assert not result.failures
    assert len(result.seconds) == 5
    assert result.requests >= 4000
    assert result.workers == 12
    assert result.newcomers > 0


def test_a_connection_moves_and_its_worker_goes(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        before = wire.tell()
        assert before == (1, server.worker())
        upgrade(app, server, 2)
        pid = renewed(wire, 2)
        assert pid == server.worker() != before[1]
        until(lambda: before[1] not in server.remember(), "the old worker to go")


def test_a_reload_that_unpatches_does_without_the_base_that_has_patched(app: App) -> None:
    app.write_code(PROBE_CODE.format(version=1).replace("        return text\n", "        from gevent import monkey\n        return str(monkey.is_module_patched('socket'))\n"))
    log = 'access = false\nlevel = "debug"'
    with app.serve(log=log) as server:
        for patch in (True, False, False, True, True):
            server.process.wait_for(r"base \(pid \d+\) is warm")
            app.write_conf(log=log, server=f"patch = {'true' if patch else 'false'}")
            server.reload_ok()
            with Wire(server.address) as wire:
                assert wire.call("echo", (1, STRING, "")).text == str(patch)


def test_half_a_frame_before_and_half_after(app: App) -> None:
    request = call("tell", (1, STRING, "x" * 1000), seqid=7)
    with app.serve() as server:
        for cut in (1, 4, 7, 500, len(request) - 1):
            with Wire(server.address) as wire:
                wire.tell()
                wire.send(request[:cut])
                server.reload_ok()
                wire.send(request[cut:])
                found = wire.receive()
                assert found.seqid == 7
                told(found.text, "x" * 1000)
                assert until(lambda w=wire: w.tell()[1] == server.worker(), "the new worker")  # type: ignore[misc]


def test_half_a_frame_of_a_large_message(app: App) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB: what is read of it is too much to hand over
    request = call("blob", (1, STRING, data), seqid=9)
    with app.serve() as server, Wire(server.address) as wire:
        wire.send(request[:1_500_000])
        upgrade(app, server, 2)
        wire.send(request[1_500_000:])
        assert wire.receive().raw == data
        renewed(wire, 2)


def test_a_frame_that_comes_in_pieces_over_three_reloads(app: App) -> None:
    request = call("tell", (1, STRING, "abc" * 100), seqid=3)
    with app.serve() as server, Wire(server.address) as wire:
        for part in range(3):
            wire.send(request[part * 100 : part * 100 + 100])
            upgrade(app, server, part + 2)
        wire.send(request[300:])
        told(wire.receive().text, "abc" * 100)
        renewed(wire, 4)


def test_three_requests_pipelined_across_a_reload(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        requests = [
            call("wait", (1, DOUBLE, 0.3), (2, STRING, f"number {number}"), seqid=number) for number in (1, 2, 3)
        ]
        app.write_version(2)
        wire.send(b"".join(requests))
        server.reload_ok()
        answers = [wire.receive() for _ in requests]
        assert [each.seqid for each in answers] == [1, 2, 3]
        for each in answers:
            told(each.text, f"number {each.seqid}")
        renewed(wire, 2)


def test_pipelined_requests_with_the_last_one_cut(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        requests = b"".join(call("tell", (1, STRING, f"number {number}"), seqid=number) for number in range(1, 51))
        wire.send(requests[:-20])
        upgrade(app, server, 2)
        wire.send(requests[-20:])
        for number in range(1, 51):
            found = wire.receive()
            assert found.seqid == number
            told(found.text, f"number {number}")


def test_a_slow_reader_with_unsent_output(app: App) -> None:
    size = 8 << 20
    with app.serve() as server, Wire(server.address, receive_buffer=4096) as wire:
        wire.send(call("make", (1, I32, size), seqid=5))
        with Wire(server.address) as other:
            old = other.tell()[1]
        upgrade(app, server, 2)
        assert old in server.remember(), "the old worker must stay until its output is sent"
        found = wire.receive()
        assert found.seqid == 5
        assert found.raw == bytes(range(256)) * (size // 256)
        renewed(wire, 2)
        until(lambda: old not in server.remember(), "the old worker to go")


def test_a_blocking_handler_in_flight(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        old = server.worker()
        wire.send(call("wait", (1, DOUBLE, 3.0), (2, STRING, "patience"), seqid=1))
        upgrade(app, server, 2)
        with Wire(server.address) as other:
            assert renewed(other, 2) == server.worker()
        assert old in server.remember()
        assert told(wire.receive().text, "patience") == (1, old)
        assert renewed(wire, 2) == server.worker()
        until(lambda: old not in server.remember(), "the old worker to go")


def test_a_call_beyond_the_graceful_timeout_is_cut_off(app: App) -> None:
    with app.serve(server='graceful_timeout = "500ms"', allow=["cut off at the deadline"]) as server:
        with Wire(server.address) as wire, Wire(server.address) as other:
            old = server.worker()
            wire.send(call("wait", (1, DOUBLE, 60.0), (2, STRING, "for ever"), seqid=1))
            upgrade(app, server, 2)
            assert wire.rest() == b""
            until(lambda: old not in server.remember(), "the old worker to go")
            renewed(other, 2)


def test_connections_on_a_unix_socket_move_too(app: App) -> None:
    with app.serve(listen=[f"unix://{app.folder}/probe.sock"]) as server, Wire(server.address) as wire:
        assert wire.tell()[0] == 1
        upgrade(app, server, 2)
        renewed(wire, 2)
        with Wire(server.address) as other:
            renewed(other, 2)


def test_many_idle_connections_move(app: App) -> None:
    with app.serve(workers=2) as server:
        wires = [Wire(server.address) for _ in range(500)]
        old = {wire.tell()[1] for wire in wires}
        upgrade(app, server, 2)
        until(lambda: not old & server.remember().keys(), "the old workers to go")
        assert [wire.tell()[0] for wire in wires] == [2] * 500
        for wire in wires:
            wire.reset()


def test_a_burst_of_signals_is_one_reload_or_two(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        app.write_version(2)
        for _ in range(30):
            server.signal(signal.SIGHUP)
        until(lambda: wire.tell()[0] == 2, "the new code")
        server.reload_ok()
        wire.tell()
        assert server.log.count("reload done") <= 5


def test_stop_while_it_reloads(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        wire.tell()
        app.write_code("import time\ntime.sleep(30)\n")
        server.signal(signal.SIGHUP)
        server.wait_for("reloading, generation 2")
        server.remember()
        server.signal(signal.SIGTERM)
        assert server.process.wait() == 0, server.log
        server.assert_gone()


# ---------------------------------------------------------------- what does not work changes nothing


def _spoil_conf(old: str, new: str) -> Callable[[App], None]:
    def spoil(app: App) -> None:
        text = app.conf.read_text()
        assert old in text
        app.conf.write_text(text.replace(old, new))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(_spoil_conf("workers = 2", "worker = 2"), r"server\.toml:3: .*did you mean", id="unknown key"),
        pytest.param(_spoil_conf("workers = 2", "workers ="), r"server\.toml:3", id="bad toml"),
        pytest.param(lambda app: app.conf.unlink(), r"server\.toml: no such file", id="missing file"),
        pytest.param(
            lambda app: app.write_code("import missing_thing\n"), r"cannot import app: .*app\.py:1", id="bad import"
        ),
        pytest.param(lambda app: app.write_code("class Service(:\n"), r"SyntaxError.*app\.py:1", id="syntax error"),
        pytest.param(lambda app: app.write_code("class Service: pass\n"), r"generated service base", id="no base"),
        pytest.param(
            lambda app: app.write_code("import os\nos._exit(3)\n"), r"loader exited with status 3", id="loader dies"
        ),
        pytest.param(
            lambda app: app.write_code(
                (app.folder / "app.py").read_text().replace("self.heard: list[str] = []", "1 / 0")
            ),
            r"ZeroDivisionError",
            id="constructor fails",
        ),
    ],
)
def test_a_mistake_keeps_the_old_workers(app: App, spoil: Callable[[App], None], reason: str) -> None:
    with app.serve(workers=2, allow=["reload failed", r"worker \d gen 2"]) as server, Wire(server.address) as wire:
        before, workers = wire.tell(), server.workers()
        spoil(app)
        line = server.reload_fails()
        assert re.search(reason, line), line
        assert wire.tell() == before
        assert server.workers() == workers
        complaints = [line for line in server.process.lines if "reload failed" in line]
        assert len(complaints) == 1
        # And once it is right again, it is loaded.
        app.write_conf(workers=2)
        upgrade(app, server, 3)
        renewed(wire, 3)


def test_a_taken_port_keeps_the_old_workers(app: App) -> None:
    with socket.socket() as taken, app.serve(allow=["reload failed"]) as server, Wire(server.address) as wire:
        before = wire.tell()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        app.write_version(2)
        app.write_conf(listen=["tcp://127.0.0.1:0", f"tcp://127.0.0.1:{port}"])
        line = server.reload_fails()
        assert re.search(rf"127\.0\.0\.1:{port}\b.*in use", line), line
        assert wire.tell() == before
        with Wire(server.address) as other:
            assert other.tell() == before


# ---------------------------------------------------------------- what may change


def test_a_listener_comes_and_goes(app: App, tmp_path: Path) -> None:
    extra = f"unix://{tmp_path}/extra.sock"
    with app.serve() as server, Wire(server.address) as wire:
        wire.tell()
        app.write_conf(listen=["tcp://127.0.0.1:0", extra])
        upgrade(app, server, 2)
        with Wire(extra) as added:
            renewed(added, 2)
            renewed(wire, 2)
            app.write_conf()
            upgrade(app, server, 3)
            renewed(wire, 3)
            # The address is gone; who came by it may be moved or closed between two messages, but is not cut off in one.
            try:
                renewed(added, 3)
            except (Closed, BrokenPipeError) as error:
                assert getattr(error, "got", b"") == b""
        with pytest.raises(OSError), Wire(extra):
            pass
        assert not (tmp_path / "extra.sock").exists()
        with Wire(server.address) as other:
            renewed(other, 3)


def test_a_tcp_listener_is_replaced_by_another(app: App) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with app.serve() as server, Wire(server.address) as wire:
        assert wire.tell()[0] == 1
        app.write_conf(listen=[f"tcp://127.0.0.1:{port}"])
        upgrade(app, server, 2)
        renewed(wire, 2)  # a connection outlives the listener it came by
        with Wire(f"tcp://127.0.0.1:{port}") as other:
            renewed(other, 2)
        with pytest.raises(ConnectionRefusedError), Wire(server.address):
            pass


@pytest.mark.parametrize(("first", "then"), [(1, 3), (3, 1)])
def test_the_number_of_workers_changes(app: App, first: int, then: int) -> None:
    with app.serve(workers=first) as server:
        wires = [Wire(server.address) for _ in range(12)]
        for wire in wires:
            wire.tell()
        app.write_conf(workers=then)
        upgrade(app, server, 2)
        until(lambda: len(server.family()) == then + 1, "the old workers to go")
        assert {wire.tell()[0] for wire in wires} == {2}
        for wire in wires:
            wire.close()


def test_ttin_and_ttou(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        wire.tell()
        server.signal(signal.SIGTTIN)
        until(lambda: len(server.workers()) == 2, "one more worker")
        server.signal(signal.SIGTTOU)
        until(lambda: len(server.workers()) == 1, "one worker less")
        wire.tell()


def test_limits_change(app: App) -> None:
    with app.serve(limits='max_message = "64KiB"') as server, Wire(server.address) as wire:
        wire.tell()
        app.write_conf(limits='max_message = "1MiB"')
        upgrade(app, server, 2)
        renewed(wire, 2)
        assert wire.call("blob", (1, STRING, b"x" * 500_000)).raw == b"x" * 500_000

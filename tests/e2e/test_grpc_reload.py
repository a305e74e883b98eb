"""Reload and drain for gRPC: clients see a clean goodbye, streams finish, and no call fails. Thrift beside it on the same port."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e import grpc_reloads
from tests.e2e.grpc_reloads import BOTH
from tests.e2e.wire import Wire
from tests.support import need
from tests.support.grpc_echo import Reply, Request
from tests.support.grpc_wire import GrpcWire, replies
from tests.support.need import ROOT
from tests.support.service import App, run, until


@pytest.fixture
def both(tmp_path: Path) -> App:
    return grpc_reloads.both(tmp_path / "app")


def serving(wire: GrpcWire) -> int:
    """The pid of who answers."""
    status, _, found = wire.call("Say", Request(action="pid"))
    assert status == 0
    return int(found[0].message)


def test_thrift_and_protobuf_side_by_side(both: App) -> None:
    with both.serve(more=BOTH) as server, GrpcWire(server.address) as grpc, Wire(server.address) as thrift:
        assert serving(grpc) == thrift.tell()[1] == server.worker()


def test_a_reload_says_goodbye_twice_and_lets_streams_finish(both: App) -> None:
    with both.serve(more=BOTH) as server, GrpcWire(server.address) as wire:
        before = serving(wire)
        stream = wire.open("Chat")
        stream.write_message(Request(count=1).SerializeToString())
        wire.until(lambda: stream.messages)
        server.reload_ok()
        wire.until(lambda: wire.protocol.peer_leaving)
        assert wire.protocol.peer_goaway == 0
        assert not wire.protocol.can_open
        assert stream.is_open
        assert replies(stream) == [Reply(count=1)]
        stream.write_message(Request(count=2).SerializeToString(), end=True)
        assert wire.finish(stream) == (0, "")
        assert replies(stream) == [Reply(count=2)]
        until(lambda: before not in server.remember(), "the old worker to go")
        with GrpcWire(server.address) as fresh:
            assert serving(fresh) == server.worker() != before


def test_ctl_drain_says_goodbye_to_who_is_there_and_serves_who_comes(both: App) -> None:
    def ctl(command: str) -> None:
        run([sys.executable, str(ROOT / "bin" / "weego"), "ctl", "--conf", str(both.conf), command])

    with both.serve(more=BOTH, server='control = "weego.sock"') as server, GrpcWire(server.address) as wire:
        worker = serving(wire)
        stream = wire.open("Chat")
        stream.write_message(Request(count=1).SerializeToString())
        wire.until(lambda: stream.messages)
        ctl("drain")
        wire.until(lambda: wire.protocol.peer_leaving)
        stream.write_message(Request(count=2).SerializeToString(), end=True)
        assert wire.finish(stream) == (0, "")
        assert replies(stream) == [Reply(count=1), Reply(count=2)]
        with GrpcWire(server.address) as other:
            assert [serving(other) for _ in range(3)] == [worker] * 3
            assert not other.protocol.peer_leaving
            ctl("resume")
            assert serving(other) == worker == server.worker()


def test_limits_of_grpc_without_new_workers_and_clients_with_them(both: App) -> None:
    def ctl(*command: str) -> str:
        return run([sys.executable, str(ROOT / "bin" / "weego"), "ctl", "--conf", str(both.conf), *command])[1]

    control = 'control = "weego.sock"'
    time.sleep(0.6)  # younger files are not trusted to be what was read
    with both.serve(more=BOTH, server=control) as server, GrpcWire(server.address) as wire:
        worker = serving(wire)
        assert wire.call("Say", Request(message="x" * 5000))[0] == 0
        both.write_conf(more=BOTH + '[grpc]\nmax_message = "2KiB"\nkeepalive_time = "1h"\n', server=control)
        diff = ctl("reload", "--diff")
        assert diff.count("at once") == 2
        assert diff.splitlines()[-1] == "no new workers are needed"
        ctl("reload", "--wait")
        assert wire.call("Say", Request(message="x" * 5000))[0] == 8, "RESOURCE_EXHAUSTED, on the connection there was"
        assert serving(wire) == worker == server.worker()
        # What code has in its hands since it was imported is not changed under it.
        more = '[registry]\nurl = "file://registry"\n[client.other]\ntarget = "tcp://127.0.0.1:1"\n[grpc]\nmax_message = "2KiB"\nreflection = false\n'
        both.write_conf(more=BOTH + more, server=control)
        diff = ctl("reload", "--diff")
        for key in ("registry.url", "client.other.target", "grpc.reflection"):
            assert next(line for line in diff.splitlines() if line.startswith(key)).endswith("  new workers"), diff
        assert next(line for line in diff.splitlines() if line.startswith("grpc.keepalive_time")).endswith("at once"), diff


def test_an_idle_connection_does_not_hold_up_the_end(both: App) -> None:
    with both.serve(more=BOTH) as server, GrpcWire(server.address) as wire:
        serving(wire)
        server.signal(signal.SIGTERM)
        wire.until(lambda: wire.protocol.peer_leaving)
        assert server.process.wait() == 0


def test_reloads_under_mixed_load_of_grpcio_fail_no_call(tmp_path: Path) -> None:
    """The short form; `make chaos CHAOS_ARGS="--only grpc"` is the long one: 20 HUPs, 64 channels."""
    need.module("grpc")
    found = grpc_reloads.reloads(grpc_reloads.both(tmp_path / "app"), hups=5, channels=32)
    assert found.failed == {"unary": [0], "stream": [0]}, found
    assert found.done["unary"] > 100
    assert found.done["stream"] > 20

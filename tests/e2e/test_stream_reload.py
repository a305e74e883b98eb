"""Streams of Thrift services under the master: reload, hand-over and drain, with weego's clients. Kitex's: tests/interop/test_kitex_stream.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codec.errors import RpcError
from tests.support.need import ROOT
from tests.support.service import App, Server, until
from tests.support.stream_echo import META, Request, StreamWire, TalkClient

CODE = f"""\
import os, sys

sys.path.insert(0, {str(ROOT)!r})
from tests.support.stream_echo import Reply, TalkService


class Service(TalkService):
    def chat(self, req):
        for each in req:
            yield Reply(message=str(os.getpid()), body=each.body, count=each.count)
"""


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path / "app", code=CODE)


def serving(wire: StreamWire) -> int:
    """The pid of who answers a stream of its own."""
    found, _, error = wire.call("chat", Request())
    assert error is None
    return int(found[0].message)


def test_an_idle_connection_is_handed_over(app: App) -> None:
    with app.serve() as server, StreamWire(server.address) as wire:
        before = serving(wire)
        for _ in range(3):
            server.reload_ok()
            until(lambda old=before: serving(wire) != old, "the new worker to have it")  # type: ignore[misc]
            before = serving(wire)
            assert server.worker() == before


def test_a_stream_stays_and_new_ones_go_over_with_the_connection(app: App) -> None:
    with app.serve() as server, StreamWire(server.address) as wire:
        sid = wire.open("chat", Request(count=1))
        before = int(wire.reply(sid).message)
        server.reload_ok()
        goodbye = wire.next_frame(0)
        assert goodbye.type == META
        wire.data(sid, Request(count=2))
        assert (reply := wire.reply(sid)).count == 2
        assert int(reply.message) == before
        # It waits for the old one to end, frame by frame, and is answered by the new worker.
        held = wire.open("chat", Request(count=7))
        wire.data(held, Request(count=8))
        wire.end(sid)
        assert wire.finish(sid) == ([], {}, None)
        wire.end(held)
        found, _, error = wire.finish(held)
        assert error is None
        assert [each.count for each in found] == [7, 8]
        assert {int(each.message) for each in found} == {server.worker()}
        assert serving(wire) == server.worker() != before


def test_a_stream_that_lasts_does_not_hold_up_others(app: App) -> None:
    with app.serve() as server, StreamWire(server.address) as wire:
        sid = wire.open("chat", Request())
        before = int(wire.reply(sid).message)
        server.reload_ok()
        assert serving(wire) == before, "after a second it is served where it is"
        assert serving(wire) == before
        wire.end(sid)
        wire.finish(sid)
        until(lambda: serving(wire) == server.worker(), "the new worker to have it")


def test_streams_that_outlast_the_grace_time_end(app: App) -> None:
    with app.serve(server='graceful_timeout = "1s"', allow=["cut off at the deadline"]) as server, StreamWire(server.address) as wire:
        sid = wire.open("chat", Request())
        wire.reply(sid)
        server.reload_ok()
        assert wire.at_end()


def test_a_stop_lets_streams_finish_and_refuses_new_ones(app: App) -> None:
    with app.serve() as server, StreamWire(server.address) as wire, StreamWire(server.address) as idle:
        sid = wire.open("chat", Request())
        wire.reply(sid)
        serving(idle)
        server.signal(signal.SIGTERM)
        assert wire.next_frame(0).type == META
        assert idle.next_frame(0).type == META
        assert idle.at_end()
        wire.data(sid, Request(count=5))
        assert wire.reply(sid).count == 5
        wire.end(sid)
        assert wire.finish(sid)[1:] == ({"crrst": "1"}, None)
        assert wire.at_end()
        assert server.process.wait() == 0


def _reloading(app: App, talk: Callable[[Server, threading.Event], Any]) -> None:
    with app.serve(workers=2, allow=["is late: starved"]) as server:
        stop = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                talk(server, stop)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                server.reload_ok()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures, failures


def test_reloads_under_streams_fail_none(app: App) -> None:
    """Streams of 20 messages in threads, and 16 at a time under gevent, on shared connections."""
    counts: list[int] = []

    def one(client: TalkClient) -> None:
        with client.chat() as talk:
            for number in range(20):
                talk.send(Request(count=number, body=bytes(500)))
                assert next(talk).count == number
            talk.close_send()
            assert list(talk) == []

    def in_threads(server: Server, stop: threading.Event) -> None:
        with TalkClient(server.address, timeout=20) as client:
            while not stop.is_set():
                one(client)
                counts.append(1)

    def with_gevent(server: Server, stop: threading.Event) -> None:
        import gevent

        from poller.loop import loop_of

        hub = gevent.get_hub()

        def talk(client: TalkClient) -> None:
            while not stop.is_set():
                one(client)
                counts.append(1)

        with TalkClient(server.address, timeout=20) as client:
            gevent.joinall([gevent.spawn(talk, client) for _ in range(16)], raise_error=True)
        loop_of(hub).close()
        hub.destroy(destroy_loop=True)

    started = []

    def talk(server: Server, stop: threading.Event) -> None:
        started.append(1)
        (in_threads if len(started) == 1 else with_gevent)(server, stop)

    _reloading(app, talk)
    assert len(counts) > 20


def test_killing_a_worker_ends_its_streams_and_no_others(app: App) -> None:
    with app.serve(workers=1, allow=["was killed by SIGKILL", "no worker is ready"]) as server, TalkClient(server.address, timeout=20) as client:
        talk = client.chat()
        talk.send(Request())
        worker = int(next(talk).message)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(RpcError):
            next(talk)
        until(lambda: worker not in server.workers() and server.workers(), "another worker")
        with client.chat() as talk:
            talk.send(Request())
            assert int(next(talk).message) == server.worker()


def test_the_example(tmp_path: Path) -> None:
    folder = tmp_path / "talk"
    folder.mkdir()
    for name in ("talk.thrift", "run.py"):
        (folder / name).write_text((ROOT / "examples" / "talk" / name).read_text())
    subprocess.run([sys.executable, str(ROOT / "bin" / "weego"), "gen", str(folder / "talk.thrift"), "-o", str(folder / "gen")], check=True)
    done = subprocess.run([sys.executable, str(folder / "run.py")], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "watch: [0, 1, 2, 3, 4]\ncollect: 45\nchat: HELLO\nchat: WORLD\n"

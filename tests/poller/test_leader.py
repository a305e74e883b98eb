"""The greenlets that run the loop's turns: used again, but never by two calls that could meet. More in tests/weego/test_dispatch.py."""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Any, Self

import gevent
import gevent.event
import gevent.socket
import greenlet
import pytest

from poller.leader import Leader
from poller.loop import loop_of
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import PATIENCE, Wire, served, wait_until, with_hub, without_hub
from weego.server import Server


class Service(Echo):
    def __init__(self) -> None:
        self.served_by: list[Any] = []
        self.kept: list[Any] = []
        self.release = gevent.event.Event()
        self.entered = threading.Semaphore(0)

    def echo(self, req: Request) -> Response:
        self.served_by.append(weakref.ref(greenlet.getcurrent()))
        if req.action == "sleep":
            gevent.sleep(0)
        elif req.action == "keep":
            self.kept.append(greenlet.getcurrent())
        elif req.action == "hold":
            self.entered.release()
            self.release.wait()
        return Response(message=req.message)



@without_hub
def test_one_greenlet_serves_all_calls_that_come_one_after_the_other() -> None:
    service = Service()
    with served(service) as server, EchoClient(server.addresses[0]) as client:
        for _ in range(50):
            client.echo(Request())
            client.echo(Request(action="sleep"))
        found = {ref() for ref in service.served_by}
        assert len(found) <= 2, "blocking calls must not cost a greenlet each"
        assert all(isinstance(each, Leader) for each in found)


@without_hub
def test_a_greenlet_that_somebody_keeps_serves_nobody_else_and_the_pipeline_goes_on() -> None:
    service = Service()
    with served(service) as server, Wire(server.addresses[0]) as wire:
        # All in one read: the call that is kept ends its leader in the middle of the turn.
        number = 30
        wire.sock.sendall(b"".join(wire.write(Request(action="keep", message=str(n)), n) for n in range(1, number + 1)))
        for n in range(1, number + 1):
            assert wire.reply().value.message == str(n)
        assert len({id(each) for each in service.kept}) == number
    service.kept.clear()


@without_hub
def test_many_that_block_at_once_take_a_greenlet_each_and_give_it_back() -> None:
    service = Service()
    with served(service) as server:
        wires = [Wire(server.addresses[0]) for _ in range(100)]
        for wire in wires:
            wire.send(Request(action="hold", message="x"))
        for _ in wires:
            assert service.entered.acquire(timeout=20)
        server.serving.hub.loop.run_callback_threadsafe(service.release.set)
        for wire in wires:
            assert wire.reply().value.message == "x"
        assert len({ref() for ref in service.served_by}) == 100
        service.served_by.clear()
        with EchoClient(server.addresses[0]) as client:
            for _ in range(20):
                client.echo(Request())
        for wire in wires:
            wire.close()


@without_hub
def test_a_leader_woken_by_mistake_goes_back_to_sleep() -> None:
    service = Service()
    with served(service) as server, EchoClient(server.addresses[0]) as client:
        client.echo(Request())
        leader = service.served_by[0]()
        loop = server.serving.hub.loop
        woken = threading.Event()

        def disturb() -> None:
            leader.switch()
            leader.throw(ValueError("of a call that is over"))
            woken.set()

        loop.run_callback_threadsafe(disturb)
        assert woken.wait(20)
        for _ in range(10):
            assert client.echo(Request(message="fine")).message == "fine"


class Busy:
    """A server whose leader lingers for long once calls follow one another, and somebody who makes them."""

    LINGER = 1.0

    def __init__(self, server: Server) -> None:
        self.hub = server.serving.hub
        self.loop = loop_of(self.hub)
        self.loop.closely = PATIENCE
        self.loop.linger_time = self.LINGER
        self.address = server.addresses[0]
        self.stopped = False
        self.failure: list[BaseException] = []
        self.calls = 0
        self.thread = threading.Thread(target=self.call)

    def call(self) -> None:
        try:
            with EchoClient(self.address) as client:
                while not self.stopped:
                    assert client.echo(Request(message="x")).message == "x"
                    self.calls += 1
        except BaseException as error:
            self.failure.append(error)

    def __enter__(self) -> Self:
        self.thread.start()
        wait_until(lambda: self.calls > 10)
        return self

    def __exit__(self, *what: object) -> None:
        self.loop.linger_time = 0.001
        self.stopped = True
        self.thread.join()
        assert self.failure == []


@without_hub
def test_a_leader_lingers_while_calls_follow_one_another() -> None:
    with served(Service()) as server, Busy(server) as busy:
        wait_until(lambda: busy.calls > 100)
        before, turns = busy.hub.loop.iteration, busy.loop.turns
        wait_until(lambda: busy.loop.turns - turns > 500)
        turns = busy.loop.turns - turns
        assert busy.hub.loop.iteration - before < turns / 2


@without_hub
def test_a_leader_lingers_though_there_was_a_moment_without_connections() -> None:
    """The loop's own watcher keeps the hub going only while there are connections, and nobody waits for that one."""
    with served(Service()) as server:
        for _ in range(2):
            with Busy(server) as busy:
                before, turns = busy.hub.loop.iteration, busy.loop.turns
                wait_until(lambda turns=turns: busy.loop.turns - turns > 500)  # type: ignore[misc]
                turns = busy.loop.turns - turns
                assert busy.hub.loop.iteration - before < turns / 2
            wait_until(lambda: busy.loop.members == 0)


@without_hub
def test_a_leader_that_waits_in_vain_is_recalled() -> None:
    with served(Service()) as server:
        loop = server.serving.hub.loop
        with Busy(server):
            pass
        for _ in range(3):
            called = threading.Event()
            loop.run_callback_threadsafe(called.set)
            assert called.wait(PATIENCE)


@without_hub
def test_what_is_always_there_has_its_turn_in_the_end() -> None:
    """A greenlet that reads a socket in the background, and another thread's call."""
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []
    ended = threading.Event()

    def listen() -> None:
        with gevent.socket.socket(fileno=ours.detach()) as sock:
            while data := sock.recv(10):
                heard.append(data)
        ended.set()

    with served(Service()) as server:
        server.serving.hub.loop.run_callback_threadsafe(gevent.spawn, listen)
        with Busy(server) as busy:
            busy.loop.linger_time = 0.001
            for n in range(1, 20):
                theirs.sendall(b"x")
                wait_until(lambda n=n: len(b"".join(heard)) == n)  # type: ignore[misc]
                called = threading.Event()
                busy.hub.loop.run_callback_threadsafe(called.set)
                assert called.wait(PATIENCE)
        theirs.close()
        assert ended.wait(PATIENCE)


class Blocking(Service):
    """Each way to need the hub."""

    def echo(self, req: Request) -> Response:
        if req.action == "spawn":
            done = gevent.event.Event()
            gevent.spawn(done.set)
            assert done.wait(PATIENCE)
        elif req.action == "spawn and forget":
            gevent.spawn(self.kept.append, req.message)
        elif req.action == "timer":
            gevent.sleep(0.001)
        elif req.action == "thread":
            assert gevent.get_hub().threadpool.apply(threading.get_ident) != threading.get_ident()
        elif req.action == "socket":
            ours, theirs = gevent.socket.socketpair()
            with ours, theirs:
                gevent.spawn_later(0.001, theirs.sendall, b"x")
                assert ours.recv(1) == b"x"
        else:
            return super().echo(req)
        return Response(message=req.message)


@without_hub
@pytest.mark.parametrize("action", ["spawn", "spawn and forget", "timer", "thread", "socket", "sleep", "keep"])
def test_who_waits_for_the_hub_does_not_wait_for_a_leader_that_lingers(action: str) -> None:
    """To linger takes a minute here, so that the test would not end."""
    service = Blocking()
    with served(service) as server, EchoClient(server.addresses[0]) as client:
        client.echo(Request())  # connected: to accept is the hub's
        with Busy(server) as busy:
            busy.loop.linger_time = 60.0
            for n in range(30):
                assert client.echo(Request(action=action, message=str(n))).message == str(n)
            if action == "spawn and forget":
                wait_until(lambda: service.kept == [str(n) for n in range(30)])
    service.kept.clear()


@with_hub
def test_leaders_end_with_their_loop() -> None:
    service = Service()
    with served(service) as server, EchoClient(server.addresses[0]) as client:
        client.echo(Request())
        client.echo(Request(action="sleep"))
    assert service.served_by[0]() is not None
    loop_of(gevent.get_hub()).close()
    wait_until(lambda: not any(ref() for ref in service.served_by))

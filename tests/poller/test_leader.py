"""The greenlets that run the loop's turns: used again, but never by two calls that could meet. More in tests/weego/test_dispatch.py."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import gevent
import gevent.event
import greenlet

from poller.leader import Leader
from poller.loop import loop_of
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import Wire, served, wait_until, with_hub, without_hub


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


@with_hub
def test_leaders_end_with_their_loop() -> None:
    service = Service()
    with served(service) as server, EchoClient(server.addresses[0]) as client:
        client.echo(Request())
        client.echo(Request(action="sleep"))
    assert service.served_by[0]() is not None
    loop_of(gevent.get_hub()).close()
    wait_until(lambda: not any(ref() for ref in service.served_by))

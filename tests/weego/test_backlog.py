"""Shedding in a server: who is refused hears of it before those who are served have their turn, and nothing of the rest is lost."""

from __future__ import annotations

import fcntl
import select
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import pytest

from codec.errors import Code
from governance.memory import Memory
from governance.shedder import Shedder
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.grpc_echo import EchoService as GrpcEcho
from tests.support.grpc_echo import Request as GrpcRequest
from tests.support.grpc_wire import GrpcWire, prefixed
from tests.support.net import PATIENCE, Wire, served, wait_until, with_hub, without_hub
from weego import config
from weego.governed_config import ServerGovernance
from weego.routes import thread


def overloaded() -> ServerGovernance:
    """A server that is in overload all the time: whoever would wait for a thousand seconds is refused."""
    made = ServerGovernance(config.Governance(shed=True), Memory())
    made.shedder = Shedder(1000, 1000, clock=count(0, 2000).__next__)
    made.shedder.idle()  # and never again
    return made


class Doors:
    """Handlers that keep the whole worker busy until a door is opened."""

    def __init__(self) -> None:
        self.doors: dict[str, threading.Event] = {}
        self.entered: list[str] = []

    def pass_(self, name: str) -> None:
        self.entered.append(name)
        if name:
            assert self.doors[name].wait(PATIENCE)

    @contextmanager
    def closed(self, *names: str) -> Iterator[None]:
        for name in names:
            self.doors[name] = threading.Event()
        try:
            yield
        finally:
            for name in names:
                self.doors[name].set()


class Service(Echo):
    def __init__(self, doors: Doors) -> None:
        self.doors = doors

    def echo(self, req: Request) -> Response:
        self.doors.pass_(req.action)
        return Response(message=req.message)

    @thread
    def boom(self, req: Request) -> Response:
        return Response(message="from a thread")


def arrived(wire: Wire) -> bool:
    """Has the other side's kernel all that was sent? A busy machine delivers late even what goes to itself."""
    return fcntl.ioctl(wire.sock, termios.TIOCOUTQ, bytes(4)) == bytes(4)


@without_hub
def test_who_is_refused_does_not_wait_for_those_who_are_served() -> None:
    doors, governance = Doors(), overloaded()
    with served(Service(doors), governance=governance) as server, ExitStack() as stack, doors.closed("first", "second"):
        wires = [stack.enter_context(Wire(server.addresses[0], framing="ttheader")) for _ in range(11)]
        for wire in wires:
            wire.send(Request())
            assert wire.reply().error is None
        governance.shedder.took(1e6)  # as long as anything: behind one other is too late, however slow this machine is
        blocking, *others = wires
        blocking.send(Request(action="first"))
        wait_until(lambda: "first" in doors.entered)
        for wire in others:
            wire.send(Request(action="second"))
        wait_until(lambda: all(arrived(wire) for wire in others))
        doors.doors["first"].set()
        assert blocking.reply().error is None
        # All ten were read before one of them is served; that one keeps the worker busy, and nine have their answer all the same.
        waiting = {wire.sock: wire for wire in others}
        while len(waiting) > 1:
            ready, _, _ = select.select(list(waiting), [], [], PATIENCE)
            assert ready, f"{len(waiting)} got no answer"
            for sock in ready:
                error = waiting.pop(sock).reply().error
                assert "RESOURCE_EXHAUSTED: Echo.echo: limit shedding, 1 calls wait and the worker is overloaded" in str(error)
        assert doors.entered.count("second") == 1
        doors.doors["second"].set()
        (last,) = waiting.values()
        assert last.reply().error is None
        assert governance.refused() == 9
        assert server.serving.dispatcher.inflight == 0


class Lenient(Shedder):
    """Lets everybody wait."""

    def admit(self, waits: float) -> bool:
        return True


@without_hub
def test_who_has_gone_or_whose_time_is_over_is_not_served() -> None:
    doors, governance = Doors(), overloaded()
    governance.shedder = Lenient(1000, 1000, clock=count(0, 2000).__next__)
    governance.shedder.idle()
    with served(Service(doors), governance=governance) as server, doors.closed("first", "second"), ExitStack() as stack:
        first, second, late, gone = (stack.enter_context(Wire(server.addresses[0], framing="ttheader")) for _ in range(4))
        for wire in (first, second, late, gone):
            wire.send(Request())
            assert wire.reply().error is None
        before = len(doors.entered)
        first.send(Request(action="first"))
        wait_until(lambda: "first" in doors.entered)
        second.send(Request(action="second"))
        late.send(Request(), ints={12: "1"})  # it may take a millisecond
        gone.send(Request())
        wait_until(lambda: all(arrived(wire) for wire in (second, late, gone)))
        doors.doors["first"].set()
        assert first.reply().error is None
        wait_until(lambda: "second" in doors.entered)
        gone.reset()
        time.sleep(0.002)
        doors.doors["second"].set()
        assert second.reply().error is None
        assert "DEADLINE_EXCEEDED" in str(late.reply().error)
        wait_until(lambda: server.serving.dispatcher.inflight == 0)
        assert doors.entered[before:] == ["first", "second"]


@without_hub
def test_grpc_is_told_in_its_own_way() -> None:
    doors, governance = Doors(), overloaded()

    class Grpc(GrpcEcho):
        def say(self, request: Any, *rest: Any) -> Any:
            doors.pass_(request.message)
            return super().say(request, *rest)

    with served(Grpc(), governance=governance) as server, GrpcWire(server.addresses[0]) as wire, doors.closed("first"):
        assert wire.call("Say", GrpcRequest())[0] == 0
        governance.shedder.took(1e6)
        streams = [wire.open("Say") for _ in range(6)]
        wire.send(streams[0], prefixed(GrpcRequest(message="first").SerializeToString()), end=True)
        wait_until(lambda: "first" in doors.entered)
        for stream in streams[1:]:
            wire.send(stream, prefixed(GrpcRequest().SerializeToString()), end=True)
        wait_until(lambda: fcntl.ioctl(wire.socket, termios.TIOCOUTQ, bytes(4)) == bytes(4))
        doors.doors["first"].set()
        found = [wire.finish(stream) for stream in streams]
        assert [status for status, _ in found].count(0) == 2
        refused = [text for status, text in found if status == Code.RESOURCE_EXHAUSTED]
        assert len(refused) == 4
        assert "limit shedding" in refused[0]
        governance.shedder = server.serving.dispatcher.queue.shedder = Shedder()
        # The connection's streams are counted to the end: it can have as many as ever.
        for _ in range(150):
            assert wire.call("Say", GrpcRequest())[0] == 0


@with_hub
def test_shedding_is_switched_on_and_off_while_calls_wait() -> None:
    doors = Doors()
    with served(Service(doors), governance=overloaded()) as server, EchoClient(server.addresses, timeout=20) as client:
        for _ in range(3):
            server.serving.govern(lambda service, method: [], None)
            assert server.serving.dispatcher.queue is None
            assert client.echo(Request(message="off")).message == "off"
            server.serving.govern(lambda service, method: [], Shedder())
            assert client.echo(Request(message="on")).message == "on"
            assert client.boom(Request()).message == "from a thread"
        assert len(server.serving.dispatcher.queue) == 0


@pytest.mark.parametrize("calls", [1, 50])
@with_hub
def test_without_overload_nothing_is_refused(calls: int) -> None:
    import gevent

    governance = ServerGovernance(config.Governance(shed=True), Memory())
    with served(Service(Doors()), governance=governance) as server, EchoClient(server.addresses, timeout=20) as client:
        found = [gevent.spawn(client.echo, Request(message=str(number))) for number in range(calls)]
        assert [each.get().message for each in found] == [str(number) for number in range(calls)]
        assert governance.refused() == 0

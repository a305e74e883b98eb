"""From a request to its answer: modes, errors, deadlines, and that no call sees another."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.local
import greenlet
import pytest

import weego
from codec.errors import (
    ApplicationError,
    BusinessError,
    Code,
    DeadlineExceeded,
    ResourceExhausted,
    RpcError,
    Unavailable,
    UnknownMethod,
)
from tests.support.echo_stub import Echo, EchoClient, NotFound, Request, Response
from tests.support.net import Wire, records, served, wait_until, with_hub, without_hub
from weego.routes import inline, thread


class Service(Echo):
    """Does what the test's functions say; `action` names one."""

    def __init__(self, **actions: Callable[[str], Any]) -> None:
        self.actions = actions

    def echo(self, req: Request) -> Response:
        result = self.actions[req.action](req.message) if req.action else req.message
        return result if not isinstance(result, str) else Response(message=result)

    def boom(self, req: Request) -> Response:
        return self.echo(req)

    def note(self, req: Request) -> None:
        self.actions[req.action](req.message)


class InlineService(Service):
    @inline
    def echo(self, req: Request) -> Response:
        return super().echo(req)


class ThreadService(Service):
    @thread
    def echo(self, req: Request) -> Response:
        return super().echo(req)


MODES = pytest.mark.parametrize("service", [Service, InlineService, ThreadService])


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def raises(error: BaseException | type[BaseException]) -> Callable[[str], str]:
    def action(_: str) -> str:
        raise error

    return action


@MODES
@pytest.mark.parametrize("framing", ["framed", "buffered", "ttheader", "ttheader-framed"])
@without_hub
def test_each_mode_answers_in_each_framing(service: type[Service], framing: str) -> None:
    with served(service()) as server, EchoClient(server.addresses[0], framing=framing) as client:
        for number in range(20):
            assert client.echo(Request(message=str(number))).message == str(number)
        assert server.serving.dispatcher.requests == 20
        assert server.serving.dispatcher.errors == 0


@MODES
@without_hub
def test_whatever_a_handler_raises_is_an_answer_and_the_server_lives_on(service: type[Service]) -> None:
    bad: dict[str, Any] = {
        "exception": raises(ValueError("bad value")),
        "base": raises(BaseException("base")),
        "exit": raises(SystemExit(3)),
        "greenlet_exit": raises(greenlet.GreenletExit()),
        "unspeakable": raises(Unspeakable()),
    }
    with records() as log, served(service(**bad)) as server, EchoClient(server.addresses[0]) as client:
        for action in bad:
            with pytest.raises(ApplicationError) as caught:
                client.echo(Request(action=action), timeout=20)
            assert caught.value.message.startswith("biz error: ")
            assert caught.value.code == Code.INTERNAL
        assert client.echo(Request(message="still here")).message == "still here"
        assert client.statistics()[0].reused == len(bad)  # and over the same connection
        wait_until(lambda: server.serving.dispatcher.inflight == 0)
        assert server.serving.dispatcher.errors == len(bad)
    assert sum("the handler failed" in record.getMessage() for record in log) == len(bad)


@MODES
@without_hub
def test_a_result_that_does_not_fit_is_our_mistake_and_named(service: type[Service]) -> None:
    wrong: dict[str, Any] = {
        "number": lambda _: 42,
        "other": lambda _: Request(),
        "member": lambda _: Response(message=7),  # type: ignore[arg-type]
    }
    with records() as log, served(service(**wrong)) as server, EchoClient(server.addresses[0]) as client:
        for action in wrong:
            with pytest.raises(ApplicationError, match="does not fit the IDL"):
                client.echo(Request(action=action))
        assert client.echo(Request(message="fine")).message == "fine"
    assert sum("does not fit the IDL" in record.getMessage() for record in log) == len(wrong)


@without_hub
def test_declared_exceptions_and_business_errors_arrive_as_they_are() -> None:
    service = Service(
        missing=raises(NotFound(what="it")),
        no=raises(BusinessError(404, "not here", {"shelf": "b"})),
        member=raises(NotFound(what=3)),  # type: ignore[arg-type]
    )
    with served(service) as server, EchoClient(server.addresses[0], framing="ttheader") as client:
        with pytest.raises(NotFound) as missing:
            client.boom(Request(action="missing"))
        assert missing.value.what == "it"
        with pytest.raises(BusinessError) as no:
            client.echo(Request(action="no"))
        assert (no.value.status, no.value.message, no.value.extra) == (404, "not here", {"shelf": "b"})
        with pytest.raises(ApplicationError, match="biz error"):  # not declared for this method
            client.echo(Request(action="missing"))
        with pytest.raises(ApplicationError, match="does not fit the IDL"):
            client.boom(Request(action="member"))
        with EchoClient(server.addresses[0]) as framed, pytest.raises(ApplicationError, match="business status 404: not here"):
            framed.echo(Request(action="no"))


@without_hub
def test_what_is_not_implemented_is_an_unknown_method() -> None:
    with served(Service()) as server, EchoClient(server.addresses[0]) as client:
        with pytest.raises(UnknownMethod, match="does not implement"):
            client.get_item(Request())
        assert client.echo(Request(message="usable")).message == "usable"


@without_hub
def test_an_error_of_a_service_further_down_is_not_taken_for_ours() -> None:
    with served(Service()) as below, EchoClient(below.addresses[0]) as down:
        service = Service(ask=lambda _: down.get_item(Request()))
        with served(service) as server, EchoClient(server.addresses[0]) as client:
            with pytest.raises(ApplicationError) as caught:
                client.echo(Request(action="ask"))
            assert not isinstance(caught.value, UnknownMethod)
            assert caught.value.code == Code.UNIMPLEMENTED
            assert "UNIMPLEMENTED" in caught.value.message or "does not implement" in caught.value.message


@without_hub
def test_answer_infos_that_cannot_be_written_are_an_error_answer() -> None:
    def spoil(_: str) -> str:
        weego.current().send_metadata["shelf"] = 3  # type: ignore[index, union-attr, assignment]
        return "never seen"

    with records() as log, served(Service(spoil=spoil)) as server:
        with EchoClient(server.addresses[0], framing="ttheader") as client:
            with pytest.raises(ApplicationError):
                client.echo(Request(action="spoil"), timeout=20)
            assert client.echo(Request(message="fine")).message == "fine"
    assert log


@without_hub
def test_oneway_gets_no_answer_even_when_it_fails() -> None:
    seen: list[str] = []
    service = Service(keep=seen.append, fail=raises(ValueError("lost")))
    with records(), served(service) as server, Wire(server.addresses[0]) as wire:
        wire.send(Request(action="keep", message="a"), 1, method="note")
        wire.send(Request(action="fail"), 2, method="note")
        wire.send(Request(message="after"), 3)
        reply = wire.reply()
        assert (reply.seqid, reply.value.message) == (3, "after")
        assert seen == ["a"]
        assert server.serving.dispatcher.errors == 1


# ---- deadlines -----------------------------------------------------------------------------------------------------------


@without_hub
def test_a_greenlet_handler_is_interrupted_at_the_deadline_that_ttheader_carries() -> None:
    ended: list[BaseException] = []
    done = threading.Event()

    def wait(_: str) -> str:
        try:
            gevent.event.Event().wait()
        except BaseException as error:
            ended.append(error)
            raise
        finally:
            done.set()
        return "never"

    with served(Service(wait=wait)) as server, Wire(server.addresses[0], framing="ttheader") as wire:
        wire.send(Request(action="wait"), ints={12: "30"})
        reply = wire.reply()
        assert isinstance(reply.error, ApplicationError)
        assert reply.error.message.startswith("DEADLINE_EXCEEDED: Echo.echo")
        assert done.wait(20)
        assert isinstance(ended[0], DeadlineExceeded)
        wire.send(Request(message="usable"), 2)
        assert wire.reply().value.message == "usable"
        wait_until(lambda: server.serving.dispatcher.inflight == 0)


@without_hub
def test_the_servers_own_timeout_holds_without_a_header_and_the_client_knows_the_code() -> None:
    service = Service(wait=lambda _: gevent.event.Event().wait())
    with served(service, timeout=0.03) as server, EchoClient(server.addresses[0]) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            client.echo(Request(action="wait"), timeout=20)
        assert caught.value.origin.value == "peer"
        assert caught.value.instance == server.addresses[0]


@pytest.mark.parametrize("service", [InlineService, ThreadService])
@without_hub
def test_inline_and_thread_handlers_see_that_they_are_late(service: type[Service]) -> None:
    late: list[bool] = []

    def compute(_: str) -> str:
        call = weego.current()
        assert call is not None
        while not call.expired:
            pass
        late.append(True)
        call.check()
        return "never"

    with served(service(compute=compute), timeout=0.02) as server, EchoClient(server.addresses[0]) as client:
        with pytest.raises(RpcError) as caught:
            client.echo(Request(action="compute"), timeout=20)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        wait_until(lambda: late == [True])
        wait_until(lambda: server.serving.dispatcher.inflight == 0)


@without_hub
def test_a_nested_call_inherits_the_deadline_and_not_more() -> None:
    left: list[float | None] = []
    with served(Service(tell=lambda _: left.append(weego.current().remaining) or "")) as below:  # type: ignore[union-attr, func-returns-value]
        with EchoClient(below.addresses[0], framing="ttheader", timeout=100) as down:
            ask = Service(ask=lambda _: down.echo(Request(action="tell")).message)
            with served(ask) as server, EchoClient(server.addresses[0], framing="ttheader") as client:
                client.echo(Request(action="ask"), timeout=30)
                client.echo(Request(action="ask"))
    assert left[0] is not None and left[0] <= 30
    assert left[1] is not None and 30 < left[1] <= 100


# ---- one call sees nothing of another ------------------------------------------------------------------------------------


@without_hub
def test_calls_that_share_a_parked_greenlet_share_nothing_else() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("test")
    local = gevent.local.local()
    served_by: list[Any] = []
    found: list[Any] = []

    def look(_: str) -> str:
        own = greenlet.getcurrent()
        served_by.append(weakref.ref(own))
        found.append((variable.get(None), getattr(local, "value", None), getattr(own, "mark", None), weego.current().spec.name))  # type: ignore[union-attr]
        variable.set("kept")
        local.value = "kept"
        own.mark = "kept"  # type: ignore[attr-defined]
        gevent.sleep(0)
        return ""

    with served(Service(look=look)) as server, EchoClient(server.addresses[0]) as client:
        for _ in range(50):
            client.echo(Request(action="look"))
        assert len({id(ref()) for ref in served_by}) == 1, "the greenlet was not used again"
        assert served_by[0]() is not None
    assert set(found) == {(None, None, None, "echo")}


@without_hub
def test_a_timeout_that_was_never_closed_hits_nobody_else() -> None:
    release = gevent.event.Event()
    hit: list[BaseException] = []

    def forget(_: str) -> str:
        gevent.Timeout.start_new(0.02)
        gevent.sleep(0)
        return ""

    def wait(_: str) -> str:
        try:
            release.wait()
        except BaseException as error:
            hit.append(error)
            raise
        return ""

    with records(), served(Service(forget=forget, wait=wait)) as server, EchoClient(server.addresses[0]) as client:
        for _ in range(5):
            client.echo(Request(action="forget"))
        hub = server.serving.hub
        fired = threading.Event()
        hub.loop.run_callback_threadsafe(gevent.spawn_later, 0.1, fired.set)
        hub.loop.run_callback_threadsafe(gevent.spawn_later, 0.12, release.set)
        client.echo(Request(action="wait"))
        assert fired.wait(20)
        for _ in range(20):
            client.echo(Request(message="after"))
    assert hit == []


@MODES
@without_hub
def test_nothing_of_a_call_outlives_it(service: type[Service]) -> None:
    alive: list[weakref.ref[Any]] = []

    class Kept:
        pass

    keeper: contextvars.ContextVar[Any] = contextvars.ContextVar("keeper")

    def keep(_: str) -> str:
        local = Kept()
        held = Kept()
        keeper.set(held)
        alive.extend((weakref.ref(local), weakref.ref(held)))
        try:
            raise ValueError(local)
        except ValueError:
            return ""

    with served(service(keep=keep)) as server, EchoClient(server.addresses[0]) as client:
        for _ in range(5):
            client.echo(Request(action="keep"))
        client.echo(Request())

        def gone() -> bool:
            gc.collect()
            return not any(ref() for ref in alive)

        wait_until(gone, "the end of what the calls held")


@MODES
@without_hub
def test_many_answers_leak_nothing(service: type[Service]) -> None:
    number = 20_000 if service is not ThreadService else 2_000
    burst = 500
    with served(service(fail=raises(NotFound(what="x")))) as server, Wire(server.addresses[0]) as wire:
        counts: list[int] = []
        for turn in range(number // burst):
            wire.sock.sendall(b"".join(wire.write(Request(message="m"), seqid) for seqid in range(1, burst + 1)))
            for seqid in range(1, burst + 1):
                assert wire.reply().seqid == seqid
            if turn in {0, number // burst - 1}:
                gc.collect()
                counts.append(len(gc.get_objects()))
        assert counts[-1] - counts[0] < 200, counts
        assert server.serving.dispatcher.requests == number


# ---- limits, counters, the log -------------------------------------------------------------------------------------------


@without_hub
def test_a_call_too_many_is_refused_with_an_answer() -> None:
    release = gevent.event.Event()
    entered = threading.Event()

    def wait(_: str) -> str:
        entered.set()
        release.wait()
        return "done"

    with served(Service(wait=wait), max_concurrency=1) as server, Wire(server.addresses[0]) as first:
        first.send(Request(action="wait"))
        assert entered.wait(20)
        with EchoClient(server.addresses[0]) as client:
            with pytest.raises(ResourceExhausted, match="already serves 1 calls"):
                client.echo(Request(), timeout=20)
            server.serving.hub.loop.run_callback_threadsafe(release.set)
            assert first.reply().value.message == "done"
            wait_until(lambda: server.serving.dispatcher.inflight == 0)
            assert client.echo(Request(message="now")).message == "now"


@without_hub
def test_a_call_whose_caller_is_gone_sees_it_and_goes_on() -> None:
    entered, left = threading.Event(), threading.Event()
    seen: list[bool] = []

    def wait(_: str) -> str:
        call = weego.current()
        assert call is not None
        seen.append(call.cancelled)
        entered.set()
        while not call.cancelled:
            gevent.sleep(0.002)
        left.set()
        return "nobody hears it"

    with records() as log, served(Service(wait=wait)) as server:
        wire = Wire(server.addresses[0])
        wire.send(Request(action="wait"))
        assert entered.wait(20)
        wire.reset()
        assert left.wait(20)
        wait_until(lambda: server.serving.dispatcher.inflight == 0 and server.serving.connections == 0)
    assert seen == [False]
    assert not [record for record in log if record.levelname in {"WARNING", "ERROR"}]


@without_hub
def test_counters_in_shared_memory_follow() -> None:
    row = memoryview(bytearray(8 * 8)).cast("q")
    inside: list[int] = []
    with records(), served(Service(look=lambda _: inside.extend((row[1], row[4])) or "", fail=raises(ValueError()))) as server:  # type: ignore[func-returns-value]
        server.serving.dispatcher.count_in(row, inflight=1, requests=2, errors=3, connections=4)
        with EchoClient(server.addresses[0]) as client:
            client.echo(Request(action="look"))
            with pytest.raises(ApplicationError):
                client.echo(Request(action="fail"))
            with pytest.raises(UnknownMethod):
                client.get_item(Request())
            wait_until(lambda: row[1] == 0)
        wait_until(lambda: row[4] == 0)
    assert inside == [1, 1]  # a call, a connection
    assert list(row[1:4]) == [0, 3, 2]


# ---- servers that call servers -------------------------------------------------------------------------------------------


@with_hub
def test_a_handler_calls_a_server_in_the_same_hub() -> None:
    with served(Service()) as below, EchoClient(below.addresses[0]) as down:
        relay = Service(relay=lambda text: down.echo(Request(message=text)).message)
        with served(relay) as server, EchoClient(server.addresses[0], max_idle=20) as client:

            def calls(name: int) -> None:
                for number in range(20):
                    text = f"{name}.{number}"
                    assert client.echo(Request(action="relay", message=text)).message == text

            gevent.joinall([gevent.spawn(calls, name) for name in range(20)], raise_error=True)


@with_hub
def test_a_handler_marked_inline_that_blocks_all_the_same_holds_up_nobody() -> None:
    with served(Service()) as below, EchoClient(below.addresses[0]) as down:
        relay = InlineService(relay=lambda text: down.echo(Request(message=text)).message)
        with served(relay) as server, EchoClient(server.addresses[0]) as client:
            assert client.echo(Request(action="relay", message="x"), timeout=20).message == "x"


@without_hub
def test_a_thread_handler_may_call_too() -> None:
    with served(Service()) as below, EchoClient(below.addresses[0]) as down:
        relay = ThreadService(relay=lambda text: down.echo(Request(message=text)).message)
        with served(relay) as server, EchoClient(server.addresses[0]) as client:
            assert client.echo(Request(action="relay", message="x")).message == "x"


@with_hub
def test_a_deadline_answer_leaves_a_broken_peer_alone() -> None:
    """The handler's own client meets a dead server: the caller is told, as an error of ours with its code."""
    dead = EchoClient("tcp://127.0.0.1:1")
    with served(Service(ask=lambda _: dead.echo(Request()))) as server, EchoClient(server.addresses[0]) as client:
        with pytest.raises(RpcError) as caught:
            client.echo(Request(action="ask"))
        assert caught.value.code == Code.UNAVAILABLE
        assert not isinstance(caught.value, Unavailable)  # the server itself was reached
    dead.close()

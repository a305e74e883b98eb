"""What calls inherit that a handler makes beside each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import weego
from codec.errors import DeadlineExceeded
from governance import metainfo
from governance.inherit import inherit
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import with_hub, without_hub
from weego.server import Server


class Last(Echo):
    def echo(self, req: Request) -> Response:
        call = weego.current()
        assert call is not None
        return Response(message=repr((req.message, metainfo.get_all_persistent(), call.log_id, call.deadline is not None)))


def greenlets(runs: list[Callable[[], Any]]) -> list[Any]:
    started = [gevent.spawn(run) for run in runs]
    return [each.get() for each in started]


def threads(runs: list[Callable[[], Any]]) -> list[Any]:
    found: dict[int, Any] = {}
    started = [threading.Thread(target=lambda at=at, run=run: found.update({at: run()})) for at, run in enumerate(runs)]  # type: ignore[misc]
    for each in started:
        each.start()
    for each in started:
        each.join()
    return [found[at] for at in range(len(runs))]


class Gateway(Echo):
    def __init__(self, address: str, spread: Callable[[list[Callable[[], Any]]], list[Any]]) -> None:
        self.last = EchoClient(address, framing="ttheader")
        self.spread = spread

    def echo(self, req: Request) -> Response:
        ask = self.last.echo if req.action == "bare" else inherit(self.last.echo)
        answers = self.spread([lambda text=text: ask(Request(message=text)) for text in ("one", "two")])  # type: ignore[misc]
        return Response(message=" ".join(answer.message for answer in answers))


@pytest.mark.parametrize("decorate", [with_hub, without_hub])
def test_calls_in_greenlets_have_the_deadline_metainfo_and_log_id_of_the_handler(decorate: Any) -> None:
    @decorate
    def run() -> None:
        with Server([Last()], listen="tcp://127.0.0.1:0") as last:
            gateway = Gateway(last.addresses[0], greenlets)
            with Server([gateway], listen="tcp://127.0.0.1:0") as server, EchoClient(server.addresses, framing="ttheader") as client:
                with metainfo.persistent({"tenant": "acme"}), metainfo.log_id("log-1"):
                    told = client.echo(Request(), timeout=20).message
                    assert told == " ".join(repr((text, {"tenant": "acme"}, "log-1", True)) for text in ("one", "two"))
                    bare = client.echo(Request(action="bare"), timeout=20).message
                    assert "acme" not in bare
                    assert bare.count("False") == 2
            gateway.last.close()

    run()


@without_hub
def test_threads_and_programs_that_serve_nothing() -> None:
    with Server([Last()], listen="tcp://127.0.0.1:0") as last, EchoClient(last.addresses, framing="ttheader") as client:
        with metainfo.persistent({"tenant": "acme"}):
            ask = inherit(client.echo)
        assert [each.message for each in threads([lambda: ask(Request(message="x"), timeout=20)] * 3)] == [repr(("x", {"tenant": "acme"}, "", True))] * 3
        assert weego.current() is None


@with_hub
def test_a_deadline_that_has_passed_stays_so() -> None:
    class Late(Echo):
        def echo(self, req: Request) -> Response:
            kept.append(inherit(weego.current))
            return Response()

    kept: list[Any] = []
    with Server([Late()], listen="tcp://127.0.0.1:0") as server, EchoClient(server.addresses, framing="ttheader") as client:
        client.echo(Request(), timeout=0.3)
        call = gevent.spawn(kept[0]).get()
        gevent.sleep(max(0.0, call.remaining) + 0.01)
        with pytest.raises(DeadlineExceeded):
            gevent.spawn(inherit(call.check)).get()
        assert weego.current() is None

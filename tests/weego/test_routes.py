"""The user's services as routes."""

from __future__ import annotations

from typing import Any

import pytest

from codec.spec import Service
from tests.support.echo_stub import Echo, Other, Request, Response
from weego.dispatch import MODES
from weego.routes import ServiceError, build, inline, thread


class EchoService(Echo):
    @inline
    def echo(self, req: Request) -> Response:
        return Response()

    @thread
    def boom(self, req: Request) -> Response:
        return Response()


class OtherService(Other):
    pass


def test_each_method_has_a_route_by_its_name_on_the_wire() -> None:
    every, named = build([EchoService()], timeout=3.0)
    assert set(every) == {b"echo", b"boom", b"note", b"getItem"}
    assert named == {"Echo": every}
    modes = {name: route.target.mode for name, route in every.items()}
    assert modes == {b"echo": MODES["inline"], b"boom": MODES["thread"], b"note": MODES["greenlet"], b"getItem": MODES["greenlet"]}
    assert {route.target.timeout for route in every.values()} == {3.0}
    assert {route.target.service for route in every.values()} == {"Echo"}


def test_the_first_service_answers_a_caller_that_names_none() -> None:
    every, named = build([OtherService(), EchoService()])
    assert every[b"echo"] is named["Other"][b"echo"]
    assert every[b"boom"] is named["Echo"][b"boom"]


def test_a_fallback_answers_a_caller_that_names_none() -> None:
    other, echo = OtherService(), EchoService()
    every, named = build([other, echo], fallback=echo)
    assert every[b"echo"] is named["Echo"][b"echo"]
    with pytest.raises(ServiceError, match="one of the services"):
        build([other], fallback=echo)
    assert build([other, echo], named_only=True)[0] == {}


def test_without_middleware_the_method_is_called_itself() -> None:
    service = EchoService()
    plain = build([service])[0][b"echo"].target
    assert plain.method == service.echo
    wrapped = build([service], [lambda handler: handler])[0][b"echo"].target
    assert wrapped.method is None
    assert wrapped.handler(None, (Request(),)) == Response()


def test_mistakes() -> None:
    class Streams(Echo):
        def echo(self, req: Request) -> Any:
            yield Response()

    class Bare(Service):
        pass

    for services, text in (
        ([Streams()], "generator function, but its method answers once"),
        ([Bare()], "generated service base"),
        ([Echo], "is a class"),
        ([OtherService(), OtherService()], "two services are called Other"),
        ([], "no service to serve"),
    ):
        with pytest.raises(ServiceError, match=text):
            build(services)
    with pytest.raises(TypeError, match="which is no Handler"):
        build([EchoService()], [lambda handler: None])  # type: ignore[arg-type, return-value]

"""A Protobuf service over Kitex Protobuf: a server and clients of ours, with both kinds of messages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

import weego
from tests.idlc.protos import Protos, protos
from tests.support.net import without_hub

__all__ = ["protos"]

PROTO = """
syntax = "proto3";
package UNIQUE;
message Request { string message = 1; int32 repeat = 2; }
message Response { string message = 1; map<string, string> facts = 2; }
service Echo {
  rpc Echo(Request) returns (Response);
  rpc Watch(Request) returns (stream Response);
}
"""


@pytest.fixture(params=["upb", "native"])
def stubs(protos: Protos, request: pytest.FixtureRequest) -> ModuleType:
    protos.compile(*protos.write(echo=PROTO), messages=request.param)
    return protos.load("UNIQUE")


@contextmanager
def served(stubs: Any) -> Iterator[str]:
    class Service(stubs.Echo):  # type: ignore[misc]
        def echo(self, request: Any) -> Any:
            if request.message == "fail":
                raise RuntimeError("it failed")
            if request.message == "refuse":
                raise weego.BusinessError(404, "not found", {"what": "it"})
            if request.message == "wrong":
                return request
            facts = {name: value for name, value in weego.current().metadata.items() if name == "colour"}
            return stubs.Response(message=request.message * request.repeat, facts=facts)

    with weego.Server(Service(), listen="tcp://127.0.0.1:0") as server:
        yield server.addresses[0]


@pytest.fixture
def address(stubs: Any) -> Iterator[str]:
    with served(stubs) as address:
        yield address


FRAMINGS = ["framed", "ttheader-framed"]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_calls_and_errors(stubs: Any, address: str, framing: str) -> None:
    with stubs.EchoClient(address, framing=framing, timeout=10) as echo:
        assert echo.echo(stubs.Request(message="hi", repeat=2)) == stubs.Response(message="hihi")
        assert echo.echo(stubs.Request()) == stubs.Response()
        with pytest.raises(weego.ApplicationError, match="biz error: RuntimeError: it failed"):
            echo.echo(stubs.Request(message="fail"))
        with pytest.raises(weego.ApplicationError, match="the answer does not fit the IDL"):
            echo.echo(stubs.Request(message="wrong"))
        with pytest.raises(weego.EncodeError, match="expected"):
            echo.echo(stubs.Response())
        assert echo.echo(stubs.Request(message="x" * 100_000, repeat=10)).message == "x" * 1_000_000
        with pytest.raises(weego.UsageError, match="streams"):
            echo.watch(stubs.Request())


def test_a_business_status_needs_a_header(stubs: Any, address: str) -> None:
    with stubs.EchoClient(address, framing="ttheader-framed") as echo, pytest.raises(weego.BusinessError) as caught:
        echo.echo(stubs.Request(message="refuse"))
    assert (caught.value.status, caught.value.message, caught.value.extra) == (404, "not found", {"what": "it"})
    with stubs.EchoClient(address, framing="framed") as echo, pytest.raises(weego.ApplicationError, match="business status 404"):
        echo.echo(stubs.Request(message="refuse"))


def test_metadata_goes_along(stubs: Any, address: str) -> None:
    def colour(call: Any, args: Any, following: Any) -> Any:
        call.send_metadata["colour"] = "red"
        return following(call, args)

    def wrap(following: Any) -> Any:
        return lambda call, args: colour(call, args, following)

    with stubs.EchoClient(address, framing="ttheader-framed", middleware=[wrap]) as echo:
        assert dict(echo.echo(stubs.Request()).facts) == {"colour": "red"}


@without_hub  # on a hub of this thread the server would wait for the threads, and they for it
def test_many_calls_share_a_connection(stubs: Any) -> None:
    with served(stubs) as address, stubs.EchoClient(address, framing="ttheader-framed", pool="shared", timeout=10) as echo:

        def call(number: int) -> bool:
            return bool(echo.echo(stubs.Request(message=str(number), repeat=1)).message == str(number))

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(call, range(200)))


def test_other_framings_carry_no_protobuf(stubs: Any) -> None:
    with pytest.raises(weego.UsageError, match="unknown framing 'buffered'; choose one of"):
        stubs.EchoClient("tcp://127.0.0.1:1", framing="buffered")

"""Metainfo: what a handler sees, what goes on with the calls it makes, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import weego
from codec.errors import UsageError
from governance import metainfo
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import without_hub
from weego.server import Server


class Last(Echo):
    """The end of the chain: tells what it was called with."""

    def echo(self, req: Request) -> Response:
        call = weego.current()
        assert call is not None
        metainfo.send_backward("seen-by", "last")
        return Response(
            message=repr(
                {
                    "transient": metainfo.get_all(),
                    "persistent": metainfo.get_all_persistent(),
                    "caller": call.caller,
                    "log": call.log_id,
                }
            )
        )


class Middle(Echo):
    """Calls on, and knows nothing of metainfo."""

    def __init__(self, next_: str) -> None:
        self.client = EchoClient(next_, framing="ttheader")

    def echo(self, req: Request) -> Response:
        if req.action == "get":
            return Response(
                message=f"{metainfo.get('once')} {metainfo.get_persistent('tenant')} {metainfo.get('nothing')}"
            )
        if req.action == "add":
            with metainfo.values({"own": "1"}), metainfo.persistent({"tenant": "other"}), metainfo.log_id("mine"):
                return self.client.echo(req)
        return self.client.echo(req)


@contextmanager
def chain() -> Iterator[tuple[str, str]]:
    """The addresses of a service that calls on, and of the one that it calls."""
    with Server([Last()], listen="tcp://127.0.0.1:0") as last:
        middle = Middle(last.addresses[0])
        with Server([middle], listen="tcp://127.0.0.1:0") as server:
            yield server.addresses[0], last.addresses[0]
            middle.client.close()


def told(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = eval(response.message)
    return found


@without_hub
def test_one_hop() -> None:
    with chain() as (_first, last):
        with EchoClient(last, framing="ttheader", caller="me") as client, metainfo.log_id("0242"):
            with metainfo.values({"once": "t ü", "": "x", "empty": ""}), metainfo.persistent({"tenant": "acme"}):
                said = told(client.echo(Request()))
            assert said == {
                "transient": {"once": "t ü"},
                "persistent": {"tenant": "acme"},
                "caller": "me",
                "log": "0242",
            }
            assert told(client.echo(Request())) == {"transient": {}, "persistent": {}, "caller": "me", "log": "0242"}


@without_hub
def test_two_hops() -> None:
    """Persistent values, the log id and the caller's name go on by themselves; transient values do not."""
    with chain() as (first, _last):
        with EchoClient(first, framing="ttheader-framed", caller="me") as client:
            with metainfo.values({"once": "t"}), metainfo.persistent({"tenant": "acme"}), metainfo.log_id("0242"):
                said = told(client.echo(Request()))
                assert said == {"transient": {}, "persistent": {"tenant": "acme"}, "caller": "Echo", "log": "0242"}
                said = told(client.echo(Request(action="add")))
                assert said == {
                    "transient": {"own": "1"},
                    "persistent": {"tenant": "other"},
                    "caller": "Echo",
                    "log": "mine",
                }
                assert client.echo(Request(action="get")).message == "t acme None"


@without_hub
def test_backward_values_go_one_hop() -> None:
    with chain() as (first, last):
        for address, wanted in ((last, "last"), (first, None)):
            with EchoClient(address, framing="ttheader") as client, metainfo.backward() as received:
                client.echo(Request())
            assert received.get("seen-by") == wanted


@without_hub
def test_without_a_header_nothing_travels() -> None:
    with chain() as (_first, last):
        with EchoClient(last) as client, metainfo.persistent({"tenant": "acme"}), metainfo.backward() as received:
            assert told(client.echo(Request()))["persistent"] == {}
        assert received == {}


@without_hub
def test_an_acl_token_travels_in_its_own_block() -> None:
    with chain() as (_first, last):
        with EchoClient(last, framing="ttheader") as client, metainfo.values({metainfo.ACL_TOKEN: "tok"}):
            assert told(client.echo(Request()))["transient"] == {"gdpr-token": "tok"}


def test_misuse() -> None:
    with pytest.raises(UsageError, match="takes text"):
        metainfo.values({"a": 1})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="no call is served"):
        metainfo.send_backward("a", "b")
    assert metainfo.get("a") is None
    assert metainfo.get_persistent("a") is None
    assert weego.metainfo is metainfo


@without_hub
def test_a_gateway_hands_on_what_http_brought_and_takes_it_on_to_http() -> None:
    """As `metainfo.FromHTTPHeader` and `ToHTTPHeader` of bytedance/gopkg."""
    headers = {"Rpc-Transit-Shard-No": "7", "rpc-persist-tenant-id": "acme", "rpc-persist-": "x", "rpc-persist-none": "", "Accept": "*/*"}
    with chain() as (_, last), EchoClient(last, framing="ttheader") as client, metainfo.from_headers(headers):
        told = eval(client.echo(Request()).message)
        assert told["transient"] == {"SHARD_NO": "7"}
        assert told["persistent"] == {"TENANT_ID": "acme"}
        assert metainfo.to_headers() == {"rpc-transit-shard-no": "7", "rpc-persist-tenant-id": "acme"}
        with metainfo.persistent({"user": "Ada"}):
            assert metainfo.to_headers()["rpc-persist-user"] == "Ada"
    assert metainfo.to_headers() == {}


@without_hub
def test_a_handler_that_calls_by_http_hands_on_what_persists() -> None:
    seen: list[dict[str, str]] = []

    class Edge(Echo):
        def echo(self, req: Request) -> Response:
            seen.append(metainfo.to_headers())
            return Response()

    with Server([Edge()], listen="tcp://127.0.0.1:0") as server, EchoClient(server.addresses, framing="ttheader") as client:
        with metainfo.persistent({"TENANT": "acme"}), metainfo.values({"ONCE": "1"}):
            client.echo(Request(), timeout=20)
    assert seen == [{"rpc-persist-tenant": "acme"}]

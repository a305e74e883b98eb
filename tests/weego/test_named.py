"""Keys and functions that a configuration names."""

from __future__ import annotations

from typing import Any

import pytest

from codec.errors import UsageError
from governance.path import Tagging
from governance.traffic import tags
from tests.governance.clock import a_call
from tests.support.echo_stub import EchoClient, Request, Response
from tests.support.grpc_echo import Echo as GrpcEcho
from tests.support.grpc_echo import Request as GrpcRequest
from tests.support.net import Peer, echo_forever, with_hub
from weego import config, governance, settings
from weego.governed_config import client_settings
from weego.named import function, hash_key


def test_a_field_of_an_argument() -> None:
    assert hash_key("field:req.message")(a_call(), (Request(message="7"),)) == "7"
    assert hash_key("field:req.none.deeper")(a_call(), (Request(message="7"),)) == ""
    assert hash_key("field:other.message")(a_call(), (Request(message="7"),)) == ""


def test_a_field_of_a_protobuf_request() -> None:
    from governance.call import Call

    call = Call(GrpcEcho.__spec__.methods["Say"])
    assert hash_key("field:message")(call, (GrpcRequest(message="7"),)) == "7"


def test_a_tag_and_what_is_sent_along() -> None:
    call = a_call()
    with tags(user="7"):
        Tagging(lambda call, args: None)(call, ())
    assert hash_key("tag:user")(call, ()) == "7"
    call.send_metadata["plain"] = "8"
    assert hash_key("metadata:plain")(call, ()) == "8"
    assert hash_key("metadata:none")(call, ()) == ""


@pytest.mark.parametrize("text", ["", "user", "field:", "cookie:user"])
def test_keys_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="hash_key is"):
        hash_key(text)


def instead(call: Any, args: Any, error: BaseException) -> Response:
    return Response(message=f"instead of {type(error).__name__}")


not_a_function = 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nothing", "write it as package"),
        ("no.such.module:f", "cannot import no.such.module"),
        (f"{__name__}:nobody", "has no nobody"),
        (f"{__name__}:not_a_function", "is a int, and no function"),
    ],
)
def test_functions_that_there_are_not(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        function(text)


@with_hub
def test_both_in_the_configuration() -> None:
    before = settings.known()
    with pytest.raises(UsageError, match="needs a hash_key"):
        client_settings("echo", config.Client(balancer="consistent_hash"), "me")
    with Peer(echo_forever) as one, Peer(echo_forever) as other:
        table = config.Client(
            balancer="consistent_hash",
            hash_key="field:req.message",
            fallback="tests.weego.test_named:instead",
            method={"boom": config.Method(fallback="tests.support.echo_stub:Response")},
        )
        made = client_settings("echo", table, "me")
        assert made.policy.of("boom").fallback is Response
        try:
            settings.remember(settings.Known())
            with EchoClient([one.address, other.address], policy=made.policy, timeout=20) as client:
                for number in range(20):
                    client.echo(Request(message=f"user {number % 2}"))
                assert {one.accepted, other.accepted} <= {0, 1, 2}
                busy = governance()[0]["instances"]
                assert len(busy) == 2
        finally:
            settings.remember(before)
    settings.remember(settings.Known())
    try:
        with EchoClient(one.address, policy=made.policy) as client:
            assert client.echo(Request()).message == "instead of Unavailable"
    finally:
        settings.remember(before)

"""Thrift behind the client's channel. What calls see of it is in tests/weego/test_client.py."""

from __future__ import annotations

from typing import Any

import pytest

from codec.errors import (
    ApplicationError,
    BusinessError,
    Code,
    DeadlineExceeded,
    Origin,
    ResourceExhausted,
    RpcError,
    UnknownMethod,
)
from codec.ttheader import IntKey
from governance.call import Call
from poller.clock import monotonic
from tests.support.echo_stub import ECHO
from weego.thrift_channel import ThriftChannel, with_code
from weego.transport import PoolLimits

LIMITS = PoolLimits(max_idle=10, max_idle_total=100, idle_timeout=60.0, connect_timeout=20.0, max_message=10**6)


class Header:
    def __init__(self, **strings: str) -> None:
        self.strings = strings


class Answer:
    """Stands for codec.thrift's Reply, which only the codec can fill."""

    def __init__(self, value: object = None, error: object = None, header: Header | None = None) -> None:
        self.value = value
        self.error = error
        self.header = header


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("DEADLINE_EXCEEDED: late", DeadlineExceeded, Code.DEADLINE_EXCEEDED),
        ("RESOURCE_EXHAUSTED: full", ResourceExhausted, Code.RESOURCE_EXHAUSTED),
        ("UNAVAILABLE: gone", ApplicationError, Code.UNAVAILABLE),
        ("biz error: KeyError: 'x'", ApplicationError, Code.INTERNAL),
    ],
)
def test_the_code_in_an_answer_is_understood(text: str, kind: type[RpcError], code: Code) -> None:
    error = with_code(ApplicationError(text))
    assert type(error) is kind
    assert error.code == code
    assert error.origin is Origin.PEER


@pytest.mark.parametrize(
    ("answer", "is_last"),
    [
        (None, False),
        (Answer(value=1), False),
        (Answer(header=Header(crrst="1")), True),
        (Answer(header=Header(other="1")), False),
        (Answer(error=UnknownMethod("none")), True),
        (Answer(error=UnknownMethod("none"), header=Header()), False),
        (Answer(error=ApplicationError("failed")), False),
        (Answer(error=BusinessError(3)), False),
    ],
)
def test_when_the_peer_is_about_to_close(answer: Any, is_last: bool) -> None:
    assert ThriftChannel(ECHO, framing="framed", limits=LIMITS).is_last(answer) is is_last


def test_an_error_knows_where_it_came_from() -> None:
    channel = ThriftChannel(ECHO, framing="framed", limits=LIMITS)
    call = Call(ECHO.methods["echo"], service="Echo")
    call.instance, call.attempt = "tcp://127.0.0.1:1", 2
    answer: Any = Answer(error=BusinessError(3), header=Header(K="v"))
    with pytest.raises(BusinessError) as caught:
        channel.result(call, answer)
    assert (caught.value.instance, caught.value.attempt) == ("tcp://127.0.0.1:1", 2)
    assert call.metadata["K"] == "v"


@pytest.mark.parametrize(("framing", "transport"), [("ttheader", "unframed"), ("ttheader-framed", "framed")])
def test_the_header_of_a_call(framing: str, transport: str) -> None:
    channel = ThriftChannel(ECHO, framing=framing, limits=LIMITS, caller="shop", service_name="echo.example")
    call = Call(ECHO.methods["note"], service="Echo", deadline=monotonic() + 0.5)
    call.send_metadata["K"] = "v"
    ints, strings = channel._header(call)
    assert 400 <= int(ints.pop(IntKey.RPC_TIMEOUT)) <= 500
    assert ints == {
        IntKey.TRANSPORT_TYPE: transport,
        IntKey.TO_SERVICE: "echo.example",
        IntKey.TO_METHOD: "note",
        IntKey.MSG_TYPE: "4",
        IntKey.FROM_SERVICE: "shop",
    }
    assert strings == {"isn": "Echo", "K": "v"}

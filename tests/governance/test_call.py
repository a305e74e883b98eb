"""The facts of one RPC."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from codec.errors import DeadlineExceeded
from governance.call import Call, current
from poller.clock import monotonic
from tests.support.echo_stub import ECHO

SPEC = ECHO.methods["getItem"]


def test_a_call_without_a_deadline() -> None:
    call = Call(SPEC, service="Echo")
    assert (call.method, call.service, call.is_server, call.attempt, call.cancelled) == (
        "getItem",
        "Echo",
        False,
        1,
        False,
    )
    assert (call.deadline, call.remaining, call.expired) == (None, None, False)
    call.check()
    assert call.elapsed >= 0
    assert "calling Echo.getItem" in repr(call)


def test_a_deadline() -> None:
    call = Call(SPEC, deadline=monotonic() + 100)
    assert call.remaining is not None and 99 < call.remaining <= 100
    assert not call.expired
    assert "ms left" in repr(call)
    call.deadline = monotonic() - 1
    assert call.expired
    assert call.remaining is not None and call.remaining < 0
    with pytest.raises(DeadlineExceeded, match="getItem: the deadline has passed") as caught:
        call.check()
    assert caught.value.elapsed is not None
    call.deadline = None
    assert not call.expired


def test_what_the_transport_does_not_know() -> None:
    call = Call(SPEC, is_server=True)
    assert (call.peer, call.protocol, call.caller, call.log_id) == ("unknown", "unknown", "", "")
    assert dict(call.metadata) == {}
    call.instance = "tcp://127.0.0.1:1"
    assert call.peer == "tcp://127.0.0.1:1"
    call.send_metadata["a"] = "b"
    assert call.send_metadata == {"a": "b"}
    assert "serving" in repr(call)


def test_metadata_follows_the_answer() -> None:
    class Source:
        header = SimpleNamespace(strings={"shelf": "b"}, ints={3: "tests", 2: "log-1"})
        framing_name = "ttheader"

    call = Call(SPEC)
    assert dict(call.metadata) == {}
    call.answer(Source())
    assert dict(call.metadata) == {"shelf": "b"}
    assert (call.protocol, call.caller, call.log_id) == ("ttheader", "tests", "log-1")


def test_outside_of_a_handler_there_is_none() -> None:
    assert current() is None

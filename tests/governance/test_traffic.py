"""Tags that travel with a call."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from governance.path import Tagging
from governance.traffic import tag_of, tags
from tests.governance.clock import a_call

inherit = Tagging(lambda call, args: None)


def test_a_block_tags_its_calls() -> None:
    call = a_call()
    with tags(lane="blue"), tags(user="7"):
        inherit(call, ())
    assert call.send_metadata == {"RPC_PERSIST_lane": "blue", "RPC_PERSIST_user": "7"}
    assert (tag_of(call, "lane"), tag_of(call, "none")) == ("blue", "")
    other = a_call()
    inherit(other, ())
    assert not other.send_metadata


def test_what_was_brought_along_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governance.traffic.current", lambda: SimpleNamespace(carried={"RPC_PERSIST_lane": "blue"}))
    assert tag_of(a_call(), "lane") == "blue"
    own = a_call()
    with tags(lane="red"):
        inherit(own, ())
    assert tag_of(own, "lane") == "red"


def test_a_served_call_has_what_its_caller_sent() -> None:
    source = SimpleNamespace(header=SimpleNamespace(ints={}, strings={"RPC_PERSIST_lane": "blue"}))
    assert tag_of(a_call(is_server=True, source=source), "lane") == "blue"

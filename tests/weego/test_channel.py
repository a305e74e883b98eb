"""The table of channels."""

from __future__ import annotations

import pytest

from codec.errors import UsageError
from tests.support.echo_stub import ECHO
from weego.channel import choose


@pytest.mark.parametrize("framing", ["buffered", "framed", "ttheader", "ttheader-framed"])
def test_each_framing_of_thrift(framing: str) -> None:
    assert choose(ECHO, framing)[0] == framing


def test_the_usual_one() -> None:
    assert choose(ECHO, None)[0] == "framed"


def test_one_that_nobody_has() -> None:
    with pytest.raises(UsageError, match="unknown framing 'spdy'; choose one of buffered, framed"):
        choose(ECHO, "spdy")

"""Large messages are written where they stay; both plans do it after one large message."""

from __future__ import annotations

import gc
import sys

import pytest

from codec.errors import EncodeError
from tests.codec.schemas import Point
from tests.codec.test_proto_plan import Outer, dumps
from tests.codec.thrift_wire import Message


@pytest.mark.parametrize("size", [0, 1, 4000, 16_000, 17_000, 70_000, 1_000_000])
def test_the_bytes_are_the_same_whichever_way_they_are_written(size: int) -> None:
    text = "x" * size
    for _ in range(3):
        assert Outer.__plan__.loads(dumps(Outer(text=text, a=1))) == Outer(text=text, a=1)
        assert Message.__plan__.loads(Message.__plan__.dumps(Message(message=text))) == Message(message=text)
        assert dumps(Outer(a=1)) == b"\x08\x01"
        assert len(Point.__plan__.dumps(Point(x=1, y=2))) == 15


def test_an_error_in_a_large_message_leaves_nothing_behind() -> None:
    dumps(Outer(text="x" * 100_000))
    blocks = sys.getallocatedblocks()
    for _ in range(100):
        with pytest.raises(EncodeError):
            dumps(Outer(text="x" * 100_000, numbers=["no"]))  # type: ignore[list-item]
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 50
    assert dumps(Outer(a=1)) == b"\x08\x01"


def test_names_of_fields_need_not_be_interned() -> None:
    name = "text"
    assert Outer(**{name: "x"}) == Outer(text="x")  # type: ignore[arg-type]

"""Random and mutated bytes against native Protobuf messages. The law: a message that reads back the same, or ProtocolError."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.codec.test_proto_plan import Color, Holder, Inner, Old, Outer, dumps
from tests.fuzz.proto_laws import law

pytestmark = pytest.mark.fuzz
THOROUGH = settings(deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

SEEDS = [
    dumps(Outer(a=-1, text="é", blob=b"\xff", double=1.5, color=Color.BLUE, numbers=[1, -1], maybe=0, pick="")),
    dumps(Outer(items=[Inner(), Inner(s="x", n=3)], names={"": 0, "k": 2**64 - 1}, inner=Inner(n=-1), tree=Outer(a=1))),
    dumps(Old(must=1, colors=[Color.RED], raw="\udcff", grouped=Inner(s="x"), number=-5)),
    dumps(Holder(old=Old(must=1), olds={-1: Old(must=2)})),
    b"\xf3\x07\x08\x01\xf4\x07",
]


@THOROUGH
@given(st.binary(max_size=64))
def test_random_bytes(data: bytes) -> None:
    law(data)


@THOROUGH
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6), st.sampled_from(SEEDS))
def test_mutated_messages(seed: bytes, changes: list[tuple[int, int]], more: bytes) -> None:
    data = bytearray(seed)
    for at, value in changes:
        data[at % len(data)] = value
    law(bytes(data))
    law(bytes(data) + more)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_cut(seed: bytes) -> None:
    for end in range(len(seed) + 1):
        law(seed[:end])

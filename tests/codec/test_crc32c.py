"""CRC-32C against the values of RFC 3720, B.4, and both ways against each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.crc32c import _by_tables, crc32c

KNOWN = [
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"", 0),
]


@pytest.mark.parametrize(("data", "sum_"), KNOWN)
def test_known_values(data: bytes, sum_: int) -> None:
    assert crc32c(data) == _by_tables(data) == sum_


@given(st.binary(max_size=300), st.integers(0, 300))
def test_both_ways_agree_and_go_on(data: bytes, cut: int) -> None:
    assert crc32c(data) == _by_tables(data)
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)

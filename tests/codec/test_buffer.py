"""The growable buffers, as far as Python sees them."""

from __future__ import annotations

import array

import pytest

from codec.buffer import ReadBuffer, WriteBuffer

BOTH = pytest.mark.parametrize("kind", [WriteBuffer, ReadBuffer])


def capacity(buffer: WriteBuffer | ReadBuffer) -> int:
    return int(repr(buffer).split(" of ")[1].split()[0])


@BOTH
def test_it_holds_what_was_written(kind):
    buffer = kind()
    for part in (b"abc", bytearray(b"de"), memoryview(b"-fgh-")[1:4], array.array("B", b"ij"), b""):
        buffer.write(part)
    assert bytes(buffer) == b"abcdefghij"
    assert len(buffer) == 10


@BOTH
def test_an_empty_one_costs_no_memory(kind):
    buffer = kind()
    assert bytes(buffer) == b""
    assert len(buffer) == 0
    assert capacity(buffer) == 0
    buffer.write(b"")
    assert capacity(buffer) == 0


@BOTH
def test_growth_doubles(kind):
    """So that n bytes cost O(n) in all, however small the parts."""
    buffer = kind()
    sizes = []
    for _ in range(20_000):
        buffer.write(b"0123456789")
        if not sizes or capacity(buffer) != sizes[-1]:
            sizes.append(capacity(buffer))
    assert bytes(buffer) == b"0123456789" * 20_000
    assert sizes == [4096 << i for i in range(len(sizes))]
    assert sizes[-1] < 2 * 200_000


@BOTH
def test_one_large_part(kind):
    buffer = kind()
    buffer.write(b"x")
    buffer.write(bytes(1_000_000))
    assert len(buffer) == 1_000_001
    assert capacity(buffer) == 1 << 20


@BOTH
@pytest.mark.parametrize("data", [None, "text", 5, memoryview(b"abcdef")[::2], array.array("i", [1])])
def test_what_is_not_a_row_of_bytes_is_refused(kind, data):
    buffer = kind()
    with pytest.raises((TypeError, ValueError, BufferError)):
        buffer.write(data)
    assert len(buffer) == 0


def test_take_empties():
    buffer = WriteBuffer()
    buffer.write(b"one")
    assert buffer.take() == b"one"
    assert len(buffer) == 0
    assert buffer.take() == b""
    buffer.write(b"two")
    assert buffer.take() == b"two"


def test_taken_bytes_stay_as_they_are():
    buffer = WriteBuffer()
    buffer.write(b"one")
    taken = buffer.take()
    buffer.write(b"two")
    assert taken == b"one"


def test_skip_drops_from_the_front():
    buffer = ReadBuffer()
    buffer.write(b"abcdef")
    buffer.skip(2)
    assert bytes(buffer) == b"cdef"
    buffer.skip(0)
    buffer.skip(4)
    assert bytes(buffer) == b""


@pytest.mark.parametrize("n", [4, -1, 2**40])
def test_skip_of_more_than_there_is(n):
    buffer = ReadBuffer()
    buffer.write(b"abc")
    with pytest.raises(ValueError, match="cannot skip"):
        buffer.skip(n)
    assert bytes(buffer) == b"abc"


def test_room_that_was_read_is_used_again():
    buffer = ReadBuffer()
    for i in range(10_000):
        buffer.write(b"%08d" % i)
        assert bytes(buffer) == b"%08d" % i
        buffer.skip(8)
    assert capacity(buffer) == 4096


def test_the_content_survives_a_move_to_the_front():
    buffer = ReadBuffer()
    buffer.write(bytes(4000))
    buffer.write(b"tail")
    buffer.skip(4000)
    buffer.write(b"x" * 4000)
    assert capacity(buffer) == 4096
    assert bytes(buffer) == b"tail" + b"x" * 4000
    buffer.write(b"y" * 4000)
    assert bytes(buffer) == b"tail" + b"x" * 4000 + b"y" * 4000

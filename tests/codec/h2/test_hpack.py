"""Header compression against the `hpack` package, in both directions, and against blocks that nobody should send."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.h2.errors import ErrorCode, H2Error
from codec.h2.hpack import DEFAULT_MAX_LIST, Decoder, Encoder, Field
from codec.h2.tables import HUFFMAN, STATIC

NAMES = st.sampled_from([b":path", b":method", b"content-type", b"x-id", b"grpc-status", b"cookie"]) | st.binary(min_size=1, max_size=40)
PAIRS = st.tuples(NAMES, st.binary(max_size=200))
BLOCKS = st.lists(st.lists(PAIRS, max_size=12), max_size=8)


def pairs(fields: list[Field]) -> list[tuple[bytes, bytes]]:
    return [(field.name, field.value) for field in fields]


def test_the_tables_are_those_of_the_rfc() -> None:
    assert len(STATIC) == 61
    assert (STATIC[1], STATIC[7], STATIC[60]) == ((b":method", b"GET"), (b":status", b"200"), (b"www-authenticate", b""))
    assert len(HUFFMAN) == 257
    # Kraft: the code is complete, so no two symbols can be confused and no bits are left without a meaning.
    assert sum(2.0**-bits for _, bits in HUFFMAN) == 1.0


@given(BLOCKS, st.booleans())
def test_what_hpack_encodes_we_decode(blocks: list[list[tuple[bytes, bytes]]], huffman: bool) -> None:
    theirs, ours = hpack.Encoder(), Decoder()
    for block in blocks:
        assert pairs(ours.decode_block(theirs.encode(block, huffman=huffman))) == block
        assert ours.table_size == theirs.header_table._current_size


@given(BLOCKS, st.lists(st.sampled_from([0, 40, 100, 4096, 10_000]), max_size=8))
def test_what_we_encode_hpack_decodes(blocks: list[list[tuple[bytes, bytes]]], sizes: list[int]) -> None:
    ours, theirs = Encoder(), hpack.Decoder()
    known: dict[tuple[bytes, bytes], Field] = {}
    for place, block in enumerate(blocks):
        if place < len(sizes):
            ours.set_max_table(sizes[place])
            theirs.max_allowed_table_size = max(4096, sizes[place])
        # Every second field is one that the table remembers.
        fields = [known.setdefault(pair, Field(*pair)) if number % 2 else pair for number, pair in enumerate(block)]
        found = theirs.decode(ours.encode_block(fields), raw=True)
        assert [(bytes(name), bytes(value)) for name, value in found] == block


OFTEN = (
    (Field(b":status", b"200"), Field(b"content-type", b"application/grpc")),
    (Field(b"grpc-status", b"0"),),
    (Field(b"x-long", b"v" * 700), Field(b"x-longer", b"v" * 3000)),
    tuple(Field(b"x-%d" % number, b"") for number in range(20)),
    (),
)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()) | st.binary(max_size=300) | st.sampled_from([0, 40, 100, 4096]), max_size=40))
def test_what_is_sent_often_is_what_its_fields_are_whatever_comes_between(steps: list[tuple[int, bool] | bytes | int]) -> None:
    ours, theirs, back = Encoder(), hpack.Decoder(), Decoder()
    for step in steps:
        if isinstance(step, int):
            ours.set_max_table(step)
            continue
        if isinstance(step, tuple):
            fields: list[Field | tuple[bytes, bytes]] | tuple[Field, ...] = OFTEN[step[0]]
            block = ours.encode_block(fields, step[1])
        else:
            fields = [Field(b"x-once", step)]
            block = ours.encode_block(fields)
        meant = [(field.name, field.value) for field in fields if isinstance(field, Field)]
        assert [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)] == meant
        assert pairs(back.decode_block(block)) == meant


def test_what_is_sent_often_is_encoded_once() -> None:
    ours = Encoder()
    first, *rest = [ours.encode_block(OFTEN[0]) for _ in range(4)]
    assert len(first) > 2
    assert rest == [bytes([0x88, 0x80 | 62])] * 3
    with pytest.raises(TypeError):
        ours.encode_block(((b"x-pair", b"1"),))  # type: ignore[arg-type]


@given(BLOCKS)
def test_what_we_encode_we_decode_and_a_repeated_field_is_short(blocks: list[list[tuple[bytes, bytes]]]) -> None:
    ours, back = Encoder(), Decoder()
    for block in blocks:
        fields = [Field(*pair) for pair in block]
        assert pairs(back.decode_block(ours.encode_block(fields))) == block
    again = Field(b"x-again", b"value")
    back.decode_block(ours.encode_block([again]))
    assert len(ours.encode_block([again])) == 1


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_any_bytes_are_fields_or_a_compression_error(data: bytes) -> None:
    decoder = Decoder()
    try:
        expected: list[tuple[bytes, bytes]] | None = [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(data, raw=True)]
    except Exception:
        expected = None
    try:
        found = pairs(decoder.decode_block(data))
    except H2Error as error:
        assert error.h2_code == ErrorCode.COMPRESSION_ERROR
        found = None
    if expected is not None and found is not None:
        assert found == expected
    assert decoder.table_size <= 4096


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x80", "index 0"),
        (b"\xbf", "not in the table"),
        (b"\x7f\xff\xff\xff\xff\xff\x0f", "too long"),
        (b"\x00\x05abc", "ends inside a string"),
        (b"\x00\x81\xff\x00", "Huffman"),  # more than seven bits of padding
        (b"\x00\x81\x00\x00", "Huffman"),  # padding that is not ones
        (b"\x00\x84\xff\xff\xff\xff\x00", "Huffman"),  # the end of string, spelled out
        (b"\x82\x20", "table size update"),
        (b"\x20\x20\x20", "table size update"),
        (b"\x3f\xe2\x1f", "more than the 4096"),
    ],
)
def test_a_block_that_breaks_the_rules(block: bytes, why: str) -> None:
    with pytest.raises(H2Error, match=why) as caught:
        Decoder().decode_block(block)
    assert caught.value.h2_code == ErrorCode.COMPRESSION_ERROR


def test_a_bomb_of_references_stops_at_the_limit() -> None:
    """H2-05: four kilobytes in the table, referred to again and again by one byte each."""
    decoder = Decoder()
    decoder.decode_block(hpack.Encoder().encode([(b"x", b"y" * 4000)], huffman=False))
    found = decoder.decode_block(b"\xbe" * 40)
    assert decoder.overflowed
    assert sum(len(field.name) + len(field.value) + 32 for field in found) <= DEFAULT_MAX_LIST
    with pytest.raises(H2Error) as caught:
        decoder.decode_block(b"\xbe" * 16_000)
    assert (caught.value.h2_code, caught.value.abuse) == (ErrorCode.ENHANCE_YOUR_CALM, "header_list")
    assert pairs(decoder.decode_block(b"\xbe")) == [(b"x", b"y" * 4000)], "the table is as the peer thinks it is"
    assert not decoder.overflowed


@pytest.mark.parametrize(("name", "value"), [(b"Upper", b""), (b"", b""), (b"a b", b""), (b"a:", b""), (b"x", b"a\0"), (b"x", b"\r\n")])
def test_fields_that_http2_forbids_are_marked(name: bytes, value: bytes) -> None:
    assert not Field(name, value).is_valid
    assert Field(b":path", b"/ x").is_valid

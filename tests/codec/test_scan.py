"""Where a buffered message ends: the scanner, seen through buffered messages, which nothing else delimits."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.buffer import ReadBuffer
from codec.errors import ApplicationErrorType, ProtocolError
from tests.codec.schemas import Node
from tests.codec.thrift_wire import (
    CALL,
    echo_args,
    facts,
    feed,
    field,
    framed,
    receive,
    route,
    server,
    text,
    thrift,
    waiting,
    written,
)

BOOL, BYTE, DOUBLE, I16, I32, I64, STRING, STRUCT, MAP, SET, LIST, UUID = 2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16
FIXED = {BOOL: 1, BYTE: 1, DOUBLE: 8, I16: 2, I32: 4, I64: 8, UUID: 16}
UNKNOWN_TYPES = sorted({*range(1, 256)} - {*FIXED, STRING, STRUCT, MAP, SET, LIST})
NEXT = thrift("echo", CALL, 99, echo_args())


def count(n: int) -> bytes:
    return struct.pack("!i", n)


def listed(kind: int, *values: bytes) -> bytes:
    return bytes((kind,)) + count(len(values)) + b"".join(values)


def mapped(key: int, value: int, *entries: bytes) -> bytes:
    return bytes((key, value)) + count(len(entries) // 2) + b"".join(entries)


VALUES: dict[str, tuple[int, bytes]] = {
    **{f"fixed-{kind}": (kind, b"\x01" * size) for kind, size in FIXED.items()},
    "string": (STRING, text("hello")),
    "empty-string": (STRING, text("")),
    "empty-struct": (STRUCT, b"\0"),
    "struct": (STRUCT, field(I32, 1, count(7)) + field(STRING, -2, text("x")) + b"\0"),
    "list-of-i32": (LIST, listed(I32, count(1), count(2))),
    "list-of-nothing": (LIST, listed(I32)),
    "list-of-unknown-nothing": (LIST, listed(0)),
    "set-of-strings": (SET, listed(STRING, text("a"), text(""), text("ccc"))),
    "list-of-structs": (LIST, listed(STRUCT, b"\0", field(BOOL, 1, b"\1") + b"\0", b"\0")),
    "list-of-lists": (LIST, listed(LIST, listed(BYTE, b"a", b"b"), listed(STRING), listed(SET, listed(I16, b"ab")))),
    "map-of-fixed": (MAP, mapped(I32, I64, count(1), bytes(8), count(2), bytes(8))),
    "map-to-strings": (MAP, mapped(I32, STRING, count(1), text("one"), count(2), text("two"))),
    "map-of-strings": (MAP, mapped(STRING, BOOL, text("one"), b"\1", text(""), b"\0")),
    "map-of-maps": (MAP, mapped(STRING, MAP, text("k"), mapped(BYTE, STRUCT, b"k", b"\0"))),
    "map-of-unknown-nothing": (MAP, mapped(0, 0)),
    "set-of-uuids": (SET, listed(UUID, bytes(16), b"\xff" * 16)),
}
VALUE = pytest.mark.parametrize(("kind", "value"), VALUES.values(), ids=VALUES)


def call_with(kind: int, value: bytes) -> bytes:
    """A buffered call with an unknown field before the known one, and one behind it."""
    body = field(kind, 77, value) + echo_args()[:-1] + field(kind, -3, value) + b"\0"
    return thrift("echo", CALL, 5, body)


@VALUE
def test_every_kind_of_value_split_everywhere(kind, value):
    data = call_with(kind, value)
    whole = facts(receive(data))
    assert whole[6] is not None, "the arguments were understood"
    for cut in range(1, len(data)):
        protocol = server()
        buffer = ReadBuffer()
        buffer.write(data[:cut])
        assert protocol.feed(buffer) == []
        buffer.write(data[cut:] + NEXT)
        first, second = protocol.feed(buffer)
        assert facts(first) == whole
        assert second.seqid == 99


@VALUE
def test_every_kind_of_value_byte_by_byte(kind, value):
    data = call_with(kind, value) + NEXT
    parts = [data[i : i + 1] for i in range(len(data))]
    first, second = feed(server(), *parts)
    assert facts(first) == facts(receive(call_with(kind, value)))
    assert second.seqid == 99


def test_what_was_scanned_is_not_looked_at_again():
    """So that a message that trickles in costs its length, not the square of it.

    The bytes that were scanned are replaced by nonsense before the rest comes; a second look would be a ProtocolError.
    """
    scanned = thrift("echo", CALL, 5, b"")
    protocol = server()
    assert protocol.feed(buffer_of(scanned)) == []
    for number in range(200):
        part = field(STRING, number, text("x" * number)) + field(LIST, number, listed(STRUCT, b"\0"))
        nonsense = scanned[:8] + b"\xff" * (len(scanned) - 8)
        assert protocol.feed(buffer_of(nonsense + part)) == []
        scanned += part
    [request] = protocol.feed(buffer_of(scanned + echo_args()))
    assert (request.method, request.seqid, request.error) == ("echo", 5, None)
    assert request.size == len(scanned + echo_args())


def test_a_long_message_byte_by_byte():
    """Half a million feeds: minutes and more, if each of them began at the start."""
    names = [b"n%05d" % i for i in range(30_000)]
    message = thrift("echo", CALL, 5, field(LIST, 9, listed(STRING, *map(text, names))) + echo_args())
    assert len(message) > 300_000
    protocol = server()
    buffer = ReadBuffer()
    found = []
    for i in range(len(message)):
        assert not found
        buffer.write(message[i : i + 1])
        found = protocol.feed(buffer)
    assert facts(found[0]) == facts(receive(message))


# ---------------------------------------------------------------- depth


def nested(levels: int, *, containers: bool) -> bytes:
    """An unknown field with so many open levels."""
    if containers:
        return field(LIST, 9, (bytes((LIST,)) + count(1)) * (levels - 1) + bytes((I32,)) + count(0))
    return field(STRUCT, 9, b"") * levels + b"\0" * levels


@pytest.mark.parametrize("containers", [True, False], ids=["lists", "structs"])
def test_a_little_deep_is_passed_over(containers):
    request = receive(thrift("echo", CALL, 5, nested(64, containers=containers) + echo_args()))
    assert request.error is None


@pytest.mark.parametrize("containers", [True, False], ids=["lists", "structs"])
@pytest.mark.parametrize("levels", [65, 512])
def test_too_deep_for_decoding_keeps_the_connection_in_step(levels, containers):
    data = thrift("echo", CALL, 5, nested(levels, containers=containers) + echo_args())
    first, second = feed(server(), data + NEXT)
    assert first.error.type == ApplicationErrorType.PROTOCOL_ERROR
    assert not first.fatal
    assert second.error is None
    [same] = feed(server(), framed(data))
    assert same.error.message == first.error.message


@pytest.mark.parametrize("containers", [True, False], ids=["lists", "structs"])
@pytest.mark.parametrize("levels", [513, 10_000])
def test_too_deep_for_scanning_is_answered_and_ends_it(levels, containers):
    request = receive(thrift("echo", CALL, 5, nested(levels, containers=containers) + echo_args()) + NEXT)
    assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
    assert "nested deeper than 512 levels" in request.error.message
    assert request.fatal


@pytest.mark.parametrize("structs", [1, 40, 64, 65])
def test_structs_in_containers_are_as_deep_in_a_buffer_as_in_a_frame(structs):
    """Each struct sits in a list: twice as many levels as structs."""
    body = field(LIST, 3, bytes((STRUCT,)) + count(1)) * (structs - 1) + b"\0" * (structs - 1)
    message = thrift("tree", CALL, 5, field(STRUCT, 1, body + b"\0") + b"\0")
    buffered, in_frame = receive(message), receive(framed(message))
    assert buffered.args == in_frame.args
    assert (buffered.error is None) == (in_frame.error is None) == (structs <= 64)
    assert not buffered.fatal
    if structs <= 64:
        depth, node = 0, buffered.args[0]
        while node is not None:
            depth, node = depth + 1, node.children[0] if node.children else None
        assert depth == structs
        assert isinstance(buffered.args[0], Node)


# ---------------------------------------------------------------- claims


def broken(body: bytes, *, max_message: int = 16384000) -> str:
    """The words about a buffered call whose body is refused as soon as it has come so far."""
    [request] = feed(server(max_message), thrift("echo", CALL, 5, body))
    assert request.fatal
    assert (request.method, request.seqid) == ("echo", 5)
    assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
    return request.error.message


def test_types_that_do_not_exist():
    for kind in UNKNOWN_TYPES:
        words = f"unknown wire type {kind}"
        assert broken(field(kind, 1, b"")) == words
        assert broken(field(LIST, 1, bytes((kind,)) + count(1))) == words
        assert broken(field(MAP, 1, bytes((kind, I32)) + count(1))) == words
        assert broken(field(MAP, 1, bytes((I32, kind)) + count(1))) == words


@pytest.mark.parametrize("size", [-1, -(2**31)])
def test_negative_sizes(size):
    assert broken(field(STRING, 1, count(size))) == f"negative string length {size}"
    for kind, head in ((LIST, b"\x08"), (SET, b"\x0b"), (MAP, b"\x08\x08")):
        assert broken(field(kind, 1, head + count(size))) == f"negative container size {size}"


@pytest.mark.parametrize(
    ("kind", "head"),
    [(LIST, b"\x02"), (LIST, b"\x0c"), (SET, b"\x0b"), (MAP, b"\x02\x02"), (MAP, b"\x0b\x0d"), (STRING, b"")],
)
def test_claims_beyond_the_limit_are_refused_before_anything_came(kind, head):
    """No waiting for two billion elements."""
    assert "larger than the limit of 16384000" in broken(field(kind, 1, head + count(2**31 - 1)))


def test_a_claim_is_weighed_with_what_came_before():
    body = field(STRING, 1, text("x" * 600)) + field(STRING, 2, count(600))
    assert broken(body, max_message=1000) == "message is larger than the limit of 1000 bytes"


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_is_for_the_whole_message(extra):
    data = thrift("echo", CALL, 5, echo_args("x" * 1000))
    request = receive(data, len(data) - extra)
    assert request.fatal == bool(extra)
    small = thrift("echo", CALL, 5, field(BOOL, 9, b"\1") * 300 + b"\0")
    request = receive(small, len(small) - extra)
    assert request.fatal == bool(extra)


# ---------------------------------------------------------------- both framings agree


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3))
def test_a_buffered_message_means_what_it_means_in_a_frame(seed, changes):
    rng = random.Random(seed)
    call = written(waiting(framing="buffered").write_call, route("tree"), (make_tree(rng, 3), {"k": 1}), 5)
    data = bytearray(call)
    for _ in range(changes):
        data[rng.randrange(16, len(data))] = rng.choice([0, 1, 8, 11, 12, 13, 15, rng.randrange(256)])
    try:
        first, *more = server().feed(buffer_of(bytes(data)))
    except (ProtocolError, ValueError):  # broken, or not whole yet
        return
    if first.fatal or more:
        return
    [same] = server().feed(buffer_of(framed(bytes(data[: first.size]))))
    assert same.size == first.size + 4
    assert facts(same)[:3] == facts(first)[:3]
    assert facts(same)[6:9] == facts(first)[6:9]


def make_tree(rng: random.Random, depth: int) -> Node:
    return Node(
        name="n" * rng.randrange(4),
        next=make_tree(rng, depth - 1) if depth and rng.random() < 0.4 else None,
        children=[make_tree(rng, depth - 1) for _ in range(rng.randrange(3))] if depth else [],
    )


def buffer_of(data: bytes) -> ReadBuffer:
    buffer = ReadBuffer()
    buffer.write(data)
    return buffer

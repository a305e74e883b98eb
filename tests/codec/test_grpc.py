"""gRPC's words: timeouts, status messages, metadata, messages cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.buffer import ReadBuffer
from codec.errors import BusinessError, Code, EncodeError, ProtocolError, StatusError
from codec.grpc import (
    GrpcConnection,
    GrpcStream,
    binary_value,
    message_bytes,
    message_text,
    metadata_fields,
    metadata_pairs,
    text_of_binary,
    timeout_seconds,
    timeout_text,
)
from codec.grpc_compression import compress, decompress, is_known
from codec.grpc_status import error_of, status_fields
from codec.h2.connection import BufferSink
from codec.h2.hpack import Field


@given(st.floats(1e-9, 1e7))
def test_a_timeout_is_never_shorter_than_it_was(seconds: float) -> None:
    text = timeout_text(seconds)
    assert len(text) <= 9
    found = timeout_seconds(text)
    assert found is not None
    assert seconds * (1 - 1e-9) <= found <= seconds * 1.001 + 1e-9


def test_timeouts() -> None:
    assert [timeout_text(each) for each in (0, -1, 0.5, 1e12)] == [b"0n", b"0n", b"500000u", b"99999999H"]
    for wrong in (b"", b"1", b"S", b"-1S", b"123456789S", b"1.5S", b"1s"):
        assert timeout_seconds(wrong) is None


@given(st.text())
def test_status_messages_come_back(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode()
    data = message_bytes(text)
    assert all(0x20 <= c <= 0x7E for c in data)
    assert message_text(data) == clean


def test_a_wrongly_escaped_status_message_stays_as_it_is() -> None:
    assert message_text(b"100% of %zz %41") == "100% of %zz A"


@given(st.binary())
def test_binary_values_come_back(data: bytes) -> None:
    assert binary_value(text_of_binary(data)) == data
    fields = [Field(*each) for each in metadata_fields([("x-bin", data)])]
    ((name, text),) = metadata_pairs(fields)
    assert (name, binary_value(text)) == ("x-bin", data)


@pytest.mark.parametrize(
    ("name", "value"),
    [("grpc-status", "0"), ("content-type", "x"), (":path", "x"), ("a b", "x"), ("x", "é"), ("x", "a\n"), ("x", 7), ("x-bin", 7), ("é", "x")],
)
def test_metadata_that_cannot_travel(name: str, value: object) -> None:
    with pytest.raises((EncodeError, ProtocolError)):
        metadata_fields([(name, value)])  # type: ignore[list-item]


@given(st.lists(st.binary(max_size=3000), max_size=5), st.integers(1, 500))
def test_messages_cut_anywhere(messages: list[bytes], cut: int) -> None:
    client, server = GrpcConnection(True), GrpcConnection()
    there, back = BufferSink(), BufferSink()
    client.begin(there)
    server.begin(back)
    stream = client.open([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"), (b":authority", b"x")])
    assert isinstance(stream, GrpcStream)
    for message in messages:
        stream.write_message(message)
    client.send(stream, b"", end=True)
    data, buffer = there.take(), ReadBuffer()
    for at in range(0, len(data), cut):
        buffer.write(data[at : at + cut])
        while server.feed(buffer):
            pass
    theirs = server.streams[stream.id]
    assert isinstance(theirs, GrpcStream)
    found = []
    while (payload := theirs.next_message()) is not None:
        found.append(payload)
    assert found == messages
    assert (theirs.failure, server.held) == (None, 0)


def carry(messages: list[bytes], *, gathers: bool, at_once: bool) -> tuple[bytes, list[bytes]]:
    """What a client writes to the wire for some messages, and what a server that opens its windows finds in it."""
    client, server, there, back = GrpcConnection(True), GrpcConnection(), BufferSink(gathers=gathers), BufferSink()
    client.begin(there)
    server.begin(back)
    stream = client.open([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/B"), (b":authority", b"x")])
    assert isinstance(stream, GrpcStream)
    wire, found, arriving, answers = b"", [], ReadBuffer(), ReadBuffer()

    def exchange() -> None:
        nonlocal wire
        while sent := there.take():
            wire += sent
            arriving.write(sent)
            while server.feed(arriving):
                pass
            for theirs in list(server.streams.values()):
                assert isinstance(theirs, GrpcStream)
                while (message := theirs.next_message()) is not None:
                    found.append(message)
            answers.write(back.take())
            while client.feed(answers):
                pass

    for message in messages:
        stream.write_message(message)
        if not at_once:
            exchange()
    exchange()
    return wire, found


@given(st.lists(st.sampled_from([0, 1, 16_378, 16_379, 16_384, 40_000, 100_000, 300_000]), min_size=1, max_size=6), st.booleans())
def test_large_messages_are_the_same_copied_or_not(sizes: list[int], at_once: bool) -> None:
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    copied, found = carry(messages, gathers=False, at_once=at_once)
    assert found == messages
    assert carry(messages, gathers=True, at_once=at_once) == (copied, messages)


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_compression_is_bounded(name: str) -> None:
    assert is_known(name)
    data = compress(name, bytes(100_000))
    assert decompress(name, data, 100_000) == bytes(100_000)
    for wrong, limit, code in ((data, 99_999, Code.RESOURCE_EXHAUSTED), (data[:-2], 10**6, Code.INTERNAL), (b"x", 10**6, Code.INTERNAL)):
        with pytest.raises((ProtocolError, Exception)) as caught:
            decompress(name, wrong, limit)
        assert caught.value.code == code  # type: ignore[attr-defined]


def test_statuses_come_back() -> None:
    assert error_of([(b"grpc-status", b"0")]) is None
    business = error_of(status_fields(13, "no ☕", BusinessError(7, "no ☕", {"k": "v"})))
    assert isinstance(business, BusinessError)
    assert (business.status, business.message, business.extra) == (7, "no ☕", {"k": "v"})
    for fields, code in (
        ([], Code.UNKNOWN),
        ([(b"grpc-status", b"x")], Code.INTERNAL),
        ([(b"grpc-status", b"99999999999999")], Code.INTERNAL),
        ([(b"grpc-status", b"20")], Code.UNKNOWN),
        ([(b"grpc-status", b"0"), (b"biz-status", b"99999999999")], Code.INTERNAL),
        ([(b"grpc-status", b"13"), (b"biz-status", b"1"), (b"biz-extra", b"[")], Code.INTERNAL),
        ([(b"grpc-status", b"5"), (b"grpc-status-details-bin", b"!")], Code.INTERNAL),
        ([(b"grpc-status", b"5")], Code.NOT_FOUND),
    ):
        error = error_of(fields)
        assert isinstance(error, StatusError)
        assert error.code == code

"""Binaries that are not copied: views of what arrived, and large values that stay where they are until they are sent."""

from __future__ import annotations

import copy
import gc
import pickle
import resource
import zlib
from pathlib import Path
from typing import Any

import pytest

from codec import ttheader
from codec.buffer import LARGE_VALUE, ReadBuffer, WriteBuffer
from codec.errors import EncodeError
from codec.thrift import FRAMINGS, ThriftClientProtocol, ThriftServerProtocol
from tests.codec.thrift_wire import routes_of
from weego import stub


class Blob(stub.Struct):
    __slots__ = ("data", "name", "tail")
    name: str
    data: Any
    tail: int

    def __init__(self, *, name: str = "", data: Any = b"", tail: int = 0) -> None:
        self.name = name
        self.data = data
        self.tail = tail


stub.define(Blob, stub.Field(1, "name", stub.STRING), stub.Field(2, "data", stub.VIEW), stub.Field(3, "tail", stub.I32))

STORE = stub.ServiceSpec(
    "Store",
    (
        stub.MethodSpec("put", args=(stub.Field(1, "blob", stub.StructType(Blob)),), result=stub.StructType(Blob)),
        stub.MethodSpec("get", args=(stub.Field(1, "data", stub.VIEW), stub.Field(2, "text", stub.STRING)), result=stub.VIEW),
    ),
)
ROUTES, SERVICES = routes_of(STORE)
PUT, GET = ROUTES[b"put"], ROUTES[b"get"]
LARGE = bytes(range(256)) * (LARGE_VALUE // 256)
SIZES = [0, 1, LARGE_VALUE - 1, LARGE_VALUE, 3 * LARGE_VALUE + 7]
COMPACT = pytest.mark.parametrize("compact", [False, True], ids=["binary", "compact"])
FRAMED = pytest.mark.parametrize("framing", [name for name in FRAMINGS if not name.endswith("protobuf")])


def content(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(size))


def owner(view: memoryview) -> str:
    """What a view holds."""
    return repr(view.obj)


# ---------------------------------------------------------------- decoding


@COMPACT
@pytest.mark.parametrize("size", SIZES)
def test_it_is_a_read_only_view_of_what_arrived(size: int, compact: bool) -> None:
    data = content(size)
    encoded = Blob.__plan__.dumps(Blob(name="n", data=data, tail=5), compact)
    blob = Blob.__plan__.loads(encoded, compact)
    assert type(blob.data) is memoryview
    assert blob.data.readonly
    assert (blob.data.format, blob.data.ndim, blob.data.nbytes) == ("B", 1, size)
    assert blob.data == data
    assert (blob.name, blob.tail) == ("n", 5)
    # A small one is a copy, so that it does not keep a large message alive.
    assert (type(blob.data.obj) is bytes) == (size < LARGE_VALUE)


@COMPACT
@pytest.mark.parametrize("size", SIZES)
def test_it_is_written_back_as_it_came(size: int, compact: bool) -> None:
    encoded = Blob.__plan__.dumps(Blob(data=content(size)), compact)
    blob = Blob.__plan__.loads(encoded, compact)
    assert Blob.__plan__.dumps(blob, compact) == encoded
    assert Blob.__plan__.dumps(blob, not compact) == Blob.__plan__.dumps(Blob(data=content(size)), not compact)


def test_as_a_value_it_is_like_bytes() -> None:
    blob = Blob.__plan__.loads(Blob.__plan__.dumps(Blob(data=LARGE)))
    assert blob == Blob(data=LARGE)
    assert hash(blob) == hash(Blob(data=LARGE)) == hash(Blob(data=memoryview(bytearray(LARGE))))
    assert copy.copy(blob).data is blob.data
    for other in (copy.deepcopy(blob), pickle.loads(pickle.dumps(blob))):
        assert other == blob
        assert type(other.data) is bytes


def test_what_is_not_given_is_an_empty_binary() -> None:
    assert Blob.__plan__.loads(b"\0").data == b""


def test_a_view_holds_the_bytes_that_it_was_decoded_from() -> None:
    encoded = Blob.__plan__.dumps(Blob(data=LARGE))
    view = Blob.__plan__.loads(encoded).data
    assert owner(view) == f"<Piece of {len(LARGE)} bytes of bytes>"
    del encoded
    gc.collect()
    assert view == LARGE


# ---------------------------------------------------------------- messages


def call(framing: str, data: Any, seqid: int = 1, **options: Any) -> bytes:
    out = WriteBuffer()
    ThriftClientProtocol(framing, **options).write_call(GET, (data, "text"), seqid, out)
    return out.take()


def server() -> ThriftServerProtocol:
    return ThriftServerProtocol(ROUTES, SERVICES)


@FRAMED
def test_views_of_pipelined_messages_outlive_the_buffer(framing: str) -> None:
    """Each stays as it was while more arrives behind it, and when the buffer is gone."""
    protocol, data = server(), ReadBuffer()
    views = []
    for n in range(4):
        payload = bytes([n]) * (LARGE_VALUE + n)
        message = call(framing, payload) + call(framing, bytes([n + 100]) * LARGE_VALUE)
        cut = len(message) - 1000  # the end of the second comes with the next lot
        data.write(message[:cut])
        views += [request.args[0] for request in protocol.feed(data)]
        data.write(message[cut:])
        views += [request.args[0] for request in protocol.feed(data)]
    assert len(data) == 0
    del data, protocol
    gc.collect()
    noise = [bytearray(b"\xff" * (4 * LARGE_VALUE)) for _ in range(8)]  # over what was freed too early
    assert len(views) == 8
    for n in range(4):
        assert views[2 * n] == bytes([n]) * (LARGE_VALUE + n)
        assert views[2 * n + 1] == bytes([n + 100]) * LARGE_VALUE
        assert "Block" in owner(views[2 * n])
    assert noise


def test_a_buffer_that_has_lent_goes_on_with_memory_of_its_own() -> None:
    protocol, data = server(), ReadBuffer()
    data.write(call("framed", LARGE))
    view = protocol.feed(data)[0].args[0]
    before = bytes(view)
    for n in range(50):
        data.write(call("framed", bytes([n]) * (LARGE_VALUE // 3)))
        assert protocol.feed(data)[0].args[0] == bytes([n]) * (LARGE_VALUE // 3)
    assert view == before == LARGE


def test_the_memory_goes_with_the_last_view() -> None:
    protocol, data = server(), ReadBuffer()
    size = 1 << 20
    message = call("framed", bytes(size))
    part, most, start = memoryview(b""), 0, resident()
    for _ in range(200):
        data.write(message)
        view = protocol.feed(data)[0].args[0]
        part = view[10:20]
        view.release()
        with pytest.raises(ValueError, match="released"):
            bytes(view)
        assert bytes(part) == bytes(10)  # a view of the view holds it as well
        most = max(most, resident())
    assert most < start + 50 * size


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"checksum": True}], ids=str)
def test_compressed_and_summed_messages_have_views_too(options: dict[str, Any]) -> None:
    protocol, data = server(), ReadBuffer()
    for n in range(3):  # the payload of one message is not mistaken for that of the next
        data.write(call("ttheader", bytes([n]) * LARGE_VALUE, **options))
        data.write(call("ttheader", bytes([n + 10]) * LARGE_VALUE))
        first, second = (request.args[0] for request in protocol.feed(data))
        assert first == bytes([n]) * LARGE_VALUE
        assert second == bytes([n + 10]) * LARGE_VALUE
        assert ("bytes of bytes" if "compression" in options else "Block") in owner(first)
        assert "Block" in owner(second)


def test_a_result_is_a_view() -> None:
    client, data, out = ThriftClientProtocol("framed"), ReadBuffer(), WriteBuffer()
    client.write_call(GET, (b"", ""), 5, WriteBuffer())
    protocol = server()
    request = feed_one(protocol, call("framed", b"", 5))
    protocol.write_reply(request, LARGE, out)
    data.write(out.take())
    view = client.feed(data)[0].value
    del data
    assert type(view) is memoryview
    assert view == LARGE
    assert "Block" in owner(view)


def feed_one(protocol: Any, message: bytes) -> Any:
    data = ReadBuffer()
    data.write(message)
    [found] = protocol.feed(data)
    return found


# ---------------------------------------------------------------- encoding


def gathered(framing: str, args: tuple[Any, ...], route: Any = GET, **options: Any) -> list[bytes | memoryview]:
    out = WriteBuffer()
    out.gather()
    ThriftClientProtocol(framing, **options).write_call(route, args, 1, out)
    return out.parts()


VALUES = {
    "bytes": lambda data: data,
    "read-only view": memoryview,
    "a part of one": lambda data: memoryview(b"x" + data + b"y")[1:-1],
    "numbers": lambda data: memoryview(data).cast("H"),
    "bytearray": bytearray,
    "view of a bytearray": lambda data: memoryview(bytearray(data)),
    "every second": lambda data: memoryview(bytes(b for each in data for b in (each, 0)))[::2],
    "received": lambda data: Blob.__plan__.loads(Blob.__plan__.dumps(Blob(data=data))).data,
}
STAYS = ["bytes", "read-only view", "a part of one", "numbers", "received"]


@FRAMED
@pytest.mark.parametrize("kind", list(VALUES))
def test_what_is_gathered_is_what_is_written_in_one_piece(framing: str, kind: str) -> None:
    value = VALUES[kind](LARGE)
    parts = gathered(framing, (value, "ü" * LARGE_VALUE))
    assert b"".join(parts) == call_of(framing, (value, "ü" * LARGE_VALUE))
    assert len(parts) == (3 if kind == "bytearray" else 5)  # the text stays where it is, too


def call_of(framing: str, args: tuple[Any, ...]) -> bytes:
    out = WriteBuffer()
    ThriftClientProtocol(framing).write_call(GET, args, 1, out)
    return out.take()


@pytest.mark.parametrize("kind", STAYS)
def test_what_cannot_change_is_not_copied(kind: str) -> None:
    parts = gathered("framed", (VALUES[kind](LARGE), ""))
    assert [len(part) for part in parts][1:] == [len(LARGE), 4 + 3 + 1]
    assert type(parts[1]) is memoryview


@pytest.mark.parametrize("kind", ["bytearray", "view of a bytearray"])
def test_what_may_change_is_copied_when_it_is_written(kind: str) -> None:
    data = bytearray(LARGE)
    parts = gathered("framed", (data if kind == "bytearray" else memoryview(data), ""))
    before = b"".join(parts)
    data[:] = bytes(len(data))
    assert b"".join(parts) == before
    assert LARGE in before


def test_a_view_that_is_released_before_the_bytes_leave_takes_nothing_with_it() -> None:
    view = VALUES["received"](LARGE)
    parts = gathered("framed", (view, ""))
    view.release()
    del view
    gc.collect()
    assert LARGE in b"".join(parts)


def test_a_released_view_is_a_mistake_that_is_named() -> None:
    view = memoryview(LARGE)
    view.release()
    with pytest.raises(EncodeError, match="released"):
        gathered("framed", (view, ""))


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"checksum": True}], ids=str)
def test_what_is_compressed_or_summed_up_is_in_one_place(options: dict[str, Any]) -> None:
    parts = gathered("ttheader", (LARGE, ""), **options)
    assert len(parts) == 1
    _, payload = ttheader.loads(parts[0])
    if "compression" in options:
        assert LARGE in zlib.decompress(payload)
    else:
        assert LARGE in payload


def test_a_message_that_fails_leaves_the_buffer_as_it_was() -> None:
    out = WriteBuffer()
    out.gather()
    protocol = ThriftClientProtocol("framed")
    protocol.write_call(GET, (LARGE, ""), 1, out)
    length = len(out)
    for args in ((LARGE, 5), (LARGE, "a", "b")):
        with pytest.raises(EncodeError):
            protocol.write_call(GET, args, 2, out)
        assert len(out) == length
    small = ThriftClientProtocol("framed", LARGE_VALUE)
    with pytest.raises(EncodeError, match=f"takes {len(LARGE) + 34} bytes, more than the limit of {LARGE_VALUE}"):
        small.write_call(GET, (LARGE, ""), 2, out)
    assert out.take() == call_of("framed", (LARGE, ""))


def test_an_answer_over_the_limit_counts_what_is_apart() -> None:
    protocol = ThriftServerProtocol(ROUTES, SERVICES, LARGE_VALUE)
    request = feed_one(protocol, call("framed", b""))
    out = WriteBuffer()
    out.gather()
    with pytest.raises(EncodeError, match="more than the limit"):
        protocol.write_reply(request, LARGE, out)
    assert len(out) == 0
    protocol.write_reply(request, b"small", out)
    assert b"small" in out.take()

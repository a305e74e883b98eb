"""TTHeaderStreaming's frames: Kitex's own bytes, round trips, cuts, and what is no frame."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codec.buffer import ReadBuffer
from codec.errors import (
    ApplicationError,
    BusinessError,
    Cancelled,
    DeadlineExceeded,
    EncodeError,
    ProtocolError,
    Unavailable,
    UnknownMethod,
)
from codec.spec import Field, MethodSpec, RawMethodSpec
from codec.stream_errors import THROWS, Reason, declared_strings, error_of, path_of, reset_error, trailer_error
from codec.ttstream import (
    Frame,
    StreamMethod,
    StreamProtocol,
    business_status,
    dumps,
    exception_payload,
    read_exception,
)
from codec.types import I32, STRING, StructType
from tests.fuzz.stream_laws import stream_law
from tests.support.stream_echo import METHODS, Refused, Reply, Request

META, HEADER, DATA, TRAILER, RST = 1, 2, 3, 4, 5

# Captured between a client and a server of Kitex 0.16.3.
KITEX = {
    "header of a client": bytes.fromhex("0000002a100000020000000100081000010001000369736e000454616c6b100002001b0001320009000463686174"),
    "data of a client": bytes.fromhex(
        "000000491000000200000003000510001000020009000463686174001b0001330000080003000000010b000100000008736f6c64206f75740b0002000000000b0004"
        "0000000672656675736500"
    ),
    "header of a server": bytes.fromhex(
        "000000321000000200000001000a10000100010004686561640008d0bad0bbd18ed187100002001b0001320009000463686174000000"
    ),
    "half-close": bytes.fromhex("0000001e100000020000000100051000100002001b00013400090004636861740000"),
    "business status": bytes.fromhex(
        "00000066100000020000000100171000010003000a62697a2d737461747573000434373131000b62697a2d6d6573736167650008736f6c64206f7574000962697a2d"
        "6578747261000d7b227368656c66223a2237227d100002001b000134000900057761746368000000"
    ),
    "failure": bytes.fromhex(
        "0000005810000002000000020006100010000200090007636f6c6c656374001b0001340000008001000300000007636f6c6c656374000000020b0001000000146269"
        "7a206572726f723a206974206661696c65640800020000000600"
    ),
    "cancellation": bytes.fromhex(
        "000000d71000000200000001000b100001000100057474736370000c6b697465782d636c69656e74100002001b00013500090004636861740000800100030000000463"
        "686174000000010b0001000000827573657220636f646520696e766f6b696e672073747265616d20525043207769746820636f6e746578742070726f636573736564"
        "20627920636f6e746578742e5769746843616e63656c206f7220636f6e746578742e5769746854696d656f75742c207468656e20696e766f6b696e672063616e6365"
        "6c2829206163746976656c7908000200002ee700"
    ),
}


def frames(data: bytes, *, protocol: StreamProtocol | None = None) -> list[Frame]:
    buffer = ReadBuffer()
    buffer.write(data)
    found = (protocol or StreamProtocol()).feed(buffer)
    assert len(buffer) == 0
    return found


def told(frame: Frame) -> tuple[Any, ...]:
    header = frame.header
    return frame.type, frame.sid, frame.method, header and header.strings, frame.payload, frame.size


def test_what_kitex_writes_is_understood() -> None:
    found = {name: frames(data)[0] for name, data in KITEX.items()}
    head = found["header of a client"]
    assert told(head) == (HEADER, 1, "chat", {"isn": "Talk"}, b"", 46)
    data = found["data of a client"]
    assert told(data)[:4] == (DATA, 3, "", None), "nothing of its infos is needed"
    assert METHODS["chat"].request_args(data.payload or b"") == (Request(message="sold out", count=1, action="refuse"),)
    assert told(found["header of a server"])[:4] == (HEADER, 1, "chat", {"head": "ключ"})
    assert told(found["half-close"]) == (TRAILER, 1, "chat", {}, b"", 34)
    status = trailer_error(strings(found["business status"]), b"")
    assert isinstance(status, BusinessError)
    assert (status.status, status.message, status.extra) == (4711, "sold out", {"shelf": "7"})
    failure = found["failure"]
    assert read_exception(failure.payload or b"") == (6, "biz error: it failed")
    reset = reset_error(strings(found["cancellation"]), found["cancellation"].payload or b"")
    assert (reset.path, reset.reason) == (("kitex-client",), Reason.BUSINESS_CANCEL)
    assert reset.message.endswith("cancel() actively")
    assert str(reset).endswith("(cancelled by way of kitex-client)")


def strings(frame: Frame) -> dict[str, str]:
    assert frame.header is not None
    return frame.header.strings


def test_what_we_write_is_what_kitex_writes() -> None:
    """Up to the order of the two infos, which Go draws."""

    def drawn(data: bytes) -> bytes:
        return data.replace(b"\0\x09\0\x04chat\0\x1b\0\x012", b"\0\x1b\0\x012\0\x09\0\x04chat").replace(
            b"\0\x09\0\x04chat\0\x1b\0\x014", b"\0\x1b\0\x014\0\x09\0\x04chat"
        )

    assert drawn(dumps(HEADER, 1, "chat", strings={"isn": "Talk"})) == KITEX["header of a client"]
    assert drawn(dumps(TRAILER, 1, "chat")) == KITEX["half-close"]
    assert drawn(dumps(HEADER, 1, "chat", strings={"head": "ключ"})) == KITEX["header of a server"]
    failure = exception_payload("collect", 2, 6, "biz error: it failed")
    assert dumps(TRAILER, 2, "collect", payload=failure) == KITEX["failure"]
    # Kitex writes fields in an order of its own.
    data = METHODS["chat"].request_frame((Request(message="sold out", count=1, action="refuse"),), 3)
    assert data[:32] == KITEX["data of a client"][:32]
    assert len(data) == len(KITEX["data of a client"])


ALL = b"".join(KITEX.values())


def test_frames_cut_at_every_byte() -> None:
    whole = [told(frame) for frame in frames(ALL)]
    assert len(whole) == len(KITEX)
    for cut in range(len(ALL)):
        protocol, buffer, found = StreamProtocol(), ReadBuffer(), []
        for part in (ALL[:cut], ALL[cut:]):
            buffer.write(part)
            found += protocol.feed(buffer)
        assert [told(frame) for frame in found] == whole
    protocol, buffer, found = StreamProtocol(), ReadBuffer(), []
    for byte in ALL:
        buffer.write(bytes([byte]))
        found += protocol.feed(buffer)
    assert [told(frame) for frame in found] == whole


TEXT = st.text(max_size=20)
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(
    st.sampled_from([META, HEADER, DATA, TRAILER, RST]), st.integers(-(2**31), 2**31 - 1), TEXT, st.dictionaries(TEXT, TEXT, max_size=4),
    st.dictionaries(st.integers(28, 65535), TEXT, max_size=3), st.binary(max_size=50),
)  # fmt: skip
def test_round_trip(kind: int, sid: int, method: str, names: dict[str, str], ints: dict[int, str], payload: bytes) -> None:
    [frame] = frames(dumps(kind, sid, method, ints=ints, strings=names, payload=payload))
    assert (frame.type, frame.sid, frame.payload) == (kind, sid, payload)
    if frame.header is None:
        assert (kind, names) == (DATA, {})
    else:
        assert (frame.header.strings, frame.method) == (names, method)
        assert frame.header.ints == {9: method, 27: str(kind), **ints}
        assert (frame.header.flags, frame.header.protocol_id) == (2, 0x10)
    assert repr(frame)


def test_a_data_frame_with_strange_infos_is_still_one() -> None:
    for frame in frames(
        dumps(DATA, 1, "m", strings={"a": "b"}, payload=b"1") + dumps(DATA, 1, "m", ints={1: "x"}, payload=b"1")
        + b"\0\0\0\x1b\x10\0\0\2\0\0\0\1\0\4\x10\0\0\0\0\x10\0\1\0\x1b\0\x013\0\0\0" + b"1"
    ):  # fmt: skip
        assert (frame.type, frame.payload) == (DATA, b"1")


def test_a_message_over_the_limit_is_passed_over() -> None:
    protocol = StreamProtocol()
    protocol.max_message = 100
    data = dumps(DATA, 5, "m", payload=bytes(101)) + dumps(DATA, 6, "m", payload=bytes(100)) + dumps(TRAILER, -7, "m", payload=bytes(5000))
    data += dumps(HEADER, 8, "m")
    for step in (1, 7, 1000, len(data)):
        buffer, found = ReadBuffer(), []
        for at in range(0, len(data), step):
            buffer.write(data[at : at + step])
            found += protocol.feed(buffer)
        assert [(frame.type, frame.sid) for frame in found] == [(0, 5), (DATA, 6), (0, -7), (HEADER, 8)]
        assert found[0].payload is None
        assert "too long" in repr(found[0])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x20\x80\1\0\1", "its magic is 0x8001"),
        (b"\0\0\0\x20\x10\0\0\0" + bytes(6), "without the streaming flag"),
        (b"\x80\0\0\0\x10\0\0\2" + bytes(6), "no frame is so long"),
        (b"\0\0\0\x0c\x10\0\0\2\0\0\0\1\0\1" + bytes(4), "has 4 bytes of infos"),
        (b"\0\0\0\x0a\x10\0\0\2\0\0\0\1\0\0", "info size 0"),
        (dumps(DATA, 1, "m").replace(b"\0\x1b\0\x013", b"\0\x1c\0\x013"), "without a type"),
        (dumps(DATA, 1, "m").replace(b"\0\x1b\0\x013", b"\0\x1b\0\x010"), "of type '0'"),
        (dumps(DATA, 1, "m", ints={27: "33"}), "of type '33'"),
        (dumps(META, 1, "m")[:15] + b"\1" + dumps(META, 1, "m")[16:], "TTHeader: unknown info block|transforms"),
        (dumps(META, 1, "m", strings={"a": "b"}).replace(b"\1\0\1\0\1a", b"\1\0\1\0\xffa"), "ends in the middle"),
    ],
)
def test_what_is_no_frame(data: bytes, words: str) -> None:
    buffer = ReadBuffer()
    buffer.write(data)
    with pytest.raises(ProtocolError, match=words):
        StreamProtocol().feed(buffer)


def test_messages() -> None:
    chat, words = METHODS["chat"], METHODS["words"]
    request, reply = Request(message="é", body=b"\0", count=-1), Reply(message="x")
    for method, sent, answered in ((chat, request, reply), (words, "a", "b")):
        [frame] = frames(method.request_frame((sent,), 1))
        assert method.request_args(frame.payload or b"") == (sent,)
        [frame] = frames(method.reply_frame(answered, -1))
        assert (frame.sid, method.reply_value(frame.payload or b"")) == (-1, answered)
    say = METHODS["say"]
    [frame] = frames(say.request_frame((request,), 1))
    assert frame.payload == say.spec.args_plan.dumps((request,)), "in the wrapper of a call"
    assert say.reply_value(say.spec.result_plan.dumps(reply)) == reply
    with pytest.raises(Refused):
        say.reply_value(say.spec.result_plan.dumps_exception(Refused(why="x")) or b"")
    nothing = StreamMethod(MethodSpec("f", args=(Field(1, "n", I32),), result=None, client_streaming=True))
    [frame] = frames(nothing.reply_frame(None, 1))
    assert frame.payload == b"\0"
    raw = StreamMethod(RawMethodSpec("raw"))
    assert raw.request_args(b"\0") == (b"\0",)
    with pytest.raises(ProtocolError):
        chat.request_args(b"\x0b\0\1")
    with pytest.raises(EncodeError, match="expected Request, got Reply"):
        chat.request_frame((reply,), 1)
    with pytest.raises(EncodeError, match="longer than the limit of 10"):
        chat.reply_frame(reply, 1, 10)
    with pytest.raises(EncodeError, match="longer than 65535"):
        dumps(HEADER, 1, "m", strings={"x": "x" * 65536})
    with pytest.raises(ValueError, match="no frame has type 6"):
        dumps(6, 1, "m")


def test_memory_of_one_message_is_bounded() -> None:
    payload = frames(METHODS["chat"].request_frame((Request(message="m"),), 1))[0].payload or b""
    assert StreamMethod(METHODS["chat"].spec).request_args(payload) == (Request(message="m"),)
    method = StreamMethod(METHODS["chat"].spec, max_decoded=8)
    with pytest.raises(ProtocolError, match="memory"):
        method.request_args(payload)
    with pytest.raises(ProtocolError, match="memory"):
        method.reply_value(payload)


def test_errors_in_both_directions() -> None:
    for number, kind in ((1, UnknownMethod), (6, ApplicationError), (12005, ApplicationError), (12006, Unavailable), (12007, Cancelled),
                         (12013, Cancelled), (12014, DeadlineExceeded), (12015, DeadlineExceeded)):  # fmt: skip
        error = error_of(*read_exception(exception_payload("m", 1, number, "text ☕")))
        assert (type(error), error.message) == (kind, "text ☕")
    assert path_of({}) == ()
    assert path_of({"ttscp": "A,B"}) == ("A", "B")
    assert reset_error({}, b"").reason == 13
    assert "cannot be read" in reset_error({}, b"nonsense").message
    assert trailer_error({"x": "y"}, b"") is None
    assert isinstance(trailer_error({"biz-status": "x"}, b""), ProtocolError)
    assert isinstance(trailer_error({}, b"\1"), ProtocolError)
    assert isinstance(trailer_error({}, exception_payload("m", 1, 6, "x").replace(b"\x80\1\0\3", b"\x80\1\0\2")), ProtocolError)
    assert business_status({"biz-status": "0"}) is None


def test_declared_exceptions_go_along() -> None:
    plan = METHODS["chat"].spec.result_plan
    payload = exception_payload("chat", 1, 6, "biz error: Refused")
    beside = declared_strings(plan, Refused(why="no"))
    assert beside is not None
    assert trailer_error(beside, payload, plan) == Refused(why="no")
    assert isinstance(trailer_error(beside, payload), ApplicationError)
    assert declared_strings(plan, Refused(why="x" * 60_000)) == {}, "too long"
    assert declared_strings(plan, ValueError()) is None
    with pytest.raises(ZeroDivisionError):  # a bug of ours is not the peer's exception

        class Broken:
            def loads(self, data: bytes) -> None:
                raise ZeroDivisionError

        trailer_error(beside, payload, Broken())  # type: ignore[arg-type]
    for wrong in ("!", "AA", "AAAA"):
        assert isinstance(trailer_error({THROWS: wrong}, payload, plan), ApplicationError)
    assert StructType(Refused).cls is Refused
    assert STRING != I32


@settings(RELAXED, max_examples=300)
@given(st.integers(0, 2**32), st.integers(0, 5))
def test_mutated_bytes(seed: int, changes: int) -> None:
    dice = random.Random(seed)
    data = bytearray(ALL)
    for _ in range(changes):
        data[dice.randrange(len(data))] = dice.choice((0, 1, 2, 0x7F, 0xFF, dice.randrange(256)))
    stream_law(bytes(data), [dice.randrange(len(data))])

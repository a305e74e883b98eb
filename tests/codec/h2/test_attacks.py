"""The attacks on HTTP/2 that docs/grpc.md lists (H2-01 to H2-17), on the protocol alone: who ends, with which word, and what it cost.

Those that concern a served connection (time, memory, handlers) are in tests/weego/test_grpc_attacks.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codec.h2 import limits
from codec.h2.errors import ErrorCode, H2Error
from codec.h2.hpack import Field
from tests.codec.h2.wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    REQUEST,
    RST,
    SETTINGS,
    WINDOW,
    Peer,
    frame,
    refused,
    u32,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM


def calmed(peer: Peer, data: bytes | Callable[[], bytes], kind: str, most: int = 200_000) -> int:
    """Repeat until the peer is told to calm down; after how many times."""
    for count in range(most):
        try:
            peer.send(data() if callable(data) else data)
        except H2Error as error:
            assert (error.h2_code, error.abuse) == (CALM, kind)
            assert peer.goaway() == (CALM, kind.encode())
            return count
        if count % 64 == 0:
            peer.sink.take()
    raise AssertionError(f"{most} times and no end")


def test_h2_01_rapid_reset() -> None:
    peer = Peer()
    assert calmed(peer, lambda: peer.request() + frame(RST, 0, peer.next - 2, u32(8)), "resets") <= limits.RESETS.burst + 1
    assert len(peer.server.streams) <= 1


def test_h2_01_who_resets_now_and_then_is_served_for_ever() -> None:
    peer = Peer()
    for _ in range(2000):
        peer.send(peer.request() + frame(RST, 0, peer.next - 2, u32(8)))
        peer.sink.time += 0.01
    for _ in range(2000):  # or who lets as many end in order
        peer.send(peer.request() + frame(RST, 0, peer.next - 2, u32(8)) + peer.request())
        peer.server.respond(peer.server.streams[peer.next - 2], [Field(b":status", b"200")], end=True)
        peer.sink.take()


def test_h2_02_made_you_reset() -> None:
    for provoke in (
        lambda sid: frame(WINDOW, 0, sid, u32(0)),
        lambda sid: frame(WINDOW, 0, sid, u32(2**31 - 1)) * 2,
        lambda sid: frame(PRIORITY, 0, sid, b"1234"),
        lambda sid: frame(DATA, 0, sid, b"after the end"),
        lambda sid: frame(HEADERS, END_HEADERS, sid, b"\x82"),
    ):
        peer = Peer()
        with pytest.raises(H2Error) as caught:
            for _ in range(2000):
                peer.send(peer.request() + provoke(peer.next - 2))
                assert not peer.server.streams
                peer.sink.take()
        assert caught.value.abuse in ("stream_errors", "priorities")


def test_h2_03_continuation_flood() -> None:
    peer = Peer()
    peer.send(frame(HEADERS, 0, 1, b""))
    error = refused(peer, frame(CONTINUATION, 0, 1, bytes(100)) * 20)
    assert (error.h2_code, error.abuse) == (CALM, "continuations")
    peer = Peer()
    peer.send(frame(HEADERS, 0, 1, bytes(16384)))
    error = refused(peer, frame(CONTINUATION, 0, 1, bytes(16384)) * 4)
    assert error.abuse == "continuations"


def test_h2_03_a_header_block_that_trickles_in_has_five_seconds() -> None:
    peer = Peer(start=False)
    assert peer.server.patience == limits.HEADER_PATIENCE, "the preface has no more"
    peer.send(PREFACE + frame(SETTINGS))
    assert peer.server.patience == 0
    peer.send(frame(HEADERS, 0, 1, b"\x82"))
    assert peer.server.patience == limits.HEADER_PATIENCE
    peer.send(frame(CONTINUATION, END_HEADERS, 1, b"\x86\x84"))
    assert peer.server.patience == 0


def test_h2_04_empty_frames() -> None:
    peer = Peer()
    peer.send(peer.request(end=False))
    assert calmed(peer, frame(DATA, 0, 1), "empty_frames") == limits.EMPTY_FRAMES


def test_h2_05_header_bomb() -> None:
    peer = Peer()
    bomb = peer.encoder.encode([*REQUEST, (b"x", b"y" * 3000)])
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, bomb))
    index = len(peer.encoder.header_table.dynamic_entries)
    assert index
    reference = b"\xbe"  # the newest entry
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, reference * 50))
    answers = [each for each in peer.answers() if each.stream == 3]
    assert answers[0].type == HEADERS
    assert b"431" in bytes(peer.decoder.decode(answers[0].payload, raw=True)[0][1])
    error = refused(peer, frame(HEADERS, END_HEADERS | END_STREAM, 5, reference * 16_000))
    assert (error.h2_code, error.abuse) == (CALM, "header_list")


def test_h2_06_table_size_games() -> None:
    for block in (b"\x20\x20\x20\x82", b"\x3f\xe2\x1f", b"\x82\x20"):
        error = refused(Peer(), frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        assert error.h2_code == ErrorCode.COMPRESSION_ERROR


def test_h2_07_settings_flood() -> None:
    assert calmed(Peer(), frame(SETTINGS), "settings") <= limits.SETTINGS.burst
    full = frame(SETTINGS, 0, 0, (b"\x00\x03" + u32(1)) * (16384 // 6))
    peer = Peer()
    peer.send(peer.request() + full)
    assert calmed(peer, full, "settings") <= limits.SETTINGS.burst


def test_h2_08_ping_flood() -> None:
    assert calmed(Peer(), frame(PING, 0, 0, bytes(8)), "too_many_pings") <= limits.PINGS.burst


def test_h2_08_a_ping_for_each_piece_of_data_is_welcome() -> None:
    """What grpcio does to measure its bandwidth."""
    peer = Peer()
    for _ in range(1000):
        peer.send(peer.request(end=False) + frame(DATA, END_STREAM, peer.next - 2, b"x" * 300) + frame(PING, 0, 0, bytes(8)))
        peer.server.respond(peer.server.streams[peer.next - 2], [Field(b":status", b"200")], end=True)
        peer.sink.take()


def test_h2_09_priority_flood() -> None:
    peer = Peer()
    assert calmed(peer, frame(PRIORITY, 0, 1, u32(3) + b"\0"), "priorities") <= limits.PRIORITIES.burst
    assert refused(Peer(), frame(RST, 0, 1, u32(8))).h2_code == ErrorCode.PROTOCOL_ERROR, "a reset of an idle stream"


def test_h2_10_window_update_flood() -> None:
    peer = Peer()
    peer.send(peer.request())
    assert calmed(peer, frame(WINDOW, 0, 0, u32(1)), "window_updates") <= limits.WINDOW_UPDATES.burst


def test_h2_11_what_waits_for_a_window_is_forgotten_with_its_stream() -> None:
    peer = Peer()
    peer.send(frame(SETTINGS, 0, 0, b"\0\4" + u32(0)))
    for _ in range(20):
        peer.send(peer.request())
        peer.server.respond(peer.server.streams[peer.next - 2], [Field(b":status", b"200")])
        peer.server.send(peer.server.streams[peer.next - 2], bytes(50_000), end=True)
    assert peer.server.queued == 20 * 50_000
    for stream in list(peer.server.streams.values()):
        peer.server.reset(stream)
    assert peer.server.queued == 0


def test_h2_12_one_byte_frames() -> None:
    peer = Peer()
    peer.send(peer.request(end=False))
    count = calmed(peer, frame(DATA, 0, 1, b"x"), "small_frames")
    assert count <= limits.SMALL_FRAMES // (limits.SMALL_FRAME - 1) + 1


def test_h2_13_one_stream_too_many() -> None:
    peer = Peer(max_streams=3)
    for _ in range(4):
        peer.send(peer.request(end=False))
    assert [(each.type, each.stream, each.payload) for each in peer.answers()] == [(RST, 7, u32(ErrorCode.REFUSED_STREAM))]
    peer.send(frame(DATA, END_STREAM, 1, b"x") + frame(DATA, 0, 7, b"on its way"))
    peer.server.respond(peer.server.streams[1], [Field(b":status", b"200")], end=True)
    peer.send(peer.request())
    assert set(peer.server.streams) == {3, 5, 9}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (lambda peer: frame(HEADERS, END_HEADERS, 2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (lambda peer: frame(HEADERS, END_HEADERS, 0, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (lambda peer: frame(DATA, 0, 9, b"x"), ErrorCode.PROTOCOL_ERROR),
        (lambda peer: frame(CONTINUATION, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
        (lambda peer: frame(PUSH, 0, 1, b"x" * 8), ErrorCode.PROTOCOL_ERROR),
        (lambda peer: frame(PING, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
        (lambda peer: frame(WINDOW, 0, 0, u32(0)), ErrorCode.PROTOCOL_ERROR),
        (lambda peer: frame(WINDOW, 0, 0, u32(2**31 - 1)), ErrorCode.FLOW_CONTROL_ERROR),
        (lambda peer: frame(SETTINGS, 0, 0, b"\0\4" + u32(2**31)), ErrorCode.FLOW_CONTROL_ERROR),
        (lambda peer: frame(SETTINGS, 0, 0, b"\0\5" + u32(1)), ErrorCode.PROTOCOL_ERROR),
        (lambda peer: b"\xff\xff\xff" + bytes(6), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_h2_14_frames_where_none_may_be(data: Callable[[Peer], bytes], code: ErrorCode) -> None:
    peer = Peer()
    assert refused(peer, data(peer)).h2_code == code


def test_h2_14_stream_ids_only_grow() -> None:
    peer = Peer()
    peer.next = 5
    peer.send(peer.request())
    peer.next = 3
    assert refused(peer, peer.request()).h2_code == ErrorCode.PROTOCOL_ERROR
    peer = Peer()
    peer.send(peer.request())
    peer.server.respond(peer.server.streams[1], [Field(b":status", b"200")], end=True)
    peer.next = 1
    assert refused(peer, peer.request()).h2_code == ErrorCode.STREAM_CLOSED


def without(name: bytes) -> list[tuple[bytes, bytes]]:
    return [field for field in REQUEST if field[0] != name]


@pytest.mark.parametrize(
    "fields",
    [
        [*REQUEST, (b"Upper", b"case")],
        [*REQUEST, (b":path", b"/again")],
        [*REQUEST, (b"connection", b"close")],
        [*REQUEST, (b"transfer-encoding", b"chunked")],
        [*REQUEST, (b"x", b"a\r\nb: c")],
        [*REQUEST, (b"x", b"a\0")],
        [*without(b"te"), (b"te", b"gzip")],
        [*REQUEST, (b"content-length", b"1"), (b"content-length", b"1")],
        [*REQUEST, (b"content-length", b"-1")],
        [*REQUEST, (b"host", b"a"), (b"host", b"b")],
        [(b"x", b"before"), *REQUEST],
        [*REQUEST, (b":unknown", b"x")],
        [*REQUEST, (b":status", b"200")],
        without(b":path"),
        without(b":method"),
        without(b":scheme"),
        [*without(b":path"), (b":path", b"")],
    ],
)
def test_h2_15_smuggled_fields(fields: list[tuple[bytes, bytes]]) -> None:
    peer = Peer()
    assert peer.send(peer.request(fields=fields)) == []
    assert [(each.type, each.payload) for each in peer.answers()] == [(RST, u32(ErrorCode.PROTOCOL_ERROR))]
    assert len(peer.send(peer.request())) == 1, "an error of one stream"


def test_h2_15_content_length_is_the_length() -> None:
    for length, data in ((b"3", b"1234"), (b"5", b"1234")):
        peer = Peer()
        peer.send(peer.request(end=False, extra=[(b"content-length", length)]) + frame(DATA, END_STREAM, 1, data))
        assert (peer.answers()[-1].type, peer.answers()) == (RST, [])


def test_h2_16_something_else_than_a_preface() -> None:
    for wrong in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", PREFACE[:10] + b"x"):
        peer = Peer(start=False)
        assert refused(peer, wrong).h2_code == ErrorCode.PROTOCOL_ERROR
    peer = Peer(start=False)
    assert refused(peer, PREFACE + frame(PING, 0, 0, bytes(8))).h2_code == ErrorCode.PROTOCOL_ERROR, "SETTINGS come first"


def test_h2_17_nearly_nothing_but_overhead() -> None:
    peer = Peer()
    peer.send(peer.request(end=False))

    def slowly() -> bytes:
        peer.sink.time += 1
        return frame(11, 0, 0, bytes(16000))

    assert calmed(peer, slowly, "overhead") * 16009 < (limits.OVERHEAD_FREE + 100_000) * limits.OVERHEAD_FACTOR

"""HTTP/2 in both roles, against the `h2` package and against itself."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.buffer import ReadBuffer
from codec.errors import UsageError
from codec.h2.connection import BufferSink, H2Connection, Stream
from codec.h2.errors import ErrorCode, H2Error
from codec.h2.hpack import Field
from tests.codec.h2.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    REQUEST,
    RST,
    SETTINGS,
    WINDOW,
    Peer,
    frame,
    u32,
)

GOT_HEADERS, GOT_DATA, GOT_END, GOT_RESET, GOT_SETTINGS, GOT_PONG, GOT_GOAWAY = (1 << bit for bit in range(7))
OK = Field(b":status", b"200")


class Side:
    """One of ours, with its buffers."""

    def __init__(self, *, is_client: bool, **options: int) -> None:
        self.protocol = H2Connection(is_client, **options)
        self.sink = BufferSink()
        self.protocol.begin(self.sink)
        self.buffer = ReadBuffer()
        self.news: list[Stream | H2Connection] = []

    def feed(self, data: bytes) -> list[Stream | H2Connection]:
        self.buffer.write(data)
        found = []
        while new := self.protocol.feed(self.buffer):
            found += new
        self.news += found
        return found


def talk(client: Side, server: Side) -> None:
    """Carry bytes both ways until nobody has any."""
    while True:
        there = client.sink.take()
        server.feed(there)
        back = server.sink.take()
        client.feed(back)
        if not there and not back:
            return


def together(**options: int) -> tuple[Side, Side]:
    client, server = Side(is_client=True), Side(is_client=False, **options)
    talk(client, server)
    return client, server


def named(fields: list[Field] | None) -> list[tuple[bytes, bytes]]:
    assert fields is not None
    return [(field.name, field.value) for field in fields]


# ---- against python-h2 -------------------------------------------------------------------------------------------------


BODIES = st.binary(max_size=200_000) | st.integers(0, 300_000).map(bytes)


def their(client: bool) -> h2.connection.H2Connection:
    made = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding=None))
    made.initiate_connection()
    return made


@settings(deadline=None, max_examples=40)
@given(st.lists(BODIES, min_size=1, max_size=4), st.integers(1, 40_000))
def test_our_server_echoes_to_the_h2_package(bodies: list[bytes], cut: int) -> None:
    """Requests in pieces, answers longer than every window, several at a time."""
    server, client = Side(is_client=False), their(True)
    pending = {}
    for body in bodies:
        sid = client.get_next_available_stream_id()
        client.send_headers(sid, REQUEST)
        pending[sid] = body
    answers: dict[int, bytearray] = {sid: bytearray() for sid in pending}
    trailers: dict[int, Any] = {}
    got: dict[int, bytes] = {}
    for _ in range(10_000):
        for sid, body in list(pending.items()):
            room = min(client.local_flow_control_window(sid), client.max_outbound_frame_size, len(body))
            if room or not body:
                client.send_data(sid, body[:room], end_stream=room == len(body))
                if room == len(body):
                    del pending[sid]
                else:
                    pending[sid] = body[room:]
        data = client.data_to_send()
        for start in range(0, len(data), cut):
            for stream in server.feed(data[start : start + cut]):
                assert isinstance(stream, Stream)
                if stream.events & GOT_HEADERS:
                    assert named(stream.headers) == REQUEST
                if stream.events & (GOT_DATA | GOT_END):
                    got[stream.id] = got.get(stream.id, b"") + stream.take_data()
                if stream.events & GOT_END:
                    server.protocol.respond(stream, [OK, (b"x-of", str(stream.id).encode())])
                    server.protocol.send(stream, got[stream.id])
                    server.protocol.respond(stream, [(b"x-size", str(len(got[stream.id])).encode())], end=True)
                stream.events = 0
        for event in client.receive_data(server.sink.take()):
            if isinstance(event, h2.events.DataReceived):
                answers[event.stream_id] += event.data
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                trailers[event.stream_id] = list(event.headers)
            else:
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event
        if len(trailers) == len(bodies):
            break
    assert [bytes(answers[sid]) for sid in sorted(answers)] == bodies
    assert {sid: fields[0][1] for sid, fields in trailers.items()} == {sid: str(len(answers[sid])).encode() for sid in answers}
    assert not server.protocol.streams
    assert server.protocol.held == server.protocol.queued == 0


@settings(deadline=None, max_examples=40)
@given(st.lists(BODIES, min_size=1, max_size=4), st.integers(1, 40_000))
def test_our_client_calls_the_h2_package(bodies: list[bytes], cut: int) -> None:
    client, server = Side(is_client=True), their(False)
    server.receive_data(client.sink.take())
    client.feed(server.data_to_send())
    path = Field(b":path", b"/a.B/C")
    streams = []
    for body in bodies:
        stream = client.protocol.open([(b":method", b"POST"), (b":scheme", b"http"), path, (b":authority", b"x")])
        client.protocol.send(stream, body, end=True)
        streams.append(stream)
    seen: dict[int, bytearray] = {}
    answers: dict[int, bytearray] = {stream.id: bytearray() for stream in streams}
    waiting: dict[int, bytes] = {}
    for _ in range(10_000):
        for event in server.receive_data(client.sink.take()):
            if isinstance(event, h2.events.RequestReceived):
                seen[event.stream_id] = bytearray()
                assert dict(event.headers)[b":path"] == b"/a.B/C"
            elif isinstance(event, h2.events.DataReceived):
                seen[event.stream_id] += event.data
                server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                server.send_headers(event.stream_id, [(b":status", b"200")])
                waiting[event.stream_id] = bytes(seen[event.stream_id])
        for sid, body in list(waiting.items()):
            room = min(server.local_flow_control_window(sid), server.max_outbound_frame_size, len(body))
            if room:
                server.send_data(sid, body[:room])
            waiting[sid] = body[room:]
            if not waiting[sid]:
                del waiting[sid]
                server.send_headers(sid, [(b"x-end", b"1")], end_stream=True)
        data = server.data_to_send()
        for start in range(0, len(data), cut):
            for stream in client.feed(data[start : start + cut]):
                if isinstance(stream, Stream):
                    answers[stream.id] += stream.take_data()
                    stream.events = 0
        if not client.protocol.streams:
            break
    assert [bytes(answers[stream.id]) for stream in streams] == bodies
    assert all(named(stream.trailers) == [(b"x-end", b"1")] for stream in streams)


# ---- against each other ------------------------------------------------------------------------------------------------


def test_one_stream_there_and_back() -> None:
    client, server = together()
    assert client.protocol.peer_max_streams == 100
    stream = client.protocol.open([*REQUEST, (b"x-key", b"value")])
    client.protocol.send(stream, b"question", end=True)
    talk(client, server)
    (theirs,) = set(server.news)
    assert isinstance(theirs, Stream)
    assert named(theirs.headers)[-1] == (b"x-key", b"value")
    assert theirs.take_data() == b"question"
    assert theirs.events == GOT_HEADERS | GOT_DATA | GOT_END
    server.protocol.respond(theirs, [OK])
    server.protocol.send(theirs, b"answer")
    server.protocol.respond(theirs, [(b"x-last", b"1")], end=True)
    assert not theirs.is_open
    talk(client, server)
    assert stream.take_data() == b"answer"
    assert named(stream.trailers) == [(b"x-last", b"1")]
    assert not client.protocol.streams
    assert not server.protocol.streams


def test_trailers_and_the_rest_of_the_data_wait_behind_a_closed_window() -> None:
    client, server = Side(is_client=True, stream_window=10), Side(is_client=False)
    talk(client, server)
    stream = client.protocol.open(REQUEST, end=True)
    talk(client, server)
    theirs = server.protocol.streams[stream.id]
    server.protocol.respond(theirs, [OK])
    server.protocol.send(theirs, b"0123456789abc")
    server.protocol.send(theirs, b"de")
    server.protocol.respond(theirs, [(b"x-last", b"1")], end=True)
    with_window = client.feed(server.sink.take())
    assert with_window[-1] is stream
    assert theirs.queued == server.protocol.queued == 5
    assert stream.trailers is None
    assert stream.take_data() == b"0123456789"
    talk(client, server)
    assert stream.take_data() == b"abcde"
    assert named(stream.trailers) == [(b"x-last", b"1")]
    assert server.protocol.queued == 0


def test_streams_that_wait_take_turns() -> None:
    peer = Peer()
    peer.send(peer.request() + peer.request())
    big = bytes(100_000)
    for sid in (1, 3):
        stream = peer.server.streams[sid]
        peer.server.respond(stream, [OK])
        peer.server.send(stream, big, end=True)
    first = [each.stream for each in peer.answers() if each.type == DATA]
    assert set(first) == {1}, "the connection's window is used up"
    peer.send(frame(WINDOW, 0, 1, u32(1 << 20)) + frame(WINDOW, 0, 3, u32(1 << 20)))
    assert peer.answers() == []
    peer.send(frame(WINDOW, 0, 0, u32(1 << 20)))
    second = [each for each in peer.answers() if each.type == DATA]
    assert [each.stream for each in second][:2] in ([1, 3], [3, 1])
    assert [each.stream for each in second if each.flags & END_STREAM] in ([1, 3], [3, 1])
    assert not peer.server.streams


def test_nothing_more_is_put_behind_a_socket_that_takes_nothing() -> None:
    peer = Peer()
    peer.send(frame(WINDOW, 0, 0, u32(1 << 30)) + frame(SETTINGS, 0, 0, b"\0\4" + u32(1 << 30)) + peer.request())
    stream = peer.server.streams[1]
    peer.server.respond(stream, [OK])
    peer.sink.unsent = 1 << 20
    peer.server.send(stream, bytes(50_000), end=True)
    assert (stream.queued, peer.sink.wants_room) == (50_000, True)
    assert not any(each.type == DATA for each in peer.answers())
    peer.sink.unsent = 0
    peer.server.has_room()
    assert sum(len(each.payload) for each in peer.answers() if each.type == DATA) == 50_000


def test_windows_open_as_data_is_taken_and_stay_shut_until_then() -> None:
    client, server = Side(is_client=True), Side(is_client=False, stream_window=1000)
    talk(client, server)
    stream = client.protocol.open(REQUEST)
    client.protocol.send(stream, bytes(5000), end=True)
    for taken in range(4):
        talk(client, server)
        theirs = server.protocol.streams[stream.id]
        assert stream.queued == 4000 - 1000 * taken
        assert server.protocol.held == 1000
        assert len(theirs.take_data()) == 1000
    talk(client, server)
    assert len(theirs.take_data()) == 1000
    assert theirs.remote_done
    assert server.protocol.held == 0


def test_a_changed_initial_window_moves_all_streams_even_below_zero() -> None:
    peer = Peer()
    peer.send(peer.request())
    stream = peer.server.streams[1]
    peer.server.respond(stream, [OK])
    peer.server.send(stream, bytes(100))
    peer.send(frame(SETTINGS, 0, 0, b"\0\4" + u32(50)))
    peer.server.send(stream, bytes(10), end=True)
    assert stream.queued == 10
    peer.answers()
    peer.send(frame(WINDOW, 0, 1, u32(55)))
    (data,) = [each for each in peer.answers() if each.type == DATA]
    assert (len(data.payload), data.flags) == (5, 0)
    peer.send(frame(SETTINGS, 0, 0, b"\0\4" + u32(1000)))
    (data,) = [each for each in peer.answers() if each.type == DATA]
    assert (len(data.payload), data.flags) == (5, END_STREAM)


def test_an_answer_before_the_end_of_the_request_resets_with_no_error() -> None:
    peer = Peer()
    peer.send(peer.request(end=False))
    peer.server.respond(peer.server.streams[1], [OK], end=True)
    kinds = [(each.type, each.payload) for each in peer.answers()]
    assert [kind for kind, _ in kinds] == [HEADERS, RST]
    assert kinds[1][1] == u32(ErrorCode.NO_ERROR)
    assert peer.send(frame(DATA, 0, 1, b"late") + frame(DATA, END_STREAM, 1)) == [], "what was on its way is no error"
    assert peer.answers() == []


def test_both_sides_may_reset() -> None:
    client, server = together()
    one, two = client.protocol.open(REQUEST), client.protocol.open(REQUEST)
    talk(client, server)
    client.protocol.reset(one)
    theirs = server.protocol.streams[two.id]
    server.protocol.reset(theirs, ErrorCode.REFUSED_STREAM)
    gone = server.protocol.streams[one.id]
    talk(client, server)
    assert (gone.reset_code, gone.reset_by_peer, gone.events & GOT_RESET) == (ErrorCode.CANCEL, True, GOT_RESET)
    assert (two.reset_code, two.refused) == (ErrorCode.REFUSED_STREAM, True)
    assert not client.protocol.streams
    assert not server.protocol.streams
    client.protocol.send(two, b"too late")
    assert client.sink.take() == b""


def test_goodbye_in_two_steps() -> None:
    client, server = together()
    before = client.protocol.open(REQUEST, end=True)
    server.protocol.shut_down()
    crossing = client.protocol.open(REQUEST, end=True)
    server.feed(client.sink.take())
    assert set(server.protocol.streams) == {before.id, crossing.id}, "the first GOAWAY still allows new streams"
    client.feed(server.sink.take())
    assert client.protocol.peer_leaving
    assert not client.protocol.can_open
    with pytest.raises(UsageError, match="can_open"):
        client.protocol.open(REQUEST)
    server.feed(client.sink.take())  # the PING comes back
    assert server.protocol.left
    talk(client, server)
    for sid in list(server.protocol.streams):
        server.protocol.respond(server.protocol.streams[sid], [OK], end=True)
    talk(client, server)
    assert named(before.headers) == named(crossing.headers) == [(b":status", b"200")]


def test_streams_above_the_last_goaway_may_be_tried_elsewhere() -> None:
    client, server = together()
    kept = client.protocol.open(REQUEST, end=True)
    talk(client, server)
    server.protocol.shut_down_now()
    refused = client.protocol.open(REQUEST, end=True)
    server.feed(client.sink.take())
    assert set(server.protocol.streams) == {kept.id}
    news = client.feed(server.sink.take())
    assert refused in news
    assert (refused.refused, kept.refused, client.protocol.peer_goaway) == (True, False, ErrorCode.NO_ERROR)


def test_ping_is_answered_and_its_answer_told() -> None:
    peer = Peer()
    peer.send(frame(PING, 0, 0, b"12345678"))
    assert [(each.type, each.flags, each.payload) for each in peer.answers()] == [(PING, ACK, b"12345678")]
    client, server = together()
    client.protocol.ping(b"abcdefgh")
    talk(client, server)
    assert client.protocol.pong == b"abcdefgh"
    assert client.protocol.events & GOT_PONG
    with pytest.raises(UsageError, match="eight"):
        client.protocol.ping(b"")


def test_long_header_blocks_go_in_several_frames() -> None:
    client, server = together()
    stream = client.protocol.open([*REQUEST, (b"x-long", b"\xff" * 50_000)], end=True)
    talk(client, server)
    (theirs,) = set(server.news)
    assert isinstance(theirs, Stream)
    assert named(theirs.headers)[-1] == (b"x-long", b"\xff" * 50_000)
    with pytest.raises(TypeError):
        client.protocol.open([*REQUEST, ("text", "is no bytes")])  # type: ignore[list-item]
    # What could not be written was never begun, and what the table had learnt of it is forgotten.
    with pytest.raises(TypeError):
        client.protocol.open([Field(b"x-new", b"1"), ("text", "is no bytes")])  # type: ignore[list-item]
    again = client.protocol.open([*REQUEST, Field(b"x-new", b"1")], end=True)
    assert again.id == stream.id + 2
    talk(client, server)
    assert named(server.protocol.streams[again.id].headers)[-1] == (b"x-new", b"1")


EXTRAS = st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b", b"grpc-timeout"]), st.sampled_from([b"", b"1", b"2", b"v" * 900])), max_size=4)


@given(st.lists(st.tuples(EXTRAS, st.none() | st.sampled_from([0, 100, 4096])), max_size=30))
def test_a_header_block_that_comes_again_means_what_the_table_says_now(calls: list[tuple[list[tuple[bytes, bytes]], int | None]]) -> None:
    peer = Peer()
    for extra, size in calls:
        if size is not None:
            peer.encoder.header_table_size = size
        data = peer.request(extra=extra)
        assert peer.send(data)
        stream = peer.server.streams[peer.next - 2]
        assert named(stream.headers) == REQUEST + extra
        peer.server.respond(stream, [OK], end=True)
    assert not peer.server.streams


@pytest.mark.parametrize("block", [b"\x83\x86", b"\x83\x86\x84\x83", b"\x83\x86\x84\x88"], ids=["no path", "a method twice", "a status"])
def test_a_request_that_breaks_the_rules_breaks_them_each_time(block: bytes) -> None:
    peer = Peer()
    for sid in range(1, 21, 2):
        assert peer.send(frame(HEADERS, END_HEADERS | END_STREAM, sid, block)) == []
        (reset,) = peer.answers()
        assert (reset.type, reset.stream, reset.payload) == (RST, sid, u32(ErrorCode.PROTOCOL_ERROR))


def test_a_content_length_is_that_of_its_own_stream() -> None:
    peer = Peer()
    for sent in (b"12345", b"12345", b"1234", b"12345", b"123456", b"12345"):
        head = peer.request(end=False, extra=[(b"content-length", b"5")])
        sid = peer.next - 2
        peer.send(head)
        told = peer.send(frame(DATA, END_STREAM, sid, sent))
        if len(sent) == 5:
            peer.server.respond(peer.server.streams[sid], [OK], end=True)
            assert peer.answers()[-1].type == HEADERS
        else:
            assert isinstance(told[-1], Stream)
            assert told[-1].reset_code == ErrorCode.PROTOCOL_ERROR
            assert peer.answers()[-1].type == RST


def test_a_header_list_that_is_too_long_is_so_each_time() -> None:
    peer = Peer()
    peer.send(peer.request(extra=[(b"x", b"v" * 3000)]))
    peer.server.respond(peer.server.streams[1], [OK], end=True)
    bomb = peer.encoder.encode([*REQUEST, *[(b"x", b"v" * 3000)] * 30])
    assert max(bomb) >= 0x80 > len(bomb)
    for sid in range(3, 11, 2):
        peer.answers()
        assert peer.send(frame(HEADERS, END_HEADERS | END_STREAM, sid, bomb)) == []
        assert peer.decoder.decode(peer.answers()[0].payload) == [(":status", "431")]


@given(st.randoms(use_true_random=False), st.integers(1, 80))
def test_streams_are_found_whatever_came_and_went(chance: Any, most: int) -> None:
    client = Side(is_client=True)
    model: dict[int, Stream] = {}
    for _ in range(300):
        if len(model) < most and (not model or chance.random() < 0.55):
            stream = client.protocol.open(REQUEST)
            model[stream.id] = stream
        else:
            client.protocol.reset(model.pop(chance.choice(sorted(model))))
        found = client.protocol.streams
        assert (len(found), bool(found), sorted(found)) == (len(model), bool(model), sorted(model))
        assert all(found[sid] is stream and found.get(sid) is stream and sid in found for sid, stream in model.items())
        gone = chance.choice(range(1, 601, 2))
        assert (gone in found) == (gone in model)
    with pytest.raises(KeyError):
        client.protocol.streams[2]
    assert {stream.id for stream in client.protocol.streams.values()} == set(model)


def test_informational_answers_come_before_the_real_one() -> None:
    client, server = together()
    stream = client.protocol.open(REQUEST, end=True)
    talk(client, server)
    theirs = server.protocol.streams[stream.id]
    server.protocol.respond(theirs, [(b":status", b"103"), (b"link", b"x")])
    talk(client, server)
    assert stream.headers is None
    server.protocol.respond(theirs, [OK], end=True)
    talk(client, server)
    assert named(stream.headers) == [(b":status", b"200")]


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_are_frames_or_an_error_of_this_connection(data: bytes) -> None:
    for head in (b"", PREFACE, PREFACE + frame(SETTINGS)):
        side = Side(is_client=False)
        try:
            side.feed(head + data)
        except H2Error:
            assert side.sink.take().rindex(b"\x07\x00\x00\x00\x00\x00") > 0  # the GOAWAY


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_frames_of_any_kind_in_any_order_are_answered_or_end_the_connection(data: st.DataObject) -> None:
    peer = Peer()
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.integers(0, 10))
        payload = peer.encoder.encode(REQUEST) if kind == HEADERS and data.draw(st.booleans()) else data.draw(st.binary(max_size=40))
        made = frame(kind, data.draw(st.sampled_from([0, 1, 4, 5, 8, 32, 255])), data.draw(st.integers(0, 7)), payload)
        try:
            peer.send(made)
        except H2Error:
            assert peer.answers()[-1].type == GOAWAY
            return
    assert all(stream.is_open for stream in peer.server.streams.values())

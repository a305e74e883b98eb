"""TTHeader alone: what may be read, what is refused, what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.buffer import WriteBuffer
from codec.crc32c import crc32c
from codec.errors import EncodeError, ProtocolError
from codec.thrift import ThriftClientProtocol
from codec.ttheader import ACL_KEY, Header, IntKey, StringKey, dumps, loads
from tests.codec.thrift_wire import (
    ARGUMENTS,
    CALL,
    Message,
    echo_args,
    feed,
    pairs,
    receive,
    route,
    server,
    short_text,
    text,
    thrift,
    ttheader,
    waiting,
)


def header_of(packet: bytes) -> Header:
    return loads(packet)[0]


def refused(packet: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        loads(packet)
    assert caught.value.message.startswith("TTHeader")
    return caught.value.message


# ---------------------------------------------------------------- reading


def test_the_smallest():
    header, payload = loads(bytes.fromhex("0000000e 1000 0000 00000007 0001 00000000") + b"")
    assert (header.seqid, header.flags, header.protocol_id, header.ints, header.strings) == (7, 0, 0, {}, {})
    assert payload == b""


def test_fixed_part():
    header, payload = loads(ttheader(b"payload", seqid=-5, flags=0xFFFF, protocol=4))
    assert (header.seqid, header.flags, header.protocol_id) == (-5, 0xFFFF, 4)
    assert payload == b"payload"


@pytest.mark.parametrize("protocol", [0x00, 0x03, 0x04, 0x10, 0x11])
def test_protocol_ids_that_kitex_takes(protocol):
    assert header_of(ttheader(b"", protocol=protocol)).protocol_id == protocol


def test_protocol_ids_that_it_does_not():
    for protocol in {*range(256)} - {0x00, 0x02, 0x03, 0x04, 0x10, 0x11}:
        assert refused(ttheader(b"", protocol=protocol)) == f"TTHeader: unsupported protocol id {protocol:#04x}"


def test_blocks_in_any_order_repeated_and_with_padding_between():
    header = header_of(
        ttheader(
            b"",
            b"\0",
            pairs(16, [(9, "a"), (12, "500")]),
            b"\0\0\0\0\0",
            pairs(1, [("k", "1"), ("l", "2")]),
            pairs(16, [(9, "b")]),
            b"\x11" + short_text("token"),
            b"\0",
            pairs(1, [("k", "3"), ("m", "")]),
            pairs(1, []),
            pairs(16, []),
        )
    )
    assert header.ints == {9: "b", 12: "500"}
    assert header.strings == {"k": "3", "l": "2", ACL_KEY: "token", "m": ""}


def test_a_key_may_repeat_in_a_block_and_the_last_one_counts():
    assert header_of(ttheader(b"", pairs(1, [("k", "1"), ("k", "2")]))).strings == {"k": "2"}


@pytest.mark.parametrize("count", [1, 2, 3, 255])
def test_transforms_are_passed_over(count):
    header, payload = loads(ttheader(b"x", pairs(1, [("k", "v")]), transforms=b"\x01" * count))
    assert header.strings == {"k": "v"}
    assert payload == b"x"


def test_transforms_that_do_not_fit():
    packet = bytearray(ttheader(b"payload"))
    packet[15] = 3
    assert "3 transforms do not fit" in refused(bytes(packet))


def test_the_longest_values():
    header = header_of(ttheader(b"", pairs(1, [("k" * 65535, "v" * 65535)]), pairs(16, [(65535, "w" * 65535)])))
    assert header.strings == {"k" * 65535: "v" * 65535}
    assert header.ints == {65535: "w" * 65535}


def test_the_largest_info_area():
    count = (262140 - 2 - 3) // 4
    packet = ttheader(b"payload", pairs(16, [(key, "") for key in range(count)]))
    assert packet[12:14] == b"\xff\xff"
    header, payload = loads(packet)
    assert len(header.ints) == count
    assert payload == b"payload"


def test_bytes_that_are_not_utf8_come_through():
    raw = bytes(range(256))
    header = header_of(ttheader(b"", pairs(1, [(raw, raw)]), pairs(16, [(1, raw)]), b"\x11" + short_text(raw)))
    value = raw.decode("utf-8", "surrogateescape")
    assert header.strings == {value: value, ACL_KEY: value}
    assert header.ints == {1: value}
    assert header_of(dumps(header)) == header


# ---------------------------------------------------------------- refusing


def test_info_size_zero():
    assert "no room for the protocol id" in refused(ttheader(b"payload", words=0))


@pytest.mark.parametrize("words", [4, 0x7FFF, 0xFFFF])
def test_info_area_longer_than_the_packet(words):
    assert "longer than the packet" in refused(ttheader(b"payload", words=words))


def test_unknown_info_blocks_are_fatal():
    for block in {*range(256)} - {0x00, 0x01, 0x10, 0x11}:
        assert f"unknown info block {block:#04x}" in refused(ttheader(b"", bytes((block,))))


@pytest.mark.parametrize(
    "block",
    [
        b"\x01",
        b"\x01\x00",
        b"\x01\x00\x01",
        b"\x01\x00\x01\x00",
        b"\x01\x00\x01\x00\x05abc",
        b"\x01\x00\x01\x00\x01k",
        b"\x01\x00\x01\x00\x01k\xff\xffv",
        b"\x01\xff\xff" + short_text("k") + short_text("v"),
        b"\x10\x00",
        b"\x10\x00\x01",
        b"\x10\x00\x01\x00",
        b"\x10\x00\x01\x00\x09",
        b"\x10\x00\x01\x00\x09\x00\x09v",
        b"\x11",
        b"\x11\x00",
        b"\x11\x00\x03ab",
    ],
    ids=lambda b: b.hex(),
)
def test_an_area_that_ends_in_the_middle_of_a_block(block):
    """Without padding behind it, and with a payload that must not be taken for the rest."""
    filler = bytes(-(2 + len(block)) % 4)
    assert "the info area ends" in refused(ttheader(b"\0" * 70000, filler, block))


@pytest.mark.parametrize("size", range(18))
def test_a_packet_cut_anywhere(size):
    refused(ttheader(b"")[:size])


def test_magic_and_length_must_be_right():
    packet = ttheader(b"payload")
    assert "magic is 0x2000" in refused(packet[:4] + b"\x20\x00" + packet[6:])
    assert "LENGTH" in refused(ttheader(b"payload", length=3))
    assert "LENGTH" in refused(ttheader(b"payload", length=0xFFFFFFFF))
    assert "LENGTH" in refused(packet + b"x")


@given(st.data())
def test_one_changed_byte_gives_a_header_or_protocol_error(data):
    packet = bytearray(
        ttheader(b"pay", pairs(1, [("isn", "Hello")]), pairs(16, [(9, "echo")]), b"\x11" + short_text("t"))
    )
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    try:
        header, _ = loads(bytes(packet))
    except ProtocolError:
        return
    assert isinstance(header, Header)


# ---------------------------------------------------------------- writing


def test_written_bytes():
    packet = dumps(Header(7, 1, {22: "2"}, {"crrst": "1", ACL_KEY: "tok"}), b"payload")
    assert packet == ttheader(
        b"payload", b"\x11" + short_text("tok"), pairs(1, [("crrst", "1")]), pairs(16, [(22, "2")]), flags=1
    )


def test_empty_blocks_are_left_out():
    assert dumps(Header(7)) == ttheader(b"")
    assert dumps(Header(7, strings={ACL_KEY: ""})) == ttheader(b"", b"\x11\x00\x00")


TEXTS = st.text(max_size=20) | st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 65535),
    st.dictionaries(st.integers(0, 65535), TEXTS),
    st.dictionaries(TEXTS | st.just(ACL_KEY), TEXTS),
    st.binary(max_size=30),
)
def test_round_trip(seqid, flags, ints, strings, payload):
    header = Header(seqid, flags, ints, strings)
    packet = dumps(header, payload)
    assert loads(packet) == (header, payload)
    assert len(packet) == 14 + 4 * int.from_bytes(packet[12:14]) + len(payload)


@pytest.mark.parametrize(
    ("ints", "strings", "words"),
    [
        (None, {"k": "v" * 65536}, "longer than 65535: 'vvv"),
        (None, {"k" * 65536: "v"}, "longer than 65535: 'kkk"),
        (None, {"k": "é" * 32768}, "65536 bytes is longer than 65535"),
        (None, {ACL_KEY: "t" * 65536}, "longer than 65535"),
        ({1: "w" * 65536}, None, "longer than 65535"),
        (None, {"k": 5}, "are str, got int"),
        (None, {5: "v"}, "are str, got int"),
        (None, {"k": b"v"}, "are str, got bytes"),
        (None, {ACL_KEY: None}, "are str, got NoneType"),
        (None, {"k": "\ud800"}, "no UTF-8 form"),
        ({65536: "v"}, None, "numbers from 0 to 65535, got 65536"),
        ({-1: "v"}, None, "numbers from 0 to 65535, got -1"),
        ({2**70: "v"}, None, "numbers from 0 to 65535"),
        ({"1": "v"}, None, "numbers from 0 to 65535, got '1'"),
        ({1.5: "v"}, None, "numbers from 0 to 65535, got 1.5"),
        (None, {str(i): "" for i in range(65536)}, "at most 65535 pairs"),
        (dict.fromkeys(range(65536), ""), None, "at most 65535 pairs"),
        (None, {str(i): "v" * 65000 for i in range(5)}, "more than 262140"),
    ],
    ids=lambda v: str(v)[:25],
)
def test_what_does_not_fit_leaves_the_buffer_as_it_was(ints, strings, words):
    with pytest.raises(EncodeError, match=words):
        dumps(Header(1, 0, ints, strings))
    out = WriteBuffer()
    out.write(b"before")
    client = ThriftClientProtocol("ttheader")
    with pytest.raises(EncodeError, match=words):
        client.write_call(route("echo"), ARGUMENTS["echo"], 1, out, ints, strings)
    assert bytes(out) == b"before"


def test_quotes_of_long_values_are_short():
    with pytest.raises(EncodeError) as caught:
        dumps(Header(strings={"k": "v" * 100_000}))
    assert len(str(caught.value)) < 250


def test_headers_compare_and_show():
    header = Header(7, 1, {12: "500"}, {"isn": "Hello"})
    assert header == Header(7, 1, {12: "500"}, {"isn": "Hello"})
    assert header != Header(7, 1, {12: "500"}, {"isn": "Hullo"})
    assert header != 7
    assert repr(header) == "Header(seqid=7, flags=0x0001, ints={12: '500'}, strings={'isn': 'Hello'})"
    with pytest.raises(TypeError, match="unhashable"):
        hash(header)


def test_two_headers_share_nothing():
    one, two = Header(), Header()
    one.strings["k"] = "v"
    assert two.strings == {}


def test_keys_are_kitex_keys():
    assert {name: value for name, value in vars(IntKey).items() if name.isupper()} == {
        "TRANSPORT_TYPE": 1,
        "LOG_ID": 2,
        "FROM_SERVICE": 3,
        "TO_SERVICE": 6,
        "TO_METHOD": 9,
        "RPC_TIMEOUT": 12,
        "CONNECT_TIMEOUT": 17,
        "FROM_METHOD": 20,
        "MSG_TYPE": 22,
    }
    assert (StringKey.SERVICE, StringKey.RESET, StringKey.BUSINESS_STATUS) == ("isn", "crrst", "biz-status")


# ---------------------------------------------------------------- inside a message


def test_flags_and_protocol_id_reach_the_request():
    request = receive(ttheader(thrift("ping", 1, 3, b"\0"), flags=0x0001, protocol=4, seqid=9))
    assert request.header is not None
    assert (request.header.flags, request.header.protocol_id, request.header.seqid, request.seqid) == (1, 4, 9, 3)


@pytest.mark.parametrize("inner", [0, 5, 25])
def test_an_inner_frame_ends_before_the_packet_does(inner):
    """Kitex lets the inner length win; what is behind it, inside the packet, belongs to nobody."""
    message = thrift("ping", 1, 3, b"\0")
    request = receive(ttheader(text(message) + bytes(inner)))
    assert request.error is None
    assert request.method == "ping"


# ---- checksums


def test_a_checksum_as_kitex_writes_it() -> None:
    """wire-format: CRC-32C of every byte behind the header, in eight lower-case digits."""
    client = ThriftClientProtocol("ttheader", checksum=True)
    out = WriteBuffer()
    client.write_call(route("echo"), (Message(message="hi"),), 7, out, {}, {"isn": "Hello"})
    packet = out.take()
    header, payload = loads(packet)
    assert header.strings == {"crc32c": "f8fe2f30", "isn": "Hello"}
    assert f"{crc32c(payload):08x}" == "f8fe2f30"
    framed_client = ThriftClientProtocol("ttheader-framed", checksum=True)
    framed_client.write_call(route("echo"), (Message(message="hi"),), 7, out, None, None)
    assert loads(out.take())[0].strings == {"crc32c": "870bc8d9"}


def test_a_checksum_is_answered_in_kind_and_both_are_checked() -> None:
    client = ThriftClientProtocol("ttheader", checksum=True)
    out = WriteBuffer()
    client.write_call(route("echo"), (Message(message="hi"),), 7, out, {}, {"crc32c": "not ours", ACL_KEY: "tok"})
    call = out.take()
    [request] = feed(server(), call)
    server().write_reply(request, Message(message="hi"), out)
    reply = out.take()
    assert "crc32c" in loads(reply)[0].strings
    assert feed(client, reply)[0].value == Message(message="hi")
    for packet, protocol in ((call, server()), (reply, waiting(("echo", 7), framing="ttheader"))):
        for at in range(len(packet) - 30, len(packet)):
            changed = packet[:at] + bytes([packet[at] ^ 4]) + packet[at + 1 :]
            with pytest.raises(ProtocolError, match="checksum"):
                feed(protocol, changed)


def test_no_checksum_and_an_empty_one_pass() -> None:
    body = thrift("echo", CALL, 1, echo_args())
    for strings in ([], [("crc32c", "")]):
        assert receive(ttheader(body, pairs(1, strings))).error is None

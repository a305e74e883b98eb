"""bench/messages.py: values and bytes."""

from __future__ import annotations

import struct

import pytest

from bench.messages import MUX, TTHEADER, complex_message, messages, read_complex, text
from codec import ttheader


def test_names_and_sizes() -> None:
    found = dict(messages())
    assert list(found) == ["16B", "1KiB", "complex", TTHEADER, MUX]
    header, payload = ttheader.loads(found[TTHEADER].request)
    assert (payload, header.strings) == (found["1KiB"].request[4:], {"isn": "Bench"})
    shared, same = ttheader.loads(found[MUX].request)
    assert (shared.flags, header.flags, same) == (1, 0, payload)  # SupportOutOfOrder
    assert found.pop(MUX).reply == found[TTHEADER].reply
    assert ttheader.loads(found.pop(TTHEADER).reply)[1] == found["1KiB"].reply[4:]
    assert [len(message.request) for message in found.values()] == [59, 1067, 11354]
    for message in found.values():
        for data, kind in ((message.request, 1), (message.reply, 2)):
            length, version, name_length = struct.unpack_from(">iIi", data)
            assert length == len(data) - 4
            assert version == 0x80010000 | kind
            assert data[12 : 12 + name_length].decode() == message.method


def test_text_is_ascii_of_the_asked_size() -> None:
    assert text(16) == "abcdefghijklmnop"
    assert len(text(1024, 3)) == 1024
    assert text(5, 1) == "bcdef"
    assert text(100).isascii()


def test_another_library_reads_the_same_values() -> None:
    apache = pytest.importorskip("bench.codecs.apache", reason="pip install thrift")
    transport = pytest.importorskip("thrift.transport.TTransport")
    protocol = pytest.importorskip("thrift.protocol.TBinaryProtocol").TBinaryProtocolAccelerated
    trans = transport.TMemoryBuffer(messages()["complex"].request[4:])
    iprot = protocol(trans, fallback=False)
    assert iprot.readMessageBegin() == ("echoComplex", 1, 1)
    args = apache.EchoComplexArgs()
    args.read(iprot)
    expected = complex_message(apache.types(), apache.ComplexRequest)
    assert read_complex(args.req) == read_complex(expected)
    assert args.req.groupSet == expected.groupSet
    assert trans.read(1) == b""

"""Kitex Protobuf on the wire. The bytes are put together by hand from Kitex's `pkg/remote/codec/protobuf`."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import ApplicationError, ApplicationErrorType, EncodeError, ProtocolError, UnknownMethod, UsageError
from codec.protobuf import ProtobufMethodSpec, message_type, protobuf_service
from codec.thrift import Route, ThriftClientProtocol, ThriftServerProtocol
from tests.codec.test_proto_plan import Inner, Outer
from tests.codec.thrift_wire import HELLO, ttheader

ECHO = protobuf_service("t.Echo", (ProtobufMethodSpec("Echo", request=message_type(Inner), response=message_type(Inner)),))
CALL = bytes.fromhex("00000014 90010001 00000004 4563686f 00000007 0a026869")
REPLY = bytes.fromhex("00000014 90010002 00000004 4563686f 00000007 0a026869")
FAILURE = bytes.fromhex("00000023 90010003 00000004 4563686f 00000007 0806120f") + b"biz error: boom"


def server(*, max_decoded: int = 2**28) -> ThriftServerProtocol:
    routes = {each.wire_name: Route(each) for each in (*ECHO.methods.values(), HELLO.methods["ping"])}
    return ThriftServerProtocol(routes, {"Echo": routes}, max_decoded=max_decoded)


def read(protocol: Any, data: bytes) -> Any:
    buffer = ReadBuffer()
    buffer.write(data)
    (message,) = protocol.feed(buffer)
    assert len(buffer) == 0
    return message


def client(framing: str = "framed-protobuf") -> tuple[ThriftClientProtocol, bytes]:
    protocol, out = ThriftClientProtocol(framing), WriteBuffer()
    protocol.write_call(Route(ECHO.methods["Echo"]), (Inner(s="hi"),), 7, out)
    return protocol, out.take()


def test_a_call_and_its_reply() -> None:
    protocol, sent = client()
    assert sent == CALL
    request = read(server(), sent)
    assert (request.args, request.seqid, request.framing_name, request.error) == ((Inner(s="hi"),), 7, "framed-protobuf", None)
    out = WriteBuffer()
    server().write_reply(request, Inner(s="hi"), out)
    answer = out.take()
    assert answer == REPLY
    assert read(protocol, answer).value == Inner(s="hi")


def test_inside_ttheader_the_protocol_id_stays_zero() -> None:
    protocol, sent = client("ttheader-framed-protobuf")
    assert sent == bytes.fromhex("00000026 1000 0000 00000007 0001 0000 0000") + CALL
    request = read(server(), sent)
    assert (request.args, request.framing_name) == ((Inner(s="hi"),), "ttheader-framed-protobuf")
    out = WriteBuffer()
    server().write_reply(request, Inner(), out, {"a": "b"})
    reply = read(protocol, out.take())
    assert (reply.value, reply.header.strings) == (Inner(), {"a": "b"})


def test_an_exception_is_a_protobuf_message() -> None:
    out = WriteBuffer()
    server().write_failure(read(server(), CALL), 6, "biz error: boom", out)
    assert out.take() == FAILURE
    reply = read(client()[0], FAILURE)
    assert isinstance(reply.error, ApplicationError)
    assert (reply.error.type, reply.error.message) == (ApplicationErrorType.INTERNAL_ERROR, "biz error: boom")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (0, "")),
        (b"\x12\x01x\x08\x01", (1, "x")),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", (-1, "")),
        (b"\x18\x05\x21" + bytes(8) + b"\x2d" + bytes(4) + b"\x32\x02ab\x08\x07\x12\x01\xff", (7, "\ufffd")),
    ],
)
def test_exceptions_are_read_as_protobuf_is(body: bytes, expected: tuple[int, str]) -> None:
    data = FAILURE[4:20] + body
    error = read(client()[0], struct.pack(">i", len(data)) + data).error
    assert (error.type, error.message) == expected


@pytest.mark.parametrize("body", [b"\x08", b"\x12\x05a", b"\x0b", b"\x21abc", b"\x80"])
def test_a_broken_exception_is_a_protocol_error(body: bytes) -> None:
    data = FAILURE[4:20] + body
    assert isinstance(read(client()[0], struct.pack(">i", len(data)) + data).error, ProtocolError)


def test_kitexs_unknown_method_comes_with_sequence_id_zero() -> None:
    data = bytes.fromhex("90010003 00000004 4563686f 00000000") + b"\x08\x01\x12\x02no"
    reply = read(client()[0], struct.pack(">i", len(data)) + data)
    assert (type(reply.error), reply.seqid) == (UnknownMethod, 7)


def test_an_unknown_method_is_answered_in_kind() -> None:
    request = read(server(), CALL.replace(b"Echo", b"Nope"))
    assert isinstance(request.error, UnknownMethod)
    out = WriteBuffer()
    server().write_failure(request, request.error.type, request.error.message, out)
    answer = out.take()
    assert answer[4:8] == bytes.fromhex("90010003")
    assert b"\x08\x01\x12" in answer


def test_a_business_status_goes_with_an_empty_message() -> None:
    packet = ttheader(CALL)
    request = read(server(), packet)
    out = WriteBuffer()
    server().write_empty(request, out, {"biz-status": "404"})
    answer = out.take()
    assert answer.endswith(bytes.fromhex("00000010 90010002 00000004 4563686f 00000007"))


def test_bytes_that_are_no_message_are_the_callers_mistake() -> None:
    request = read(server(), CALL[:-4] + b"\x0a\x09hi")
    assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
    assert "Inner.s: a length of 9 bytes" in request.error.message


def test_thrift_and_protobuf_do_not_mix_in_one_call() -> None:
    thrift = bytes.fromhex("00000011 80010001 00000004 4563686f 00000007 00")
    request = read(server(), thrift)
    assert request.error.type == ApplicationErrorType.INVALID_PROTOCOL
    assert "the method comes from a .proto file, the message is Thrift" in request.error.message
    request = read(server(), bytes.fromhex("00000010 90010001 00000004 70696e67 00000007"))
    assert "the method comes from a Thrift file, the message is Protobuf" in request.error.message
    with pytest.raises(UsageError, match=r"from a \.proto file, the message is Thrift"):
        ThriftClientProtocol("framed").write_call(Route(ECHO.methods["Echo"]), (Inner(),), 1, WriteBuffer())
    with pytest.raises(UsageError, match="from a Thrift file, the message is Protobuf"):
        ThriftClientProtocol("framed-protobuf").write_call(Route(HELLO.methods["ping"]), (), 1, WriteBuffer())


def test_one_connection_may_alternate() -> None:
    protocol, buffer = server(), ReadBuffer()
    buffer.write(CALL + bytes.fromhex("00000011 80010001 00000004 70696e67 00000008 00") + CALL + ttheader(CALL))
    framings = []
    while len(buffer):
        framings += [each.framing_name for each in protocol.feed(buffer)]
    assert framings == ["framed-protobuf", "framed", "framed-protobuf", "ttheader-framed-protobuf"]


def test_an_argument_of_another_class_leaves_the_buffer_as_it_was() -> None:
    out = WriteBuffer()
    with pytest.raises(EncodeError, match="expected Inner, got Outer"):
        ThriftClientProtocol("framed-protobuf").write_call(Route(ECHO.methods["Echo"]), (Outer(),), 1, out)
    with pytest.raises(EncodeError, match="takes one message, got 2 arguments"):
        ThriftClientProtocol("framed-protobuf").write_call(Route(ECHO.methods["Echo"]), (Inner(), Inner()), 1, out)
    assert len(out) == 0


def test_every_cut_of_a_call_waits() -> None:
    for end in range(len(CALL)):
        buffer = ReadBuffer()
        buffer.write(CALL[:end])
        assert server().feed(buffer) == []
        buffer.write(CALL[end:])
        assert len(server().feed(buffer)) == 1


def test_the_memory_of_a_message_is_bounded() -> None:
    service = protobuf_service("t.S", (ProtobufMethodSpec("M", request=message_type(Outer), response=message_type(Inner)),))
    routes = {each.wire_name: Route(each) for each in service.methods.values()}
    data = bytes.fromhex("90010001 00000001 4d 00000007") + b"\x3a\x00" * 10_000
    packet = struct.pack(">i", len(data)) + data
    assert read(ThriftServerProtocol(routes), packet).error is None
    error = read(ThriftServerProtocol(routes, max_decoded=100_000), packet).error
    assert "more memory than one message may" in error.message

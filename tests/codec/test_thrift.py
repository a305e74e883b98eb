"""Thrift messages in every framing, both sides, fed as bytes."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import (
    ApplicationError,
    ApplicationErrorType,
    BusinessError,
    EncodeError,
    ProtocolError,
    ProtocolErrorKind,
    UnknownMethod,
    UnknownService,
    UsageError,
)
from codec.thrift import DEFAULT_MAX_MESSAGE, Reply, Request, Route, ThriftClientProtocol, ThriftServerProtocol
from codec.ttheader import ACL_KEY, Header, IntKey, loads
from tests.codec.hostile import ANSWERED, REFUSED
from tests.codec.schemas import NotFound, Point
from tests.codec.thrift_wire import (
    ARGUMENTS,
    CALL,
    EXCEPTION,
    FRAMINGS,
    HELLO,
    ONEWAY,
    REPLY,
    RESULTS,
    ROUTES,
    SERVICES,
    SHAPES,
    Message,
    answer,
    application_exception,
    echo_args,
    echo_result,
    facts,
    feed,
    field,
    framed,
    message_struct,
    pairs,
    receive,
    route,
    routes_of,
    server,
    shaped,
    text,
    thrift,
    ttheader,
    waiting,
    written,
)
from weego import stub

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}{'' if s[1] else '-old'}")
FRAMING = pytest.mark.parametrize("framing", FRAMINGS)
NEXT = framed(thrift("ping", CALL, 99, b"\0"))


def kind_of(data: bytes, max_message: int = DEFAULT_MAX_MESSAGE) -> ProtocolErrorKind:
    """The kind of the ProtocolError that a server's protocol raises for `data`."""
    with pytest.raises(ProtocolError) as caught:
        feed(server(max_message), data)
    return caught.value.kind


# ---------------------------------------------------------------- Kitex's bytes (docs of the wire, worked by hand)

FRAMED_CALL = bytes.fromhex(
    "0000001e 80010001 00000004 6563686f 00000001"  # 30 bytes: strict CALL "echo", seq 1
    "0c0001 0b0001 00000002 6869 00 00"  # 1: {1: "hi"}
)
FRAMED_REPLY = bytes.fromhex("0000001e 80010002 00000004 6563686f 00000001 0c0000 0b0001 00000002 6869 00 00")
FRAMED_VOID = bytes.fromhex("00000011 80010002 00000004 6563686f 00000001 00")
FRAMED_UNKNOWN = bytes.fromhex(
    "0000003c 80010003 00000004 6e6f7065 00000001"
    "0b0001 0000001d 756e6b6e6f776e2073657276696365202c206d6574686f64206e6f7065"  # "unknown service , method nope"
    "080002 00000014 00"
)
TTHEADER_CALL = bytes.fromhex(
    "00000070 1000 0000 00000007 0012 00 00"
    "01 0001 0003 69736e 0005 48656c6c6f"  # isn = Hello
    "10 0006"
    "0001 0008 756e6672616d6564"  # TransportType = unframed
    "0003 0003 636c69"  # FromService = cli
    "0006 0007 6563686f737663"  # ToService = echosvc
    "0009 0004 6563686f"  # ToMethod = echo
    "000c 0003 353030"  # RPCTimeout = 500
    "0016 0001 31"  # MsgType = 1
    "0000"
    "80010001 00000004 6563686f 00000007 0c0001 0b0001 00000002 6869 00 00"
)
TTHEADER_FRAMED_CALL = bytes.fromhex(
    "00000030 1000 0000 00000007 0001 00000000"
    "0000001e 80010001 00000004 6563686f 00000007 0c0001 0b0001 00000002 6869 00 00"
)
TTHEADER_BUSINESS = bytes.fromhex(
    "0000005b 1000 0000 00000007 0010 0000"
    "01 0003"
    "000a 62697a2d737461747573 0003 343034"  # biz-status = 404
    "000b 62697a2d6d657373616765 0009 6e6f7420666f756e64"  # biz-message = not found
    "0005 6372727374 0001 31"  # crrst = 1
    "10 0001 0016 0001 32"  # MsgType = 2
    "80010002 00000004 6563686f 00000007 00"
)
TTHEADER_UNKNOWN = bytes.fromhex(
    "00000064 1000 0000 00000007 0006 0000"
    "01 0001 0005 6372727374 0001 31  10 0001 0016 0001 33  00"
    "80010003 00000004 6e6f7065 00000007"
    "0b0001 00000023 756e6b6e6f776e206d6574686f64206e6f7065202873657276696365 2048656c6c6f29"
    "080002 00000001 00"  # "unknown method nope (service Hello)"
)
TTHEADER_CHECKSUM = bytes.fromhex(
    "00000040 1000 0000 00000007 0006 0000 01 0001 0006 637263333263 0008 6638666532663330 00"
    "80010001 00000004 6563686f 00000007 0c0001 0b0001 00000002 6869 00 00"
)
TTHEADER_ACL = bytes.fromhex(
    "00000023 1000 0000 00000007 0002 0000 11 0003 746f6b 80010001 00000004 6563686f 00000007 00"
)
HEADER_INTS = {1: "unframed", 3: "cli", 6: "echosvc", 9: "echo", 12: "500", 22: "1"}


def test_the_examples_are_as_long_as_they_say():
    sizes = [len(FRAMED_CALL), len(TTHEADER_CALL), len(TTHEADER_FRAMED_CALL), len(TTHEADER_BUSINESS), len(TTHEADER_ACL)]
    assert sizes == [34, 116, 52, 95, 39]
    assert len(TTHEADER_UNKNOWN) == 104


def test_framed_call():
    request = receive(FRAMED_CALL)
    assert (request.method, request.type, request.seqid, request.framing_name) == ("echo", CALL, 1, "framed")
    assert request.args == (Message(message="hi"),)
    assert request.header is None
    assert request.size == 34
    client = ThriftClientProtocol("framed")
    assert written(client.write_call, route("echo"), request.args, 1) == FRAMED_CALL


def test_framed_reply():
    assert answer(FRAMED_REPLY).value == Message(message="hi")
    assert written(server().write_reply, receive(FRAMED_CALL), Message(message="hi")) == FRAMED_REPLY


def test_buffered_is_the_same_without_the_length():
    request = receive(FRAMED_CALL[4:])
    assert (request.framing_name, request.args) == ("buffered", (Message(message="hi"),))
    assert written(server().write_reply, request, Message(message="hi")) == FRAMED_REPLY[4:]
    assert answer(FRAMED_REPLY[4:], framing="buffered").value == Message(message="hi")
    client = ThriftClientProtocol("buffered")
    assert written(client.write_call, route("echo"), request.args, 1) == FRAMED_CALL[4:]


def test_void_reply():
    void = FRAMED_VOID.replace(b"echo", b"ping")
    reply = answer(void, "ping")
    assert (reply.value, reply.error) == (None, None)
    request = receive(framed(thrift("ping", CALL, 1, b"\0")))
    assert written(server().write_reply, request, None) == void
    out = WriteBuffer()
    server().write_empty(request, out)
    assert out.take() == void


def test_framed_exception():
    error = answer(FRAMED_UNKNOWN).error
    assert type(error) is UnknownService
    assert (error.message, error.type) == ("unknown service , method nope", 20)
    request = receive(framed(thrift("nope", CALL, 1, b"\0")))
    out = WriteBuffer()
    server().write_failure(request, error.type, error.message, out)
    assert out.take() == FRAMED_UNKNOWN


def test_ttheader_call():
    request = receive(TTHEADER_CALL)
    assert (request.method, request.type, request.seqid, request.framing_name) == ("echo", CALL, 7, "ttheader")
    assert request.header == Header(7, 0, HEADER_INTS, {"isn": "Hello"})
    assert request.args == (Message(message="hi"),)
    assert request.route is SERVICES["Hello"][b"echo"]
    out = WriteBuffer()
    ThriftClientProtocol("ttheader").write_call(route("echo"), request.args, 7, out, HEADER_INTS, {"isn": "Hello"})
    assert loads(out.take()) == loads(TTHEADER_CALL)


def test_ttheader_framed_call():
    request = receive(TTHEADER_FRAMED_CALL)
    assert (request.seqid, request.framing_name, request.args) == (7, "ttheader-framed", (Message(message="hi"),))
    assert request.header == Header(7)
    client = ThriftClientProtocol("ttheader-framed")
    assert written(client.write_call, route("echo"), request.args, 7) == TTHEADER_FRAMED_CALL


def test_ttheader_reply_with_a_business_status():
    reply = answer(TTHEADER_BUSINESS, seqid=7, framing="ttheader")
    assert type(reply.error) is BusinessError
    assert (reply.error.status, reply.error.message, reply.error.extra) == (404, "not found", {})
    strings = {"biz-status": "404", "biz-message": "not found", "crrst": "1"}
    assert reply.header == Header(7, 0, {22: "2"}, strings)
    out = WriteBuffer()
    server().write_empty(receive(TTHEADER_CALL), out, strings)
    assert loads(out.take()) == loads(TTHEADER_BUSINESS)


def test_ttheader_exception():
    reply = answer(TTHEADER_UNKNOWN, seqid=7, framing="ttheader")
    assert type(reply.error) is UnknownMethod
    assert reply.error.message == "unknown method nope (service Hello)"
    assert reply.header == Header(7, 0, {22: "3"}, {"crrst": "1"})
    request = receive(TTHEADER_CALL.replace(b"\x04echo\0\0\0\x07", b"\x04nope\0\0\0\x07"))
    assert request.error.message == reply.error.message
    out = WriteBuffer()
    server().write_failure(request, request.error.type, request.error.message, out, {"crrst": "1"})
    assert loads(out.take()) == loads(TTHEADER_UNKNOWN)


def test_ttheader_with_checksum():
    request = receive(TTHEADER_CHECKSUM)
    assert request.header == Header(7, strings={"crc32c": "f8fe2f30"})
    assert request.args == (Message(message="hi"),)


def test_ttheader_with_acl_token():
    request = receive(TTHEADER_ACL)
    assert request.header == Header(7, strings={ACL_KEY: "tok"})
    assert request.args == (None,)
    client = ThriftClientProtocol("ttheader")
    assert written(client.write_call, route("echo"), (None,), 7) != TTHEADER_ACL
    out = WriteBuffer()
    client.write_call(route("echo"), (None,), 7, out, None, {ACL_KEY: "tok"})
    assert out.take() == TTHEADER_ACL


# ---------------------------------------------------------------- all framings on one connection

CALLS = [
    (shape, name, written(lambda out, args=args, name=name: out.write(route(name).spec.args_plan.dumps(args))))
    for shape in SHAPES
    for name, args in ARGUMENTS.items()
    if not (name == "only_here" and shape[0].startswith("ttheader"))  # the header names the other service
]


def test_every_method_in_every_framing_one_after_the_other():
    """Also all in one piece: many messages in one feed."""
    parts = [
        shaped(shape, name, ONEWAY if name == "notify" else CALL, i, body)
        for i, (shape, name, body) in enumerate(CALLS)
    ]
    for found in (feed(server(), b"".join(parts)), feed(server(), *parts)):
        assert len(found) == len(CALLS)
        for i, (request, (shape, name, _)) in enumerate(zip(found, CALLS, strict=True)):
            assert request.error is None
            assert (request.method, request.seqid, request.args) == (name, i, ARGUMENTS[name])
            assert (request.framing_name, request.strict) == shape
            assert request.size == len(parts[i])
            assert request.route is ROUTES[name.encode()]
            assert not request.fatal


MIXED = [shaped(shape, "echo", CALL, i, echo_args("hi" * i)) for i, shape in enumerate(SHAPES + SHAPES[::-1])]


def test_split_at_every_byte():
    data = b"".join(MIXED)
    whole = [facts(request) for request in feed(server(), data)]
    assert len(whole) == len(MIXED)
    for cut in range(len(data) + 1):
        assert [facts(request) for request in feed(server(), data[:cut], data[cut:])] == whole


def test_byte_by_byte():
    data = b"".join(MIXED)
    parts = [data[i : i + 1] for i in range(len(data))]
    assert [facts(r) for r in feed(server(), *parts)] == [facts(r) for r in feed(server(), data)]


@SHAPE
def test_a_message_is_there_when_its_last_byte_is(shape):
    data = shaped(shape, "ping", CALL, 5, b"\0")
    protocol, buffer = server(), ReadBuffer()
    for i in range(len(data)):
        assert protocol.feed(buffer) == []
        buffer.write(data[i : i + 1])
    assert [request.method for request in protocol.feed(buffer)] == ["ping"]
    assert len(buffer) == 0


def test_replies_in_every_framing_split_at_every_byte():
    """A client understands a reply in another framing than it asked in, as Kitex does."""
    parts = [shaped(shape, "echo", REPLY, i, echo_result("hi" * i)) for i, shape in enumerate(SHAPES)]
    data = b"".join(parts)
    for cut in range(len(data) + 1):
        client = waiting(*(("echo", i) for i in range(len(SHAPES))))
        found = feed(client, data[:cut], data[cut:])
        assert [(r.seqid, r.value, r.error, r.size) for r in found] == [
            (i, Message(message="hi" * i), None, len(parts[i])) for i in range(len(SHAPES))
        ]


@SHAPE
@pytest.mark.parametrize("name", RESULTS)
def test_answers_in_the_framing_and_head_of_the_request(shape, name):
    body = route(name).spec.args_plan.dumps(ARGUMENTS[name])
    data = shaped(shape, name, CALL, -7, body)
    if name == "only_here":
        data = data.replace(b"\0\5Hello", b"\0\5Other")
    request = receive(data)
    reply = written(server().write_reply, request, RESULTS[name])
    result = route(name).spec.result_plan.dumps(RESULTS[name])
    if shape[0].startswith("ttheader"):
        header, rest = loads(reply)
        assert header == Header(7, 0, {IntKey.MSG_TYPE: "2"}, {})
        expected = thrift(name, REPLY, -7, result)
        assert rest == (framed(expected) if shape[0].endswith("framed") else expected)
    else:
        assert reply == shaped(shape, name, REPLY, -7, result)
    found = answer(reply, name, -7, shape[0])
    assert (found.value, found.error) == (RESULTS[name], None)


@FRAMING
@pytest.mark.parametrize("name", ARGUMENTS)
def test_calls_round_trip(framing, name):
    client = ThriftClientProtocol(framing)
    out = WriteBuffer()
    client.write_call(route(name), ARGUMENTS[name], 2**31 - 1, out, {12: "500"}, {"k": "v"})
    request = receive(out.take())
    assert (request.method, request.framing_name, request.args) == (name, framing, ARGUMENTS[name])
    assert request.type == (ONEWAY if name == "notify" else CALL)
    assert request.seqid == 2**31 - 1
    if framing.startswith("ttheader"):
        assert request.header == Header(2**31 - 1, 0, {12: "500"}, {"k": "v"})


# ---------------------------------------------------------------- server: errors that are answered


@SHAPE
@pytest.mark.parametrize("type", [CALL, ONEWAY])
def test_unknown_method(shape, type):
    """Exception 1 with the caller's sequence id, and the next message is understood."""
    request, after = feed(server(), shaped(shape, "nope", type, 41, echo_args()) + NEXT)
    assert builtin_type(request.error) is UnknownMethod
    service = "Hello" if shape[0].startswith("ttheader") else "Hello, Other"
    assert request.error.message == f"unknown method nope (service {service})"
    assert (request.error.type, request.seqid, request.type, request.fatal) == (1, 41, type, False)
    assert request.route is None
    assert request.args is None
    assert after.method == "ping"
    failure = written_failure(request)
    found = answer(failure, seqid=41)
    assert builtin_type(found.error) is UnknownMethod
    assert found.seqid == 41


def builtin_type(value: object) -> type:
    return type(value)


def written_failure(request: Request, strings: dict[str, str] | None = None) -> bytes:
    assert request.error is not None
    out = WriteBuffer()
    server().write_failure(request, request.error.type, request.error.message, out, strings)
    return out.take()


@pytest.mark.parametrize("name", [b"\xff\xfe\x00", b"\0", b"a" * 4096, "é中".encode(), b"Echo", b"echo\0"])
def test_any_bytes_may_be_a_name_nobody_knows(name):
    request, after = feed(server(), framed(thrift(name, CALL, 41, b"\0")) + NEXT)
    assert request.name == name
    assert request.error.type == ApplicationErrorType.UNKNOWN_METHOD
    assert after.method == "ping"
    assert thrift(name, EXCEPTION, 41, b"") in written_failure(request)


@FRAMING
def test_a_oneway_method_called_as_a_call_and_the_other_way_round(framing):
    """The IDL decides whether an answer is due; the message type does not disturb."""
    body = route("notify").spec.args_plan.dumps(("news",))
    first, second = feed(
        server(),
        FRAMINGS[framing](thrift("notify", CALL, 1, body)) + FRAMINGS[framing](thrift("ping", ONEWAY, 2, b"\0")),
    )
    assert (first.route.oneway, first.type, first.args) == (True, CALL, ("news",))
    assert (second.route.oneway, second.type, second.args) == (False, ONEWAY, ())


def named(service: str | bytes, message: bytes) -> bytes:
    return ttheader(message, pairs(1, [("isn", service)]))


def test_a_service_is_found_by_its_name():
    assert receive(named("Other", thrift("only_here", CALL, 1, b"\0"))).route is SERVICES["Other"][b"only_here"]


def test_unknown_service():
    request, after = feed(server(), named("Nobody", thrift("nope", CALL, 41, echo_args())) + NEXT)
    assert type(request.error) is UnknownService
    assert (request.error.type, request.seqid, request.fatal) == (20, 41, False)
    assert request.error.message == "unknown service Nobody, method nope"
    assert after.method == "ping"


def test_an_unknown_service_name_means_the_only_service_that_has_the_method():
    """As Kitex routes; where two services have the method, the name decides or nobody is called."""
    only = named("Nobody", thrift("only_here", CALL, 1, b"\0"))
    assert receive(only).route is SERVICES["Other"][b"only_here"]
    routes, services = routes_of(HELLO, stub.ServiceSpec("Twin", tuple(HELLO.methods.values())))
    protocol = ThriftServerProtocol(routes, services)
    [request] = feed(protocol, named("Nobody", thrift("echo", CALL, 1, echo_args())))
    assert (request.error.type, request.error.message) == (20, "unknown service Nobody, method echo")
    [request] = feed(protocol, named("Twin", thrift("echo", CALL, 1, echo_args())))
    assert request.route is services["Twin"][b"echo"]


def test_a_server_that_wants_a_service_name():
    protocol = ThriftServerProtocol({}, SERVICES)
    [request] = feed(protocol, framed(thrift("echo", CALL, 1, echo_args())))
    assert request.error.type == 20
    assert "names no service" in request.error.message
    assert feed(protocol, named("Hello", thrift("echo", CALL, 1, echo_args())))[0].error is None


def test_a_service_does_not_serve_the_methods_of_another():
    request = receive(named("Hello", thrift("only_here", CALL, 41, b"\0")))
    assert type(request.error) is UnknownMethod
    assert request.error.message == "unknown method only_here (service Hello)"


def test_a_service_name_that_is_not_utf8():
    request = receive(named(b"\xff\xfe", thrift("nope", CALL, 41, echo_args())))
    assert request.error.type == 20
    assert loads(written_failure(request))[0].seqid == 7


def test_without_a_table_of_services_names_do_not_matter():
    protocol = ThriftServerProtocol(ROUTES)
    assert feed(protocol, named("Nobody", thrift("echo", CALL, 1, echo_args())))[0].error is None
    assert feed(protocol, named("Nobody", thrift("nope", CALL, 1, echo_args())))[0].error.type == 1


def test_two_services_with_a_method_of_one_name():
    one = routes_of(HELLO)[1]["Hello"]
    two = routes_of(HELLO)[1]["Hello"]
    protocol = ThriftServerProtocol(one, {"One": one, "Two": two})
    message = thrift("echo", CALL, 1, echo_args())
    found = feed(protocol, named("Two", message) + framed(message) + named("One", message))
    assert [request.route for request in found] == [two[b"echo"], one[b"echo"], one[b"echo"]]


def test_the_route_of_the_last_call_is_not_taken_for_another():
    """Names of one length, parts of names, and calls of a named service between them."""
    names = [b"echo", b"nope", b"echo", b"ech", b"echo", b"echo2", b"ping", b"echo", b"ping"]
    protocol = server()
    data = b"".join(framed(thrift(name, CALL, 1, echo_args())) for name in names)
    assert [request.route for request in feed(protocol, data)] == [ROUTES.get(name) for name in names]
    between = framed(thrift("ping", CALL, 1, b"\0")) + named("Other", thrift("ping", CALL, 1, b"\0"))
    assert [request.route for request in feed(protocol, between * 2)] == [ROUTES[b"ping"], None] * 2


@SHAPE
def test_a_heartbeat_is_neither_a_call_nor_a_mistake(shape):
    request, after = feed(server(), shaped(shape, "heartbeat", 6, 41, b"\0") + NEXT)
    assert (request.error, request.args, request.type, request.seqid) == (None, None, 6, 41)
    assert after.method == "ping"


@SHAPE
@pytest.mark.parametrize("type", [0, REPLY, EXCEPTION, 5, 127])
def test_a_server_takes_calls_only(shape, type):
    request, after = feed(server(), shaped(shape, "echo", type, 41, echo_args()) + NEXT)
    assert request.error.type == ApplicationErrorType.INVALID_MESSAGE_TYPE
    assert (request.seqid, request.type, request.fatal, request.args) == (41, type, False, None)
    assert after.method == "ping"


BAD_ARGS = {
    "truncated": field(12, 1, field(11, 1, text("hi"))),
    "string beyond the end": field(12, 1, field(11, 1, b"\0\0\0\x09hi")),
    "negative string": field(12, 1, field(11, 1, b"\xff\xff\xff\xffhi")) + b"\0\0",
    "invalid utf-8": field(12, 1, field(11, 1, text(b"\xff"))) + b"\0\0",
    "unknown type": field(12, 1, field(99, 1, b"")) + b"\0\0",
    "empty": b"",
}


# An old head is taken for one only when something follows it, so that pair is left out.
@pytest.mark.parametrize(
    ("shape", "body"),
    [
        pytest.param(shape, body, id=f"{shape[0]}{'' if shape[1] else '-old'}-{name}")
        for shape in SHAPES
        for name, body in BAD_ARGS.items()
        if shape[0] != "buffered" and (shape[1] or body)
    ],
)
def test_arguments_that_cannot_be_read(shape, body):
    """Exception 7 that names the method; the frame says where the next message begins."""
    request, after = feed(server(), shaped(shape, "echo", CALL, 41, body) + NEXT)
    assert type(request.error) is ApplicationError
    assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
    assert request.error.message.startswith("echo: echo")
    assert (request.seqid, request.fatal, request.args) == (41, False, None)
    assert request.route is route("echo")
    assert after.method == "ping"


def test_buffered_arguments_that_cannot_be_read_but_whose_end_is_known():
    body = BAD_ARGS["invalid utf-8"]
    request, after = feed(server(), thrift("echo", CALL, 41, body) + NEXT)
    assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
    assert "message: invalid UTF-8 at byte 0" in request.error.message
    assert not request.fatal
    assert after.method == "ping"


def test_a_required_argument_that_is_missing():
    request = receive(framed(thrift("near", CALL, 1, b"\0")))
    assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
    assert "near.data: the required field is missing" in request.error.message


@pytest.mark.parametrize("body", [BAD_ARGS["negative string"], BAD_ARGS["unknown type"]])
@pytest.mark.parametrize("type", [CALL, ONEWAY])
def test_a_buffered_message_that_breaks_in_the_middle(type, body):
    """Answered, and then the connection must end: where the next message begins is not known."""
    data = thrift("echo", type, 41, body)
    [request] = feed(server(), data + NEXT)
    assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
    assert (request.method, request.type, request.seqid, request.fatal) == ("echo", type, 41, True)
    assert (request.framing_name, request.strict) == ("buffered", True)
    assert answer(written_failure(request), seqid=41).error.type == ApplicationErrorType.PROTOCOL_ERROR


def test_a_buffered_message_that_breaks_after_it_began_to_trickle():
    data = thrift("echo", CALL, 41, field(8, 9, bytes(4)) + BAD_ARGS["unknown type"])
    for cut in range(1, len(data) - 2):
        [request] = feed(server(), data[:cut], data[cut:])
        assert (request.method, request.seqid, request.fatal) == ("echo", 41, True)


def test_an_old_head_that_breaks_in_the_middle_is_not_answered():
    assert kind_of(thrift("echo", CALL, 1, BAD_ARGS["unknown type"], strict=False)) is ProtocolErrorKind.INVALID_DATA


# ---------------------------------------------------------------- server: what ends a connection


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_bytes_are_refused(name):
    data, kind = REFUSED[name]
    assert kind_of(data) is kind


@pytest.mark.parametrize("name", ANSWERED)
def test_hostile_messages_are_answered(name):
    data, number, fatal = ANSWERED[name]
    request, *more = feed(server(), data + NEXT)
    assert request.error.type == number
    assert request.fatal == fatal
    assert [r.method for r in more] == ([] if fatal else ["ping"])


@pytest.mark.parametrize("name", [*REFUSED, *ANSWERED])
def test_hostile_bytes_to_a_client(name):
    """It has one call under way. Its protocol refuses; or it has a Reply, which then holds an error."""
    data = (REFUSED.get(name) or ANSWERED[name])[0]
    try:
        found = feed(waiting(("echo", 1)), data)
    except ProtocolError:
        return
    assert all(isinstance(reply, Reply) and reply.error is not None for reply in found)


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize("start", [bytes(8), b"\x80\x01\x00\x01\0\0\0\1"])
def test_fewer_than_eight_bytes_decide_nothing(size, start):
    assert server().feed(buffer_with(start[:size])) == []


@pytest.mark.parametrize("size", range(4, 8))
def test_four_bytes_that_nothing_can_begin_with_are_enough(size):
    # A TLS server answers a Thrift client with an alert of seven bytes and waits.
    with pytest.raises(ProtocolError, match="looks like TLS"):
        server().feed(buffer_with(b"\x15\x03\x01\x00\x02\x02\x46"[:size]))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request"),
        (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP answer"),
        (b"PRI * HTTP/2.0\r\n\r\n", "HTTP/2"),
        (b"PROXY TCP4 127.0.0.1", "the PROXY protocol"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS"),
    ],
)
def test_a_stranger_is_called_by_its_name(data, name):
    with pytest.raises(ProtocolError, match=f"looks like {name}"):
        server().feed(buffer_with(data))


def buffer_with(data: bytes) -> ReadBuffer:
    buffer = ReadBuffer()
    buffer.write(data)
    return buffer


@SHAPE
def test_a_message_without_a_name(shape):
    if shape == ("buffered", False):
        data = b"\0\0\0\0\x01\0\0\0\x05\0"  # looks like nothing at all
    else:
        data = shaped(shape, b"", CALL, 5, b"\0")
    with pytest.raises(ProtocolError):
        feed(server(), data + b"\0" * 16)


@SHAPE
@pytest.mark.parametrize("size", [4097, 1 << 20])
def test_a_name_that_is_too_long(shape, size):
    with pytest.raises(ProtocolError):
        feed(server(), shaped(shape, b"a" * size, CALL, 5, b"\0"))


@SHAPE
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_max_message(shape, extra):
    data = shaped(shape, "echo", CALL, 5, echo_args("x" * 1000))
    counted = len(data) - (4 if shape[0] != "buffered" else 0)
    if extra <= 0:
        assert receive(data, counted - extra).error is None
        return
    protocol = server(counted - extra)
    if shape[1] and shape[0] in ("buffered", "framed"):
        [request] = feed(protocol, data)
        assert request.fatal
        assert request.error.type == ApplicationErrorType.PROTOCOL_ERROR
        assert f"limit of {counted - extra}" in request.error.message
    else:
        with pytest.raises(ProtocolError, match=f"limit of {counted - extra}") as caught:
            feed(protocol, data)
        assert caught.value.kind is ProtocolErrorKind.SIZE_LIMIT


@pytest.mark.parametrize("limit", [2**31 - 1, 2**31, 2**32, 2**40])
def test_a_limit_beyond_what_a_length_can_say(limit):
    protocol = ThriftServerProtocol(ROUTES, SERVICES, limit)
    assert feed(protocol, b"".join(MIXED))[-1].error is None
    [request] = feed(protocol, b"\xff\xff\xff\xfe" + thrift("echo", CALL, 1, echo_args()))
    assert request.fatal
    assert "negative length -2" in request.error.message


def test_messages_before_a_broken_one_are_not_lost():
    protocol, buffer = server(), buffer_with(NEXT + NEXT + b"\xff" * 20)
    assert [request.method for request in protocol.feed(buffer)] == ["ping", "ping"]
    with pytest.raises(ProtocolError):
        protocol.feed(buffer)


@pytest.mark.parametrize(
    "packet",
    [
        ttheader(b""),
        ttheader(b"\x80\x01\x00"),
        ttheader(thrift("echo", CALL, 1, b"")[:-3]),
        ttheader(b"\0" * 20),
        ttheader(b"\xff" * 20),
        ttheader(struct.pack("!I", 2**31 - 1) + thrift("echo", CALL, 1, echo_args())),
        ttheader(struct.pack("!I", 31) + thrift("echo", CALL, 1, echo_args())),
        ttheader(struct.pack("!I", 5) + thrift("echo", CALL, 1, echo_args())),
        ttheader(b"\x90\x01\x00\x01\x00\x00\x00\x04Echo\x00\x00\x00\x07\x0a\x02hi"),
        ttheader(ttheader(thrift("echo", CALL, 1, echo_args()))),
        ttheader(thrift("echo", CALL, 1, echo_args()), length=4),
        ttheader(thrift("echo", CALL, 1, echo_args()), words=0),
        ttheader(thrift("echo", CALL, 1, echo_args()), protocol=1),
        ttheader(thrift("echo", CALL, 1, echo_args()), b"\x55"),
    ],
    ids=itertools.count(),
)
def test_ttheader_packets_that_are_refused(packet):
    """Without an answer: Kitex gives none either."""
    for protocol in (server(), waiting(("echo", 1), framing="ttheader")):
        with pytest.raises(ProtocolError):
            feed(protocol, packet)


# ---------------------------------------------------------------- server: writing


@SHAPE
def test_declared_exceptions(shape):
    request = receive(shaped(shape, "echo", CALL, 5, echo_args()))
    out = WriteBuffer()
    assert server().write_declared(request, NotFound(message="gone", key=4), out) is True
    data = out.take()
    assert thrift("echo", REPLY, 5, b"", strict=shape[1]) in data
    found = answer(data, seqid=5)
    assert found.error == NotFound(message="gone", key=4)
    assert found.value is None


@FRAMING
def test_exceptions_that_are_not_declared_write_nothing(framing):
    request = receive(FRAMINGS[framing](thrift("ping", CALL, 5, b"\0")))
    out = WriteBuffer()
    out.write(b"before")
    assert server().write_declared(request, NotFound(), out) is False
    assert server().write_declared(request, ValueError("x"), out) is False
    assert bytes(out) == b"before"


@FRAMING
def test_an_answer_that_does_not_fit_leaves_the_buffer_as_it_was(framing):
    echo = receive(FRAMINGS[framing](thrift("echo", CALL, 5, echo_args())))
    out = WriteBuffer()
    out.write(b"before")
    for value in (5, None, Message(message=5)):  # type: ignore[arg-type]
        with pytest.raises(EncodeError):
            server().write_reply(echo, value, out)
    with pytest.raises(EncodeError):
        server().write_declared(echo, NotFound(message="m", key=2**64), out)
    if framing.startswith("ttheader"):
        for strings in ({"k": "v" * 65536}, {"biz-message": "\ud800"}):
            for write in (
                lambda s=strings: server().write_reply(echo, Message(), out, s),
                lambda s=strings: server().write_declared(echo, NotFound(), out, s),
                lambda s=strings: server().write_failure(echo, 6, "m", out, s),
                lambda s=strings: server().write_empty(echo, out, s),
            ):
                with pytest.raises(EncodeError):
                    write()
    assert bytes(out) == b"before"
    server().write_reply(echo, Message(message="hi"), out)
    assert answer(out.take()[6:], seqid=5).value == Message(message="hi")


def test_a_failure_has_exactly_two_fields_in_order():
    """Kitex's reader loses its place on any other."""
    out = WriteBuffer()
    server().write_failure(receive(FRAMED_CALL), -5, "café \ud800", out)
    assert out.take() == framed(thrift("echo", EXCEPTION, 1, application_exception("café ?", -5)))


def test_requests_that_cannot_be_answered_so():
    """A mistake of the caller's is an exception, not a crash."""
    out = WriteBuffer()
    unknown = receive(framed(thrift("nope", CALL, 1, b"\0")))
    for write in (server().write_reply, server().write_declared):
        with pytest.raises(UsageError, match="no such method"):
            write(unknown, None, out)
    blank = Request()
    for use in (
        lambda: server().write_reply(blank, None, out),
        lambda: server().write_declared(blank, None, out),
        lambda: server().write_failure(blank, 6, "m", out),
        lambda: server().write_empty(blank, out),
    ):
        with pytest.raises(UsageError):
            use()
    with pytest.raises(TypeError):
        server().write_failure(unknown, 6, None, out)  # type: ignore[arg-type]
    assert len(out) == 0


def test_half_made_objects_do_no_harm():
    for text_of in (repr, str):
        assert "Reply" in text_of(Reply())
        with pytest.raises((AttributeError, TypeError)):
            text_of(Request())
    with pytest.raises(TypeError):
        Route.__new__(Route)
    with pytest.raises(AttributeError):
        Route(5)  # type: ignore[arg-type]
    bare = ThriftServerProtocol.__new__(ThriftServerProtocol)
    with pytest.raises((AttributeError, TypeError)):
        bare.feed(buffer_with(FRAMED_CALL))
    client = ThriftClientProtocol.__new__(ThriftClientProtocol)
    with pytest.raises((AttributeError, TypeError)):
        client.write_call(route("echo"), ARGUMENTS["echo"], 1, WriteBuffer())
    with pytest.raises((AttributeError, TypeError)):
        client.feed(buffer_with(FRAMED_REPLY))
    wrong = ThriftServerProtocol({}, {"Hello": [1]})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        wrong.feed(buffer_with(TTHEADER_CALL))


# ---------------------------------------------------------------- client


def test_replies_may_come_in_any_order():
    client = waiting(("echo", 1), ("ping", 2), ("total", 3))
    data = (
        framed(thrift("total", REPLY, 3, field(10, 0, struct.pack("!q", 2)) + b"\0"))
        + framed(thrift("echo", REPLY, 1, echo_result()))
        + framed(thrift("ping", REPLY, 2, b"\0"))
    )
    assert [(r.seqid, r.value) for r in feed(client, data)] == [(3, 2), (1, Message(message="hi")), (2, None)]


def test_oneway_calls_wait_for_nothing():
    client = waiting(("notify", 1))
    with pytest.raises(ProtocolError, match="no call waits for"):
        feed(client, framed(thrift("notify", REPLY, 1, b"\0")))


APPLICATION_ERRORS = {
    "in order": application_exception("boom", 6),
    "type first": field(8, 2, struct.pack("!i", 6)) + field(11, 1, text("boom")) + b"\0",
    "unknown fields": field(15, 7, b"\x0b" + struct.pack("!i", 2) + text("a") + text("b"))
    + field(11, 1, text("boom"))
    + field(12, 9, message_struct("x"))
    + field(8, 2, struct.pack("!i", 6))
    + field(13, -1, b"\x08\x0f" + struct.pack("!iiBi", 1, 5, 2, 1) + b"\1")
    + b"\0",
    "repeated": application_exception("first", 1)[:-1] + application_exception("boom", 6),
    "other types": field(8, 1, bytes(4)) + field(11, 2, text("x")) + application_exception("boom", 6),
    "something behind": application_exception("boom", 6) + b"more",
}


@FRAMING
@pytest.mark.parametrize("body", APPLICATION_ERRORS.values(), ids=APPLICATION_ERRORS)
def test_application_exceptions(framing, body):
    if framing == "buffered" and body.endswith(b"more"):
        body = body[:-4]
    reply = answer(FRAMINGS[framing](thrift("echo", EXCEPTION, 1, body)))
    assert type(reply.error) is ApplicationError
    assert (reply.error.message, reply.error.type) == ("boom", 6)


def test_an_application_exception_may_lack_everything():
    error = answer(framed(thrift("echo", EXCEPTION, 1, b"\0"))).error
    assert (error.message, error.type) == ("", 0)


def test_an_application_exception_with_a_text_that_is_not_utf8():
    error = answer(framed(thrift("echo", EXCEPTION, 1, field(11, 1, text(b"a\xffb")) + b"\0"))).error
    assert error.message == "a\ufffdb"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x0b",
        b"\x0b\x00",
        b"\x0b\x00\x01",
        b"\x0b\x00\x01\x00\x00\x00",
        field(11, 1, text("boom")),
        field(11, 1, struct.pack("!i", 5) + b"boom"),
        field(11, 1, struct.pack("!i", -1) + b"boom\0"),
        field(11, 1, struct.pack("!i", 2**31 - 1) + b"boom\0"),
        field(8, 2, b"\0\0\0"),
        field(99, 3, b"") + b"\0",
        field(15, 3, b"\x0c" + struct.pack("!i", 2**31 - 1)) + b"\0",
        field(15, 3, b"\x02" + struct.pack("!i", -1)) + b"\0",
        field(12, 3, b"") * 10_000 + b"\0" * 10_001,
    ],
    ids=itertools.count(),
)
def test_application_exceptions_that_cannot_be_read(body):
    """The call fails, and the frame says where the next answer begins."""
    client = waiting(("echo", 1), ("ping", 2))
    first, second = feed(client, framed(thrift("echo", EXCEPTION, 1, body)) + framed(thrift("ping", REPLY, 2, b"\0")))
    assert type(first.error) is ProtocolError
    assert (second.seqid, second.error) == (2, None)


def test_an_exception_with_another_sequence_id_belongs_to_the_only_call():
    reply = answer(framed(thrift("echo", EXCEPTION, 0, application_exception("boom", 6))), seqid=5)
    assert (reply.seqid, reply.error.message) == (5, "boom")


def test_and_to_nobody_when_there_are_several():
    with pytest.raises(ProtocolError, match="sequence id 0"):
        feed(waiting(("echo", 5), ("echo", 6)), framed(thrift("echo", EXCEPTION, 0, application_exception("boom", 6))))


@pytest.mark.parametrize("seqid", [0, 2, -1])
def test_a_reply_with_another_sequence_id(seqid):
    with pytest.raises(ProtocolError, match=f"sequence id {seqid}, which no call waits for"):
        feed(waiting(("echo", 1)), framed(thrift("echo", REPLY, seqid, echo_result())))


def test_a_second_answer_to_one_call():
    client, data = waiting(("echo", 1)), framed(thrift("echo", REPLY, 1, echo_result()))
    assert len(feed(client, data)) == 1
    with pytest.raises(ProtocolError, match="no call waits for"):
        feed(client, data)


def test_an_answer_to_a_call_that_was_given_up():
    client = waiting(("echo", 1))
    client.forget(1)
    client.forget(77)
    with pytest.raises(ProtocolError, match="no call waits for"):
        feed(client, framed(thrift("echo", REPLY, 1, echo_result())))


@pytest.mark.parametrize("name", [b"ech", b"echo2", b"ping", b"\xff\xff"])
def test_a_reply_for_another_method(name):
    reply = answer(framed(thrift(name, REPLY, 1, echo_result())))
    assert type(reply.error) is ApplicationError
    assert reply.error.type == ApplicationErrorType.WRONG_METHOD_NAME
    assert reply.error.message.endswith("not echo")


def test_an_exception_may_name_another_method():
    """Kitex compares the names of replies only."""
    assert answer(framed(thrift("other", EXCEPTION, 1, application_exception("boom", 6)))).error.message == "boom"


@pytest.mark.parametrize("type", [0, CALL, ONEWAY, 5, 77])
def test_a_client_takes_answers_only(type):
    with pytest.raises(ProtocolError, match=f"not messages of type {type}"):
        feed(waiting(("echo", 1)), framed(thrift("echo", type, 1, echo_result())))


@SHAPE
def test_a_missing_result(shape):
    error = answer(shaped(shape, "echo", REPLY, 1, b"\0")).error
    assert type(error) is ApplicationError
    assert error.type == ApplicationErrorType.MISSING_RESULT


def test_a_result_that_cannot_be_read_leaves_the_connection_in_step():
    client = waiting(("echo", 1), ("ping", 2))
    first, second = feed(
        client,
        framed(thrift("echo", REPLY, 1, field(12, 0, field(11, 1, b"\xff\xff\xff\xff"))))
        + framed(thrift("ping", REPLY, 2, b"\0")),
    )
    assert type(first.error) is ProtocolError
    assert "negative length" in first.error.message
    assert (second.value, second.error) == (None, None)


def test_a_result_with_unknown_fields():
    body = field(15, 9, b"\x08" + struct.pack("!ii", 1, 5)) + echo_result()
    assert answer(framed(thrift("echo", REPLY, 1, body))).value == Message(message="hi")


def business(**strings: str | bytes) -> Reply:
    names = {"status": "biz-status", "message": "biz-message", "extra": "biz-extra"}
    packet = ttheader(thrift("ping", REPLY, 1, b"\0"), pairs(1, [(names[k], v) for k, v in strings.items()]))
    return answer(packet, "ping", framing="ttheader")


@pytest.mark.parametrize(
    ("status", "number"),
    [("1", 1), ("-1", -1), ("+5", 5), ("007", 7), ("2147483647", 2**31 - 1), ("-2147483648", -(2**31))],
)
def test_business_status(status, number):
    error = business(status=status, message="no", extra='{"a": "1", "b": "é"}').error
    assert type(error) is BusinessError
    assert (error.status, error.message, error.extra) == (number, "no", {"a": "1", "b": "é"})


def test_business_status_alone():
    error = business(status="5").error
    assert (error.message, error.extra) == ("", {})
    assert business(status="5", extra="").error.extra == {}


@pytest.mark.parametrize("status", ["0", "00", "+0", "-0", "0000000000"])
def test_business_status_zero_is_success(status):
    reply = business(status=status, message="ok", extra="not read")
    assert (reply.value, reply.error) == (None, None)


@pytest.mark.parametrize(
    "status",
    ["", " 5", "5 ", "1_0", "٣", "0x5", "5.0", "nan", "+", "--5", "2147483648", "-2147483649", "9" * 5000, b"\xff"],
)
def test_business_status_that_is_not_a_number(status):
    error = business(status=status).error
    assert type(error) is ProtocolError
    assert "business status" in error.message
    assert len(error.message) < 200


@pytest.mark.parametrize(
    "extra", ["[]", '"text"', "5", "null", "{", '{"a"', "[" * 60_000, '{"a":' * 10_000, "9" * 5000, b"\xff", "{}{}"]
)
def test_business_extra_that_is_not_an_object(extra):
    error = business(status="5", extra=extra).error
    assert type(error) is ProtocolError
    assert "business status" in error.message


def test_business_extra_keeps_what_is_not_a_string_as_json():
    assert business(status="5", extra='{"a": 1, "b": [true, null]}').error.extra == {"a": "1", "b": "[true, null]"}


def test_an_exception_beats_a_business_status():
    packet = ttheader(thrift("echo", EXCEPTION, 1, application_exception("boom", 6)), pairs(1, [("biz-status", "5")]))
    assert answer(packet).error.message == "boom"


def test_business_round_trip():
    request = receive(named("Hello", thrift("echo", CALL, 1, echo_args())))
    strings = {"biz-status": "-7", "biz-message": "nein", "biz-extra": json.dumps({"k": "v"})}
    out = WriteBuffer()
    server().write_empty(request, out, strings)
    error = answer(out.take()).error
    assert (error.status, error.message, error.extra) == (-7, "nein", {"k": "v"})


@FRAMING
@pytest.mark.parametrize("args", [(), (5,), (Message(), 1), (Message(message=b"x"),)], ids=repr)  # type: ignore[arg-type]
def test_a_call_that_does_not_fit_leaves_no_trace(framing, args):
    client = ThriftClientProtocol(framing)
    out = WriteBuffer()
    out.write(b"before")
    with pytest.raises(EncodeError):
        client.write_call(route("echo"), args, 1, out)
    assert bytes(out) == b"before"
    with pytest.raises(ProtocolError, match="no call waits for"):
        feed(client, FRAMED_REPLY)


@FRAMING
def test_a_call_beyond_the_limit(framing):
    out = WriteBuffer()
    args = (Message(message="x" * 100),)
    ThriftClientProtocol(framing).write_call(route("echo"), args, 1, out)
    size = len(out.take())
    ThriftClientProtocol(framing, size).write_call(route("echo"), args, 1, out)
    out.take()
    client = ThriftClientProtocol(framing, size - 1)
    with pytest.raises(EncodeError, match=rf"echo: the call takes {size} bytes, more than the limit of {size - 1}"):
        client.write_call(route("echo"), args, 1, out)
    assert len(out) == 0
    with pytest.raises(ProtocolError):
        feed(client, FRAMED_REPLY)


def test_a_reply_beyond_the_limit():
    client = ThriftClientProtocol("framed", 100)
    client.write_call(route("echo"), ARGUMENTS["echo"], 1, WriteBuffer())
    with pytest.raises(ProtocolError, match="limit of 100"):
        feed(client, framed(thrift("echo", REPLY, 1, echo_result("x" * 100))))


def test_an_unknown_framing():
    with pytest.raises(ValueError, match="choose one of buffered, framed, ttheader, ttheader-framed"):
        ThriftClientProtocol("header")


def test_infos_are_for_ttheader_only():
    out = WriteBuffer()
    ThriftClientProtocol("framed").write_call(route("ping"), (), 1, out, {1: "x"}, {"k": "v"})
    assert out.take() == framed(thrift("ping", CALL, 1, b"\0"))


# ---------------------------------------------------------------- about


def test_what_they_say_of_themselves():
    request = receive(FRAMED_CALL)
    assert repr(request) == "<Request echo seq 1 framed>"
    assert repr(request.route) == "<Route echo>"
    assert repr(answer(FRAMED_REPLY)) == "<Reply seq 1 Message(message='hi')>"
    assert "unknown service" in repr(answer(FRAMED_UNKNOWN))
    assert request.route.spec is HELLO.methods["echo"]
    assert (request.route.name, request.route.target) == (b"echo", None)


def test_facts_of_a_request_cannot_be_changed():
    request = receive(FRAMED_CALL)
    for name in ("route", "name", "args", "error", "seqid"):
        with pytest.raises(AttributeError):
            setattr(request, name, None)


def test_values_outlive_the_buffer_they_came_from():
    buffer = buffer_with(framed(thrift("near", CALL, 1, route("near").spec.args_plan.dumps(ARGUMENTS["near"]))))
    [request] = server().feed(buffer)
    buffer.write(b"\xee" * 100_000)
    del buffer
    assert request.args == ({Point(x=1, y=2), Point(x=3)}, b"\xff\x00")


# ---------------------------------------------------------------- nothing is allocated by what is only said

FRUGAL = """
import resource, sys, tracemalloc
from tests.codec.hostile import ANSWERED, REFUSED
from tests.codec.thrift_wire import server, waiting
from codec.buffer import ReadBuffer
from codec.errors import ProtocolError

ROOM = 64 << 20
cases = [data for data, *_ in [*REFUSED.values(), *ANSWERED.values()]]

def all_of_them():
    for data in cases:
        for protocol in (server(), waiting(("echo", 1))):
            buffer = ReadBuffer()
            try:
                buffer.write(data)
                protocol.feed(buffer)
            except ProtocolError:
                pass

all_of_them()  # what is imported and cached is there now
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
tracemalloc.start()
all_of_them()
print(len(cases), tracemalloc.get_traced_memory()[1])
"""


def test_nothing_is_allocated_by_a_declared_size():
    """With 64 MiB of address space left, every hostile message is still just an error."""
    result = subprocess.run([sys.executable, "-c", FRUGAL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    cases, peak = map(int, result.stdout.split())
    assert cases == len(REFUSED) + len(ANSWERED)
    assert peak < 4 << 20

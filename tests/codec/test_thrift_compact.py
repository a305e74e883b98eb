"""Messages in the compact protocol, in every framing, with Apache's TCompactProtocol as the second opinion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.Thrift import TApplicationException
from thrift.transport.TTransport import TMemoryBuffer

from codec.buffer import WriteBuffer
from codec.errors import ApplicationError, ProtocolError, ProtocolErrorKind
from codec.thrift import Request, ThriftClientProtocol
from tests.codec.schemas import NotFound
from tests.codec.thrift_wire import (
    ARGUMENTS,
    CALL,
    EXCEPTION,
    FRAMINGS,
    REPLY,
    RESULTS,
    Message,
    answer,
    echo_args,
    feed,
    framed,
    receive,
    route,
    server,
    thrift,
    ttheader,
    waiting,
)

ECHO = bytes.fromhex("82 21 01 04 6563686f 1c 18 02 6869 00 00")


def apache(name: str, type: int, seqid: int, body: bytes = b"") -> bytes:
    """A message whose head Apache wrote."""
    transport = TMemoryBuffer()
    TCompactProtocol(transport).writeMessageBegin(name, type, seqid)
    return bytes(transport.getvalue()) + body


def call(name: str, seqid: int = 1) -> bytes:
    return apache(name, CALL, seqid, route(name).spec.args_plan.dumps(ARGUMENTS[name], True))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "only_here"])
def test_calls_in_every_framing(framing: str, name: str) -> None:
    request = receive(FRAMINGS[framing](call(name, 77)))
    assert (request.method, request.type, request.seqid, request.framing_name) == (name, CALL, 77, f"{framing}-compact")
    assert request.args == ARGUMENTS[name]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_client_writes_what_a_server_reads(framing: str) -> None:
    for name, args in ARGUMENTS.items():
        client = ThriftClientProtocol(f"{framing}-compact")
        out = WriteBuffer()
        client.write_call(route(name), args, 5, out)
        request = receive(out.take())
        assert (request.args, request.framing_name) == (args, f"{framing}-compact")
        if name not in RESULTS:
            continue
        server().write_reply(request, RESULTS[name], out)
        [reply] = feed(client, out.take())
        assert (reply.seqid, reply.value, reply.error) == (5, RESULTS[name], None)


def test_bytes() -> None:
    out = WriteBuffer()
    waiting_client = ThriftClientProtocol("buffered-compact")
    waiting_client.write_call(route("echo"), (Message(message="hi"),), 1, out)
    assert out.take() == ECHO
    request = receive(ECHO)
    server().write_reply(request, Message(message="hi"), out)
    assert out.take() == bytes.fromhex("82 41 01 04 6563686f 0c 00 18 02 6869 00 00")
    server().write_failure(request, 6, "no", out)
    assert out.take() == bytes.fromhex("82 61 01 04 6563686f 18 02 6e6f 15 0c 00")
    ThriftClientProtocol("ttheader-compact").write_call(route("ping"), (), -1, out)
    assert out.take() == bytes.fromhex("0000001b 1000 0000 ffffffff 0001 02000000  82 21 ffffffff0f 04 70696e67 00")


@pytest.mark.parametrize("seqid", [0, 1, 127, 128, 2**31 - 1, -1, -(2**31)])
def test_sequence_ids(seqid: int) -> None:
    """As Apache writes them: not zigzag, negative ones as they are in 32 bits."""
    assert receive(call("ping", seqid)).seqid == seqid
    out = WriteBuffer()
    ThriftClientProtocol("buffered-compact").write_call(route("ping"), (), seqid, out)
    assert TCompactProtocol(TMemoryBuffer(out.take())).readMessageBegin()[2] & 0xFFFFFFFF == seqid & 0xFFFFFFFF


def test_exceptions_as_apache_reads_them() -> None:
    out = WriteBuffer()
    request = receive(ECHO)
    server().write_failure(request, -3, "no such luck: ключ", out)
    protocol = TCompactProtocol(TMemoryBuffer(out.take()))
    assert protocol.readMessageBegin() == ("echo", EXCEPTION, 1)
    error = TApplicationException()
    error.read(protocol)
    assert (error.type, error.message) == (-3, "no such luck: ключ")


def test_exceptions_as_apache_writes_them() -> None:
    transport = TMemoryBuffer()
    protocol = TCompactProtocol(transport)
    protocol.writeMessageBegin("echo", EXCEPTION, 1)
    TApplicationException(6, "boom").write(protocol)
    reply = answer(framed(transport.getvalue()))
    assert isinstance(reply.error, ApplicationError)
    assert (reply.error.type, reply.error.message) == (6, "boom")


def test_declared_exceptions() -> None:
    out = WriteBuffer()
    request = receive(framed(ECHO))
    assert server().write_declared(request, NotFound(message="gone", key=3), out)
    reply = answer(out.take())
    assert reply.error == NotFound(message="gone", key=3)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_in_parts(framing: str) -> None:
    """Split at every byte: the buffered form goes on where it stopped."""
    data = FRAMINGS[framing](call("tree"))
    for cut in range(1, len(data)):
        [request] = feed(server(), data[:cut], data[cut:])
        assert request.args == ARGUMENTS["tree"]
    [request] = feed(server(), *(data[at : at + 1] for at in range(len(data))))
    assert request.args == ARGUMENTS["tree"]


def test_both_protocols_on_one_connection() -> None:
    """Each message says what it is, and so does each answer."""
    wrappings: list[Callable[[bytes], bytes]] = [*FRAMINGS.values()]
    binary = thrift("echo", CALL, 1, echo_args())
    messages = [wrap(content) for wrap in wrappings for content in (ECHO, binary)]
    found: list[Any] = feed(server(), b"".join(messages))
    assert [request.framing_name for request in found] == [
        f"{name}{kind}" for name in FRAMINGS for kind in ("-compact", "")
    ]
    client = ThriftClientProtocol("framed")
    out = WriteBuffer()
    for index, request in enumerate(found):
        client.write_call(route("echo"), (Message(),), request.seqid, WriteBuffer())
        server().write_reply(request, Message(message=str(index)), out)
        [reply] = feed(client, out.take())
        assert reply.value == Message(message=str(index))


def test_a_ttheader_that_names_compact_and_carries_binary() -> None:
    """The payload tells; the header's protocol id is an opinion."""
    assert receive(ttheader(thrift("echo", CALL, 1, echo_args()), protocol=2)).framing_name == "ttheader"
    assert receive(ttheader(ECHO, protocol=0)).framing_name == "ttheader-compact"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x82\x21\x01" + b"\xff" * 5 + b"\x01", ProtocolErrorKind.SIZE_LIMIT),
        (b"\x82\x21" + b"\x80" * 9 + b"\x02", ProtocolErrorKind.INVALID_DATA),
        (b"\x82\x22\x01\x04echo\0\0\0\0", ProtocolErrorKind.BAD_VERSION),
        (framed(b"\x82\x22\x01\x04echo\0\0\0\0"), ProtocolErrorKind.BAD_VERSION),
    ],
    ids=["a name of 2^40", "a sequence id of 70 bits", "version 2", "version 2, framed"],
)
def test_heads_that_are_refused(data: bytes, kind: ProtocolErrorKind) -> None:
    with pytest.raises(ProtocolError) as caught:
        receive(data)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    "body",
    [
        b"\x19\xfc\xff\xff\xff\xff\x07",
        b"\x1b\xff\xff\xff\xff\x07\x88",
        b"\x98\xff\xff\xff\xff\x07",
        b"\x16" + b"\x80" * 10 + b"\x01",
        b"\x9c" * 600,
        b"\x2e",
    ],
    ids=["a list of 2^31-1", "a map of 2^31-1", "a string of 2^31-1", "a number of 11 bytes", "600 deep", "type 14"],
)
def test_a_buffered_message_that_claims_too_much_is_answered_and_ends_the_connection(body: bytes) -> None:
    [request] = feed(server(65536), apache("echo", CALL, 9, body) + bytes(20))
    assert isinstance(request, Request)
    assert request.fatal
    assert (request.seqid, request.framing_name, request.error.type) == (9, "buffered-compact", 7)  # type: ignore[union-attr]


def test_replies_of_the_wrong_type() -> None:
    with pytest.raises(ProtocolError):
        feed(waiting(("echo", 1)), framed(call("echo")))
    assert feed(server(), framed(apache("echo", REPLY, 1, b"\0")))[0].error.type == 2

"""What must hold for any bytes whatever; shared by the hypothesis suite and the atheris targets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import ApplicationError, EncodeError, ProtocolError
from codec.thrift import Reply, Request, ThriftClientProtocol, ThriftServerProtocol
from tests.codec.schemas import NotFound
from tests.codec.thrift_wire import ARGUMENTS, server, waiting

HEARTBEAT = 6
MAX_MESSAGE = 65536
"""Small, so that a fuzzer finds the limit."""


def server_law(data: bytes, cuts: Iterable[int]) -> list[Request]:
    """Bytes to a server are Requests, then perhaps a ProtocolError. Each Request can be answered; returns them."""
    protocol = server(MAX_MESSAGE)
    found: list[Request] = _fed(protocol, data, cuts)
    out = WriteBuffer()
    for i, request in enumerate(found):
        assert type(request) is Request
        assert 0 < len(request.name) <= 4096
        assert request.size > 0
        assert request.framing_name.removesuffix("-compact").removesuffix("-protobuf") in ("buffered", "framed", "ttheader", "ttheader-framed")
        assert (request.header is not None) == request.framing_name.startswith("ttheader")
        if request.error is None and request.type == HEARTBEAT:
            assert request.args is None
        elif request.error is None:
            assert request.route is not None
            assert request.args is not None
            assert len(request.args) == len(request.route.spec.args)
            assert not request.fatal
            _reencodes(request)
        else:
            assert isinstance(request.error, ApplicationError)
            assert request.args is None
        assert not request.fatal or i == len(found) - 1, "a message after a fatal one"
        protocol.write_failure(request, 6, "no", out)
        [reply] = waiting(("echo", request.seqid)).feed(_buffer(out.take()))
        assert isinstance(reply.error, ApplicationError)
        assert reply.error.message == "no"
        assert repr(request)
    return found


def _reencodes(request: Request) -> None:
    """What was decoded can be written again, and means the same."""
    assert request.route is not None
    assert request.args is not None
    plan = request.route.spec.args_plan
    try:
        data = plan.dumps(request.args)
    except EncodeError:
        # Something of the IDL is missing that decoding lets pass: an unknown union member, a struct that did not come.
        return
    assert plan.dumps(plan.loads(data)) == data or _has_order(request.args)


def _has_order(args: tuple[Any, ...]) -> bool:
    """Sets are written in the order of their hashes, which another set of the same members need not have."""
    return any(isinstance(arg, set) for arg in args)


def client_law(data: bytes, cuts: Iterable[int]) -> list[Reply]:
    """Bytes to a client are Replies, then perhaps a ProtocolError; returns the Replies."""
    calls = [(name, 1 + i) for i, name in enumerate(ARGUMENTS)]
    found: list[Reply] = []
    for protocol in (waiting(*calls), waiting(("echo", 1)), ThriftClientProtocol("framed")):
        replies: list[Reply] = _fed(protocol, data, cuts)
        found = found or replies
        for reply in replies:
            assert type(reply) is Reply
            assert reply.size > 0
            if reply.error is not None:
                assert isinstance(reply.error, ApplicationError | ProtocolError | NotFound) or _is_business(reply)
                assert str(reply.error) is not None
                assert reply.value is None
    return found


def _is_business(reply: Reply) -> bool:
    return reply.header is not None and "biz-status" in reply.header.strings


def _fed(protocol: ThriftServerProtocol | ThriftClientProtocol, data: bytes, cuts: Iterable[int]) -> list[Any]:
    """The messages that come out until the protocol gives up or the bytes end."""
    buffer = ReadBuffer()
    found: list[Any] = []
    at = 0
    for cut in [*cuts, len(data)]:
        buffer.write(data[at:cut])
        at = max(at, cut)
        try:
            found += protocol.feed(buffer)
        except ProtocolError as error:
            assert error.message
            return found
        if found and isinstance(found[-1], Request) and found[-1].fatal:
            return found
    return found


def _buffer(data: bytes) -> ReadBuffer:
    buffer = ReadBuffer()
    buffer.write(data)
    return buffer

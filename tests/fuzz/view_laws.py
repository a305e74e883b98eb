"""What must hold of views for any bytes whatever: they show what a copy would have held, and go on doing so when more has arrived."""

from __future__ import annotations

from typing import Any

from codec.buffer import LARGE_VALUE, ReadBuffer, WriteBuffer
from codec.errors import ProtocolError
from codec.thrift import Request, Route, ThriftClientProtocol, ThriftServerProtocol
from weego import stub


def _routes(kind: stub.Type) -> dict[bytes, Route]:
    spec = stub.MethodSpec(
        "put", args=(stub.Field(1, "data", kind), stub.Field(2, "more", stub.List(kind)), stub.Field(3, "numbers", stub.List(stub.I64))), result=None
    )
    return {b"put": Route(spec)}


VIEWS, COPIES = _routes(stub.VIEW), _routes(stub.BINARY)
NOISE = b"\xff" * 40_000


def law(data: bytes) -> None:
    """Both kinds of the same method take the same messages out of `data`, and mean the same by them."""
    seen, wanted = _fed(VIEWS, data), _fed(COPIES, data)
    assert [(each.seqid, each.error is None) for each in seen] == [(each.seqid, each.error is None) for each in wanted]
    for view, copy in zip(seen, wanted, strict=True):
        if copy.args is None:
            continue
        assert view.args is not None
        first, more, numbers = view.args
        assert (first is None) == (copy.args[0] is None)
        for each in [first, *(more or ())]:
            assert each in (None, b"") or (type(each) is memoryview and each.readonly)  # what did not come is the IDL's default
        assert (first, more, numbers) == copy.args


def _fed(routes: dict[bytes, Route], data: bytes) -> list[Request]:
    protocol, buffer = ThriftServerProtocol(routes), ReadBuffer()
    found: list[Request] = []
    for part in (data, NOISE, NOISE):
        buffer.write(part)
        try:
            found += protocol.feed(buffer)
        except ProtocolError:
            break
    return found


def seeds() -> list[bytes]:
    """Calls with small and large binaries, two of them behind each other."""
    made = []
    for framing in ("framed", "buffered", "ttheader", "framed-compact"):
        for sizes in ((3, 0), (LARGE_VALUE, 10), (10, LARGE_VALUE + 1)):
            out = WriteBuffer()
            for seqid, size in enumerate(sizes):
                args: tuple[Any, ...] = (bytes(size), [b"a", bytes(range(size % 256))], [1, -(2**62), 2**40, size])
                ThriftClientProtocol(framing).write_call(COPIES[b"put"], args, seqid + 1, out)
            made.append(out.take())
    return made

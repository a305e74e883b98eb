"""Clients of thriftpy2 and Apache Thrift call a weego server: framed and buffered, strict and not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conversation import CHECKS, Talk, names
from tests.support import need, peers
from tests.support.service import App, Server

THRIFTPY2 = [
    (protocol, transport) for protocol in ("python", "cython", "compact") for transport in ("framed", "buffered")
]
APACHE = [
    (protocol, transport)
    for protocol in ("strict", "non-strict", "accelerated", "compact", "compact-accelerated")
    for transport in ("framed", "buffered")
]


@pytest.fixture(scope="module", params=THRIFTPY2, ids=["-".join(each) for each in THRIFTPY2])
def thriftpy2_talk(request: pytest.FixtureRequest, weego_server: Server) -> Iterator[Talk]:
    need.module("thriftpy2")
    from thriftpy2.protocol import TCyBinaryProtocolFactory
    from thriftpy2.protocol.binary import TBinaryProtocolFactory
    from thriftpy2.protocol.compact import TCompactProtocolFactory
    from thriftpy2.rpc import make_client
    from thriftpy2.thrift import TApplicationException
    from thriftpy2.transport.buffered import TBufferedTransportFactory
    from thriftpy2.transport.buffered.cybuffered import TCyBufferedTransportFactory
    from thriftpy2.transport.framed import TFramedTransportFactory
    from thriftpy2.transport.framed.cyframed import TCyFramedTransportFactory

    protocol, _ = request.param
    factories: dict[tuple[str, str], Any] = {
        ("python", "framed"): TFramedTransportFactory,
        ("python", "buffered"): TBufferedTransportFactory,
        ("cython", "framed"): TCyFramedTransportFactory,
        ("cython", "buffered"): TCyBufferedTransportFactory,
        ("compact", "framed"): TFramedTransportFactory,
        ("compact", "buffered"): TBufferedTransportFactory,
    }
    protocols: dict[str, Any] = {
        "python": TBinaryProtocolFactory,
        "cython": TCyBinaryProtocolFactory,
        "compact": TCompactProtocolFactory,
    }
    types = peers.thriftpy2_types()
    client = make_client(
        types.Beyond,
        "127.0.0.1",
        weego_server.port,
        proto_factory=protocols[protocol](),
        trans_factory=factories[request.param](),
        timeout=30_000,
    )
    yield Talk(client, names(types), TApplicationException, (TApplicationException,), sets=list)
    client.close()


@pytest.fixture(scope="module", params=APACHE, ids=["-".join(each) for each in APACHE])
def apache_talk(request: pytest.FixtureRequest, weego_server: Server, apache_code: Path) -> Iterator[Talk]:
    need.module("thrift")
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol, TBinaryProtocolAccelerated
    from thrift.protocol.TCompactProtocol import TCompactProtocol, TCompactProtocolAccelerated
    from thrift.Thrift import TApplicationException
    from thrift.transport.TSocket import TSocket
    from thrift.transport.TTransport import TBufferedTransport, TFramedTransport

    protocol, transport = request.param
    types, _ = peers.apache_types(apache_code)
    from interop import Beyond  # type: ignore[import-not-found]

    sock = TSocket("127.0.0.1", weego_server.port)
    sock.setTimeout(30_000)
    wrapped = TFramedTransport(sock) if transport == "framed" else TBufferedTransport(sock)
    makers: dict[str, Callable[[], Any]] = {
        "strict": lambda: TBinaryProtocol(wrapped, strictRead=True, strictWrite=True),
        "non-strict": lambda: TBinaryProtocol(wrapped, strictRead=False, strictWrite=False),
        "accelerated": lambda: TBinaryProtocolAccelerated(wrapped, fallback=False),
        "compact": lambda: TCompactProtocol(wrapped),
        "compact-accelerated": lambda: TCompactProtocolAccelerated(wrapped, fallback=False),
    }
    wrapped.open()
    yield Talk(Beyond.Client(makers[protocol]()), types, TApplicationException, (TApplicationException,))
    wrapped.close()


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_thriftpy2_calls_weego(thriftpy2_talk: Talk, check: Callable[[Talk], None]) -> None:
    check(thriftpy2_talk)


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_apache_calls_weego(apache_talk: Talk, check: Callable[[Talk], None]) -> None:
    check(apache_talk)


def test_an_unknown_oneway_method_hears_nothing(weego_server: Server, apache_code: Path) -> None:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.transport.TSocket import TSocket
    from thrift.transport.TTransport import TFramedTransport

    peers.apache_types(apache_code)
    from interop import Beyond

    transport = TFramedTransport(TSocket("127.0.0.1", weego_server.port))
    transport.open()
    client = Beyond.Client(TBinaryProtocol(transport))
    client.missing_oneway("x")
    assert client.ping() == "pong"
    transport.close()


def test_both_framings_on_one_port_at_once(weego_server: Server, apache_code: Path) -> None:
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.transport.TSocket import TSocket
    from thrift.transport.TTransport import TBufferedTransport, TFramedTransport

    peers.apache_types(apache_code)
    from interop import Beyond

    transports = [cls(TSocket("127.0.0.1", weego_server.port)) for cls in (TFramedTransport, TBufferedTransport) * 3]
    clients = []
    for transport in transports:
        transport.open()
        clients.append(Beyond.Client(TBinaryProtocol(transport)))
    for number in range(10):
        assert [client.add(number, 1) for client in clients] == [number + 1] * len(clients)
    for transport in transports:
        transport.close()


# ---------------------------------------------------------------- uuid, which Apache's library knows and its older compilers do not

UUID_IDL = "service Ids { uuid same(1: uuid id)\n list<uuid> all(1: list<uuid> ids) }\n"
UUID_CODE = """\
import uuid

from gen.ids import Ids


class Service(Ids):
    def same(self, id: uuid.UUID) -> uuid.UUID:
        return id

    def all(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        return ids
"""


def test_uuid_with_apache(tmp_path: Path) -> None:
    thrift = need.module("thrift.Thrift")
    if not hasattr(thrift.TType, "UUID"):
        need.missing("a thrift package that knows uuid", "pip install 'thrift>=0.21'")
    from thrift.protocol.TBinaryProtocol import TBinaryProtocol
    from thrift.protocol.TProtocol import TProtocolBase
    from thrift.transport.TSocket import TSocket
    from thrift.transport.TTransport import TFramedTransport

    def call(protocol: TProtocolBase, method: str, kind: int, spec: Any, value: Any) -> Any:
        protocol.writeMessageBegin(method, thrift.TMessageType.CALL, 1)
        protocol.writeStructBegin("args")
        protocol.writeFieldBegin("x", kind, 1)
        protocol._write_by_ttype(kind, value, spec, "x") if kind == thrift.TType.LIST else protocol.writeUuid(value)
        protocol.writeFieldEnd()
        protocol.writeFieldStop()
        protocol.writeStructEnd()
        protocol.writeMessageEnd()
        protocol.trans.flush()
        name, message_type, _ = protocol.readMessageBegin()
        assert (name, message_type) == (method, thrift.TMessageType.REPLY)
        protocol.readStructBegin()
        _, got, number = protocol.readFieldBegin()
        assert (got, number) == (kind, 0)
        found = protocol._read_by_ttype(kind, spec, spec) if kind == thrift.TType.LIST else protocol.readUuid()
        protocol.readFieldEnd()
        protocol.readFieldBegin()
        protocol.readMessageEnd()
        return found

    app = App(tmp_path / "app", idl=UUID_IDL, idl_name="ids.thrift", code=UUID_CODE)
    with app.serve() as server:
        transport = TFramedTransport(TSocket("127.0.0.1", server.port))
        transport.open()
        protocol = TBinaryProtocol(transport)
        ids = [uuid.UUID(int=number) for number in (0, 1, 2**127, 2**128 - 1)]
        for each in ids:
            assert call(protocol, "same", thrift.TType.UUID, None, each) == each
        transport.close()

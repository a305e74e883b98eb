"""Large binaries over real sockets: views of what arrived, values that are sent from where they are, peers that read slowly."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codec.buffer import LARGE_VALUE, ReadBuffer, WriteBuffer
from codec.thrift import Route, ThriftClientProtocol
from tests.support.certs import Certificates
from tests.support.net import served, with_hub, without_hub
from weego import stub

SIZES = [LARGE_VALUE - 1, LARGE_VALUE, 1 << 16, 3 << 20]


class Store(stub.Service):
    def get(self, data: Any) -> Any:
        raise stub.unimplemented("Store", "get")

    def twice(self, data: Any, text: str) -> Any:
        raise stub.unimplemented("Store", "twice")


class StoreClient(stub.Client):
    def get(self, data: Any) -> Any:
        return self._invoke(STORE.methods["get"], (data,), 20)

    def twice(self, data: Any, text: str) -> Any:
        return self._invoke(STORE.methods["twice"], (data, text), 20)


STORE = stub.ServiceSpec(
    "Store",
    (
        stub.MethodSpec("get", args=(stub.Field(1, "data", stub.VIEW),), result=stub.VIEW),
        stub.MethodSpec(
            "twice", args=(stub.Field(1, "data", stub.BINARY), stub.Field(2, "text", stub.STRING)), result=stub.List(stub.BINARY)
        ),
    ),
)
Store.__spec__ = StoreClient.__spec__ = STORE
GET = Route(STORE.methods["get"])


class StoreService(Store):
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def get(self, data: Any) -> Any:
        assert type(data) is memoryview
        self.kept.append(data)
        return data

    def twice(self, data: Any, text: str) -> Any:
        return [data, text.encode(), data]


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


WAYS: list[dict[str, Any]] = [
    {},
    {"framing": "buffered"},
    {"framing": "ttheader"},
    {"framing": "ttheader-framed", "checksum": True},
    {"framing": "ttheader", "compression": "zlib"},
    {"framing": "ttheader", "pool": "shared"},
    {"protocol": "compact"},
    {"framing": "ttheader", "protocol": "compact"},
]


@pytest.mark.parametrize("where", [with_hub, without_hub], ids=["gevent", "threads"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())) or "framed")
def test_they_come_back_as_they_were_sent(where: Callable[..., Any], way: dict[str, Any]) -> None:
    service = StoreService()

    def run() -> None:
        with served(service) as server, StoreClient(server.addresses[0], **way) as client:
            for size in SIZES:
                data = content(size)
                answer = client.get(data)
                assert type(answer) is memoryview
                assert answer == data
                assert client.get(answer) == data  # written back without a copy of its own
                assert client.twice(data, "ü" * size) == [data, ("ü" * size).encode(), data]

    where(run)()
    assert [len(view) for view in service.kept] == [size for size in SIZES for _ in range(2)]
    # Held by the service, they are still what they were.
    assert all(view == content(len(view)) for view in service.kept)


@pytest.mark.parametrize("where", [with_hub, without_hub], ids=["gevent", "threads"])
def test_over_tls_too(where: Callable[..., Any], tmp_path: Path) -> None:
    certs = Certificates(tmp_path)

    def run() -> None:
        with (
            served(StoreService(), tls=certs.server()) as server,
            StoreClient(server.addresses[0], tls=certs.client()) as client,
        ):
            for size in SIZES:
                assert client.get(content(size)) == content(size)

    where(run)()


def message(seqid: int, size: int, framing: str) -> bytes:
    out = WriteBuffer()
    ThriftClientProtocol(framing).write_call(GET, (content(size + seqid),), seqid, out)
    return out.take()


@pytest.mark.parametrize("framing", ["framed", "ttheader", "buffered"])
@without_hub
def test_pipelined_calls_to_a_peer_that_reads_a_little_at_a_time(framing: str) -> None:
    """Parts of parts: what the kernel does not take at once goes on where it stopped, also in the middle of a value that is not ours to move."""
    calls = 24
    service = StoreService()
    with served(service) as server:
        host, _, port = server.addresses[0].removeprefix("tcp://").rpartition(":")
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(20)
            sock.connect((host, int(port)))
            protocol, data = ThriftClientProtocol(framing), ReadBuffer()
            sock.setblocking(False)
            waiting = b"".join(message(seqid, 100_000, framing) for seqid in range(1, calls + 1))
            for seqid in range(1, calls + 1):
                protocol.write_call(GET, (b"",), seqid, WriteBuffer())
            answers: list[Any] = []
            rest = memoryview(waiting)
            while len(answers) < calls:
                try:
                    rest = rest[sock.send(rest[:50_000]) :] if rest else rest
                except BlockingIOError:
                    pass
                try:
                    data.write(sock.recv(7001))
                except BlockingIOError:
                    continue
                answers += protocol.feed(data)
    assert [answer.seqid for answer in answers] == list(range(1, calls + 1))
    for answer in answers:
        assert answer.value == content(100_000 + answer.seqid)
    assert [len(view) for view in service.kept] == [100_000 + n for n in range(1, calls + 1)]
    for view in service.kept:
        assert view == content(len(view))

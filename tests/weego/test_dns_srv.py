"""dns:// with SRV records, from a name server in a thread that answers as RFC 1035 has it: priorities, weights, and a server in trouble."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from governance.discovery import DiscoveryError
from governance.instance import Instance
from tests.support.need import module
from tests.support.net import with_hub, without_hub
from weego.discovery import DnsResolver

BOTH = pytest.mark.parametrize("run", [with_hub, without_hub], ids=["gevent", "threads"])


class NameServer:
    """Answers SRV questions with `records` (priority, weight, port, target); None: with nothing at all."""

    def __init__(self) -> None:
        self.records: list[tuple[int, int, int, str]] | None = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        import dns.flags
        import dns.message
        import dns.rcode
        import dns.rrset

        while True:
            data, peer = self.sock.recvfrom(4096)
            if data == b"stop":
                return
            if self.records is None:
                continue
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.RA
            if self.records:
                texts = [f"{priority} {weight} {port} {target}" for priority, weight, port, target in self.records]
                answer.answer.append(dns.rrset.from_text(query.question[0].name, 30, "IN", "SRV", *texts))
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self.sock.sendto(answer.to_wire(), peer)

    def close(self) -> None:
        self.sock.sendto(b"stop", self.sock.getsockname())
        self.thread.join()
        self.sock.close()


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    resolver = module("dns.resolver")
    server = NameServer()
    ours = resolver.Resolver(configure=False)
    ours.nameservers, ours.port, ours.lifetime = ["127.0.0.1"], server.port, 1.0
    monkeypatch.setattr(resolver, "default_resolver", ours)
    yield server
    server.close()


@BOTH
def test_the_first_priority_with_its_weights(run: Any, name_server: NameServer) -> None:
    name_server.records = [
        (10, 60, 8001, "127.0.0.1."), (10, 20, 8002, "127.0.0.1."), (10, 0, 8003, "127.0.0.1."), (20, 100, 9000, "127.0.0.1."),
    ]  # fmt: skip

    @run
    def body() -> None:
        found = DnsResolver("_echo._tcp.example.internal").resolve()
        assert sorted(found, key=lambda each: each.address) == [
            Instance("tcp://127.0.0.1:8001", 60), Instance("tcp://127.0.0.1:8002", 20), Instance("tcp://127.0.0.1:8003", 1),
        ]  # fmt: skip

    body()


@BOTH
def test_nobody_of_that_name_and_a_server_that_is_silent(run: Any, name_server: NameServer) -> None:
    @run
    def body() -> None:
        resolver = DnsResolver("_echo._tcp.example.internal")
        with pytest.raises(DiscoveryError, match=r"cannot resolve '_echo._tcp.example.internal'.*does not exist"):
            resolver.resolve()
        name_server.records = None
        with pytest.raises(DiscoveryError, match=r"cannot resolve '_echo._tcp.example.internal'"):
            resolver.resolve()

    body()

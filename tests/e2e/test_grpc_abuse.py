"""Abuse of HTTP/2, counted by kind for all workers: what an operator sees of C1's attacks."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from prefork.status import ABUSES
from tests.codec.h2.wire import PING, PREFACE, SETTINGS, frame
from tests.e2e import grpc_reloads
from tests.support.net import target_of
from tests.support.service import Server, until

ADMIN = '[admin]\naddress = "tcp://127.0.0.1:0"'
H2_SOURCES = Path(__file__).parents[2]


def counted(server: Server) -> dict[str, int]:
    """weego_h2_abuse_total by kind."""
    host, _, port = server.process.wait_for(r"^  admin on tcp://(.*)")[1].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as admin:
        admin.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        page = b""
        while chunk := admin.recv(65536):
            page += chunk
    return {kind: int(count) for kind, count in re.findall(r'^weego_h2_abuse_total\{kind="(\w+)"\} (\d+)$', page.decode(), re.MULTILINE)}


def flood(address: str, data: bytes) -> None:
    """Send until the server has had enough."""
    family, target = target_of(address)
    with socket.socket(family) as sock:
        sock.settimeout(30)
        sock.connect(target)
        try:
            sock.sendall(PREFACE + frame(SETTINGS) + data)
            while sock.recv(65536):
                pass
        except OSError:
            pass


def test_abuse_is_counted_by_kind_and_outlives_the_workers(tmp_path: Path) -> None:
    app = grpc_reloads.both(tmp_path / "app")
    with app.serve(more=grpc_reloads.BOTH + "\n" + ADMIN, workers=2, allow=["abuse of HTTP/2"]) as server:
        assert counted(server) == dict.fromkeys(ABUSES, 0)
        for _ in range(3):
            flood(server.address, frame(PING, payload=bytes(8)) * 1000)
        flood(server.address, frame(SETTINGS) * 1000)
        wanted = dict.fromkeys(ABUSES, 0) | {"too_many_pings": 3, "settings": 1}
        until(lambda: counted(server) == wanted, "the floods to be counted")
        server.reload_ok()
        until(lambda: len(server.family()) == 3, "the old workers to go")
        assert counted(server) == wanted


def test_every_kind_has_its_column() -> None:
    """The names are written in the code of two rooms that may not import each other."""
    text = "".join(each.read_text() for folder in ("codec/h2", "weego") for each in (H2_SOURCES / folder).glob("*.p[yx][xi]"))
    named = re.findall(r'self\.spend\(&self\.\w+, "(\w+)"\)|ENHANCE_YOUR_CALM, "(\w+)"|note_abuse\("(\w+)"', text)
    assert {kind for each in named for kind in each if kind} == set(ABUSES)
    assert len(set(ABUSES)) == len(ABUSES)

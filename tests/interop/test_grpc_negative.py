"""gRPC's negative HTTP/2 cases: servers that say goodbye, reset calls, ping and allow one stream, played by the package h2, cleartext and TLS."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from tests.interop import grpc_service
from tests.support import grpc_go, need
from tests.support.certs import Certificates
from tests.support.net import PATIENCE, wait_until, with_hub, without_hub
from tests.support.processes import Process

CALLS = 10


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@contextmanager
def misbehaving(case: str, t: Any, certs: Certificates, tls: bool) -> Iterator[tuple[Process, Any]]:
    """The server of `case`, and a client of it."""
    files = [str(certs.folder / "server.crt"), str(certs.folder / "server.key")] if tls else []
    with Process([sys.executable, "-m", "tests.support.http2_server", case, *files], cwd=str(need.ROOT)) as server:
        port = server.wait_for(r"^listening on (\d+)$")[1]
        # One connection: what a second one allows is not known before it is too late for this server.
        options = {"timeout": PATIENCE, "max_idle": 1, "tls": certs.client() if tls else None}
        with t.TestServiceClient(f"tcp://localhost:{port}", **options) as client:
            yield server, client


def fetch(t: Any, client: Any) -> None:
    assert len(client.unary_call(grpc_service.large(t)).payload.body) == 314159


def at_once(hub: bool, action: Callable[[], None]) -> None:
    """Several times at a time."""
    if hub:
        gevent.joinall([gevent.spawn(action) for _ in range(CALLS)], raise_error=True)
        return
    failed: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(CALLS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failed


def goaway(t: Any, server: Process, client: Any, hub: bool) -> None:
    for number in (1, 2, 3):
        fetch(t, client)
        wait_until(lambda n=number: server.lines.count("goaway") == n)  # type: ignore[misc]
    assert server.lines.count("connection") == 3


def rst_after_header(t: Any, server: Process, client: Any, hub: bool) -> None:
    error = grpc_service.fails("INTERNAL", lambda: fetch(t, client))
    assert "reset the call: NO_ERROR" in error.message
    grpc_service.fails("INTERNAL", lambda: fetch(t, client))
    assert server.lines.count("connection") == 1, "a reset is a matter of its call"


def ping(t: Any, server: Process, client: Any, hub: bool) -> None:
    fetch(t, client)
    fetch(t, client)
    assert server.lines.count("pong") > 30


def max_streams(t: Any, server: Process, client: Any, hub: bool) -> None:
    fetch(t, client)  # the limit is known now
    at_once(hub, lambda: fetch(t, client))
    assert "too many" not in server.lines


CASES: dict[str, Callable[[Any, Process, Any, bool], None]] = {
    "goaway": goaway,
    "rst_after_header": rst_after_header,
    "rst_during_data": rst_after_header,
    "rst_after_data": rst_after_header,
    "ping": ping,
    "max_streams": max_streams,
}


def grpc_go_client(case: str) -> subprocess.CompletedProcess[str]:
    """grpc-go's own client of a case, against this server of it."""
    client = str(grpc_go.programs() / "http2")
    with Process([sys.executable, "-m", "tests.support.http2_server", case], cwd=str(need.ROOT)) as server:
        port = server.wait_for(r"^listening on (\d+)$")[1]
        command = [client, "-server_host=127.0.0.1", f"-server_port={port}", f"-test_case={case}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=grpc_go.CASE, check=False)


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"rst_during_data"}))
@pytest.mark.timeout(600)
def test_the_server_is_what_grpc_go_takes_it_for(case: str) -> None:
    done = grpc_go_client(case)
    assert done.returncode == 0, done.stderr[-1000:]


@pytest.mark.timeout(600)
def test_a_reset_with_no_error_is_internal_for_grpc_go_too() -> None:
    """PROTOCOL-HTTP2.md says so (Errors), of a reset anywhere in an answer, and grpc-go does so. Its client of this one case wants UNKNOWN, and fails by itself."""
    done = grpc_go_client("rst_during_data")
    assert done.returncode == 1
    assert "= _, Internal, want _, Unknown" in done.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("way", ["hub", "thread"])
@pytest.mark.parametrize("case", CASES)
def test_negative(t: Any, certs: Certificates, case: str, way: str, tls: bool) -> None:
    need.module("h2")

    @(with_hub if way == "hub" else without_hub)
    def run() -> None:
        with misbehaving(case, t, certs, tls) as (server, client):
            CASES[case](t, server, client, way == "hub")
            assert "Traceback" not in server.output

    run()

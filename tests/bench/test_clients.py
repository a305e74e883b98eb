"""The clients' side of the benchmark: weego's against Kitex's server, and Kitex's own."""

from __future__ import annotations

import pytest

from bench import clients
from bench.go import GoMissing, kitex
from bench.peer import running
from bench.report import Result, as_json, as_text
from tests.support.need import missing


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Kitex's program, or a skip with the reason."""
    try:
        kitex()
    except GoMissing as error:
        missing(f"Kitex for the benchmark ({error})", "install Go 1.22 or later and let it reach a module proxy")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("transport", "callers", "variant"), clients.LOADS)
def test_both_clients_call_kitex(transport: str, callers: int, variant: str) -> None:
    with running("kitex", None, "--variant", variant) as server:
        for client in clients.CLIENTS:
            sample = clients.measure(client, server.port, transport, callers, seconds=0.2, warmup=0.05, cpu=None)
            assert sample.calls > 0
            assert sample.cpu_us > 0


def test_the_table_compares_them() -> None:
    result = Result({"cpu": "x", "cpus": 1, "kernel": "1", "python": "3"}, {"rounds": 1, "seconds": 1})
    load = ("framed", 100, "pingpong")
    result.clients = {
        clients.Cell("weego", *load): [clients.ClientSample(10, 30.0, 5.0)],
        clients.Cell("kitex", *load): [clients.ClientSample(10, 20.0, 5.0)],
    }
    assert result.client_ratio(clients.Cell("weego", *load)) == 1.5
    assert "1.50×" in as_text(result)
    assert as_json(result)["clients"][0]["ratio_kitex"] == 1.5
    assert "client CPU per call by Kitex's" in as_text(result)

"""gRPC's interoperability tests: weego's client against grpc-go's server, grpc-go's client against weego's server, cleartext and TLS."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weego
from codec.grpc import binary_value
from tests.interop import grpc_service
from tests.interop.grpc_service import CASES, metadata
from tests.support import grpc_go, need
from tests.support.certs import Certificates
from tests.support.net import with_hub, without_hub
from tests.support.processes import Process

GRPCIO = str(need.ROOT / "tests" / "support" / "grpcio_testing.py")

DECORATORS = {"hub": with_hub, "thread": without_hub}


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module", params=["cleartext", "tls"])
def go_server(request: pytest.FixtureRequest, certs: Certificates) -> Iterator[tuple[str, dict[str, Any]]]:
    """Address of grpc-go's server, and what a client needs for it."""
    if request.param == "cleartext":
        with grpc_go.server() as address:
            yield address, {}
    else:
        with grpc_go.server(str(certs.folder / "server.crt"), str(certs.folder / "server.key")) as address:
            yield address, {"tls": certs.client(server_name="localhost")}


@pytest.mark.parametrize("way", DECORATORS)
@pytest.mark.parametrize("case", CASES)
def test_weego_calls_grpc_go(t: Any, go_server: tuple[str, dict[str, Any]], case: str, way: str) -> None:
    address, options = go_server

    @DECORATORS[way]
    def run() -> None:
        middleware = [metadata] if case == "custom_metadata" else []
        with t.TestServiceClient(address, timeout=60, middleware=middleware, **options) as client:
            CASES[case](t, client)

    run()


def test_unimplemented_service(t: Any, go_server: tuple[str, dict[str, Any]]) -> None:
    address, options = go_server

    @without_hub
    def run() -> None:
        with t.UnimplementedServiceClient(address, timeout=60, **options) as client:
            grpc_service.fails("UNIMPLEMENTED", lambda: client.unimplemented_call(t.Empty()))

    run()


@pytest.fixture(scope="module", params=["cleartext", "tls"])
def grpcio_server(request: pytest.FixtureRequest, certs: Certificates, t: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Address of a grpcio server, and what a client needs for it."""
    need.module("grpc")
    files = [] if request.param == "cleartext" else [str(certs.folder / "server.crt"), str(certs.folder / "server.key")]
    with Process([sys.executable, GRPCIO, str(Path(t.__file__).parent), "serve", *files]) as process:
        port = process.wait_for(r"^listening on (\d+)$")[1]
        yield f"tcp://localhost:{port}", {} if not files else {"tls": certs.client()}


@pytest.mark.parametrize("way", DECORATORS)
@pytest.mark.parametrize("case", CASES)
def test_weego_calls_grpcio(t: Any, grpcio_server: tuple[str, dict[str, Any]], case: str, way: str) -> None:
    address, options = grpcio_server

    @DECORATORS[way]
    def run() -> None:
        middleware = [metadata] if case == "custom_metadata" else []
        with t.TestServiceClient(address, timeout=60, middleware=middleware, **options) as client:
            CASES[case](t, client)

    run()


@contextlib.contextmanager
def weego_server(t: Any, **options: Any) -> Iterator[str]:
    with weego.Server(grpc_service.services(t), listen=["tcp://127.0.0.1:0"], **options) as server:
        yield server.addresses[0]


# What grpc-go's client can do; auth cases need Google's accounts.
GO_CASES = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
    "orca_per_rpc",
    "orca_oob",
]
ORCA_BALANCER = '{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}'


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("case", GO_CASES)
def test_grpc_go_calls_weego(t: Any, certs: Certificates, case: str, tls: bool) -> None:
    @without_hub
    def run() -> None:
        options = {"tls": certs.server()} if tls else {}
        more = ["-use_tls", "-use_test_ca", f"-ca_file={certs.path('ca')}", "-server_host_override=localhost"] if tls else []
        if case.endswith("soak"):
            more += ["-soak_iterations=200", "-soak_max_failures=0", "-soak_per_iteration_max_acceptable_latency_ms=20000"]
            more += ["-soak_overall_timeout_seconds=100"]
        if case.startswith("orca"):
            more.append(f"-service_config_json={ORCA_BALANCER}")
        with weego_server(t, **options) as address:
            grpc_go.run(address, case, *more)

    run()


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_grpcio_calls_weego(t: Any, certs: Certificates, tls: bool) -> None:
    need.module("grpc")

    @without_hub
    def run() -> None:
        with weego_server(t, **({"tls": certs.server()} if tls else {})) as address:
            command = [sys.executable, GRPCIO, str(Path(t.__file__).parent), "call", address.rpartition(":")[2]]
            done = subprocess.run(
                [*command, certs.path("ca") if tls else "-"], capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
            assert "all passed" in done.stdout

    run()


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("way", DECORATORS)
@pytest.mark.parametrize("case", CASES)
def test_weego_calls_weego(t: Any, certs: Certificates, case: str, way: str, tls: bool) -> None:
    @DECORATORS[way]
    def run() -> None:
        middleware = [metadata] if case == "custom_metadata" else []
        with (
            weego_server(t, **({"tls": certs.server()} if tls else {})) as address,
            t.TestServiceClient(address, timeout=60, middleware=middleware, tls=certs.client() if tls else None) as client,
        ):
            CASES[case](t, client)

    run()


ORCA_REPORT = {"cpu_utilization": 0.8210, "memory_utilization": 0.5847, "utilization": {"util": 0.30499}}


@pytest.mark.parametrize("way", DECORATORS)
def test_orca_per_rpc(t: Any, go_server: tuple[str, dict[str, Any]], way: str) -> None:
    address, options = go_server

    @DECORATORS[way]
    def run() -> None:
        report = t.TestOrcaReport(**ORCA_REPORT, request_cost={"cost": 3456.32})
        with t.TestServiceClient(address, timeout=60, middleware=[metadata], **options) as client:
            client.unary_call(t.SimpleRequest(orca_per_query_report=report))
        found = binary_value(grpc_service.Seen.last.metadata[grpc_service.LOAD_REPORT])
        wanted = grpc_service.load_report(t, report)
        assert type(wanted).FromString(found) == wanted

    run()


@pytest.mark.parametrize("way", DECORATORS)
def test_orca_oob(t: Any, go_server: tuple[str, dict[str, Any]], way: str) -> None:
    address, options = go_server

    @DECORATORS[way]
    def run() -> None:
        orca = grpc_service.orca_module(t, "service")
        report = t.TestOrcaReport(**ORCA_REPORT)
        request = orca.OrcaLoadReportRequest()
        request.report_interval.FromMilliseconds(100)
        with t.TestServiceClient(address, timeout=60, **options) as client, orca.OpenRcaServiceClient(address, timeout=60, **options) as reports:
            with client.full_duplex_call() as stream:
                stream.send(t.StreamingOutputCallRequest(orca_oob_report=report, response_parameters=[t.ResponseParameters(size=1)]))
                next(stream)
                with reports.stream_core_metrics(request) as found:
                    assert grpc_service.load_report(t, report) in found

    run()


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
@pytest.mark.parametrize("way", DECORATORS)
def test_compression_probes_and_cacheable_unary(t: Any, certs: Certificates, way: str, tls: bool) -> None:
    @DECORATORS[way]
    def run() -> None:
        secure = certs.client() if tls else None
        with weego_server(t, **({"tls": certs.server()} if tls else {})) as address:
            with t.TestServiceClient(address, timeout=60, tls=secure) as client:
                grpc_service.compression_probe(t, client)
                grpc_service.cacheable_unary(t, client)
            with t.TestServiceClient(address, timeout=60, tls=secure, compression="gzip") as client:
                grpc_service.client_compressed_unary(t, client)

    run()

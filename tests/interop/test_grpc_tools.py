"""What people point at gRPC servers: grpc_health_probe, grpcurl, and grpcio's reflection and health clients; cleartext and TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import weego
from tests.interop import grpc_service
from tests.support import grpc_go, need
from tests.support.certs import Certificates
from tests.support.net import without_hub
from weego.serving import GrpcOptions

# Building the programs for the first time.
pytestmark = pytest.mark.timeout(1200)
PATIENCE = 60
SERVICE = "grpc.testing.TestService"
STANDARD = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
SERVING = 1


@pytest.fixture(scope="module")
def t(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return grpc_service.module(tmp_path_factory.mktemp("gen"))


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(params=["cleartext", "tls"])
def server(request: pytest.FixtureRequest, t: Any, certs: Certificates) -> tuple[Any, str]:
    """A server, and the file of who signed its certificate, if it has one."""
    tls = request.param == "tls"
    made = weego.Server(
        [grpc_service.service(t)],
        listen=["tcp://127.0.0.1:0"],
        grpc=GrpcOptions(reflection=True),
        tls=certs.server() if tls else None,
    )
    return made, certs.path("ca") if tls else ""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=need.ROOT)


def address(made: Any) -> str:
    return f"localhost:{made.addresses[0].rpartition(':')[2]}"


def test_grpc_health_probe(server: tuple[Any, str]) -> None:
    probe = grpc_go.tool("grpc-health-probe")
    made, ca = server

    @without_hub
    def use() -> None:
        with made:
            command = [probe, f"-addr={address(made)}", *(["-tls", f"-tls-ca-cert={ca}"] if ca else [])]
            for service in ("", SERVICE):
                done = run(*command, f"-service={service}")
                assert done.returncode == 0, done.stderr
                assert "status: SERVING" in done.stdout + done.stderr
            unknown = run(*command, "-service=no.Such")
            assert (unknown.returncode, "code = NotFound" in unknown.stderr) == (3, True)
            made.serving.announce_leaving(on=True)
            done = run(*command)
            assert done.returncode == 4
            assert "NOT_SERVING" in done.stdout + done.stderr

    use()


def test_grpcurl(server: tuple[Any, str]) -> None:
    grpcurl = grpc_go.tool("grpcurl")
    made, ca = server

    @without_hub
    def use() -> None:
        with made:
            command = [grpcurl, *(["-cacert", ca] if ca else ["-plaintext"])]
            assert run(*command, address(made), "list").stdout.split() == sorted([SERVICE, *STANDARD])
            assert "rpc UnaryCall ( .grpc.testing.SimpleRequest ) returns ( .grpc.testing.SimpleResponse );" in run(
                *command, address(made), "describe", SERVICE
            ).stdout
            done = run(*command, "-d", '{"responseSize": 3}', address(made), f"{SERVICE}/UnaryCall")
            assert json.loads(done.stdout) == {"payload": {"body": "AAAA"}}, done.stderr
            asked = '{"responseParameters": [{"size": 1}, {"size": 2}]}'
            done = run(*command, "-d", asked, address(made), f"{SERVICE}/StreamingOutputCall")
            assert done.stdout.count("body") == 2, done.stderr
            done = run(*command, "-d", '{"responseStatus": {"code": 5, "message": "gone"}}', address(made), f"{SERVICE}/UnaryCall")
            assert "Code: NotFound" in done.stderr
            assert "Message: gone" in done.stderr

    use()


def test_grpcio_reflects_and_checks(server: tuple[Any, str]) -> None:
    need.module("grpc_reflection")
    need.module("grpc_health")
    made, ca = server

    @without_hub
    def use() -> None:
        with made:
            done = run(sys.executable, "-m", "tests.support.grpcio_reflection", address(made), *([ca] if ca else []))
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            assert sorted(found["methods"]) == sorted([SERVICE, *STANDARD])
            assert "FullDuplexCall" in found["methods"][SERVICE]
            assert found["health"] == {"": SERVING, SERVICE: SERVING}

    use()

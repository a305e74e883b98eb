"""What people point at gRPC servers: grpc_health_probe, grpcurl, and grpcio's reflection and health clients; cleartext and TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import gevent
import pytest

import weego
from tests.interop import grpc_service
from tests.support import grpc_go, need
from tests.support.certs import Certificates
from tests.support.net import served, with_hub, without_hub
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


@pytest.mark.parametrize("way", ["hub", "thread"])
@pytest.mark.parametrize("secure", [False, True], ids=["cleartext", "tls"])
def test_grpcio_looks_through_channelz(certs: Certificates, t: Any, secure: bool, way: str) -> None:
    need.module("grpc_channelz")
    ca = certs.path("ca") if secure else ""

    @(with_hub if way == "hub" else without_hub)
    def use() -> None:
        options = GrpcOptions(channelz=True, max_streams=7)
        tls = {"tls": certs.client(server_name="localhost")} if ca else {}
        with (
            served(grpc_service.service(t), grpc=options, tls=certs.server() if ca else None) as made,
            t.TestServiceClient(made.addresses[0], timeout=PATIENCE, **tls) as client,
        ):
            for _ in range(3):
                client.unary_call(t.SimpleRequest(response_size=10))
            with pytest.raises(weego.RpcError):  # an answer all the same
                client.unary_call(t.SimpleRequest(response_status=t.EchoStatus(code=5, message="gone")))
            stream = client.full_duplex_call()
            stream.send(grpc_service.ping(t, 1, 1))
            next(stream)
            stream.cancel()
            waiting = client.full_duplex_call()
            waiting.send(grpc_service.ping(t, 1, 1))
            next(waiting)
            command = [sys.executable, "-m", "tests.support.grpcio_channelz", address(made), *([ca] if ca else [])]
            # The server may be in this thread's hub.
            done = gevent.get_hub().threadpool.apply(run, command) if way == "hub" else run(*command)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            waiting.cancel()
        assert found["refused"] == ["NOT_FOUND"] * 5
        [server_] = found["servers"]
        assert int(server_["data"]["callsStarted"]) >= 6
        assert int(server_["data"]["callsFailed"]) >= 1
        ours = max(found["sockets"], key=lambda each: int(each["data"].get("streamsFailed", 0)))
        assert len(found["sockets"]) == 2, "the client's and the looker's"
        [channel] = found["channels"]
        assert channel["ref"]["name"] == SERVICE
        counted = {"callsStarted": "6", "callsSucceeded": "4", "callsFailed": "1"}
        [subchannel] = found["subchannels"]
        for each in (channel, subchannel):
            assert {key: each["data"][key] for key in counted} == counted
            assert each["data"]["state"] == {"state": "READY"}
        [socket] = subchannel["sockets"]
        for each in (socket, ours):
            data = each["data"]
            assert (data["streamsStarted"], data["streamsSucceeded"], data["streamsFailed"]) == ("6", "4", "1")
            assert int(data["localFlowControlWindow"]) > 0
            assert int(data["remoteFlowControlWindow"]) > 0
            assert ("security" in each) == bool(ca)
        assert (socket["data"]["messagesSent"], socket["data"]["messagesReceived"]) == ("6", "5")
        assert (ours["data"]["messagesSent"], ours["data"]["messagesReceived"]) == ("5", "6")
        assert socket["data"]["peerMaxConcurrentStreams"] == 7
        assert socket["remote"]["tcpipAddress"]["port"] == int(made.addresses[0].rpartition(":")[2])

    use()


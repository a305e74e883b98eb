"""`weego call` and generic clients that know nothing but an address: grpc-go (reflection v1), grpcio (v1alpha only) and weego, cleartext and TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import weego
from tests.interop import grpc_service
from tests.interop.test_grpc import GRPCIO
from tests.support import grpc_go, need
from tests.support.certs import Certificates
from tests.support.net import apart, with_hub, without_hub
from tests.support.processes import Process
from weego.cli.call import call as command
from weego.serving import GrpcOptions

SERVICE = "grpc.testing.TestService"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module", params=[f"{peer}-{how}" for peer in ("grpc-go", "grpcio", "weego") for how in ("cleartext", "tls")])
def server(request: pytest.FixtureRequest, certs: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """The address of a server that describes itself, what the command needs for it, and what a client does."""
    peer, _, how = request.param.rpartition("-")
    cert, key = str(certs.folder / "server.crt"), str(certs.folder / "server.key")
    files = [cert, key] if how == "tls" else []
    tls = ["--ca", certs.path("ca"), "--server-name", "localhost"] if files else []
    options: dict[str, Any] = {"tls": certs.client(server_name="localhost")} if files else {}
    if peer == "grpc-go":
        with grpc_go.reflected_server(*files) as address:
            yield address, tls, options
        return
    t = grpc_service.module(tmp_path_factory.mktemp("gen"))
    if peer == "grpcio":
        need.module("grpc_reflection")
        with Process([sys.executable, GRPCIO, str(Path(t.__file__ or "").parent), "serve", *files], env={"REFLECTION": "1"}) as process:
            port = process.wait_for(r"^listening on (\d+)$")[1]
            yield f"tcp://localhost:{port}", tls, options
        return
    secured = {"tls": certs.server()} if files else {}
    serving = weego.Server([grpc_service.service(t)], listen=["tcp://127.0.0.1:0"], grpc=GrpcOptions(reflection=True), **secured)
    apart(serving.start)
    yield serving.addresses[0], tls, options
    serving.stop()


def call(server: tuple[str, list[str], dict[str, Any]], *arguments: str, stdin: str = "") -> tuple[int, str]:
    """Exit code and stdout of the command."""
    done = apart(lambda: CliRunner().invoke(command, [server[0], *arguments, *server[1], "--timeout", "30s"], input=stdin))
    return done.exit_code, done.stdout


def objects(text: str) -> list[Any]:
    """JSON objects one behind the other."""
    decoder = json.JSONDecoder()
    found = []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def test_one_call(server: Any) -> None:
    code, out = call(server, f"{SERVICE}.UnaryCall", '{"responseSize": 3, "payload": {"body": "AAAA"}}')
    assert (code, json.loads(out)["payload"]["body"]) == (0, "AAAA")
    assert call(server, f"{SERVICE}/EmptyCall") == (0, "{}\n")
    assert call(server, "TestService.EmptyCall") == (0, "{}\n")  # as much of the name as tells


def test_as_a_program(server: Any) -> None:
    both = '{"response_parameters": [{"size": 2}]} {"response_parameters": [{"size": 1}]}'
    done = subprocess.run(
        [str(need.ROOT / "bin" / "weego"), "call", server[0], f"{SERVICE}.FullDuplexCall", "-", *server[1], "--timeout", "30s"],
        input=both, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, [each["payload"]["body"] for each in objects(done.stdout)], done.stderr) == (0, ["AAA=", "AA=="], "")


def test_streams(server: Any) -> None:
    three = '{"response_parameters": [{"size": 1}, {"size": 2}, {"size": 3}]}'
    code, out = call(server, f"{SERVICE}.StreamingOutputCall", three)
    assert (code, [each["payload"]["body"] for each in objects(out)]) == (0, ["AA==", "AAA=", "AAAA"])
    code, out = call(server, f"{SERVICE}.StreamingInputCall", "-", stdin='{"payload": {"body": "AAAA"}}\n{"payload":\n {"body": "AA=="}}\n')
    assert (code, json.loads(out)) == (0, {"aggregatedPayloadSize": 4})
    both = '{"response_parameters": [{"size": 2}]} {"response_parameters": [{"size": 1}]}'
    code, out = call(server, f"{SERVICE}.FullDuplexCall", both)
    assert (code, [each["payload"]["body"] for each in objects(out)]) == (0, ["AAA=", "AA=="])
    code, out = call(server, f"{SERVICE}.FullDuplexCall", "-", stdin="")
    assert (code, out) == (0, "")


def test_what_the_server_says(server: Any) -> None:
    code, out = call(server, "--list")
    assert code == 0
    assert SERVICE in out.split()
    assert f"{SERVICE}.FullDuplexCall\n" in call(server, SERVICE, "--list")[1]
    out = call(server, SERVICE, "--describe")[1]
    assert "  rpc FullDuplexCall(stream grpc.testing.StreamingOutputCallRequest) returns (stream grpc.testing.StreamingOutputCallResponse);\n" in out
    assert "message grpc.testing.ResponseParameters {" in out
    assert "  repeated grpc.testing.ResponseParameters response_parameters = 2;\n" in out
    assert call(server, "grpc.testing.Payload", "--describe")[1].startswith("message grpc.testing.Payload {\n")


@pytest.mark.parametrize(
    ("method", "given", "code", "message"),
    [
        (f"{SERVICE}.UnaryCal", "{}", 64, 'has no method "UnaryCal"; did you mean "UnaryCall"?'),
        ("no.such.Service.Method", "{}", 64, 'no service "no.such.Service"'),
        (f"{SERVICE}.UnaryCall", '{"response_sise": 1}', 64, "response_sise"),
        (f"{SERVICE}.UnaryCall", "[1]", 64, "expected an object for the arguments, got [1]"),
        (f"{SERVICE}.UnaryCall", '{"response_status": {"code": 5, "message": "not here"}}', 2, "not here"),
        (f"{SERVICE}.FullDuplexCall", '{"response_parameters": [{"size": 1}]} {"x": 1}', 64, '"x"'),
        (f"{SERVICE}.StreamingInputCall", '{"payload": ', 64, "not JSON"),
    ],
    ids=["method", "service", "field", "array", "status", "second", "json"],
)
def test_mistakes_and_failures(server: Any, method: str, given: str, code: int, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(server, method, given)[0] == code
    assert message in capfd.readouterr().err


def test_metadata_goes_along(server: Any) -> None:
    assert call(server, f"{SERVICE}.EmptyCall", "-H", "x-a: b", "-H", "x-c:d")[0] == 0
    assert call(server, f"{SERVICE}.EmptyCall", "-H", "nothing")[0] == 64


@pytest.mark.parametrize("decorate", [with_hub, without_hub])
def test_a_generic_client(server: Any, decorate: Any) -> None:
    @decorate
    def run() -> None:
        idl = weego.ProtoIdl.from_server(server[0], timeout=PATIENCE, **server[2])
        with weego.GenericClient(server[0], idl, timeout=PATIENCE, **server[2]) as client:
            assert client.call("TestService.UnaryCall", {"responseSize": 2})["payload"] == {"body": "AAA="}
            assert client.call_json("EmptyCall" if len(idl.services) == 1 else "TestService.EmptyCall", "{}") == "{}"
            with client.stream("TestService.StreamingOutputCall", {"responseParameters": [{"size": 1}]}) as replies:
                assert [each["payload"]["body"] for each in replies] == ["AA=="]
            with client.stream("TestService.StreamingInputCall") as sending:
                sending.send({"payload": {"body": "AAAA"}})
                assert sending.result() == {"aggregatedPayloadSize": 3}
            with client.stream("TestService.FullDuplexCall") as both:
                both.send({"responseParameters": [{"size": 3}]})
                assert next(both)["payload"]["body"] == "AAAA"
                both.close_send()
                assert list(both) == []
            with pytest.raises(weego.UsageError, match="use `stream`"):
                client.call("TestService.FullDuplexCall")
            with pytest.raises(weego.UsageError, match="use `call`"):
                client.stream("TestService.EmptyCall")
            with pytest.raises(weego.UsageError, match="without arguments"):
                client.stream("TestService.StreamingInputCall", {})

    run()

"""gRPC-Web: the same answers on HTTP/1.1 and HTTP/2, in binary and in base64, and what browsers ask before."""

from __future__ import annotations

import base64
import http.client
import socket
from typing import Any

import pytest

from codec.errors import Code, StatusError
from tests.support.grpc_echo import NAME, EchoService, Reply, Request
from tests.support.grpc_wire import GrpcWire, prefixed
from tests.support.net import served, target_of, wait_until, without_hub
from weego.serving import GrpcOptions

SAY, WATCH = f"/{NAME}/Say", f"/{NAME}/Watch"
PLAIN, TEXT = "application/grpc-web+proto", "application/grpc-web-text"


def parts(body: bytes) -> tuple[list[Any], dict[str, str]]:
    """Replies and trailers of an answer's body."""
    found, trailers = [], {}
    while body:
        flag, size = body[0], int.from_bytes(body[1:5], "big")
        data, body = body[5 : 5 + size], body[5 + size :]
        if flag & 0x80:
            trailers = dict(line.split(": ", 1) for line in data.decode().split("\r\n") if line)
            assert not body, "trailers are the last"
        else:
            found.append(Reply.FromString(data))
    return found, trailers


def decoded(kind: str, body: bytes) -> bytes:
    if kind != TEXT:
        return body
    pieces = [piece + b"=" * (-len(piece) % 4) for piece in body.replace(b"=", b" ").split()]
    return b"".join(base64.b64decode(piece) for piece in pieces)


def call(address: str, path: str, request: Any, kind: str = PLAIN, **fields: str) -> tuple[Any, list[Any], dict[str, str]]:
    """A call on a connection of its own: the response, replies, trailers."""
    connection = http.client.HTTPConnection(address.removeprefix("tcp://"), timeout=20)
    try:
        return on(connection, path, request, kind, **fields)
    finally:
        connection.close()


def on(connection: Any, path: str, request: Any, kind: str = PLAIN, **fields: str) -> tuple[Any, list[Any], dict[str, str]]:
    body = prefixed(request.SerializeToString())
    if kind == TEXT:
        body = base64.b64encode(body)
    connection.request("POST", path, body, {"content-type": kind, "x-grpc-web": "1", **{k.replace("_", "-"): v for k, v in fields.items()}})
    response = connection.getresponse()
    found, trailers = parts(decoded(kind, response.read()))
    return response, found, trailers


def refuse(_: Any) -> None:
    raise StatusError(Code.NOT_FOUND, "nö")


@pytest.mark.parametrize("kind", [PLAIN, TEXT, "application/grpc-web"])
@without_hub
def test_calls_on_http1(kind: str) -> None:
    with served(EchoService(refuse=refuse)) as server:
        address = server.addresses[0]
        connection = http.client.HTTPConnection(address.removeprefix("tcp://"), timeout=20)
        for _ in range(3):  # one connection for all
            response, found, trailers = on(connection, SAY, Request(message="hi", body=bytes(100_000)), kind)
            assert (response.status, response.headers["content-type"]) == (200, kind)
            assert (found, trailers) == ([Reply(message="hi", body=bytes(100_000))], {"grpc-status": "0"})
        _, found, trailers = on(connection, WATCH, Request(message="w", body=bytes(30_000), count=50), kind)
        assert ([reply.count for reply in found], trailers) == (list(range(50)), {"grpc-status": "0"})
        _, found, trailers = on(connection, SAY, Request(action="refuse"), kind)
        assert (found, trailers) == ([], {"grpc-status": "5", "grpc-message": "n%C3%B6"})
        _, _, trailers = on(connection, "/no.Such/M", Request(), kind)
        assert trailers["grpc-status"] == "12"
        connection.close()
        wait_until(lambda: server.serving.connections == 0)
        assert server.serving.dispatcher.inflight == 0


@without_hub
def test_a_body_in_chunks_and_a_request_behind_another() -> None:
    message = prefixed(Request(message="x").SerializeToString())
    head = f"POST {SAY} HTTP/1.1\r\nHost: h\r\nContent-Type: {PLAIN}\r\n".encode()
    chunks = b"".join(b"%x;name=value\r\n%b\r\n" % (1, message[i : i + 1]) for i in range(len(message))) + b"0\r\nx: y\r\n\r\n"
    data = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + head + b"Content-Length: %d\r\n\r\n" % len(message) + message
    with served(EchoService()) as server:
        for step in (len(data), 1):
            with socket.create_connection(target_of(server.addresses[0])[1], timeout=20) as peer:
                for at in range(0, len(data), step):
                    peer.sendall(data[at : at + step])
                said = b""
                while said.count(b"grpc-status: 0") < 2:
                    said += peer.recv(65536)
                assert said.count(b"HTTP/1.1 200 OK") == 2


@without_hub
def test_calls_on_http2() -> None:
    with served(EchoService()) as server, GrpcWire(server.addresses[0]) as wire:
        for kind in (PLAIN, TEXT):
            body = prefixed(Request(message="hi").SerializeToString())
            stream = wire.protocol.open(
                [(b":method", b"POST"), (b":scheme", b"http"), (b":path", SAY.encode()), (b":authority", b"x"),
                 (b"content-type", kind.encode()), (b"origin", b"https://app")]
            )  # fmt: skip
            stream.max_message = 1 << 20  # type: ignore[attr-defined]
            wire.send(stream, base64.b64encode(body) if kind == TEXT else body, end=True)  # type: ignore[arg-type]
            wire.until(lambda s=stream: not s.is_open)
            assert stream.trailers is None
            said = {field.name: field.value for field in stream.headers or ()}
            assert (said[b"content-type"], said[b"access-control-allow-origin"]) == (kind.encode(), b"https://app")


@without_hub
def test_what_a_browser_asks_first() -> None:
    def ask(server: Any, origin: str) -> Any:
        connection = http.client.HTTPConnection(server.addresses[0].removeprefix("tcp://"), timeout=20)
        connection.request("OPTIONS", SAY, headers={
            "origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type,x-grpc-web",
        })  # fmt: skip
        response = connection.getresponse()
        response.read()
        connection.close()
        return response

    with served(EchoService()) as server:
        response = ask(server, "https://any")
        assert (response.status, response.headers["access-control-allow-origin"]) == (204, "https://any")
        assert response.headers["access-control-allow-headers"] == "content-type,x-grpc-web"
        response, _, _ = call(server.addresses[0], SAY, Request(), origin="https://any")
        assert response.headers["access-control-allow-origin"] == "https://any"
        assert "grpc-status" in response.headers["access-control-expose-headers"]
    with served(EchoService(), grpc=GrpcOptions(web_origins=("https://ours",))) as server:
        assert ask(server, "https://theirs").status == 403
        assert ask(server, "https://ours").status == 204
        response, found, _ = call(server.addresses[0], SAY, Request(message="x"), origin="https://theirs")
        assert response.headers["access-control-allow-origin"] is None
        assert found, "it is for the browser to hide the answer"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 415),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n", 415),
        (b"POST /\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nx: " + b"y" * 40_000, 431),
    ],
)
@without_hub
def test_requests_that_are_no_call(data: bytes, status: int) -> None:
    with served(EchoService()) as server:
        with socket.create_connection(target_of(server.addresses[0])[1], timeout=20) as peer:
            peer.sendall(data)
            said = b""
            while b"\r\n\r\n" not in said:
                more = peer.recv(65536)
                if not more:
                    break
                said += more
            assert said.split(b" ")[1:2] == [b"%d" % status]
            if status in (400, 431):
                while peer.recv(65536):
                    pass
        wait_until(lambda: server.serving.connections == 0)

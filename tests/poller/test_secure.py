"""Connections with TLS, over real sockets: good peers of the standard library and of OpenSSL's own, and bad ones."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from codec.errors import DeadlineExceeded, Unavailable, UsageError
from tests.support import need
from tests.support.certs import CLIENT, Certificates
from tests.support.echo_stub import Echo, EchoClient, Request, Response
from tests.support.net import (
    PATIENCE,
    Peer,
    Wire,
    answer_to,
    echo_forever,
    encode,
    read_frame,
    records,
    served,
    target_of,
    wait_until,
    with_hub,
    without_hub,
)
from weego import current

BOTH = pytest.mark.parametrize("decorate", [with_hub, without_hub])
Decorator = Callable[[Callable[[], None]], Callable[[], None]]


class EchoService(Echo):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def echo(self, req: Request) -> Response:
        call = current()
        assert call is not None
        self.seen.append(call.peer_identity)
        return Response(message=req.message)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


class SecureWire(Wire):
    """The standard library's TLS client, with Thrift on it."""

    def __init__(self, address: str, context: ssl.SSLContext, *, receive_buffer: int = 0) -> None:
        super().__init__(address, receive_buffer=receive_buffer)
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")


def raw(address: str) -> socket.socket:
    family, target = target_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(target)
    return sock


def drain(sock: socket.socket) -> bytes:
    """All until the end, be it a FIN or a reset."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


# ---- good peers ------------------------------------------------------------------------------------------------------


@BOTH
def test_calls(certs: Certificates, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        service = EchoService()
        with served(service, tls=certs.server()) as server, EchoClient(server.addresses[0], tls=certs.client()) as client:
            for size in (0, 1, 16_383, 16_384, 16_385, 70_000, 1_000_000, 5_000_000):
                message = "x" * size
                assert client.echo(Request(message=message), timeout=60).message == message
            assert client.statistics()[0].reused == 7
            assert service.seen == [None] * 8

    run()


@BOTH
def test_a_handler_knows_whose_certificate_it_was(certs: Certificates, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        service = EchoService()
        with (
            served(service, tls=certs.server(client_ca=certs.path("ca"))) as server,
            EchoClient(server.addresses[0], tls=certs.client(cert=certs.path("client"))) as client,
        ):
            client.echo(Request())
            client.echo(Request())
            assert [each.name for each in service.seen] == [CLIENT] * 2
            assert service.seen[0] is service.seen[1]

    run()


@BOTH
def test_a_scheme_of_its_own(certs: Certificates, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with served(EchoService(), tls=certs.server()) as server:
            secure = server.addresses[0].replace("tcp:", "tcps:")
            with EchoClient(secure, tls=certs.client()) as client:
                client.echo(Request())
            # Without more, the system's authorities are the ones to trust; they do not know ours.
            with EchoClient(secure) as client, pytest.raises(Unavailable, match="not to be trusted") as caught:
                client.echo(Request())
            assert caught.value.sent is False

    run()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_standard_library_calls(certs: Certificates, version: ssl.TLSVersion) -> None:
    @without_hub
    def run() -> None:
        context = certs.stdlib(minimum_version=version, maximum_version=version)
        with served(EchoService(), tls=certs.server()) as server, SecureWire(server.addresses[0], context) as wire:
            for number in range(1, 20):
                wire.send(Request(message="m" * 1000 * number), number)
                assert len(wire.reply().value.message) == 1000 * number
            # Many calls in one flight, larger than a record.
            wire.sock.sendall(b"".join(wire.write(Request(message="p" * 5000), number) for number in range(100, 130)))
            assert [wire.reply().seqid for _ in range(30)] == list(range(100, 130))
            assert wire.sock.unwrap() is not None  # its goodbye is answered by ours
            wire.sock.close()

    run()


def test_bytes_of_a_call_one_by_one(certs: Certificates) -> None:
    @without_hub
    def run() -> None:
        with served(EchoService(), tls=certs.server()) as server, SecureWire(server.addresses[0], certs.stdlib()) as wire:
            for byte in wire.write(Request(message="slow")):
                wire.sock.sendall(bytes([byte]))  # a record each
            assert wire.reply().value.message == "slow"

    run()


def test_a_handshake_byte_by_byte(certs: Certificates) -> None:
    @without_hub
    def run() -> None:
        with served(EchoService(), tls=certs.server()) as server, raw(server.addresses[0]) as sock:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = certs.stdlib().wrap_bio(incoming, outgoing, server_hostname="localhost")

            def step(action: Callable[[], Any]) -> Any:
                while True:
                    try:
                        return action()
                    except ssl.SSLWantReadError:
                        pass
                    finally:
                        for byte in outgoing.read():
                            sock.sendall(bytes([byte]))
                    incoming.write(sock.recv(7))

            step(client.do_handshake)
            client.write(encode(Request(message="there")))
            assert b"there" in step(lambda: client.read(1000))

    run()


def test_openssl_calls(certs: Certificates) -> None:
    program = need.program("openssl", "apt-get install openssl")

    @without_hub
    def run() -> None:
        service = EchoService()
        with served(service, tls=certs.server(client_ca=certs.path("ca"))) as server:
            port = server.addresses[0].rpartition(":")[2]
            command = [program, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certs.path("ca"), "-verify_return_error"]
            command += ["-servername", "localhost", "-cert", certs.path("client"), "-alpn", "h2", "-quiet", "-no_ign_eof"]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert child.stdin
            assert child.stdout
            child.stdin.write(encode(Request(message="from openssl")))
            child.stdin.flush()
            assert b"from openssl" in child.stdout.read1(1000)
            child.stdin.close()
            child.stdout.read()
            assert child.stderr
            child.stderr.read()
            child.wait(PATIENCE)
            for stream in (child.stdout, child.stderr):
                stream.close()
            assert service.seen[0].name == CLIENT

    run()


def test_a_peer_that_reads_only_later(certs: Certificates) -> None:
    @without_hub
    def run() -> None:
        with served(EchoService(), tls=certs.server()) as server:
            with SecureWire(server.addresses[0], certs.stdlib(), receive_buffer=4096) as wire:
                wire.sock.sendall(wire.write(Request(message="y" * 2_000_000)))
                with EchoClient(server.addresses[0], tls=certs.client()) as other:  # the loop goes on meanwhile
                    assert other.echo(Request(message="z")).message == "z"
                assert len(wire.reply().value.message) == 2_000_000

    run()


# ---- bad peers of a server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "text"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "the peer speaks plain HTTP, not TLS"),
        (encode(Request(message="plain")), "the peer does not speak TLS here"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "."),
        (b"\x16\x03\x01\x00\x05hello" + b"\0" * 100, "."),
        (b"\x16\x03\x01\xff\xff" + b"\1" * 70000, "."),
    ],
)
def test_noise_on_a_tls_port(certs: Certificates, noise: bytes, text: str) -> None:
    @without_hub
    def run() -> None:
        with records() as lines, served(EchoService(), tls=certs.server()) as server:
            with raw(server.addresses[0]) as sock:
                try:
                    sock.sendall(noise)
                except ConnectionError:
                    pass
                drain(sock)
            wait_until(lambda: bool(lines))
            assert len(lines) == 1
            assert re.search(rf"TLS handshake with tcp://127.0.0.1:\d+ failed: .*{text}", lines[0].getMessage())
            with EchoClient(server.addresses[0], tls=certs.client()) as client:
                client.echo(Request())

    run()


def test_half_a_handshake(certs: Certificates) -> None:
    @without_hub
    def run() -> None:
        hello = ssl.MemoryBIO()
        client = certs.stdlib().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        flight = hello.read()
        with records() as lines, served(EchoService(), tls=certs.server()) as server:
            for end in (1, 5, 100, len(flight)):
                with raw(server.addresses[0]) as sock:
                    sock.sendall(flight[:end])
                    sock.shutdown(socket.SHUT_WR)
                    drain(sock)
            wait_until(lambda: len(lines) == 4)
            assert all("the peer closed the connection during the handshake" in each.getMessage() for each in lines)
            # Who only looks whether the port is open is nothing to talk about.
            raw(server.addresses[0]).close()
            wait_until(lambda: server.serving.connections == 0)
            assert len(lines) == 4

    run()


def test_a_handshake_that_takes_too_long(certs: Certificates) -> None:
    @without_hub
    def run() -> None:
        with records() as lines, served(EchoService(), tls=certs.server(handshake_timeout=0.1)) as server:
            silent, slow = raw(server.addresses[0]), raw(server.addresses[0])
            slow.sendall(b"\x16\x03\x01")
            assert drain(silent) == drain(slow) == b""
            silent.close()
            slow.close()
            assert len(lines) == 2
            assert all("it was not done in 0.1 s" in each.getMessage() for each in lines)
            with EchoClient(server.addresses[0], tls=certs.client()) as client:
                client.echo(Request())

    run()


def test_a_flood_of_failures_is_a_few_lines(certs: Certificates) -> None:
    @without_hub
    def run() -> None:
        with records() as lines, served(EchoService(), tls=certs.server()) as server:
            for _ in range(30):
                with raw(server.addresses[0]) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    drain(sock)
            wait_until(lambda: server.serving.connections == 0)
            # A new line of time may begin once on a slow machine.
            assert len(lines) <= 21

    run()


def test_renegotiation_is_refused(certs: Certificates) -> None:
    program = need.program("openssl", "apt-get install openssl")

    @without_hub
    def run() -> None:
        with served(EchoService(), tls=certs.server()) as server:
            port = server.addresses[0].rpartition(":")[2]
            command = [program, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certs.path("ca"), "-tls1_2", "-legacy_renegotiation"]
            # R: renegotiate. It does so again and again if it is let.
            found = subprocess.run(command, input=b"R\nR\nR\nR\n", capture_output=True, timeout=PATIENCE, check=False)
            assert b"no renegotiation" in found.stderr.lower(), found.stderr
            with EchoClient(server.addresses[0], tls=certs.client()) as client:
                client.echo(Request())

    run()


def test_key_updates(certs: Certificates) -> None:
    program = need.program("openssl", "apt-get install openssl")

    @without_hub
    def run() -> None:
        with served(EchoService(), tls=certs.server()) as server:
            port = server.addresses[0].rpartition(":")[2]
            command = [program, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certs.path("ca"), "-tls1_3"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0) as child:
                assert child.stdin
                assert child.stderr
                for _ in range(20):
                    child.stdin.write(b"K\n")  # new keys, and ask the other side for new ones too
                    while b"KEYUPDATE" not in (line := child.stderr.readline()):
                        assert line, "the server ended the connection"
                child.stdin.write(b"Q\n")
                assert b"rror" not in child.stderr.read()
            wait_until(lambda: server.serving.connections == 0)

    run()


def test_damaged_records_end_the_connection(certs: Certificates) -> None:
    @without_hub
    def run() -> None:
        with served(EchoService(), tls=certs.server()) as server, raw(server.addresses[0]) as sock:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = certs.stdlib().wrap_bio(incoming, outgoing, server_hostname="localhost")
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
            sock.sendall(outgoing.read())
            client.write(encode(Request(message="whole")))
            whole = outgoing.read()
            client.write(encode(Request(message="damaged")))
            damaged = bytearray(outgoing.read())
            damaged[20] ^= 1
            sock.sendall(whole + damaged)
            incoming.write(drain(sock))
            incoming.write_eof()
            with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
                while True:
                    client.read(65536)

    run()


# ---- bad peers of a client -------------------------------------------------------------------------------------------


@BOTH
def test_a_server_that_does_not_speak_tls(certs: Certificates, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def noise(connection: socket.socket, number: int) -> None:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with Peer(noise) as peer, EchoClient(peer.address, tls=certs.client()) as client:
            with pytest.raises(Unavailable, match=r"cannot connect to .*: TLS: the peer does not speak TLS here") as caught:
                client.echo(Request())
            assert caught.value.sent is False

    run()


@BOTH
def test_a_server_that_never_answers_or_goes(certs: Certificates, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def behave(connection: socket.socket, number: int) -> None:
            while number == 0 and connection.recv(1000):
                pass

        with Peer(behave) as peer, EchoClient(peer.address, tls=certs.client(), connect_timeout=0.1) as client:
            with pytest.raises(Unavailable, match="TLS: no answer in time"):
                client.echo(Request())
            with pytest.raises(Unavailable, match=r"TLS: (the peer closed|connection reset)"):
                client.echo(Request(), timeout=20)

    run()


def tls_peer(certs: Certificates, behave: Callable[[socket.socket, int], None]) -> Peer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.path("server"))

    def secured(connection: socket.socket, number: int) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.settimeout(PATIENCE)
                behave(wrapped, number)
        except ssl.SSLError:
            pass

    return Peer(secured)


@BOTH
def test_the_standard_library_answers(certs: Certificates, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        with tls_peer(certs, echo_forever) as peer, EchoClient(peer.address, tls=certs.client()) as client:
            # The tickets that come behind the handshake are no sign of the end: the connection is used again.
            assert [client.echo(Request()).message for _ in range(5)] == ["0"] * 5

    run()


@BOTH
def test_a_connection_that_ended_while_idle(certs: Certificates, decorate: Decorator) -> None:
    @decorate
    def run() -> None:
        def once(connection: socket.socket, number: int) -> None:
            connection.sendall(answer_to(read_frame(connection), str(number)))
            if number % 2 == 0:
                connection.unwrap()  # type: ignore[attr-defined]

        with tls_peer(certs, once) as peer, EchoClient(peer.address, tls=certs.client()) as client:
            for number in range(4):
                assert client.echo(Request(), timeout=20).message == str(number)
                if decorate is with_hub:
                    wait_until(lambda: client.statistics()[0].idle == 0)
                else:
                    transport = next(iter(client._transports.values()))
                    wait_until(lambda t=transport: not t._pool._idle[peer.address][-1][1].is_alive())  # type: ignore[misc, attr-defined]

    run()


@with_hub
def test_other_greenlets_go_on_during_a_handshake(certs: Certificates) -> None:
    def silent(connection: socket.socket, number: int) -> None:
        while connection.recv(1000):
            pass

    with Peer(silent) as peer, EchoClient(peer.address, tls=certs.client(), connect_timeout=20) as client:
        call = gevent.spawn(client.echo, Request(), timeout=1)
        turns = 0
        while not call.ready():
            gevent.sleep(0.005)
            turns += 1
        assert turns > 3
        with pytest.raises((Unavailable, DeadlineExceeded)):
            call.get()


@without_hub
def test_files_are_looked_at_when_the_client_is_made(certs: Certificates, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        EchoClient("tcp://127.0.0.1:1", tls=certs.client(ca=str(tmp_path / "none.pem")))
    with pytest.raises(UsageError, match="cannot read"):
        served_tls = certs.server(cert=str(tmp_path / "none.pem"))
        with served(EchoService(), tls=served_tls):
            pass


# ---- new certificates ------------------------------------------------------------------------------------------------


@without_hub
def test_a_reload_shows_new_certificates_to_new_connections(certs: Certificates, tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_bytes(Path(certs.path("server")).read_bytes())
    tls = certs.server(cert=str(cert))
    with served(EchoService(), tls=tls) as server, EchoClient(server.addresses[0], tls=certs.client()) as old:
        old.echo(Request())
        cert.write_bytes(Path(certs.path("other")).read_bytes())
        tls.reload()
        with EchoClient(server.addresses[0], tls=certs.client(server_name="other.example")) as new:
            new.echo(Request())
        old.echo(Request())
        assert old.statistics()[0].reused == 1

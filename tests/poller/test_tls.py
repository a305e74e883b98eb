"""TLS without sockets: contexts and the mistakes in their files, the handshake between two sessions, names in certificates."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from codec.errors import UsageError
from poller.tls import TLS, Failures, PeerIdentity, ServerTLS, Session, TlsError, describe, handshake, identity_of
from tests.support.certs import CLIENT, Certificates
from tests.support.net import records


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


def shake(client: Session, server: Session) -> None:
    """Carry the bytes between the two until both are done. Raises what the first to fail raises."""
    done = {client: False, server: False}
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            if not done[one]:
                try:
                    done[one] = one.shake()
                finally:
                    other.incoming.write(one.outgoing.read())
        if all(done.values()):
            return
    raise AssertionError("the handshake does not end")


def test_a_handshake(certs: Certificates) -> None:
    client, server = certs.client().session("localhost", ["h2"]), certs.server().session()
    assert server.identity is None
    shake(client, server)
    assert client.alpn == server.alpn == "h2"
    assert client.version == "TLSv1.3"
    assert client.cipher.startswith("TLS_")
    assert client.identity is not None
    assert client.identity.dns == ("localhost",)
    assert server.identity is None
    client.ssl.write(b"hello")
    server.incoming.write(client.outgoing.read())
    assert server.ssl.read(100) == b"hello"
    server.incoming.write(client.close())
    assert server.ssl.read(100) == b""


def test_thrift_asks_for_no_protocol(certs: Certificates) -> None:
    client, server = certs.client().session("localhost"), certs.server().session()
    shake(client, server)
    assert client.alpn == server.alpn == ""


def test_a_client_that_shows_who_it_is(certs: Certificates) -> None:
    client = certs.client(cert=certs.path("client")).session("localhost")
    server = certs.server(client_ca=certs.path("ca")).session()
    shake(client, server)
    found = server.identity
    assert isinstance(found, PeerIdentity)
    assert found.name == CLIENT
    assert found.subject.startswith(f"CN={CLIENT},")
    assert found.subject.endswith(r"O=Example\, Inc.")
    assert found.emails == ("shop@example.com",)


def test_a_client_that_must_show_who_it_is(certs: Certificates) -> None:
    server = certs.server(client_ca=certs.path("ca"))
    with pytest.raises(TlsError, match="the client showed no certificate, and this listener wants one"):
        shake(certs.client().session("localhost"), server.session())
    stranger = certs.client(cert=certs.path("stranger"))
    with pytest.raises(TlsError, match="certificate is not to be trusted"):
        shake(stranger.session("localhost"), server.session())
    shake(certs.client().session("localhost"), certs.server(client_ca=certs.path("ca"), client_optional=True).session())


@pytest.mark.parametrize(
    ("options", "host", "text"),
    [
        ({"ca": "stranger-ca"}, "localhost", "the peer's certificate is not to be trusted: unable to get local issuer certificate"),
        ({}, "example.org", "hostname mismatch"),
        ({"server_name": "example.org"}, "localhost", "hostname mismatch"),
        ({"ca": None}, "localhost", "not to be trusted"),
    ],
)
def test_whom_a_client_does_not_believe(certs: Certificates, options: dict[str, str | None], host: str, text: str) -> None:
    if options.get("ca"):
        options = {"ca": certs.path("stranger-ca")}
    with pytest.raises(TlsError, match=text):
        shake(certs.client(**options).session(host), certs.server().session())


def test_a_client_that_believes_anybody(certs: Certificates) -> None:
    shake(TLS(verify=False).session("example.org"), certs.server().session())


def test_a_certificate_for_each_name(certs: Certificates) -> None:
    server = certs.server(names={"Other.example": (certs.path("other"), None), "*.example.com": (certs.path("wild"), None)})
    for name in ("localhost", "other.example", "a.example.com", "b.example.com"):
        shake(certs.client(server_name=name).session(""), server.session())
    with pytest.raises(TlsError, match="hostname mismatch"):
        shake(certs.client(server_name="a.b.example.com").session(""), server.session())


def test_versions(certs: Certificates) -> None:
    new = certs.server(min_version="1.3")
    old = certs.client().context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(TlsError, match="only speaks a version of TLS that is too old"):
        shake(Session(old, server_side=False, name="localhost"), new.session())
    client = Session(old, server_side=False, name="localhost")
    shake(client, certs.server(ciphers="ECDHE+AESGCM").session())
    assert client.version == "TLSv1.2"
    with pytest.raises(ssl.SSLError):  # no renegotiation in TLS 1.2, from either side
        client.ssl.do_handshake()
        client.ssl.verify_client_post_handshake()


def test_the_files_are_read_again(certs: Certificates, tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_bytes(Path(certs.path("server")).read_bytes())
    server = ServerTLS(cert=str(cert))
    server.load()
    client = certs.client(server_name="other.example")
    with pytest.raises(TlsError, match="mismatch"):
        shake(client.session(""), server.session())
    cert.write_bytes(Path(certs.path("other")).read_bytes())
    server.reload()
    shake(client.session(""), server.session())
    cert.write_text("broken")
    with pytest.raises(UsageError, match="no certificate and key in PEM form"):
        server.reload()
    shake(client.session(""), server.session())


def test_mistakes_in_files(certs: Certificates, tmp_path: Path) -> None:
    none, noise = str(tmp_path / "none.pem"), tmp_path / "noise.pem"
    noise.write_text("noise")
    locked = tmp_path / "locked.key"
    key = certs.folder / "server.key"
    subprocess.run(
        ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)], check=True, capture_output=True
    )
    crt = str(certs.folder / "server.crt")
    for server, text in (
        (ServerTLS(cert=none), "cannot read .*none.pem: no such file"),
        (ServerTLS(cert=str(noise)), "noise.pem: no certificate and key in PEM form"),
        (ServerTLS(cert=crt, key=none), "cannot read .*none.pem"),
        (ServerTLS(cert=crt, key=str(certs.folder / "other.key")), "other.key does not belong to the certificate"),
        (ServerTLS(cert=crt, key=str(locked)), "locked.key is protected by a password"),
        (ServerTLS(cert=crt, key=str(key), client_ca=str(noise)), "noise.pem has no certificate"),
        (certs.server(min_version="1.1"), 'unknown version \'1.1\'; choose "1.2" or "1.3"'),
        (certs.server(ciphers="NONSENSE"), "OpenSSL knows no cipher in 'NONSENSE'"),
        (certs.server(names={"a.example": (none, None)}), "cannot read .*none.pem"),
    ):
        with pytest.raises(UsageError, match=text):
            server.load()
    ServerTLS(cert=crt, key=str(key)).load()
    for client, text in (
        (TLS(ca=none), "cannot read"),
        (TLS(key=str(key)), "a key without a certificate"),
        (certs.client(cert=crt, key=str(certs.folder / "other.key")), "does not belong"),
    ):
        with pytest.raises(UsageError, match=text):
            client.context()
    with pytest.raises(UsageError, match="cannot be a server's name"):
        certs.client(server_name=".x").session("")


def test_noise_instead_of_a_handshake(certs: Certificates) -> None:
    for noise, text in (
        (b"GET / HTTP/1.1\r\n\r\n", "the peer speaks plain HTTP, not TLS"),
        (b"\x00\x00\x00\x10\x80\x01\x00\x01\x00\x00\x00\x04echo", "the peer does not speak TLS here"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "."),
        (b"\x16\x03\x01\x00\x05hello", "."),
    ):
        server = certs.server().session()
        server.incoming.write(noise)
        with pytest.raises(TlsError, match=text):
            server.shake()


def test_the_end_in_the_middle_of_a_handshake(certs: Certificates) -> None:
    sent: list[bytes] = []
    with pytest.raises(TlsError, match="the peer closed the connection during the handshake"):
        handshake(certs.client().session("localhost"), lambda: b"", sent.append)
    assert sent[0][0] == 22


def test_failures_are_told_and_a_flood_of_them_is_counted() -> None:
    now = 100.0
    failures = Failures(lambda: now)
    with records() as lines:
        for _ in range(15):
            failures.tell("tcp://1.2.3.4:5", "why")
        assert [each.getMessage() for each in lines] == ["TLS handshake with tcp://1.2.3.4:5 failed: why"] * 10
        now += 11
        failures.tell("tcp://1.2.3.4:5", "why")
        assert [each.getMessage() for each in lines[10:]] == [
            "5 more TLS handshakes failed in 11 s",
            "TLS handshake with tcp://1.2.3.4:5 failed: why",
        ]


def test_names_with_special_characters() -> None:
    found = identity_of(
        {"subject": ((("organizationName", ' a+b,"c"'),), (("commonName", "#x"), ("2.5.4.97", "y;z"))), "issuer": ((("countryName", "DE"),),)}
    )
    assert found.subject == r'CN=\#x+2.5.4.97=y\;z,O=\ a\+b\,\"c\"'
    assert found.issuer == "C=DE"
    assert found.name == "#x"


def test_alternative_names() -> None:
    names = (("DNS", "a.example"), ("URI", "spiffe://example.com/shop"), ("email", "a@example.com"), ("DNS", "b.example"))
    found = identity_of({"subject": (), "subjectAltName": names, "serialNumber": "0A"})
    assert (found.dns, found.uris, found.emails) == (("a.example", "b.example"), ("spiffe://example.com/shop",), ("a@example.com",))
    assert (found.name, found.subject, found.serial) == ("", "", "0A")


def test_an_error_openssl_has_no_name_for() -> None:
    assert "something odd" in describe(ssl.SSLError(1, "something odd"))


@pytest.mark.parametrize("module", ["weego.client", "weego.server", "weego.serving"])
def test_who_wants_no_tls_does_not_load_openssl(module: str) -> None:
    code = f"import sys, {module}; print('_ssl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"

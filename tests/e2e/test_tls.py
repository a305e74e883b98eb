"""TLS under the master: broken files, reloads with new certificates, connections that stay where their keys are."""

from __future__ import annotations

import json
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.wire import DOUBLE, REPLY, STRING, Closed, Wire, call, told
from tests.support.certs import Certificates
from tests.support.service import MASTER, App, until


@pytest.fixture(scope="module", autouse=True)
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certs"))


class SecureWire(Wire):
    def __init__(self, address: str, certs: Certificates, name: str = "localhost", **options: Any) -> None:
        super().__init__(address)
        self.socket = certs.stdlib(**options).wrap_socket(self.socket, server_hostname=name)


def secured(cert: object, **more: object) -> dict[str, Any]:
    """Two listeners: the first with TLS, the second without."""
    keys = {"cert": str(cert), **more}
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return {
        "listen": [],
        "more": f'[[listen]]\naddress = "tcp://127.0.0.1:0"\ntls = {{ {table} }}\n\n[[listen]]\naddress = "tcp://127.0.0.1:0"\n',
    }


def test_new_certificates_and_old_connections(app: App, certs: Certificates) -> None:
    cert = app.folder / "cert.pem"
    cert.write_bytes(Path(certs.path("server")).read_bytes())
    conf = secured("cert.pem")
    with app.serve(**conf) as server:
        secure, plain = server.addresses
        with SecureWire(secure, certs) as wire, Wire(plain) as moved:
            first = wire.tell()
            assert moved.tell() == first
            cert.write_text("broken")
            assert "cert.pem: no certificate and key in PEM form" in server.reload_fails()
            assert wire.tell() == first

            cert.write_bytes(Path(certs.path("other")).read_bytes())
            app.write_version(2)
            server.reload_ok()
            # The plain connection goes on in the new worker; the other one ends, with a goodbye, because its keys stay.
            until(lambda: moved.tell()[0] == 2, "the new code to answer")
            assert wire.socket.recv(100) == b""
            with SecureWire(secure, certs, "other.example") as renewed:
                assert renewed.tell()[0] == 2
            until(lambda: first[1] not in server.remember(), "the old worker to go")
            server.allow.append("no certificate and key")


GOVERNANCE = """
[[governance.limit]]
name = "partners"
certificate = "partner-*"
each_caller = true
rate = 0.001
burst = 3
method = "echo"

[[governance.rule]]
allow = false
certificates = ["partner-south"]
methods = ["tell"]

[[governance.rule]]
allow = true
certificates = ["partner-*", "house"]
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_limits_and_rules_go_by_the_certificate_a_client_proves(app: App, certs: Certificates, workers: int) -> None:
    for name in ("partner-north", "partner-south", "house", "nobody"):
        certs.introduce(name, name)
    conf = secured(certs.path("server"), client_ca=certs.path("ca"))
    conf["more"] += GOVERNANCE + '[governance]\ndefault = "deny"\n'
    with app.serve(workers=workers, allow=["TLS handshake with .* failed: the peer's certificate is not to be trusted"], **conf) as server:

        def ask(name: str, method: str, times: int) -> list[str]:
            """What came of so many calls, on connections of their own."""
            found = []
            for _ in range(times):
                with SecureWire(server.address, certs, cert=name) as wire:
                    answer = wire.call(method, (1, STRING, "x"))
                    found.append("ok" if answer.kind == REPLY else answer.error[1])
            return found

        limited = "RESOURCE_EXHAUSTED: Probe.echo: limit partners for {}, 0.001 calls a second; try another instance or later"
        # What one partner has used up is none of the other's business, and who is no partner has no such limit.
        assert ask("partner-north", "echo", 5) == ["ok"] * 3 + [limited.format("partner-north")] * 2
        assert ask("partner-south", "echo", 4) == ["ok"] * 3 + [limited.format("partner-south")]
        assert ask("house", "echo", 6) == ["ok"] * 6
        assert ask("partner-north", "tell", 1) == ["ok"]
        (denied,) = ask("partner-south", "tell", 1)
        assert denied.startswith("PERMISSION_DENIED: a caller without a name (certificate: partner-south, ")
        assert denied.endswith("may not call Probe.tell: an access rule denies it")
        assert "certificate: nobody, " in ask("nobody", "echo", 1)[0]
        # Without a certificate of the authority there is no call at all.
        with pytest.raises((ssl.SSLError, Closed, OSError)):
            ask("stranger", "echo", 1)


def test_new_certificates_beside_a_change_that_workers_could_follow(app: App, certs: Certificates) -> None:
    """Limits alone need no new workers; a certificate does, and is not forgotten over it."""
    cert = app.folder / "cert.pem"
    cert.write_bytes(Path(certs.path("server")).read_bytes())
    time.sleep(0.6)  # younger files are not trusted to be what was read
    with app.serve(**secured("cert.pem")) as server:
        with SecureWire(server.address, certs) as wire:
            before = wire.tell()[1]
        cert.write_bytes(Path(certs.path("other")).read_bytes())
        app.write_conf(**secured("cert.pem"), limits="max_concurrency = 7")
        server.reload_ok()
        with SecureWire(server.address, certs, "other.example") as renewed:
            assert renewed.tell()[1] != before


def test_a_call_under_way_is_answered_over_a_reload(app: App, certs: Certificates) -> None:
    with app.serve(**secured(certs.path("server"))) as server, SecureWire(server.addresses[0], certs) as wire:
        wire.send(call("wait", (1, DOUBLE, 0.5), (2, STRING, "there")))
        server.reload_ok()
        assert told(wire.receive().text, "there")[0] == 1
        assert wire.socket.recv(100) == b""


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"cert": "none.pem"}, r"server.toml:\d+: \[\[listen\]\] tls: cannot read .*/none.pem: no such file"),
        ({"client_optional": True}, r"server.toml:\d+: \[\[listen\]\] tls.client_optional: means nothing without client_ca"),
        ({"min_version": "1.1"}, r'\[\[listen\]\] tls.min_version: "1.1" is not one of "1.2", "1.3"'),
        ({"certs": "x"}, r'\[\[listen\]\] tls.certs: unknown key, did you mean "cert"\?'),
        ({"ciphers": "NONSENSE"}, r"\[\[listen\]\] tls: OpenSSL knows no cipher in 'NONSENSE'"),
    ],
)
def test_check_names_the_mistake(app: App, certs: Certificates, keys: dict[str, object], text: str) -> None:
    app.write_conf(**secured(**{"cert": certs.path("server"), **keys}))
    done = subprocess.run([sys.executable, MASTER, str(app.conf), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.search(text, done.stderr), done.stderr


def test_stop_says_goodbye(app: App, certs: Certificates) -> None:
    with app.serve(**secured(certs.path("server"))) as server, SecureWire(server.addresses[0], certs) as wire:
        wire.tell()
        server.signal(signal.SIGTERM)
        assert wire.socket.recv(100) == b""
        assert server.process.wait() == 0

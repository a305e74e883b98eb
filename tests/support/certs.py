"""Certificates for tests, made by trustme: an authority, a server's certificate for localhost, a client's, and those of strangers."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import trustme

from poller.tls import TLS, ServerTLS

CLIENT = "shop"


class Certificates:
    """Files in `folder`: ca, server, client, other (the server's again, renewed), stranger (another authority's, for localhost)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.issue("server", "localhost", "127.0.0.1")
        self.issue("other", "localhost", "127.0.0.1", "other.example")
        self.issue("wild", "*.example.com")
        self.introduce("client", CLIENT)
        stranger = trustme.CA()
        stranger.cert_pem.write_to_path(str(folder / "stranger-ca.pem"))
        stranger.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "stranger.pem"))

    def issue(self, name: str, *names: str) -> None:
        """A server's certificate and key, in one file and in two."""
        made = self.authority.issue_cert(*names)
        made.private_key_and_cert_chain_pem.write_to_path(self.path(name))
        made.private_key_pem.write_to_path(str(self.folder / f"{name}.key"))
        (self.folder / f"{name}.crt").write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))

    def introduce(self, name: str, caller: str) -> None:
        """A client's certificate, which says that it is `caller`."""
        made = self.authority.issue_cert(f"{caller}@example.com", common_name=caller, organization_name="Example, Inc.")
        made.private_key_and_cert_chain_pem.write_to_path(self.path(name))

    def path(self, name: str) -> str:
        """Of ``name.pem``."""
        return str(self.folder / f"{name}.pem")

    def server(self, **options: object) -> ServerTLS:
        """A server's TLS with its certificate."""
        return ServerTLS(**{"cert": self.path("server"), **options})  # type: ignore[arg-type]

    def client(self, **options: object) -> TLS:
        """A client's TLS that trusts the authority."""
        return TLS(**{"ca": self.path("ca"), **options})  # type: ignore[arg-type]

    def stdlib(self, cert: str | None = None, **options: object) -> ssl.SSLContext:
        """The standard library's context of a client that trusts the authority."""
        context = ssl.create_default_context(cafile=self.path("ca"))
        if cert:
            context.load_cert_chain(self.path(cert))
        for name, value in options.items():
            setattr(context, name, value)
        return context


@cache
def certificates(folder: str) -> Certificates:
    """Made once for each folder: keys take time."""
    return Certificates(Path(folder))

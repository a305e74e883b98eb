"""TLS without a socket of its own: `ssl.SSLObject` between two memory buffers, so that the loop stays the only one that touches sockets.

    TLS         what a client wants: whom it trusts, its own certificate, the name it expects
    ServerTLS   what a listener shows: certificate and key, by name if there are several, and whose clients it takes
    Session     one connection's SSLObject and its two buffers, with the errors of OpenSSL in plain words
    PeerIdentity  who the other side proved to be

TLS 1.2 and 1.3; no renegotiation (a peer could make us do the costly half of a handshake again and again) and no compression (CRIME).
`poller.secure` puts a Session into a Connection; `SecureSocket` serves a thread that waits by itself.
"""

from __future__ import annotations

import _socket
import errno
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from codec.errors import UsageError
from poller.clock import monotonic

__all__ = ["TLS", "Failures", "PeerIdentity", "SecureSocket", "ServerTLS", "Session", "TlsError", "handshake"]

# How long a client may take for its handshake (seconds; nginx's client_header_timeout is 60, grpc-go's handshake limit 120: both too kind).
DEFAULT_HANDSHAKE_TIMEOUT: Final = 10.0
# What a server offers by ALPN: gRPC insists on h2; Thrift has no name and asks for none.
SERVER_PROTOCOLS: Final = ("h2", "http/1.1")
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Failed handshakes told one by one in so many seconds.
_MOST_TOLD: Final = 10
_TOLD_EVERY: Final = 10.0
# Bytes asked of the kernel, and of OpenSSL, at a time: four records of the largest size.
_CHUNK: Final = 65536

# OpenSSL's reasons as a person would say them, seen from our side.
_REASONS: Final = {
    "HTTP_REQUEST": "the peer speaks plain HTTP, not TLS",
    "HTTPS_PROXY_REQUEST": "the peer speaks to an HTTP proxy, not TLS",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS here",
    "UNKNOWN_PROTOCOL": "the peer does not speak TLS here",
    "UNSUPPORTED_PROTOCOL": "the peer only speaks a version of TLS that is too old",
    "NO_SHARED_CIPHER": "no cipher suits both sides",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate, and this listener wants one (client_ca)",
    "UNEXPECTED_EOF_WHILE_READING": "the peer closed the connection during the handshake",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know the authority that signed our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer refused our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer refused our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer found our certificate expired",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate of ours; give one: TLS(cert=…, key=…)",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer does not speak our versions of TLS",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer found no common ground (ciphers, versions, or a certificate it wants)",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the peer speaks none of the protocols asked for (ALPN)",
    "TLSV1_UNRECOGNIZED_NAME": "the peer has no certificate for that name (SNI)",
}

log = logging.getLogger("weego.worker")


class TlsError(Exception):
    """A TLS connection cannot begin or go on; the text says why, in one line."""


@dataclass(frozen=True)
class PeerIdentity:
    """What the other side's certificate says, after it was verified.

    `subject` is the distinguished name, as ``CN=shop,O=Example``; `name` its common name; `dns`, `uris` (SPIFFE ids are such) and
    `emails` are the alternative names.
    """

    subject: str
    name: str
    issuer: str
    serial: str
    not_after: str
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TLS:
    """TLS as a client wants it.

    `ca` is a file of certificates (PEM) of the authorities to trust, else the system's are; `cert` and `key` are files of the client's own
    certificate, for servers that ask who calls. `server_name` is the name the server's certificate must have, and which it is asked for
    (SNI); without one it is the target's host. `verify` False takes any certificate: for tests only, anybody could be in between.
    UsageError when a file cannot be used.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: bool = True
    min_version: str = "1.2"
    ciphers: str | None = None
    _contexts: dict[tuple[str, ...], ssl.SSLContext] = field(default_factory=dict, repr=False, compare=False)

    def context(self, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """The context for these ALPN protocols, made once."""
        found = self._contexts.get(tuple(protocols))
        if found is None:
            found = self._contexts[tuple(protocols)] = self._make(protocols)
        return found

    def _make(self, protocols: Sequence[str]) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_CLIENT, self.min_version, self.ciphers)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            _trust(context, self.ca)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if self.cert is not None:
            _show(context, self.cert, self.key)
        elif self.key is not None:
            raise UsageError("TLS: a key without a certificate; give both, or cert alone if its file has the key too")
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def session(self, host: str, protocols: Sequence[str] = ()) -> Session:
        """A new connection's session with `host`."""
        return Session(self.context(protocols), server_side=False, name=self.server_name or host or "localhost")


@dataclass(frozen=True, kw_only=True)
class ServerTLS:
    """TLS as a listener shows it.

    `cert` and `key` are files (PEM; the certificate first, then its chain). `names` has further pairs for clients that ask for a name
    (SNI), such as ``{"*.example.com": ("wild.pem", "wild.key")}``. With `client_ca`, a file of certificates, clients must show a certificate
    that one of those signed; with `client_optional` they may also show none. A handshake must be done in `handshake_timeout`
    seconds. UsageError when a file cannot be used.
    """

    cert: str
    key: str | None = None
    client_ca: str | None = None
    client_optional: bool = False
    names: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    min_version: str = "1.2"
    ciphers: str | None = None
    handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT

    @cached_property
    def failures(self) -> Failures:
        """Tells of handshakes that failed."""
        return Failures()

    @cached_property
    def _contexts(self) -> list[ssl.SSLContext]:
        return [self._make()]

    def load(self) -> None:
        """Read the files now if they were not read yet: mistakes show here and not at the first connection."""
        _ = self._contexts

    def reload(self) -> None:
        """Read the files again. Connections made from now on get what is in them; if that is broken, UsageError, and all stays as it was."""
        self._contexts[0] = self._make()

    def session(self) -> Session:
        """A new connection's session."""
        return Session(self._contexts[0], server_side=True)

    def _make(self) -> ssl.SSLContext:
        context = self._one(self.cert, self.key)
        if self.names:
            named = {name.lower(): self._one(*pair) for name, pair in self.names.items()}

            def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
                wanted = (name or "").lower()
                chosen = named.get(wanted) or named.get("*." + wanted.partition(".")[2])
                if chosen is not None:
                    connection.context = chosen

            context.sni_callback = choose
        return context

    def _one(self, cert: str, key: str | None) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER, self.min_version, self.ciphers)
        _show(context, cert, key)
        if self.client_ca is not None:
            _trust(context, self.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL if self.client_optional else ssl.CERT_REQUIRED
        context.set_alpn_protocols(list(SERVER_PROTOCOLS))
        return context


def _context(side: int, min_version: str, ciphers: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    if min_version not in _VERSIONS:
        raise UsageError(f'TLS: unknown version {min_version!r}; choose "1.2" or "1.3"')
    context.minimum_version = _VERSIONS[min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if ciphers is not None:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError:
            raise UsageError(f"TLS: OpenSSL knows no cipher in {ciphers!r}") from None
    return context


def _show(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    for path in (cert, key):
        _readable(path)
    try:
        context.load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"TLS: the key {key or cert} does not belong to the certificate {cert}") from None
        raise UsageError(f"TLS: {cert}{f' and {key}' if key else ''}: no certificate and key in PEM form ({_said(error)})") from None
    except ValueError as error:  # a password is needed
        raise UsageError(f"TLS: the key {key or cert} {error}") from None


def _no_password() -> str:
    raise ValueError("is protected by a password; a server that starts by itself needs one that is not (openssl pkey)")


def _trust(context: ssl.SSLContext, path: str) -> None:
    _readable(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise UsageError(f"TLS: {path} has no certificate in PEM form ({_said(error)})") from None


def _readable(path: str | None) -> None:
    if path is None:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UsageError(f"TLS: cannot read {path}: {(error.strerror or str(error)).lower()}") from None


class Failures:
    """Tells the log of failed handshakes, one line each, unless there are too many: a flood of them must not fill the disk."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since = -_TOLD_EVERY
        self._told = self._untold = 0

    def tell(self, peer: str, what: str) -> None:
        """A handshake with `peer` failed."""
        now = self._clock()
        if now - self._since > _TOLD_EVERY:
            if self._untold:
                log.warning("%d more TLS handshakes failed in %.0f s", self._untold, now - self._since)
            self._since, self._told, self._untold = now, 0, 0
        if self._told < _MOST_TOLD:
            self._told += 1
            log.warning("TLS handshake with %s failed: %s", peer, what)
        else:
            self._untold += 1


# ---- one connection ------------------------------------------------------------------------------------------------------


class Session:
    """The TLS of one connection: `incoming` takes what the peer sent, `outgoing` has what is to be sent to it."""

    __slots__ = ("incoming", "name", "outgoing", "ssl")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None) -> None:
        self.name = name
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        try:
            self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=name)
        except ValueError as error:  # a name that can be none: empty, or beginning with a dot
            raise UsageError(f"TLS: {name!r} cannot be a server's name: {error}") from None

    def shake(self) -> bool:
        """One step of the handshake with what has come in. True when it is done; TlsError when it failed."""
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(describe(error)) from None
        return True

    def close(self) -> bytes:
        """The goodbye (close_notify) to send before the connection is closed; empty when none can be said."""
        try:
            self.ssl.unwrap()
        except (ssl.SSLError, ValueError, OSError):
            pass  # the peer's own goodbye has not come, or the handshake is not done; ours is written in the first case
        return self.outgoing.read()

    @property
    def alpn(self) -> str:
        """The protocol agreed on, or an empty string."""
        return self.ssl.selected_alpn_protocol() or ""

    @property
    def identity(self) -> PeerIdentity | None:
        """Whom the peer's certificate names; None when it showed none, or none that was verified."""
        try:
            facts = self.ssl.getpeercert()
        except ValueError:  # the handshake is not done
            return None
        return identity_of(facts) if facts else None

    @property
    def version(self) -> str:
        """The version of TLS, as ``TLSv1.3``."""
        return self.ssl.version() or ""

    @property
    def cipher(self) -> str:
        """The cipher suite's name."""
        found = self.ssl.cipher()
        return found[0] if found else ""


def identity_of(facts: Mapping[str, Any]) -> PeerIdentity:
    """`getpeercert()` as a PeerIdentity."""
    subject = [pair for part in facts.get("subject", ()) for pair in part]
    names: dict[str, list[str]] = {}
    for kind, value in facts.get("subjectAltName", ()):
        names.setdefault(kind, []).append(value)
    return PeerIdentity(
        subject=_distinguished(facts.get("subject", ())),
        name=next((value for key, value in subject if key == "commonName"), ""),
        issuer=_distinguished(facts.get("issuer", ())),
        serial=facts.get("serialNumber", ""),
        not_after=facts.get("notAfter", ""),
        dns=tuple(names.get("DNS", ())),
        uris=tuple(names.get("URI", ())),
        emails=tuple(names.get("email", ())),
    )


# RFC 4514, section 3: the short names of the usual attributes.
_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "userId": "UID",
}


def _distinguished(name: Sequence[Sequence[tuple[str, str]]]) -> str:
    """RFC 4514: the parts from the last to the first, special characters with a backslash."""
    parts = ["+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part) for part in reversed(name)]
    return ",".join(parts)


def _escaped(value: str) -> str:
    text = "".join("\\" + char if char in ',+"\\<>;=' else char for char in value)
    return "\\" + text if text[:1] in (" ", "#") else text


def describe(error: ssl.SSLError) -> str:
    """What went wrong, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not to be trusted: {error.verify_message.rstrip('.').lower()}"
    return _REASONS.get(getattr(error, "reason", None) or "", "") or _said(error)


def _said(error: ssl.SSLError) -> str:
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()


def handshake(session: Session, receive: Callable[[], bytes], send: Callable[[bytes], None]) -> None:
    """Do the whole handshake: `receive` waits for bytes and returns b"" at the end, `send` sends all. TlsError when it fails."""
    while True:
        try:
            done = session.shake()
        except TlsError:
            if session.outgoing.pending:  # the alert that tells the peer why
                send(session.outgoing.read())
            raise
        if session.outgoing.pending:
            send(session.outgoing.read())
        if done:
            return
        data = receive()
        if not data:
            raise TlsError(_REASONS["UNEXPECTED_EOF_WHILE_READING"])
        session.incoming.write(data)


class SecureSocket:
    """What a thread that waits needs of a socket, with TLS in between. The session's handshake is done already."""

    def __init__(self, sock: _socket.socket, session: Session) -> None:
        self._sock = sock
        self.session = session
        self._left: memoryview = memoryview(b"")  # encrypted and not sent
        self._counted = 0  # plain bytes that are in it

    def settimeout(self, seconds: float | None) -> None:
        """For what comes next, in seconds."""
        self._sock.settimeout(seconds)

    def send(self, data: memoryview, flags: int = 0) -> int:
        """Send some of `data`; returns how much has left for certain."""
        if not self._left:
            self._counted = self._encrypt(data[:_CHUNK])
        while self._left:
            self._left = self._left[self._sock.send(self._left, flags) :]
        return self._counted

    def _encrypt(self, data: memoryview) -> int:
        try:
            counted = self.session.ssl.write(data)
        except ssl.SSLError as error:
            raise OSError(errno.EPROTO, describe(error)) from None
        self._left = memoryview(self.session.outgoing.read())
        return counted

    def recv(self, size: int) -> bytes:
        """At least one byte, or b"" at the end."""
        while True:
            try:
                return self.session.ssl.read(size)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                raise OSError(errno.EPROTO, describe(error)) from None
            data = self._sock.recv(_CHUNK)
            if not data:
                return b""
            self.session.incoming.write(data)

    def has_ended(self) -> bool:
        """Has the peer closed, or sent what nobody asked for? Tickets and key updates are neither. Never waits."""
        self._sock.settimeout(0)
        try:
            self.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def take_apart(self) -> tuple[_socket.socket, Session]:
        """The socket and its session, for who does without this class."""
        return self._sock, self.session

    def fileno(self) -> int:
        """Of the socket."""
        return self._sock.fileno()

    def close(self) -> None:
        """Say goodbye if that needs no waiting, and close."""
        if not self._left:
            goodbye = self.session.close()
            try:
                self._sock.settimeout(0)
                self._sock.send(goodbye, _socket.MSG_NOSIGNAL)
            except OSError:
                pass
        self._sock.close()

    def __repr__(self) -> str:
        return f"<SecureSocket fd {self._sock.fileno()} {self.session.version}>"

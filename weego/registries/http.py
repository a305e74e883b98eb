"""HTTP/1.1 for registries that speak it: one request, one connection, one answer of bounded size in bounded time; or lines for as long as they come.

The standard library's client, over gevent's sockets where a hub is at work in the thread, whether the program is patched or not.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from governance.discovery import DiscoveryError
from weego.registries.url import RegistryUrl
from weego.tasks import hub_of_this_thread

__all__ = ["Answer", "Http"]

MOST_BYTES: Final = 16 << 20
MOST_LINE: Final = 4 << 20
READ_SIZE: Final = 65536
# What of an answer goes into an error.
SHOWN: Final = 200


@dataclass(frozen=True)
class Answer:
    """What came back. `body` is all of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def plain(self) -> Any:
        """The body read as JSON. ValueError when it is none."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class Http:
    """Requests to the hosts of `url`, in turn when one fails; `what` names them in errors. `headers()` go with every request."""

    def __init__(self, what: str, url: RegistryUrl, headers: Callable[[], Mapping[str, str]] = dict) -> None:
        self._what = what
        self._url = url
        self._headers = headers
        self._at = 0
        self._open: set[Any] = set()
        self._is_closed = False

    def ask(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, Any] | None = None,
        *,
        form: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float,
    ) -> Answer:
        """The answer to a request of `path`, whose parts are quoted. `form` and `body` (as JSON) are what is sent. Raises DiscoveryError.

        Each host is tried once; one that does not answer in `timeout` seconds is left for the next.
        """
        for _ in self._url.hosts[1:]:
            with contextlib.suppress(DiscoveryError):
                return self._ask(method, path, query, form, body, timeout)
        return self._ask(method, path, query, form, body, timeout)

    def _ask(self, method: str, path: tuple[str, ...], query: Any, form: Any, body: Any, timeout: float) -> Answer:
        deadline = time.monotonic() + timeout
        with self._failures(), self._connection(timeout) as connection:
            response = self._request(connection, method, path, query, form, body)
            data = bytearray()
            while part := response.read1(READ_SIZE):
                data += part
                if len(data) > MOST_BYTES:
                    raise DiscoveryError(f"{self._where()}: the answer is longer than {MOST_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, bytes(data))

    def lines(
        self, path: tuple[str, ...], query: Mapping[str, Any], *, timeout: float, silence: float
    ) -> Iterator[tuple[int, bytes]]:
        """Status and line, for each line of the answer to a GET as it comes, until the peer ends it. Raises DiscoveryError, also after `silence` seconds
        without one.
        """
        with self._failures(), self._connection(timeout) as connection:
            response = self._request(connection, "GET", path, query, None, None)
            connection.allow(silence)
            while line := response.readline(MOST_LINE + 1):
                if len(line) > MOST_LINE:
                    raise DiscoveryError(f"{self._where()}: a line of the answer is longer than {MOST_LINE} bytes")
                yield response.status, line

    def _request(
        self, connection: http.client.HTTPConnection, method: str, path: tuple[str, ...], query: Any, form: Any, body: Any
    ) -> http.client.HTTPResponse:
        target = "/" + "/".join(quote(each, safe=":@") for each in path)
        if query:
            target += "?" + urlencode({name: value for name, value in query.items() if value not in ("", None)})
        headers = {"Accept": "application/json", "Connection": "close", "User-Agent": "weego", **self._headers()}
        data = None
        if form is not None:
            data = urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, target, body=data, headers=headers)
        return connection.getresponse()

    @contextlib.contextmanager
    def _connection(self, timeout: float) -> Iterator[_Connection]:
        if self._is_closed:
            raise DiscoveryError(f"{self._what} at {self._url.text}: its user is done with it")
        host, port = self._url.hosts[self._at % len(self._url.hosts)]
        connection = _Connection(host, port, timeout, self._url if self._url.is_secure else None)
        connection.connect()
        self._open.add(connection)
        try:
            if self._is_closed:  # since it began to connect
                raise DiscoveryError(f"{self._what} at {self._url.text}: its user is done with it")
            yield connection
        finally:
            self._open.discard(connection)
            connection.finish()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """What goes wrong below is a DiscoveryError, and the next host's turn."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            where = self._where()
            self._at += 1
            if isinstance(error, TimeoutError):
                raise DiscoveryError(f"{where}: no answer in time") from None
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise DiscoveryError(f"{where}: {text or type(error).__name__}") from None

    def _where(self) -> str:
        host, port = self._url.hosts[self._at % len(self._url.hosts)]
        return f"{self._what} at {host}:{port}"

    def refused(self, answer: Answer) -> DiscoveryError:
        """An answer that is no success, as an error."""
        text = " ".join(answer.body[:SHOWN].decode("utf-8", "replace").split())
        return DiscoveryError(f"{self._where()}: it answered {answer.status}{': ' + text if text else ''}")

    def malformed(self, answer: str) -> DiscoveryError:
        """An answer that nobody understands."""
        return DiscoveryError(f"{self._where()}: its answer is not understood: {answer}")

    def close(self) -> None:
        """Who waits for an answer waits no more. From any thread."""
        self._is_closed = True
        for connection in list(self._open):
            connection.interrupt()


class _Connection(http.client.HTTPConnection):
    """Over the sockets of this thread's way of waiting; with TLS as `secured` says, if at all."""

    def __init__(self, host: str, port: int, timeout: float, secured: RegistryUrl | None) -> None:
        super().__init__(host, port, timeout=timeout)
        self._secured = secured
        self._hub = hub_of_this_thread()
        self._raw: Any = None
        self._response: http.client.HTTPResponse | None = None

    def connect(self) -> None:
        sockets: Any = socket
        tls: Any = ssl
        if self._hub is not None:
            import gevent.socket
            import gevent.ssl

            sockets, tls = gevent.socket, gevent.ssl
        sock = sockets.create_connection((self.host, self.port), self.timeout)
        if self._secured is not None:
            try:
                # The handshake by itself: whoever is killed in the middle of one that belongs to the wrapping leaves a socket that nobody has.
                sock = _context(tls, self._secured).wrap_socket(
                    sock, server_hostname=self._secured.option("server_name", self.host), do_handshake_on_connect=False
                )
                sock.do_handshake()
            except BaseException:
                sock.close()
                raise
        # The base class lets go of its own when the peer says that it will close, which is not yet the end of the answer: see `finish`.
        self.sock = self._raw = sock

    def getresponse(self) -> http.client.HTTPResponse:
        self._response = super().getresponse()
        return self._response

    def finish(self) -> None:
        """Close it, and the answer: the base class leaves the socket to that when the peer says that it will close."""
        if self._response is not None:
            self._response.close()
        self.close()

    def allow(self, seconds: float) -> None:
        """From now on the peer may be silent for so long."""
        self._raw.settimeout(seconds)

    def interrupt(self) -> None:
        """Wake who waits for bytes, from another thread."""
        if self._hub is None:  # a greenlet is killed instead
            with contextlib.suppress(OSError):
                self._raw.shutdown(socket.SHUT_RDWR)


def _context(tls: Any, url: RegistryUrl) -> Any:
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if (ca := url.option("ca", None)) is not None:
        context.load_verify_locations(ca)
    else:
        context.load_default_certs()
    if (cert := url.option("cert", None)) is not None:
        context.load_cert_chain(cert, url.option("key", None))
    return context

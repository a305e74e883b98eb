"""An HTTP server in a thread that answers as a test says, for registries of which no real one can be had.

    with HttpFake(lambda request: (200, {"X-Consul-Index": "7"}, [...])) as fake: …   # JSON, or bytes as they are, or an iterator of chunks
"""

from __future__ import annotations

import json
import select
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass
class Request:
    """One that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    is_over: Callable[[], bool] = bool
    """Has the client gone, or does the server close? An answer that waits looks at it."""

    def wait(self, until: Callable[[], bool] = bool) -> None:
        """Until that comes about, or nobody wants to know any more."""
        while not until() and not self.is_over():
            time.sleep(0.01)

    def plain(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


def has_gone(sock: Any) -> bool:
    """Has the other side closed? It sends nothing after a request, so that all there is to read is the end, or the goodbye of TLS."""
    try:
        readable, _, _ = select.select([sock], [], [], 0)
    except (OSError, ValueError):
        return True
    return bool(readable)


Answer = tuple[int, dict[str, str], Any]


class HttpFake:
    """`answer(request)` says status, headers and body. None closes the connection without an answer."""

    def __init__(self, answer: Callable[[Request], Answer | None], *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.answer = answer
        self.ended = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake._serve(self)

            do_PUT = do_POST = do_DELETE = do_GET

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that went away

            def get_request(self) -> Any:
                sock, address = super().get_request()
                sock.settimeout(30)
                return sock, address

        self._server = Quiet(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.01), daemon=True)

    def _serve(self, handler: Any) -> None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(handler.command, unquote(parts.path), query, headers, body, lambda: self.ended.is_set() or has_gone(handler.connection))
        self.requests.append(request)
        answer = self.answer(request)
        handler.close_connection = True
        if answer is None:
            return
        status, headers, content = answer
        handler.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            handler.send_header(name, value)
        if isinstance(content, Iterator):
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for chunk in content:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                handler.wfile.flush()
            handler.wfile.write(b"0\r\n\r\n")
            return
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The admin listener: probes and metrics over HTTP, for machines. It only tells; orders go over ``control``.

    GET /livez      the master's loop turns (it answers) and a worker is alive. Restart the server when it says no.
    GET /readyz     new connections are served. Send none when it says no.
    GET /startupz   some worker has been ready. Wait until it says yes.
    GET /healthz    as /livez
    GET /metrics    for Prometheus

A probe answers 200 or 503, with a JSON object that gives the reasons. One request for a connection: HTTP/1.1 with
``Connection: close``, parsed by hand, for ``http.server`` would cost the master a third of its memory.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prefork import metrics, status
from prefork.door import MAX_REQUEST_BYTES, Door

if TYPE_CHECKING:
    from prefork.door import Visitor
    from prefork.loop import Loop
    from prefork.master import Master

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

_PATHS = ("/livez", "/readyz", "/startupz", "/healthz", "/metrics")


class Admin(Door):
    """The door for machines."""

    END = b"\r\n\r\n"

    def __init__(self, loop: Loop, master: Master) -> None:
        super().__init__(loop)
        self._master = master

    def serve(self, visitor: Visitor, request: bytes) -> None:
        """Answer one request head."""
        line = request.partition(b"\r\n")[0].decode("latin-1")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        if not method or not target.startswith("/") or not version.startswith("HTTP/"):
            self._complain(visitor, 400, "not an HTTP request")
        elif not version.startswith("HTTP/1."):
            self._complain(visitor, 505, "HTTP/1.1 is spoken here")
        elif method not in ("GET", "HEAD"):
            self._complain(
                visitor, 405, f"nothing can be changed here: GET {', '.join(_PATHS)}", "Allow: GET, HEAD\r\n"
            )
        else:
            self._get(visitor, target.partition("?")[0], has_body=method == "GET")

    def refuse(self, visitor: Visitor) -> None:
        """The request is too long."""
        self._complain(visitor, 431, f"a request may have {MAX_REQUEST_BYTES} bytes")

    def _get(self, visitor: Visitor, path: str, *, has_body: bool) -> None:
        if path == "/metrics":
            self._reply(visitor, 200, metrics.page(self._master), metrics.CONTENT_TYPE, has_body=has_body)
            return
        health = status.health(self._master)
        answers = {"/livez": health.live, "/healthz": health.live, "/readyz": health.ready, "/startupz": health.started}
        reasons = answers.get(path)
        if reasons is None:
            self._complain(visitor, 404, f"there are {', '.join(_PATHS)}", has_body=has_body)
            return
        body = _json({"ok": not reasons, "reasons": reasons})
        self._reply(visitor, 503 if reasons else 200, body, has_body=has_body)

    def _complain(self, visitor: Visitor, code: int, text: str, fields: str = "", *, has_body: bool = True) -> None:
        self._reply(visitor, code, _json({"error": text}), fields=fields, has_body=has_body)

    def _reply(
        self,
        visitor: Visitor,
        code: int,
        body: bytes,
        content_type: str = "application/json",
        *,
        fields: str = "",
        has_body: bool,
    ) -> None:
        head = (
            f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
            f"Cache-Control: no-store\r\nConnection: close\r\n{fields}\r\n"
        )
        self.answer(visitor, head.encode() + (body if has_body else b""), last=True)


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"

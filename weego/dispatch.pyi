from collections.abc import Callable
from typing import Any

from codec.thrift import Route
from governance.chain import Handler
from poller.connection import Connection, Limits
from poller.loop import Loop

MODES: dict[str, int]

class Target:
    """Who serves one method, and how."""

    handler: Handler
    method: Callable[..., Any] | None
    mode: int
    service: str
    timeout: float
    def __init__(
        self,
        service: str,
        handler: Handler,
        method: Callable[..., Any] | None = None,
        mode: str = "greenlet",
        timeout: float = 0,
    ) -> None: ...

class Dispatcher:
    """Receives the requests of all connections of one server."""

    loop: Loop
    routes: dict[bytes, Route]
    services: dict[str, dict[bytes, Route]]
    connections: set[Connection]
    inflight: int
    requests: int
    errors: int
    draining: bool
    on_idle: Callable[[], None] | None
    on_between: Callable[[Connection], None] | None
    def __init__(
        self,
        loop: Loop,
        routes: dict[bytes, Route],
        services: dict[str, dict[bytes, Route]],
        *,
        access: Callable[[Any, Any, int, int], None] | None = None,
        max_concurrency: int = 0,
        max_message: int = 16384000,
    ) -> None: ...
    def count_in(self, row: memoryview, *, inflight: int, requests: int, errors: int) -> None: ...
    def connect(self, fd: int, limits: Limits, data: bytes = b"") -> Connection: ...
    def forget(self, c: Connection) -> None: ...
    def close(self) -> None: ...

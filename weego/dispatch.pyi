from collections.abc import Callable
from typing import Any

from codec.thrift import Route
from governance.chain import Handler
from poller.connection import Connection, Limits, Receiver
from poller.loop import Loop

MODES: dict[str, int]

class Target:
    """Who serves one method, and how."""

    @property
    def handler(self) -> Handler: ...
    @property
    def method(self) -> Callable[..., Any] | None: ...
    @property
    def mode(self) -> int: ...
    @property
    def service(self) -> str: ...
    @property
    def timeout(self) -> float: ...
    def __init__(
        self,
        service: str,
        handler: Handler,
        method: Callable[..., Any] | None = None,
        mode: str = "greenlet",
        timeout: float = 0,
    ) -> None: ...

class Dispatcher(Receiver):
    """Receives the requests of all connections of one server."""

    @property
    def loop(self) -> Loop: ...
    @property
    def routes(self) -> dict[bytes, Route]: ...
    @property
    def services(self) -> dict[str, dict[bytes, Route]]: ...
    @property
    def connections(self) -> set[Connection]: ...
    @property
    def inflight(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int: ...
    draining: bool
    leaving: bool
    on_idle: Callable[[], None] | None
    on_between: Callable[[Connection], None] | None
    def __init__(
        self,
        loop: Loop,
        routes: dict[bytes, Route],
        services: dict[str, dict[bytes, Route]],
        *,
        access: Callable[[Any, Any, int, int, BaseException | None], None] | None = None,
        max_concurrency: int = 0,
        max_message: int = ...,
    ) -> None: ...
    def count_in(self, row: memoryview, *, inflight: int, requests: int, errors: int) -> None: ...
    def connect(self, fd: int, limits: Limits, data: bytes = b"") -> Connection: ...
    def forget(self, c: Connection) -> None: ...
    def close(self) -> None: ...

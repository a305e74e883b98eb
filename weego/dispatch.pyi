from collections.abc import Callable
from typing import Any

from governance.chain import Handler
from governance.meter import Tally
from poller.connection import Connection, Limits, Receiver
from poller.loop import Loop
from poller.tls import ServerTLS

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
    @property
    def streams(self) -> bool: ...
    def __init__(
        self,
        service: str,
        handler: Handler,
        method: Callable[..., Any] | None = None,
        mode: str = "greenlet",
        timeout: float = 0,
        streams: bool = False,
        tally: Tally | None = None,
    ) -> None: ...

class Front(Receiver):
    """One protocol's side of a server."""

    @property
    def dispatcher(self) -> Dispatcher: ...
    def __init__(self, dispatcher: Dispatcher) -> None: ...

class Queue:
    """Where calls wait for their turn."""

class Dispatcher:
    """Runs the calls of all connections of one server."""

    @property
    def loop(self) -> Loop: ...
    @property
    def connections(self) -> set[Connection]: ...
    @property
    def inflight(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def errors(self) -> int: ...
    entrance: Front | None
    max_concurrency: int
    queue: Queue | None
    tally_of: Callable[[str, str], Tally | None] | None
    draining: bool
    leaving: bool
    on_idle: Callable[[], None] | None
    on_between: Callable[[Connection], None] | None
    def __init__(
        self,
        loop: Loop,
        *,
        access: Callable[[Any, Any, int, int, BaseException | None], None] | None = None,
        max_concurrency: int = 0,
    ) -> None: ...
    @property
    def surplus(self) -> int: ...
    @property
    def lent(self) -> int: ...
    has_room: Callable[[], bool] | None
    total: str | None
    turned_away: int
    def count_in(self, row: memoryview, *, inflight: int, requests: int, errors: int, connections: int) -> None: ...
    def gate(self, c: Connection, patience: Limits) -> bool: ...
    def given(self) -> None: ...
    def connect(self, fd: int, limits: Limits, data: bytes = b"", tls: ServerTLS | None = None) -> Connection: ...
    def forget(self, c: Connection) -> None: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...

from collections.abc import Callable

from poller.connection import Connection
from poller.loop import Loop
from poller.tls import Session
from weego.grpc_client import Link

class HubLink(Link):
    """A Link whose callers wait with gevent."""

    wants_change: bool
    @property
    def connection(self) -> Connection: ...
    def __init__(
        self,
        loop: Loop,
        fd: int,
        address: str,
        authority: str,
        max_message: int,
        *,
        session: Session | None = None,
        keepalive_time: float = 0,
        keepalive_timeout: float = 20.0,
        caller: str = "",
        on_change: Callable[[HubLink], None] | None = None,
    ) -> None: ...
    def close(self) -> None: ...

import _socket
from collections.abc import Callable

from poller.tls import Session
from weego.grpc_client import Link

class BlockingLink(Link):
    """A Link whose callers wait in their threads."""

    wants_change: bool

    def __init__(
        self,
        sock: _socket.socket,
        address: str,
        authority: str,
        max_message: int,
        *,
        session: Session | None = None,
        keepalive_time: float = 0,
        keepalive_timeout: float = 20.0,
        caller: str = "",
        on_change: Callable[[BlockingLink], None] | None = None,
    ) -> None: ...
    @property
    def last_used(self) -> float: ...
    @property
    def took_turns(self) -> int: ...
    def close(self) -> None: ...
    def close_soon(self) -> None: ...
    def abandon(self) -> None: ...

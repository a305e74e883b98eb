from collections.abc import Callable
from typing import Any, Final

from codec.payload import PayloadCodec
from codec.thrift import Reply, Route
from poller.connection import Connection, Receiver
from poller.loop import Loop

MOST_WAITING: Final[int]

class SharedExchange(Receiver):
    """A client's connection that many calls use at a time."""

    @property
    def connection(self) -> Connection: ...
    @property
    def address(self) -> str: ...
    @property
    def leaving(self) -> bool: ...
    def __init__(
        self,
        loop: Loop,
        fd: int,
        address: str,
        framing: str = "ttheader",
        max_message: int = ...,
        on_closed: Callable[[SharedExchange], None] | None = None,
        checksum: bool = False,
        session: Any = None,
        compression: str = "",
        payload: PayloadCodec | None = None,
    ) -> None: ...
    def call(
        self,
        route: Route,
        args: tuple[object, ...],
        seqid: int,
        deadline: float,
        ints: dict[int, str] | None = None,
        strings: dict[str, str] | None = None,
    ) -> Reply | None: ...
    def retire(self) -> None: ...
    def is_alive(self) -> bool: ...
    def close(self) -> None: ...
    def close_soon(self) -> None: ...
    def __len__(self) -> int: ...

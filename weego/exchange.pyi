from collections.abc import Callable

from codec.payload import PayloadCodec
from codec.thrift import Reply, Route
from poller.connection import Connection, Receiver
from poller.loop import Loop
from poller.tls import Session

IN_THE_LOOP: str

class Exchange(Receiver):
    """A client's connection, one call at a time."""

    @property
    def connection(self) -> Connection: ...
    @property
    def address(self) -> str: ...
    def __init__(
        self,
        loop: Loop,
        fd: int,
        address: str,
        framing: str = "framed",
        max_message: int = ...,
        on_closed: Callable[[Exchange], None] | None = None,
        checksum: bool = False,
        session: Session | None = None,
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
    def is_alive(self) -> bool: ...
    @property
    def is_reusable(self) -> bool: ...
    def close(self) -> None: ...

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from codec.metadata import Metadata
from codec.spec import MethodSpec

_current: ContextVar[Call]

class Ending:
    """The end of a client's stream, and who waits to hear of it."""

    is_over: bool
    def watch(self, watcher: Callable[[BaseException | None, bool], object]) -> None: ...
    def tell(self, error: BaseException | None, heard: bool) -> int: ...

class Call:
    """One RPC: which method, for whom, until when."""

    spec: MethodSpec
    service: str
    is_server: bool
    started: float
    attempt: int
    cancelled: bool
    instance: str | None
    repeatable: bool
    tried: set[str] | None
    key: str | None
    deadline: float | None
    deadline_at: float
    compression: str | None
    ending: Ending | None
    recv_timeout: float
    send_timeout: float
    def __init__(
        self,
        spec: MethodSpec,
        *,
        service: str = "",
        is_server: bool = False,
        started: float | None = None,
        deadline: float | None = None,
        source: Any = None,
        connection: Any = None,
    ) -> None: ...
    @property
    def method(self) -> str: ...
    @property
    def remaining(self) -> float | None: ...
    @property
    def expired(self) -> bool: ...
    @property
    def elapsed(self) -> float: ...
    @property
    def peer(self) -> str: ...
    @property
    def peer_identity(self) -> Any: ...
    @property
    def protocol(self) -> str: ...
    @property
    def request_compression(self) -> str | None: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def send_metadata(self) -> dict[str, Any]: ...
    @property
    def trailers(self) -> dict[str, Any]: ...
    @property
    def caller(self) -> str: ...
    @property
    def log_id(self) -> str: ...
    @property
    def carried(self) -> dict[str, str]: ...
    def avoid(self, address: str) -> None: ...
    def branch(self) -> Call: ...
    def adopt(self, other: Call) -> None: ...
    def opened(self) -> Ending: ...
    def answer(self, source: Any) -> None: ...
    def check(self) -> None: ...

def current() -> Call | None: ...

from collections.abc import Callable
from typing import Any

from codec.thrift import Route
from poller.loop import Loop
from weego.dispatch import Dispatcher, Front

class ThriftFront(Front):
    """Thrift's side of a server."""

    @property
    def routes(self) -> dict[bytes, Route]: ...
    @property
    def services(self) -> dict[str, dict[bytes, Route]]: ...
    max_message: int
    max_decoded: int
    def __init__(
        self, dispatcher: Dispatcher, routes: dict[bytes, Route], services: dict[str, dict[bytes, Route]], *, max_message: int = ...,
        max_decoded: int = ...,
    ) -> None: ...

def thrift_dispatcher(
    loop: Loop,
    routes: dict[bytes, Route],
    services: dict[str, dict[bytes, Route]],
    *,
    access: Callable[[Any, Any, int, int, BaseException | None], None] | None = None,
    max_concurrency: int = 0,
    max_message: int = ...,
) -> Dispatcher: ...

from collections.abc import Callable
from typing import Any

from codec.protocol import Protocol
from codec.thrift import Route
from weego.dispatch import Dispatcher, Front

class UserProtocol(Protocol):
    """The rules of one connection as a Protocol."""

    def __init__(self, rules: Any, max_message: int) -> None: ...

class UserFront(Front):
    """A user's protocol on a server."""

    def __init__(
        self, dispatcher: Dispatcher, make: Callable[[], Any], services: dict[str, dict[bytes, Route]], *, max_message: int
    ) -> None: ...

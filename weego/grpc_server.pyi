from collections.abc import Callable, Iterable
from typing import Any

from weego.dispatch import Dispatcher, Front, Target

class GrpcRoute:
    """One method."""

    @property
    def spec(self) -> Any: ...
    @property
    def target(self) -> Target: ...
    @property
    def path(self) -> bytes: ...
    def __init__(
        self, spec: Any, target: Target, service: str, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
    ) -> None: ...

class GrpcFront(Front):
    """gRPC's side of a server."""

    @property
    def routes(self) -> dict[bytes, GrpcRoute]: ...
    @property
    def services(self) -> set[str]: ...
    @property
    def abuse(self) -> dict[str, int]: ...
    def __init__(
        self,
        dispatcher: Dispatcher,
        routes: Iterable[GrpcRoute],
        *,
        max_message: int = ...,
        max_streams: int = ...,
        keepalive_time: float = 0,
        keepalive_timeout: float = 20,
        origins: Iterable[str] | None = None,
    ) -> None: ...
    def add(self, route: GrpcRoute) -> None: ...
    def follow(self, max_message: int, max_streams: int, keepalive_time: float, keepalive_timeout: float) -> None: ...

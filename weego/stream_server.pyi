from typing import Final

from codec.ttstream import StreamMethod
from weego.detect import Detector
from weego.dispatch import Dispatcher, Front

DEFAULT_MAX_STREAMS: Final[int]
DEFAULT_MAX_QUEUED: Final[int]

class StreamDetector(Detector):
    """Knows TTHeaderStreaming by its first frame."""

class StreamFront(Front):
    """TTHeaderStreaming's side of a server."""

    max_message: int
    max_streams: int
    max_queued: int
    @property
    def methods(self) -> dict[bytes, StreamMethod]: ...
    @property
    def services(self) -> dict[str, dict[bytes, StreamMethod]]: ...
    def __init__(
        self,
        dispatcher: Dispatcher,
        methods: dict[bytes, StreamMethod],
        services: dict[str, dict[bytes, StreamMethod]],
        *,
        max_message: int = ...,
        max_streams: int = ...,
        max_queued: int = ...,
    ) -> None: ...

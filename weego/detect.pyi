from typing import Final

from weego.dispatch import Dispatcher, Front

MOST_SEEN: Final[int]

class Detector:
    """Says yes to all connections; subclass it for a protocol of your own."""

    @property
    def name(self) -> str: ...
    @property
    def front(self) -> Front: ...
    def __init__(self, name: str, front: Front) -> None: ...
    def matches(self, head: bytes) -> bool | None: ...

class PrefixDetector(Detector):
    """Knows its protocol by the bytes it begins with."""

    def __init__(self, name: str, front: Front, *prefixes: bytes) -> None: ...

class DetectFront(Front):
    """Where connections begin whose protocol is not known yet."""

    def __init__(self, dispatcher: Dispatcher, detectors: list[Detector]) -> None: ...

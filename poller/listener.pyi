from collections.abc import Callable
from typing import Any

FIRST_PAUSE: float
LAST_PAUSE: float
COMPLAIN_EVERY: float
RECHECK: float

class Listener:
    """Accepts connections of the listening, non-blocking socket `fd`, which it does not own."""

    @property
    def fd(self) -> int: ...
    @property
    def active(self) -> bool: ...
    def __init__(
        self, hub: Any, fd: int, accepted: Callable[[int], object], may_accept: Callable[[], bool] | None = None
    ) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def drain(self, most: int = 65536) -> int: ...

from collections.abc import Callable
from typing import Any, Final

from governance.cells import Cells

CLOSED: Final[int]
OPEN: Final[int]
HALF_OPEN: Final[int]
STATES: Final[tuple[str, str, str]]
BREAKER_CELLS: Final[int]

class Breaker:
    """One breaker, called `name`. Times in seconds."""

    name: str
    def __init__(
        self,
        name: str = "",
        *,
        cells: Cells | None = None,
        error_rate: float = 0.5,
        min_sample: int = 200,
        consecutive: int = 0,
        cooling: float = 5.0,
        probe_every: float = 0.2,
        successes_to_close: int = 2,
        clock: Callable[[], float] | None = None,
        on_change: Callable[[Breaker, str, str], object] | None = None,
    ) -> None: ...
    def allow(self) -> bool: ...
    def succeed(self) -> int: ...
    def fail(self) -> int: ...
    def counts_at(self, now: int) -> tuple[int, int]: ...
    def clear(self) -> None: ...
    @property
    def state(self) -> str: ...
    def snapshot(self) -> dict[str, Any]: ...

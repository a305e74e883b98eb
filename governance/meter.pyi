from typing import Any, Final

from governance.cells import Cells

BOUNDS: Final[tuple[float, ...]]
METER_CELLS: Final[int]
TALLY_BOUNDS: Final[tuple[float, ...]]
TALLY_CELLS: Final[int]

class Tally:
    """The calls of one method, for whoever supervises this process."""

    def __init__(self, cells: Cells) -> None: ...
    def record(self, seconds: float, code: int) -> int: ...

class Meter:
    """The calls of one method of one service."""

    service: str
    method: str
    def __init__(self, service: str, method: str, cells: Cells | None = None, tally: Tally | None = None) -> None: ...
    def record(self, seconds: float, code: int) -> int: ...
    def retried(self) -> int: ...
    def hedged(self) -> int: ...
    def snapshot(self) -> dict[str, Any]: ...

def totals() -> tuple[int, int, int, int]:
    """Calls, failed ones, retries and hedges of this process so far."""

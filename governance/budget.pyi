from collections.abc import Callable
from typing import Final

from governance.cells import Cells

BUDGET_CELLS: Final[int]

class Budget:
    """How many retries the calls of a client may cost."""

    ratio: float
    per_second: float
    saved: float
    refused: int
    def __init__(
        self,
        ratio: float = 0.2,
        per_second: float = 10.0,
        saved: float = 10.0,
        clock: Callable[[], float] | None = None,
        *,
        cells: Cells | None = None,
    ) -> None: ...
    def call(self) -> int: ...
    def take(self) -> bool: ...
    @property
    def left(self) -> float: ...

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from governance.call import Call
from governance.instance import Balancer, Instance

DEFAULT_FAILURES: Final[int]
DEFAULT_SECONDS: Final[float]
DEFAULT_MOST_SECONDS: Final[float]
DEFAULT_MOST_SHARE: Final[float]

class Ejection:
    """`inner` without the instances of which `failures` attempts in a row failed."""

    inner: Balancer
    failures: int
    seconds: float
    most_seconds: float
    most_share: float
    def __init__(
        self,
        inner: Balancer,
        *,
        failures: int = ...,
        seconds: float = ...,
        most_seconds: float = ...,
        most_share: float = ...,
        clock: Callable[[], float] | None = None,
        on_change: Callable[[Instance, str], object] | None = None,
    ) -> None: ...
    def update(self, instances: Sequence[Instance]) -> None: ...
    def pick(self, call: Call, avoid: AbstractSet[str] = ...) -> Instance | None: ...
    def begin(self, instance: Instance) -> None: ...
    def end(self, instance: Instance, seconds: float, failed: bool) -> None: ...
    def abandon(self, instance: Instance, seconds: float) -> None: ...
    @property
    def most_out(self) -> int: ...
    @property
    def ejected(self) -> list[str]: ...

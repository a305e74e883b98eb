from collections.abc import Callable
from typing import Any

from governance.breaker import Breaker
from governance.budget import Budget
from governance.call import Call
from governance.chain import Handler
from governance.discovery import Directory
from governance.instance import Balancer
from governance.meter import Meter

class Step:
    """A Handler of ours."""

    def __call__(self, call: Call, args: tuple[Any, ...]) -> Any: ...

class Metering(Step):
    def __init__(self, inner: Handler, meter: Meter) -> None: ...

class Tagging(Step):
    def __init__(self, inner: Handler, hash_key: Callable[[Call, tuple[Any, ...]], str] | None = None) -> None: ...

class Breaking(Step):
    def __init__(self, inner: Handler, breaker: Breaker, counts: Callable[[BaseException], bool | None] | None = None) -> None: ...

class Trying(Step):
    def __init__(
        self,
        inner: Handler,
        budget: Budget,
        again: Callable[[Call, BaseException | None], bool],
        give_up: Callable[[Call, Exception], None],
        *,
        repeatable: bool = False,
        errors: Breaker | None = None,
        wants_result: Callable[[Any], bool] | None = None,
    ) -> None: ...

class Attempt(Step):
    def __init__(
        self,
        directory: Directory,
        balancer: Balancer,
        carry: Callable[[Call, str, tuple[Any, ...]], Any],
        breakers: dict[str, Breaker],
        make_breaker: Callable[[str], Breaker] | None,
        timeout: float,
        recv_timeout: float = 0.0,
        send_timeout: float = 0.0,
    ) -> None: ...

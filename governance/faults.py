"""Trouble on purpose: delays and errors for a share of the calls, to see what the rest of the system does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from codec.errors import ApplicationError, Code, DeadlineExceeded, ResourceExhausted, RpcError, Unavailable
from governance.call import Call
from governance.chain import Handler, Middleware

__all__ = ["Fault", "faults"]

_ERRORS: dict[Code, Callable[[str], RpcError]] = {
    Code.UNAVAILABLE: Unavailable,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.RESOURCE_EXHAUSTED: ResourceExhausted,
    Code.INTERNAL: ApplicationError,
}


@dataclass(frozen=True)
class Fault:
    """A `share` (0 to 1) of the calls of `method` (shell-like pattern) from `caller` waits `delay` seconds and then, with a `code`, fails."""

    share: float
    delay: float = 0.0
    code: Code | None = None
    method: str = "*"
    caller: str = "*"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.delay < 0 or self.code is Code.OK:
            raise ValueError("a fault has a share from 0 to 1, a delay of 0 s or more, and a code that is an error")


def faults(
    wanted: tuple[Fault, ...], sleep: Callable[[float], Any], rand: Callable[[], float] = random.random
) -> Middleware:
    """A middleware that makes the trouble of the first of `wanted` that fits and whose turn it is."""

    def wrap(handler: Handler) -> Handler:
        def handle(call: Call, args: tuple[Any, ...]) -> Any:
            for fault in wanted:
                if fnmatchcase(call.method, fault.method) and fnmatchcase(call.caller, fault.caller) and rand() < fault.share:
                    if fault.delay:
                        sleep(fault.delay)
                    if fault.code is not None:
                        text = f"{call.service}.{call.method}: a fault on purpose ({fault.code.name})"
                        make = _ERRORS.get(fault.code)
                        raise make(text) if make else RpcError(text, code=fault.code)
                    break
            return handler(call, args)

        return handle

    return wrap

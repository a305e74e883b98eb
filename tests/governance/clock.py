"""Time that passes when a test says so, and calls to hand to policies."""

from __future__ import annotations

from governance.call import Call
from tests.support.echo_stub import ECHO


class Clock:
    """Seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def a_call(method: str = "echo", **facts: object) -> Call:
    """A call of the echo service."""
    return Call(ECHO.methods[method], service="Echo", **facts)  # type: ignore[arg-type]

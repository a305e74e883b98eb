from collections.abc import Callable
from typing import Any

from weego.spool import Spool

class AccessLog:
    """Writes one line for each call."""

    def __init__(
        self,
        spool: Spool | None,
        write: Callable[[bytes], None] | None,
        *,
        as_json: bool,
        role: str,
        colour: bool,
        clock: Callable[[int], tuple[bytes, bytes]],
        told: Callable[[BaseException], str],
        codes: dict[int, str],
        logger: str,
        pid: int,
    ) -> None: ...
    def __call__(self, call: Any, request: Any, code: int, bytes_out: int, error: BaseException | None) -> None: ...

def visible(value: str) -> str: ...

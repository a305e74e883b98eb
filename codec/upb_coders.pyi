from collections.abc import Callable
from typing import Any

def upb_coders(
    cls: type[Any], full_name: str
) -> tuple[Callable[[Any], bytes], Callable[[bytes | bytearray | memoryview], Any]]: ...

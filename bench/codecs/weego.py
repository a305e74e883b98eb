"""weego: generated structs and their native codec plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from bench import stubs

if TYPE_CHECKING:
    from bench.messages import Types


def types() -> Types:
    """Classes of the IDL."""
    return cast("Types", SimpleNamespace(**vars(stubs.module()), group_set=set))


def encode(value: Any) -> bytes:
    """``value`` in Thrift binary."""
    return cast("bytes", value.__plan__.dumps(value))


def decode(cls: Any, data: bytes) -> Any:
    """A new ``cls`` from Thrift binary."""
    return cls.__plan__.loads(data)

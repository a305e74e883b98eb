"""Tags that travel with a call and with all calls it leads to: for routing to a lane, for tests in production.

A tag is a persistent value of Kitex's metainfo (`bytedance/gopkg` cloud/metainfo: ``RPC_PERSIST_`` and the key, on TTHeader), so it passes through
services written in Go as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from governance.call import Call, current

__all__ = ["tag_of", "tags"]

PREFIX: Final = "RPC_PERSIST_"

_tags: ContextVar[dict[str, str] | None] = ContextVar("weego.tags", default=None)


@contextmanager
def tags(**values: str) -> Iterator[None]:
    """Calls made inside carry these tags, beside those that the call being served brought along."""
    token = _tags.set({**(_tags.get() or {}), **values})
    try:
        yield
    finally:
        _tags.reset(token)


def tag_of(call: Call, key: str) -> str:
    """The value of a tag: of an outgoing call, its own or carried on from the call being served, or of one that is served; empty: none."""
    name = PREFIX + key
    if call.is_server:
        return call.metadata.get(name, "")
    own = call.send_metadata.get(name)
    if own is None:
        serving = current()
        own = serving.carried.get(name) if serving is not None else None
    return own or ""

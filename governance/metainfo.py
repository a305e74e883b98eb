"""Metainfo: small values that travel beside calls, along a whole chain of them (Kitex: `bytedance/gopkg/cloud/metainfo`).

    with metainfo.values({"shard": "7"}): …            # transient: the next service sees them, those behind it do not
    with metainfo.persistent({"tenant": "acme"}): …    # persistent: every service down the chain sees them
    metainfo.get("shard"), metainfo.get_persistent("tenant")     # in a handler
    metainfo.send_backward("cost", "12")               # in a handler: beside its answer
    with metainfo.backward() as received: …            # a client: what came beside the answers of its calls

Persistent values and the log id that a handler was called with go on with the calls it makes, whether it knows of them or not. Names and
values are text; empty ones are not sent. TTHeader carries them as `RPC_PERSIST_<name>` and `RPC_TRANSIT_<name>`; framed and buffered
messages have no place for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from codec.errors import UsageError
from governance.call import Call, current

__all__ = [
    "ACL_TOKEN",
    "backward",
    "from_headers",
    "get",
    "get_all",
    "get_all_persistent",
    "get_persistent",
    "log_id",
    "persistent",
    "send_backward",
    "to_headers",
    "values",
]

# The transient value that TTHeader has a block of its own for (gopkg `GDPRToken`): the token by which a proxy lets a call pass.
ACL_TOKEN: Final = "gdpr-token"  # noqa: S105 (the name of one)

_PERSISTENT: Final = "RPC_PERSIST_"
_TRANSIENT: Final = "RPC_TRANSIT_"
# Written by no Kitex of today, but understood: a value that was meant for the last hop.
_STALE: Final = "RPC_TRANSIT_UPSTREAM_"


@dataclass(frozen=True, slots=True)
class Given:
    """What this context adds to the calls it makes: pairs as TTHeader names them, a log id, and where answers' pairs go."""

    strings: Mapping[str, str]
    log_id: str = ""
    slot: dict[str, str] | None = None


given: ContextVar[Given | None] = ContextVar("weego.metainfo", default=None)


@contextlib.contextmanager
def _with(new: Given) -> Iterator[None]:
    token = given.set(new)
    try:
        yield
    finally:
        given.reset(token)


def _adding(prefix: str, pairs: Mapping[str, str]) -> Given:
    wrong: object = next(((name, value) for name, value in pairs.items() if type(name) is not str or type(value) is not str), None)
    if wrong is not None:
        raise UsageError(f"metainfo takes text by name, got {wrong!r}")
    old = given.get() or Given({})
    return replace(old, strings={**old.strings, **{prefix + name: value for name, value in pairs.items() if name and value}})


def values(pairs: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
    """Send `pairs` with each call made in the block, to be seen by the service called and no further."""
    return _with(_adding(_TRANSIENT, pairs))


def persistent(pairs: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
    """Send `pairs` with each call made in the block, to be seen by all services down the chain."""
    return _with(_adding(_PERSISTENT, pairs))


def from_headers(headers: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
    """Send with each call made in the block what an HTTP request brought: ``rpc-transit-…`` as transient, ``rpc-persist-…`` as persistent values.

    For gateways. Other headers are passed over. Names are as Kitex makes them of headers (gopkg `metainfo.FromHTTPHeader`): ``rpc-persist-tenant-id`` is ``TENANT_ID``.
    """
    told = [(name.upper().replace("-", "_"), value) for name, value in headers.items()]
    pairs = {name: value for name, value in told if value and name.startswith((_PERSISTENT, _TRANSIENT)) and name not in (_PERSISTENT, _TRANSIENT)}
    return _with(_adding("", pairs))


def to_headers() -> dict[str, str]:
    """What an HTTP request made here should carry: the values of the blocks around it, and the persistent ones of the call being served."""
    call, own = current(), given.get()
    pairs = {**({} if call is None else call.carried), **({} if own is None else own.strings)}
    return {name.lower().replace("_", "-"): value for name, value in pairs.items()}


def log_id(text: str) -> contextlib.AbstractContextManager[None]:
    """Send `text` as the log id of each call made in the block, instead of the one of the call that is served."""
    return _with(replace(given.get() or Given({}), log_id=text))


@contextlib.contextmanager
def backward() -> Iterator[dict[str, str]]:
    """Collect what comes beside the answers of the calls made in the block: a dict, in which later answers win."""
    slot: dict[str, str] = {}
    with _with(replace(given.get() or Given({}), slot=slot)):
        yield slot


def send_backward(name: str, value: str) -> None:
    """In a handler: send a pair beside the answer. UsageError where no call is served."""
    call = current()
    if call is None:
        raise UsageError("metainfo.send_backward: no call is served here; in a client, use metainfo.values or metainfo.persistent")
    call.send_metadata[name] = value


def get_all() -> dict[str, str]:
    """The transient values that came with the call being served."""
    found: dict[str, str] = {}
    for name, value in _came():
        # The longest prefix first.
        for prefix in (_STALE, _TRANSIENT):
            if name.startswith(prefix):
                if value and len(name) > len(prefix):
                    found[name[len(prefix) :]] = value
                break
    return found


def get(name: str) -> str | None:
    """One of `get_all`, or None."""
    return get_all().get(name)


def get_all_persistent() -> dict[str, str]:
    """The persistent values that came with the call being served."""
    call = current()
    return {} if call is None else {name[len(_PERSISTENT) :]: value for name, value in call.carried.items()}


def get_persistent(name: str) -> str | None:
    """One of `get_all_persistent`, or None."""
    return get_all_persistent().get(name)


def _came() -> list[tuple[str, str]]:
    call: Call | None = current()
    return [] if call is None else call.metadata.pairs()

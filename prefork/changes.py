"""What a reload would change, and how each change takes effect.

    hot        told to the workers that run, or the master's own affair
    listeners  an address comes or goes: new workers, and the sockets that stay are the same
    workers    new workers
    restart    not by a reload

A reload needs no new workers when it changes something, all of it hot, and the code is surely the code that runs. Where nothing at all has
changed the person who asked has a reason that is not visible here, and gets new workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prefork.application import Settings

HOT, LISTENERS, WORKERS, RESTART = "hot", "listeners", "workers", "restart"

#: Fields of ``Settings`` that are not the master's own affair.
_WAYS = {"name": WORKERS, "listen": LISTENERS, "umask": WORKERS, "owner": WORKERS, "pidfile": RESTART}

#: Fields that say the same as others, or are looked at apart.
_OTHERWISE = ("config", "ways", "files", "code", "extra")


class Change(NamedTuple):
    """One thing that is not as it was; None: it was not there, or is not any more."""

    what: str
    before: Any
    after: Any
    how: str


def between(before: Settings, after: Settings) -> list[Change]:
    """All changes, in the order of the configuration."""
    old, new = dict(_flat(before.config)), dict(_flat(after.config))
    found = [
        Change(key, old.get(key), new.get(key), _way(after.ways, key))
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]
    told = {change.how for change in found}  # what the application names in the user's words need not be named in ours
    for field in before._fields:
        how, was, is_now = _WAYS.get(field, HOT), getattr(before, field), getattr(after, field)
        if field not in _OTHERWISE and was != is_now and how not in told:
            found.append(Change(field, _shown(was), _shown(is_now), how))
    if before.code != after.code and before.code and after.code:
        found.append(Change("code", "as imported", "changed", WORKERS))
    return found


def is_hot(before: Settings, after: Settings, changes: Sequence[Change]) -> bool:
    """Whether workers that run can follow."""
    return (
        bool(before.code)
        and before.code == after.code
        and any(change.how == HOT for change in changes)
        and all(change.how in (HOT, RESTART) for change in changes)
    )


def _way(ways: Mapping[str, str], key: str) -> str:
    """That of the longest prefix named in ``ways``."""
    while key:
        if key in ways:
            return ways[key]
        key = key.rpartition(".")[0]
    return WORKERS


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted key; the elements of a list by position."""
    inside = (
        value.items() if hasattr(value, "items") else enumerate(value) if isinstance(value, (list, tuple)) else None
    )
    if inside is None:
        yield prefix, value
        return
    for key, each in inside:
        yield from _flat(each, f"{prefix}.{key}" if prefix else str(key))


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shown(each) for each in value]
    return value

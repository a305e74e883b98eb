"""What all users of one registry in a process have together: connections, sessions. Whoever takes one gives it back, and the last one closes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Shared"]

_Thing = TypeVar("_Thing")


class _Held(Generic[_Thing]):
    """A thing, and how many have it."""

    __slots__ = ("thing", "users")

    def __init__(self, thing: _Thing) -> None:
        self.thing = thing
        self.users = 0


class Shared(Generic[_Thing]):
    """Things by key, each with the number of its users. `close(thing)` ends one, outside of the lock. A forked child has none of those that do not
    `survive` a fork.
    """

    def __init__(self, close: Callable[[_Thing], Any], *, survive: bool) -> None:
        self._close = close
        self._survive = survive
        self._things: dict[Hashable, _Held[_Thing]] = {}
        # The collector may come in the middle of anything here and find a user that nobody closed, who then gives back what it had.
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._after_fork)

    def take(self, key: Hashable, make: Callable[[], _Thing]) -> _Thing:
        """The thing of that key; there is one user more."""
        with self._lock:
            held = self._things.get(key)
            if held is None:
                fresh = _Held(make())
                held = self._things.setdefault(key, fresh)
            held.users += 1
            return held.thing

    def give(self, key: Hashable) -> None:
        """One user less."""
        with self._lock:
            held = self._things.get(key)
            if held is None:
                return  # the parent's
            held.users -= 1
            if held.users:
                return
            del self._things[key]
        self._close(held.thing)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        if not self._survive:
            self._things = {}

    def __len__(self) -> int:
        return len(self._things)

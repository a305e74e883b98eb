"""What all users of one registry in a process have together: connections, sessions. Whoever takes one gives it back, and the last one closes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Shared"]

_Thing = TypeVar("_Thing")


class Shared(Generic[_Thing]):
    """Things by key, each with the number of its users. `close(thing)` ends one, outside of the lock. A forked child has none of those that do not
    `survive` a fork.
    """

    def __init__(self, close: Callable[[_Thing], Any], *, survive: bool) -> None:
        self._close = close
        self._survive = survive
        self._things: dict[Hashable, tuple[_Thing, int]] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._after_fork)

    def take(self, key: Hashable, make: Callable[[], _Thing]) -> _Thing:
        """The thing of that key; there is one user more."""
        with self._lock:
            found = self._things.get(key)
            thing, users = (make(), 0) if found is None else found
            self._things[key] = thing, users + 1
            return thing

    def give(self, key: Hashable) -> None:
        """One user less."""
        with self._lock:
            if key not in self._things:
                return  # the parent's
            thing, users = self._things.pop(key)
            if users > 1:
                self._things[key] = thing, users - 1
                return
        self._close(thing)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        if not self._survive:
            self._things = {}

    def __len__(self) -> int:
        return len(self._things)

"""Things that users of one process have together: made once, closed by the last, and what a fork does to them."""

from __future__ import annotations

import gc
import os

from weego.registries.shared import Shared


def test_made_once_and_closed_by_the_last() -> None:
    closed: list[str] = []
    shared: Shared[str] = Shared(closed.append, survive=True)
    assert shared.take("a", lambda: "A") is shared.take("a", lambda: "another")
    shared.take("b", lambda: "B")
    shared.give("a")
    assert closed == []
    shared.give("a")
    assert closed == ["A"]
    shared.give("a")  # nobody has it
    shared.give("b")
    assert closed == ["A", "B"]
    assert len(shared) == 0


def test_a_user_that_the_collector_finds_in_the_middle_of_it() -> None:
    """Making a thing allocates, which may have the collector give another one back, or this one."""
    closed: list[str] = []
    shared: Shared[str] = Shared(closed.append, survive=True)

    class User:
        def __init__(self, key: str) -> None:
            self.key = key
            self.itself = self  # only the collector ends it
            shared.take(key, key.upper)

        def __del__(self) -> None:
            shared.give(self.key)

    User("a")

    def make() -> str:
        gc.collect()
        return "B"

    assert shared.take("b", make) == "B"
    assert closed == ["A"]


def test_a_fork() -> None:
    kept: Shared[str] = Shared(lambda _: None, survive=True)
    lost: Shared[str] = Shared(lambda _: None, survive=False)
    kept.take("a", lambda: "A")
    lost.take("a", lambda: "A")
    pid = os.fork()
    if not pid:
        os._exit((len(kept), len(lost)) != (1, 0))
    assert os.waitpid(pid, 0)[1] == 0
    assert len(lost) == 1

"""A directory that is kept for the block, and how such tests run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import pytest

from governance.balancers.rotation import RoundRobin
from governance.discovery import Directory
from tests.support.net import with_hub, without_hub
from weego import keeper

Run = Callable[[Callable[[], None]], Callable[[], None]]
BOTH = pytest.mark.parametrize("run", [with_hub, without_hub], ids=["gevent", "threads"])


class Kept:
    """`resolver` in a directory."""

    def __init__(self, resolver: Any) -> None:
        self.directory = Directory("it", resolver, RoundRobin())

    def __enter__(self) -> Self:
        self.directory.refresh()
        keeper.keep(self.directory)
        return self

    def __exit__(self, *_: object) -> None:
        keeper.forget(self.directory)

    @property
    def ports(self) -> set[int]:
        return {int(each.address.rpartition(":")[2]) for each in self.directory.instances}

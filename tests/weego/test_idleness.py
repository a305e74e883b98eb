"""A hub that waits says so; one that has something to do all the time does not."""

from __future__ import annotations

import time

import gevent
from gevent.hub import get_hub

from tests.support.net import wait_until, with_hub
from weego.idleness import Idleness


@with_hub
def test_waiting_is_idle_and_working_is_not() -> None:
    seen: list[float] = []
    idleness = Idleness(get_hub(), lambda: seen.append(time.monotonic()))
    try:
        wait_until(lambda: len(seen) > 3)
        before = len(seen)
        for _ in range(200):
            gevent.sleep(0)  # others may run, but the hub need not wait
        # Another process may take the CPU just between the two looks; not each time.
        assert len(seen) - before < 100
    finally:
        idleness.close()
    count = len(seen)
    gevent.sleep(0.01)
    assert len(seen) == count

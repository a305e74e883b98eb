"""The one clock."""

from __future__ import annotations

import time

from poller.clock import monotonic
from poller.loop import Loop


def test_native_code_reads_the_same_clock() -> None:
    before = time.monotonic()
    loop = Loop()
    assert before <= loop.polled <= monotonic()
    loop.close()

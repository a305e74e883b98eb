"""What is counted of a client's calls."""

from __future__ import annotations

import os

from governance.meter import BOUNDS, Meter, totals


def test_a_meter_counts_ends_and_times() -> None:
    before = totals()
    meter = Meter("Echo", "echo")
    meter.record(0.0003, 0)
    meter.record(0.02, 0)
    meter.record(7.0, 14)
    meter.record(1.0, 99)  # no Code: unknown
    meter.retried()
    meter.hedged()
    seen = meter.snapshot()
    assert seen["codes"] == {0: 2, 14: 1, 2: 1}
    assert (seen["retries"], seen["hedges"]) == (1, 1)
    assert abs(seen["seconds"] - 8.0203) < 1e-3
    assert len(seen["buckets"]) == len(BOUNDS)
    assert sum(seen["buckets"]) == 4
    assert (seen["buckets"][0], seen["buckets"][5], seen["buckets"][-2], seen["buckets"][-1]) == (1, 1, 1, 1)
    assert tuple(now - then for now, then in zip(totals(), before, strict=True)) == (4, 2, 1, 1)


def test_a_child_starts_from_nothing() -> None:
    Meter("Echo", "echo").record(0.1, 0)
    pid = os.fork()
    if not pid:
        os._exit(0 if totals() == (0, 0, 0, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

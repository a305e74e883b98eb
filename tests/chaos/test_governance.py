"""What callers notice of an instance in trouble and of overload, as counts; `make chaos` judges times as well."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.governance import OVERLOADS, Pair, run
from tests.support.need import ROOT
from tests.support.processes import Process

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.parametrize("what", ["stop", "slow"])
def test_nobody_notices_one_of_two_instances_in_trouble(what: str, no_leaks: None) -> None:
    # An attempt may take a second, or on a busy machine calls to the good one would be given up too.
    seen = run(what, 3, 50, "--idempotent", "--attempt-timeout", "1", "--timeout", "20", before=0.5)
    assert len(seen.calls) > 100
    assert seen.failed == []


@pytest.mark.parametrize("what", OVERLOADS)
def test_more_calls_than_can_be_served_are_refused_by_a_limit_that_has_a_name(what: str, tmp_path: Path, no_leaks: None) -> None:
    pair = Pair(tmp_path)
    try:
        pair.trouble(0, what)
        server = pair.serve(0, more=OVERLOADS[what])
        command = [sys.executable, "-m", "tests.chaos.open_load", server.address, "--seconds", "1.5", "--closed", "64"]
        with Process(command, cwd=str(pair.apps[0].folder), env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
            assert process.wait(60) == 0, process.output
            counts = Counter(outcome.partition(",")[0] for *_, outcome in json.loads(process.lines[-1])["calls"])
    finally:
        pair.close()
    name = "database" if what == "database" else "shedding"
    assert set(counts) == {"ok", f"limit {name}"}
    # Sixty-four callers who ask again at once: where nobody is refused they all wait for each other.
    assert counts[f"limit {name}"] > counts["ok"] > 0

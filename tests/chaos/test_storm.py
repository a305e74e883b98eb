"""Reload storms in the short form; `make chaos` has the long one and judges the times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.storm import storm
from tests.support.service import App, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WORKERS = 2


def test_nothing_fails_in_a_storm_of_reloads(tmp_path: Path, no_leaks: None) -> None:
    app = App(tmp_path / "app")
    with app.serve(workers=WORKERS) as server:
        result = storm(app, server, in_a_row=3, burst=100, requests=1500, pace=0.02, steady=0.5)
        until(lambda: len(server.family()) == WORKERS + 1, "only the loader and the workers to be left")
    assert not result.failures
    assert result.reloads_in_a_row == 3
    # A hundred in a second or, on a busy machine, in a few: one runs and one more waits, whatever comes meanwhile.
    assert 1 <= result.reloads_in_burst <= 10
    # Two generations that drain, one that serves, one that boots, each with a loader; and the base.
    assert result.most_processes <= 4 * (WORKERS + 1) + 1
    assert result.requests >= 1500

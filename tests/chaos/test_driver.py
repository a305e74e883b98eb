"""Chaos in the short form, with a seed of its own; `make chaos` goes on for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.driver import Chaos
from tests.support.service import App

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]


def test_all_is_well_in_the_end(tmp_path: Path, no_leaks: None) -> None:
    report = Chaos(App(tmp_path / "app"), seed=3).run(rounds=5)
    assert report.is_good, report
    assert report.answered > 300
    assert sum(report.rounds.values()) == 5

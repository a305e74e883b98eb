"""The goals that no other test looks at, as counts and states; `make chaos` judges their times as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import figures
from tests.chaos.targets import Target, Weego

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

Make = Callable[..., Target]


@pytest.fixture
def make(tmp_path: Path, no_leaks: None) -> Make:
    folders = iter(range(100))
    return lambda **options: Weego(tmp_path / str(next(folders)), **options)


def test_g4_as_many_workers_as_configured_are_ready_all_through_a_reload(make: Make) -> None:
    assert figures.capacity(make, 1).ok


def test_g15_nobody_is_reset_when_a_busy_server_stops(make: Make) -> None:
    found = figures.stop_under_connects(make, 1)
    assert found.numbers["good"] > 0
    assert found.numbers["reset"] == 0


def test_g17_out_of_descriptors_who_is_inside_is_served_and_others_come_in_later(make: Make) -> None:
    found = figures.no_descriptors(make, 1)
    assert found.numbers["good"] == found.numbers["served"] > 100, found

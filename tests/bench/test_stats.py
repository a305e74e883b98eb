"""bench/stats.py."""

from __future__ import annotations

import pytest

from bench.stats import Spread, ratio


@pytest.mark.parametrize(
    ("values", "median", "low", "high"),
    [([3], 3, 3, 3), ([5, 1, 9], 5, 1, 9), ([4, 1, 2, 100], 3, 1, 100), ([2.5, 2.5, 1, 7, 3], 2.5, 1, 7)],
)
def test_median_and_range(values: list[float], median: float, low: float, high: float) -> None:
    spread = Spread.of(iter(values))
    assert spread == Spread(median, low, high)
    assert spread.as_dict() == {"median": median, "min": low, "max": high}


def test_no_rounds_have_no_median() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        Spread.of([])


def test_ratio_is_of_medians() -> None:
    assert ratio(Spread(6, 1, 90), Spread(4, 2, 3)) == 1.5
    assert ratio(None, Spread(4, 2, 3)) is None
    assert ratio(Spread(4, 2, 3), None) is None
    assert ratio(Spread(4, 2, 3), Spread(0, 0, 0)) is None

"""Durations and sizes: what is read, what is refused, and that they print the way they are written."""

from __future__ import annotations

import pytest

from weego.units import Duration, Size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        ("2m", 120),
        ("1h", 3600),
        ("1d", 86400),
        ("250us", 0.00025),
        ("1.5s", 1.5),
        ("1m30s", 90),
        (" 1h 30m ", 5400),
        ("0s", 0),
        (3, 3),
        (0.25, 0.25),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert Duration.parse(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "s", "30", "30 seconds", "-1s", "1s,", "s1", True, None, [], float("nan"), float("inf")])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        Duration.parse(written)


@pytest.mark.parametrize("written", ["30s", "500ms", "2m", "36h", "3d", "0s", "250us", "1500ms"])
def test_a_duration_prints_as_it_is_written(written: str) -> None:
    assert str(Duration.parse(written)) == written


@pytest.mark.parametrize("seconds", [1e-9, 0.1 + 0.2, 1 / 3, 90.0, 86399.5])
def test_a_printed_duration_reads_back(seconds: float) -> None:
    assert Duration.parse(str(Duration(seconds))) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("16MiB", 16 * 2**20),
        ("64KiB", 65536),
        ("1MB", 10**6),
        ("1kB", 1000),
        ("2GiB", 2**31),
        ("1.5KiB", 1536),
        ("7B", 7),
        ("64kib", 65536),
        (4096, 4096),
    ],
)
def test_sizes(written: object, size: int) -> None:
    assert Size.parse(written) == size


@pytest.mark.parametrize("written", ["", "16", "16M", "MiB", "-1B", "0.3B", "1 TiB", True, 1.5, None])
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        Size.parse(written)


@pytest.mark.parametrize("written", ["16MiB", "3GiB", "64KiB", "1000B", "0B"])
def test_a_size_prints_as_it_is_written(written: str) -> None:
    assert str(Size.parse(written)) == written

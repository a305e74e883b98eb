"""bench/load.py: from the generator's words to a Sample."""

from __future__ import annotations

import json

import pytest

from bench.load import parse
from bench.native import BenchError

SAID = {
    "requests": 2000,
    "seconds": 0.5,
    "connections": 100,
    "depth": 1,
    "latency_ns": {"min": 1, "mean": 2, "p50": 1500, "p90": 3, "p99": 42000, "p999": 5, "max": 99000},
    "generator": {"cpu_ns": 8_000_000},
    "server": {"cpu_ns": 25_000_000, "rss_bytes": 123456},
}


def test_figures_per_request() -> None:
    sample = parse(json.dumps(SAID))
    assert sample.requests == 2000
    assert sample.requests_per_second == 4000
    assert sample.server_cpu_us == 12.5
    assert sample.server_busy == pytest.approx(0.05)
    assert sample.generator_cpu_us == 4.0
    assert sample.generator_busy == pytest.approx(0.016)
    assert (sample.p50_us, sample.p99_us, sample.max_us) == (1.5, 42.0, 99.0)
    assert sample.rss_bytes == 123456


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "printed no result"),
        ("Segmentation fault", "Segmentation fault"),
        ('{"error": "connection 3: byte 7 is wrong"}', "connection 3: byte 7 is wrong"),
        (json.dumps({**SAID, "requests": 0}), "no request was answered in 0.500 s"),
    ],
)
def test_a_failed_run_is_an_error(text: str, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        parse(text)

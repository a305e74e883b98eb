"""The text format; what the numbers are is tested against a master, in test_admin."""

from prefork import metrics
from prefork.tally import BOUNDS, CODES, Row


def test_a_family_of_samples():
    assert metrics._family("n", "gauge", "What.", [({"a": "1", "b": "x"}, 2), ({}, True)]) == [
        "# HELP n What.",
        "# TYPE n gauge",
        'n{a="1",b="x"} 2',
        "n 1",
    ]


def test_label_values_are_escaped():
    (_, _, line) = metrics._family("n", "gauge", "What.", [({"a": 'quote " slash \\ line\n'}, 1)])
    assert line == 'n{a="quote \\" slash \\\\ line\\n"} 1'


def test_large_counters_are_exact():
    assert metrics._family("n", "counter", "What.", [({}, 2**53 + 1)])[-1] == f"n {2**53 + 1}"


def test_every_reported_column_has_a_name():
    assert set(metrics._GAUGE_TEXTS) == set(metrics.GAUGES)
    assert set(metrics._COUNTER_TEXTS) == set(metrics.COUNTERS)
    assert all(name.endswith("_total") for name, _ in metrics._COUNTER_TEXTS.values())


def test_calls_by_method_are_a_counter_and_a_histogram():
    assert metrics._calls("server", []) == []
    buckets = [0] * len(BOUNDS)
    buckets[1], buckets[3], buckets[-1] = 2, 1, 1
    codes = [0] * len(CODES)
    codes[0], codes[14] = 3, 1
    lines = metrics._calls("server", [Row("Item", "get", tuple(codes), 12_001_500, tuple(buckets))])
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    name, who = "weego_server_call_duration_seconds", 'service="Item",method="get"'
    assert samples[f'weego_server_method_calls_total{{{who},code="OK"}}'] == "3"
    assert samples[f'weego_server_method_calls_total{{{who},code="UNAVAILABLE"}}'] == "1"
    assert [samples[f'{name}_bucket{{{who},le="{le}"}}'] for le in ("0.0005", "0.001", "0.0025", "0.005", "10.0", "+Inf")] == ["0", "2", "2", "3", "3", "4"]
    assert (samples[f"{name}_sum{{{who}}}"], samples[f"{name}_count{{{who}}}"]) == ("12.0015", "4")
    assert lines.count(f"# TYPE {name} histogram") == 1
    assert len(samples) == 2 + len(BOUNDS) + 2

"""The text format; what the numbers are is tested against a master, in test_admin."""

from prefork import metrics


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

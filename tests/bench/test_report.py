"""bench/report.py: medians, ratios, tables, JSON."""

from __future__ import annotations

import json

from bench.load import Sample
from bench.report import SCHEMA, Cell, Result, as_json, as_text

HOST: dict[str, object] = {"cpu": "a CPU", "cpus": 2, "kernel": "6.1", "python": "3.11.7"}
SETTINGS: dict[str, object] = {"rounds": 3, "seconds": 2.0, "smoke": False}


def sample(cpu: float, busy: float = 0.95) -> Sample:
    return Sample(
        requests=1000,
        seconds=1.0,
        requests_per_second=1000.0,
        server_cpu_us=cpu,
        server_busy=busy,
        generator_cpu_us=5.0,
        generator_busy=0.4,
        p50_us=100.0,
        p99_us=1234.0,
        max_us=2000.0,
        rss_bytes=3 << 20,
    )


def result() -> Result:
    made = Result(HOST, SETTINGS)
    for peer, rounds in (("floor", (9, 8, 10)), ("weego", (13, 14, 12)), ("thriftpy2", (60, 70, 65))):
        made.cells.append(Cell(peer, "1KiB", 100, [sample(cpu) for cpu in rounds]))
    made.cells.append(Cell("weego", "16B", 1, [sample(50)]))
    made.codecs = {
        "weego": {"encode": [3.0, 4.0, 5.0], "decode": [10.0, 10.0, 40.0]},
        "thriftpy2": {"encode": [24.0, 20.0, 28.0], "decode": [30.0, 40.0, 20.0]},
    }
    made.missing["apache"] = "No module named 'thrift'"
    return made


def test_json_has_medians_ranges_samples_and_ratios() -> None:
    said = json.loads(json.dumps(as_json(result())))
    assert said["schema"] == SCHEMA
    weego = next(row for row in said["servers"] if (row["peer"], row["message"]) == ("weego", "1KiB"))
    assert weego["rounds"] == 3
    assert weego["server_cpu_us"] == {"median": 13, "min": 12, "max": 14}
    assert weego["cpu_ratio"] == {"floor": 13 / 9, "thriftpy2": 13 / 65, "kitex": None}
    assert [row["server_cpu_us"] for row in weego["samples"]] == [13, 14, 12]
    alone = next(row for row in said["servers"] if row["message"] == "16B")
    assert alone["cpu_ratio"] == {"floor": None, "thriftpy2": None, "kitex": None}
    encode = next(row for row in said["codecs"] if (row["codec"], row["operation"]) == ("weego", "encode"))
    assert encode["us"] == {"median": 4, "min": 3, "max": 5}
    assert encode["ratio_thriftpy2"] == 4 / 24
    assert said["missing"] == {"apache": "No module named 'thrift'"}


def test_targets_compare_with_the_right_side_of_the_limit() -> None:
    targets = as_json(result())["targets"]
    assert [(round(t["value"], 2), t["met"]) for t in targets] == [(1.44, True), (5.0, True), (6.0, True), (3.0, False)]


def test_a_disturbed_run_gives_no_clean_verdict() -> None:
    made = result()
    made.codecs["weego"]["encode"] = [4.0, 4.0, 4.1]
    made.codecs["thriftpy2"]["encode"] = [24.0, 24.5, 24.0]
    assert [finding.noisy for finding in made.targets()] == [False, False, False, True]
    disturbed = made.cell("thriftpy2", "1KiB", 100)
    assert disturbed is not None
    disturbed.samples[1] = sample(70, busy=0.45)
    assert [finding.noisy for finding in made.targets()] == [False, True, False, True]
    lines = as_text(made).splitlines()
    assert any(line.startswith("NOISY, would be met: thriftpy2-gevent's server CPU") for line in lines)
    assert lines[-1].startswith("NOISY: other work")


def test_a_run_without_weego_promises_nothing() -> None:
    made = result()
    made.cells = [cell for cell in made.cells if cell.peer != "weego"]
    del made.codecs["weego"]
    assert made.targets() == []
    assert "MISSED" not in as_text(made)


def test_tables_show_noise_and_gaps() -> None:
    said = as_text(result())
    lines = said.splitlines()
    assert "apache: not measured – No module named 'thrift'" in said
    row = next(line for line in lines if line.startswith("| weego") and "13.0" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["weego", "13.0 (12.0..14.0)", "1.44×", "0.20×", "–", "1 000", "100", "1 234", "3.00", "95.0"]
    assert "NOISY, would be MISSED: thriftpy2's decode time by weego's (complex) = 3.00 (limit ≥ 3.5, aim 3.5)" in lines
    for table in said.split("\n\n"):
        assert len({len(line) for line in table.splitlines() if line.startswith("|")}) <= 1


def test_smoke_says_that_it_measures_nothing() -> None:
    made = result()
    made.settings = {**SETTINGS, "smoke": True}
    assert "measures nothing" in as_text(made)

"""bench/thrift_streams.py runs, and its table says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import thrift_streams
from tests.support import kitex_stream


@pytest.mark.timeout(600)
def test_one_call_of_each_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kitex_stream.talk()
    rows = thrift_streams.run(tmp_path, rounds=1, calls=1)
    assert len(rows) == len(thrift_streams.SHAPES) * len(thrift_streams.PAIRS)
    assert all(row["per_second"] > 0 and row["client_us"] > 0 for row in rows)
    said = capsys.readouterr().out
    for shape in thrift_streams.SHAPES:
        assert f"Thrift streams, {shape}" in said


def test_ratios_are_of_one_client_and_of_one_server(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {("kitex", "weego"): (1.0, 3.0), ("kitex", "kitex"): (10.0, 6.0), ("weego", "weego"): (1.0, 1.0), ("weego", "kitex"): (2.0, 1.0)}
    thrift_streams.show(
        [
            {"shape": shape, "client": client, "server": server, "per_second": 1.0, "client_us": ours, "server_us": theirs}
            for shape in thrift_streams.SHAPES
            for (client, server), (ours, theirs) in figures.items()
        ]
    )
    assert capsys.readouterr().out.count("server 0.50 (Kitex's client), client 0.20 (Kitex's server)") == len(thrift_streams.SHAPES)

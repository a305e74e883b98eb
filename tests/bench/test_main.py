"""bench/__main__.py: the command line, and a smoke run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.__main__ import CONNECTIONS, MESSAGES, PEER_NAMES, ROUNDS, SMOKE_LOADS, plan
from bench.native import BENCH
from bench.peer import PEERS
from bench.report import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_by_default() -> None:
    chosen = plan([])
    assert chosen.rounds == ROUNDS >= 5
    assert chosen.peers == PEER_NAMES
    assert set(chosen.loads) == {(message, count) for message in MESSAGES for count in CONNECTIONS}
    assert chosen.parts == ("servers", "clients", "codecs")


def test_only_restricts_what_it_names() -> None:
    chosen = plan(["--only", "weego,floor,1KiB", "--only", "100,5000"])
    assert chosen.peers == ("floor", "weego")
    assert chosen.loads == (("1KiB", 100), ("1KiB", 5000))
    assert plan(["--only", "codecs"]).parts == ("codecs",)


def test_smoke_is_one_short_round() -> None:
    chosen = plan(["--smoke"])
    assert (chosen.rounds, chosen.loads) == (1, SMOKE_LOADS)
    assert plan(["--smoke", "--only", "16B"]).loads == (("16B", 1),)
    assert plan(["--smoke", "--only", "16B,7"]).loads == (("16B", 7),)
    assert plan(["--smoke", "--rounds", "2"]).rounds == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "wego"], "--only wego: unknown"),
        (["--only", "0"], "--only 0"),
        (["--rounds", "0"], "--rounds 0"),
        (["--seconds", "0"], "--seconds 0"),
        (["--depth", "0"], "--depth 0"),
        (["--json", "/no/such/folder/x.json"], "/no/such/folder"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        plan(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.e2e
@pytest.mark.usefixtures("loadgen")
def test_smoke_run_with_the_floor(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "bench", "--smoke", "--only", "servers,floor,16B,complex,3", "--json", str(output)]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(output.read_text())
    assert said["schema"] == SCHEMA
    assert [(row["peer"], row["message"], row["connections"]) for row in said["servers"]] == [
        ("floor", "16B", 3),
        ("floor", "complex", 3),
    ]
    for row in said["servers"]:
        assert row["server_cpu_us"]["median"] > 0
        assert row["rss_bytes"]["median"] > 0
        assert row["cpu_ratio"] == {"floor": 1.0, "thriftpy2": None, "kitex": None}
    assert "| floor" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
@pytest.mark.interop
@pytest.mark.usefixtures("loadgen")
@pytest.mark.parametrize("peer", ["weego", "thriftpy2", "apache", "kitex"])
def test_every_peer_answers_every_message_right(peer: str) -> None:
    """One call of the generator compares each reply byte for byte: a peer that runs through has answered right."""
    command = [sys.executable, "-m", "bench", "--smoke", "--only", f"servers,{peer},3", "--json", "-"]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if peer in said["missing"]:
        pytest.skip(f"{peer} cannot run here: {said['missing'][peer]}")
    able = [name for name in MESSAGES if name not in next(each for each in PEERS if each.name == peer).cannot]
    assert [row["message"] for row in said["servers"]] == able

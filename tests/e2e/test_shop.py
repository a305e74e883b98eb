"""examples/shop as somebody sees it who tries it."""

from __future__ import annotations

import re
import sys

import pytest

from tests.support.need import ROOT, program
from tests.support.service import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def shop(*options: str) -> str:
    code, said = run([sys.executable, str(ROOT / "examples/shop/run.py"), "--rate", "20", *options], cwd=str(ROOT))
    assert code == 0, said
    return said


def column(said: str, view: str, row: str, name: str) -> str:
    """What `weego ctl VIEW` said there, of the row that begins so."""
    head, *rows = (re.split(r"  +", line.strip()) for line in said.split(f".sock {view}\n", 1)[1].splitlines())
    return dict(zip(head, next(each for each in rows if row in each), strict=True))[name]


def test_all_is_well() -> None:
    said = shop("--seconds", "3")
    assert said.startswith("second  calls  unsure  failed    p50    p99   what failed\n")
    assert re.search(r"^ +2 +\d+ ", said, re.MULTILINE)
    assert re.search(r"^\d+ calls, 0 without a number, 0 failed$", said, re.MULTILINE), said
    assert int(column(said, "calls", "stock.left", "calls")) >= 3
    assert column(said, "breakers", "stock.left", "state") == "closed"
    assert column(said, "limits", "database", "refused") == "0"


def test_one_fails_and_they_find_each_other_in_etcd() -> None:
    program("etcd", "apt-get install etcd-server")
    said = shop("--etcd", "--trouble", "fail", "--seconds", "9")
    assert said.index("  -- fail\n") < said.index("item.sock instances\n") < said.index("  -- well again\n")
    assert len(re.findall(r"^    stock +tcp://127", said, re.MULTILINE)) == 2
    assert re.search(r"^\d+ calls, 0 without a number, 0 failed$", said, re.MULTILINE), said
    assert int(column(said, "calls", "stock.left", "hedges")) >= 1

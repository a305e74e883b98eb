"""docs/getting-started.md, followed to the letter: its files, its commands, on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.need import ROOT
from tests.support.processes import Process, assert_clean

MASTER = [sys.executable, str(ROOT / "bin/weego-master")]
GREETED = "Hello, Ada!\nno greeting for nobody\n"


def run(folder: Path, *command: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # what the editable install of `make setup` does
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.e2e
def test_the_page_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/getting-started.md").read_text()
    files = dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL))
    assert set(files) == {"greet.thrift", "app.py", "server.toml", "client.py"}
    files["server.toml"] = files["server.toml"].replace(":9000", ":0")
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    assert run(tmp_path, sys.executable, str(ROOT / "bin/weego"), "gen", "greet.thrift", "-o", "gen") == ""
    assert run(tmp_path, *MASTER, "server.toml", "--check") == "server.toml: good\n"
    with Process([*MASTER, "server.toml"], cwd=str(tmp_path)) as master:
        port = master.wait_for(r"serving on tcp://127\.0\.0\.1:(\d+)")[1]
        (tmp_path / "client.py").write_text(files["client.py"].replace(":9000", f":{port}"))
        assert run(tmp_path, sys.executable, "client.py") == GREETED

        seen = len(master.lines)
        (tmp_path / "app.py").write_text(files["app.py"].replace("Hello", "Good day"))
        master.signal(signal.SIGHUP)
        master.wait_for("reload done", after=seen)
        assert run(tmp_path, sys.executable, "client.py") == GREETED.replace("Hello", "Good day")
        assert master.stop() == 0
    assert_clean(master.output)

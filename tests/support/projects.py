"""`weego new` in tests: run in this process, and what it made run in processes of its own."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.need import ROOT
from weego.cli.commands import weego as group

ENV = {**os.environ, "PYTHONPATH": str(ROOT)}  # what the editable install of `make setup` does
MASTER = [sys.executable, str(ROOT / "bin/weego-master")]


def new(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["new", *arguments])


def made(*arguments: str) -> str:
    result = new(*arguments)
    assert (result.exit_code, result.exception) == (0, None), result.output
    return result.stdout


def failure(capfd: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    result = new(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    message = capfd.readouterr().err
    assert message.startswith("weego new: ")
    assert message.count("\n") == 1
    return message


def run(folder: Path, *command: str, code: int = 0) -> str:
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def kept(before: str, after: str) -> list[str]:
    """The lines that were added; fails if one was taken away."""
    changes = list(difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True)))
    assert not [line for line in changes if line.startswith("- ")]
    return [line[2:].rstrip("\r\n") for line in changes if line.startswith("+ ")]

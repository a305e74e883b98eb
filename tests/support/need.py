"""A thing a test needs and the machine may not have: a skip that says what to install, and a failure where CI promised it."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]


def missing(what: str, remedy: str) -> NoReturn:
    """Skip with the remedy; under WEEGO_CI=1, where nothing may be missing, fail."""
    reason = f"{what} is not here: {remedy}"
    if os.environ.get("WEEGO_CI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def corpus() -> Path:
    """The shared IDL corpus: WEEGO_IDL_CORPUS, or ../shared/idl beside the checkout."""
    folder = Path(os.environ.get("WEEGO_IDL_CORPUS") or ROOT.parent / "shared" / "idl")
    if not folder.is_dir():
        missing(f"the IDL corpus ({folder})", "set WEEGO_IDL_CORPUS to its folder")
    return folder


def program(name: str, remedy: str) -> str:
    """The path of an executable."""
    path = shutil.which(name)
    return path or missing(name, remedy)


def module(name: str) -> ModuleType:
    """An importable package of a peer."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(name, f"pip install {name.partition('.')[0]}")

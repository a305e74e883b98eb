"""Fixtures for the whole suite; the code behind them is in tests/support."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks, need

# Whoever starts the suite in the background of a script has it ignore Ctrl-C, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return need.ROOT


@pytest.fixture(scope="session")
def idl_corpus() -> Path:
    """The shared IDL corpus, or a skip with the reason."""
    return need.corpus()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Descriptors, threads and children are at the end what they were at the start."""
    with leaks.no_leaks():
        yield

"""Fixtures for the whole suite; the code behind them is in tests/support."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks, need


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

"""What all end-to-end tests have: a user's folder with the probe service."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.service import App


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def app(tmp_path: Path, no_leaks: None) -> App:
    """A folder with the probe service, its stubs and no configuration yet."""
    return App(tmp_path / "app")

"""Stubs of the interop IDL by weego and by Apache's compiler, and a weego server of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.interop.table import Recorder
from tests.support import peers
from tests.support.service import App, Server, generate

# Its assertions are to show what they compared, as those of a test module do; so it is imported only after this, by its users.
pytest.register_assert_rewrite("tests.interop.conversation")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--interop-table", metavar="FILE", help="write the table of what went well into this Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--interop-table")
    if path:
        config.pluginmanager.register(Recorder(Path(path)), "interop-table")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """What `weego gen` makes of interop.thrift."""
    folder = tmp_path_factory.mktemp("weego")
    generate(peers.INTEROP_IDL, folder / "weego_gen")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("weego_gen.interop")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def apache_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Apache's compiler makes of interop.thrift, or a skip with the reason."""
    return peers.generate_apache(peers.INTEROP_IDL, tmp_path_factory.mktemp("apache"))


@pytest.fixture(scope="module")
def weego_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A weego server, under its master, of the interop service."""
    from tests.interop.conversation import SERVICE_CODE

    idl = peers.INTEROP_IDL
    app = App(tmp_path_factory.mktemp("interop") / "app", idl=idl.read_text(), idl_name=idl.name, code=SERVICE_CODE)
    # The one handler that fails does so on purpose, and is logged with its traceback.
    with app.serve(allow=["Interop.fail: the handler failed"]) as server:
        yield server

"""The public surface: one explicit list, every name of it real, documented and lazily loaded; stubs use nothing else."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import weego

ROOT = Path(__file__).resolve().parent.parent

# What an emitted module may import beside weego: the standard library's words for types.
STUB_IMPORTS = {"__future__", "collections", "enum", "typing", "uuid", "weego"}


def test_the_list_is_sorted_and_has_no_doubles() -> None:
    # As isort and ruff sort: names all in capitals first.
    assert sorted(set(weego.__all__), key=lambda name: (not name.isupper(), name)) == weego.__all__


def test_the_list_and_the_lazy_table_agree() -> None:
    assert {*weego._MODULE_OF, "__version__"} == set(weego.__all__)
    assert dir(weego) == sorted(weego.__all__)


def test_no_name_is_that_of_a_module_of_weego() -> None:
    """Whoever imports the module would find it under the name from then on, and not what is offered."""
    assert {each.name for each in pkgutil.iter_modules(weego.__path__)} & {*weego.__all__} == set()


def test_type_checkers_see_the_same_names() -> None:
    """The `if TYPE_CHECKING` block repeats the lazy table; they must not drift."""
    seen = {}
    for node in ast.walk(ast.parse(Path(weego.__file__).read_text())):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for each in node.body:
                assert isinstance(each, ast.ImportFrom)
                seen.update({alias.name: each.module for alias in each.names})
    assert seen == weego._MODULE_OF


@pytest.mark.parametrize("name", [name for name in weego.__all__ if name != "__version__"])
def test_every_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(weego, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert value.__doc__, f"weego.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sever'"):
        _ = weego.Sever  # type: ignore[attr-defined]


def test_importing_weego_loads_nothing_else() -> None:
    code = "import sys, weego; print(*(n for n in sys.modules if n.split('.')[0] in ('codec', 'poller', 'governance', 'gevent')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("idl", sorted((ROOT / "examples").rglob("*.thrift")), ids=lambda path: path.name)
def test_emitted_stubs_use_only_weego(idl: Path, tmp_path: Path) -> None:
    from idlc import compile_files

    compile_files([str(idl)], str(tmp_path), [])
    modules = sorted(tmp_path.rglob("*.py"))
    assert modules
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= STUB_IMPORTS, f"{module.name}:{node.lineno}"

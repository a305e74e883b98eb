"""The tables of Kitex's features, docs/governance.md and docs/extending.md: every test, file, key and name that they promise is there."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Iterator

import pytest

from tests.support.need import ROOT
from weego import config, discovery
from weego.cli.ctl import ctl

TABLES = {"governance.md": "## Kitex's features, one by one\n", "extending.md": "## Kitex's extension points\n"}
# Where names that stand before a dot or a bracket are at home.
HOMES = {
    "weego": "weego",
    "metainfo": "weego.metainfo",
    "extend": "weego.extend",
    "Call": "weego.Call",
    "Client": "weego.Client",
    "ClientPolicy": "weego.ClientPolicy",
    "BreakerPolicy": "weego.BreakerPolicy",
    "Directory": "governance.discovery.Directory",
    "Policy": "weego.Policy",
    "RetryPolicy": "weego.RetryPolicy",
    "Rule": "weego.Rule",
}


def rows() -> Iterator[tuple[str, list[str]]]:
    for name, heading in TABLES.items():
        lines = (ROOT / "docs" / name).read_text().split(heading, 1)[1].split("\n## ", 1)[0].splitlines()
        found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        yield from ((f"{name} {number}: {cells[0]}", cells) for number, cells in enumerate(found) if cells[0] != "Kitex" and not cells[0].startswith(("Kitex,", "---")))


ROWS = dict(rows())


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@functools.cache
def functions_of(path: str) -> set[str]:
    """The functions of a file of tests; a name without a folder is that of the only file called so."""
    files = [ROOT / "tests" / path] if "/" in path else list((ROOT / "tests").rglob(path))
    assert len(files) == 1, f"{path} is {[str(each) for each in files]}"
    return {node.name for node in ast.walk(ast.parse(files[0].read_text())) if isinstance(node, ast.FunctionDef)}


def test_there_are_tables() -> None:
    assert len(ROWS) > 120
    assert all(len(cells) == 3 and all(cells) for cells in ROWS.values()), [cells for cells in ROWS.values() if len(cells) != 3 or not all(cells)]


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_a_test_that_is_there_or_a_reason(row: str) -> None:
    _, here, proof = ROWS[row]
    named = [span for span in spans(proof) if ".py" in span]
    for span in named:
        path, _, function = span.removeprefix("tests/").partition("::")
        assert path.rpartition("/")[2].startswith("test_"), f"{span} is no file of tests"
        found = functions_of(path)
        assert not function or function in found, f"{path} has no {function}"
    if not named:
        assert len(proof.split()) >= 4, f"neither a test nor a reason: {proof!r}"
    assert here != "–" or not named, f"a test of what is not here: {proof}"


def is_there(name: str) -> bool:
    """Is that an attribute of something of ours, or a field of a dataclass?"""
    first, *rest = name.split(".")
    home = HOMES[first].split(".")
    for size in range(len(home), 0, -1):
        try:
            found = importlib.import_module(".".join(home[:size]))
        except ModuleNotFoundError:
            continue
        path = [*home[size:], *rest]
        for part in path[:-1]:
            found = getattr(found, part)
        return not path or hasattr(found, path[-1]) or path[-1] in getattr(found, "__dataclass_fields__", ())
    return False


@pytest.mark.parametrize("row", ROWS)
def test_what_a_row_names_is_there(row: str) -> None:
    schema = config.schema()["properties"]
    for span in spans(ROWS[row][1]) + [each for each in spans(ROWS[row][2]) if "test_" not in each]:
        if table := re.fullmatch(r"\[+([a-z_.]+)[.…]*\]+(?: ([a-z_]+))?", span):
            found = schema
            for part in table[1].strip(".").split("."):
                found = found[part]
                found = found.get("items", found.get("additionalProperties") or found)["properties"]
            assert not table[2] or table[2] in found, span
        elif re.fullmatch(r"(governance|weego|prefork|codec|poller)/[a-z_/]+\.py", span):
            assert (ROOT / span).is_file(), span
        elif command := re.match(r"weego ctl ([a-z]+)", span):
            assert command[1] in ctl.commands, span  # type: ignore[attr-defined]
        elif scheme := re.fullmatch(r"([a-z]+)://", span):
            assert scheme[1] in discovery._schemes, span
        elif called := re.fullmatch(r"([A-Z]\w+)\((.*)\)", span):
            for option in re.findall(r"(\w+)=", called[2]):
                assert is_there(f"{called[1]}.{option}"), span
        elif re.fullmatch(r"[\w.]+", span) and span.partition(".")[0] in HOMES:
            assert is_there(span), span

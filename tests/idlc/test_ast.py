from __future__ import annotations

import dataclasses

import pytest

from idlc import ast
from idlc.errors import Report, Source
from idlc.parser import parse


def test_the_tree_cannot_change() -> None:
    document = parse(Source("x", "struct S { 1: i32 a }"), Report())
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.definitions[0].name = "T"  # type: ignore[misc]


def test_every_node_has_a_place() -> None:
    nodes = [each for each in vars(ast).values() if dataclasses.is_dataclass(each) and each.__module__ == ast.__name__]
    assert len(nodes) > 15
    for node in nodes:
        names = {field.name for field in dataclasses.fields(node)}
        assert "pos" in names or node is ast.Document, node

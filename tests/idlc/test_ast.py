from __future__ import annotations

import dataclasses

from idlc import ast


def test_every_node_has_a_place() -> None:
    nodes = [each for each in vars(ast).values() if dataclasses.is_dataclass(each) and each.__module__ == ast.__name__]
    assert len(nodes) > 15
    for node in nodes:
        names = {field.name for field in dataclasses.fields(node)}
        assert "pos" in names or node in (ast.Document, ast.Span), node

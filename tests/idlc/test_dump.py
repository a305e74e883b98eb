"""The model as data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from idlc.dump import dump
from idlc.errors import Report
from idlc.resolver import resolve
from tests.idlc.test_corpus import corpus, expected_to_pass

IDL = """
/** Things. */
namespace py a.b
typedef list<i64> Ids
enum E { /** red */ RED = 1 } (x = "1", x = "2")
const binary B = "\\xff"
const map<E, double> M = {E.RED: 1.5}
const map<string, i32> T = {"a": 1}
struct S { 1: required Ids ids, 2: optional E e = E.RED (api.query = "e") }
service Svc { /** Doc. */ S get(1: i64 id) (idempotent) }
"""


def test_everything_is_there(check: Callable[..., Any]) -> None:
    found = json.loads(json.dumps(dump(check(IDL).programs)))
    assert found["format"] == 1
    (file,) = found["files"]
    assert (file["name"], file["namespaces"]) == ("main", {"py": "a.b"})
    assert file["typedefs"] == [{"name": "Ids", "line": 4, "type": {"list": "i64"}}]
    assert file["enums"][0]["members"] == [{"name": "RED", "line": 5, "doc": "red", "value": 1}]
    assert file["enums"][0]["annotations"] == {"x": ["1", "2"]}
    assert [each["value"] for each in file["constants"]] == ["/w==", [["RED", 1.5]], {"a": 1}]
    ids, e = file["structs"][0]["fields"]
    assert (ids["type"], ids["requiredness"], "default" in ids) == ({"name": "main.Ids"}, "required", False)
    assert (e["type"], e["default"], e["annotations"]) == ({"name": "main.E"}, "RED", {"api.query": ["e"]})
    (method,) = file["services"][0]["methods"]
    assert (method["doc"], method["idempotent"], method["streaming"], method["oneway"]) == ("Doc.", True, "unary", False)


def test_the_corpus_is_data() -> None:
    for name in expected_to_pass():
        programs = resolve([str(corpus() / name)], [], Report())
        assert len(json.loads(json.dumps(dump(programs)))["files"]) == len(programs)

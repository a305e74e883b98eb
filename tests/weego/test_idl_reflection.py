"""A server that says what it serves, and calls that need nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import weego
from idlc.diff import compare
from idlc.errors import Report
from idlc.resolver import resolve
from tests.idlc.test_corpus import corpus, expected_to_pass
from weego import dynamic
from weego.cli.commands import weego as group
from weego.generic import GenericClient, Idl
from weego.idl_reflection import fetch_idl, idl_text, reflection

IDL = """
enum Colour { RED = 1, BLUE = -2 }
exception Gone { 1: string why }
union Shape { 1: double radius, 2: Item item }
struct Item { 1: required i64 id, 2: string name = "tea \\"x\\"", 3: optional Item parent, 4: map<string, set<Colour>> tags, 7: bool on = true }
service Base { void ping() (idempotent) }
service Shop extends Base { Item get(1: i64 id, 2: Shape shape) throws (1: Gone gone)  oneway void forget(1: double d = 1.5) }
"""


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    (tmp_path / "shop.thrift").write_text(IDL)
    module: Any = dynamic.load(tmp_path / "shop.thrift")

    class Service(module.Shop):  # type: ignore[misc]
        def get(self, id, shape):
            if id == 0:
                raise module.Gone(why="sold")
            return module.Item(id=id)

    return Service()


def test_calls_need_nothing_but_the_server(shop: Any) -> None:
    with weego.Server([shop, reflection([shop])], listen="tcp://127.0.0.1:0") as server:
        idl = Idl.from_text(fetch_idl(server.addresses[0], 5.0))
        with GenericClient(server.addresses[0], idl, timeout=5.0) as client:
            assert client.call("Shop.get", {"id": 7, "shape": {"radius": 1.0}})["id"] == 7
        done = CliRunner().invoke(group, ["call", server.addresses[0], "Shop.get", '{"id": 7, "shape": {"radius": 1}}', "--timeout", "5s"])
        assert (done.exit_code, json.loads(done.stdout)["id"]) == (0, 7)
        declared = CliRunner().invoke(group, ["call", server.addresses[0], "Shop.get", '{"id": 0, "shape": {"radius": 1}}', "--timeout", "5s"])
        assert (declared.exit_code, json.loads(declared.stdout)) == (1, {"Gone": {"why": "sold"}})


def test_a_server_that_does_not_say(shop: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with weego.Server(shop, listen="tcp://127.0.0.1:0") as server:
        done = CliRunner().invoke(group, ["call", server.addresses[0], "Shop.get", '{"id": 7}', "--timeout", "5s"])
    assert done.exit_code == 2
    assert "the server does not describe its services" in capfd.readouterr().err


def test_the_text_means_what_the_idl_means(tmp_path: Path) -> None:
    """For services of the corpus: nothing that is on the wire has changed."""
    compared = 0
    for number, name in enumerate(expected_to_pass()):
        module = dynamic.load(corpus() / name)
        services = dynamic.services(module)
        if services:
            report = Report()
            old = resolve([str(corpus() / name)], [], report)
            path = tmp_path / f"{number}.thrift"
            path.write_text(idl_text(services.values()))
            new = resolve([str(path)], [], report)
            assert report.errors == [], name
            broken = [str(each) for each in compare(old, new, {old[-1]: new[-1]}) if each.severity == "breaking" and each.code != "type"]
            wanted = {each.name for each in services.values()}
            assert wanted <= set(new[-1].symbols), name
            assert [each for each in broken if "gone" in each and "service" in each and each.split()[3] in wanted] == [], name
            compared += 1
        dynamic.unload(module)
    assert compared > 60


def test_types_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a.thrift").write_text("struct X { 1: i32 a }")
    (tmp_path / "b.thrift").write_text('include "a.thrift"\nstruct X { 1: a.X x } service S { X get(1: a.X x) }')
    module = dynamic.load(tmp_path / "b.thrift")
    text = idl_text(dynamic.services(module).values())
    assert "struct X_2 {\n  1: X x\n}" in text
    assert "X_2 get(1: X x)" in text

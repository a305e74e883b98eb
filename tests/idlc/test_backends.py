"""Back ends: the door, TypeScript, JSON Schema and pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from random import Random
from typing import Any

import pytest

from codec.structs import Struct
from codec.types import StructType
from idlc import backends, model
from idlc.errors import IdlError
from tests.idlc.random_values import Endless, struct
from tests.idlc.test_corpus import corpus, expected_to_pass
from tests.support import need, tsc
from weego import dynamic

IDL = """
/** A shop. */
include "base.thrift"
typedef i64 Id
enum Colour { /** hot */ RED = 1, BLUE }
union Shape { 1: double radius, 2: base.Point corner }
exception Gone { 1: string message }
struct Item {
  1: required Id id
  2: string name = "tea"
  3: optional map<string, list<Colour>> tags
  4: map<i32, base.Point> places   // by number
}
const list<i32> SIZES = [1, 2]
service Shop extends base.Root {
  /** Get <one>. */
  Item getItem(1: Id id, 2: optional bool deep) throws (1: Gone gone)
  oneway void forget()
  Item watch(1: Item item) (streaming.mode = "bidirectional")
}
"""
BASE = "struct Point { 1: i32 x } service Root { void ping() }"


def made(write: Callable[..., Path], tmp_path: Path, target: str, **options: str) -> dict[str, str]:
    path = write(IDL, base=BASE)
    out = tmp_path / "out"
    done = backends.run(target, [path], out, options=options)
    assert done.changed == done.written
    assert backends.run(target, [path], out, options=options).changed == []
    return {each.name: each.read_text() for each in done.written}


def test_typescript(write: Callable[..., Path], tmp_path: Path) -> None:
    texts = made(write, tmp_path, "typescript")
    assert sorted(texts) == ["base.ts", "main.ts"]
    text = texts["main.ts"]
    for line in (
        'import type * as _base from "./base";',
        "export type Id = number;",
        'export type Colour = "RED" | "BLUE" | number;',
        "export const ColourNumbers = { RED: 1, BLUE: 2, } as const;",
        "  | { corner: _base.Point };",
        "  id: Id;",
        "  name?: string;",
        "  tags?: { [key: string]: Colour[] };",
        "  places?: [number, _base.Point][];",
        "export const SIZES: number[] = [1, 2];",
        "export interface Shop extends _base.Root {",
        "  getItem(args: { id: Id; deep?: boolean }): Promise<Item>;",
        "  forget(): Promise<void>;",
        "  watch(stream: AsyncIterable<Item>): AsyncIterable<Item>;",
    ):
        assert line in text.split("\n"), line


@pytest.mark.timeout(600)
def test_tsc_takes_the_types_of_the_corpus_and_the_json_of_their_values(tmp_path: Path) -> None:
    """Every emitted file compiles in tsc's strictest settings; so do random values, as `weego.dynamic` writes them, where their types are asked for."""
    random = Random(2)
    files: list[Path] = []
    values = 0
    for number, name in enumerate(expected_to_pass()):
        out = tmp_path / str(number)
        files += backends.run("typescript", [corpus() / name], out).written
        if number % 4:
            continue
        module = dynamic.load(corpus() / name)
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", Path(name).stem)
        lines = [f'import type * as m from "./{stem}";']
        for cls in vars(module).values():
            if isinstance(cls, type) and issubclass(cls, Struct) and cls.__module__ == module.__name__:
                try:
                    value = dynamic.to_json(StructType(cls), struct(random, cls))
                except Endless:
                    continue
                if f"export interface {cls.__name__} " in (out / f"{stem}.ts").read_text() or f"export type {cls.__name__} " in (out / f"{stem}.ts").read_text():
                    lines.append(f"export const value{len(lines)}: m.{cls.__name__} = {json.dumps(value)};")
        (out / "values_.ts").write_text("\n".join(lines))
        files.append(out / "values_.ts")
        values += len(lines) - 1
    assert values > 100
    assert tsc.check(tmp_path, files) == ""
    (tmp_path / "wrong.ts").write_text('import type * as m from "./values_"; const x: number = "text";')
    assert "is not assignable to type 'number'" in tsc.check(tmp_path, [tmp_path / "wrong.ts"])


def test_the_schema_says_what_json_is_of_every_type_of_the_corpus(tmp_path: Path) -> None:
    """Random values, as `weego.dynamic` writes them, are valid; so are they after a round trip; garbage is not."""
    need.module("jsonschema")
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    random = Random(1)
    checked = 0
    for number, name in enumerate(expected_to_pass()):
        if number % 4:
            continue
        out = tmp_path / str(number)
        written = backends.run("jsonschema", [corpus() / name], out).written
        schemas = {path.name: json.loads(path.read_text()) for path in written}
        registry: Any = Registry().with_resources([(file, Resource.from_contents(schema)) for file, schema in schemas.items()])
        for schema in schemas.values():
            Draft202012Validator.check_schema(schema)
        module = dynamic.load(corpus() / name)
        (file,) = [each for each in schemas if each.removesuffix(".schema.json") == re.sub(r"\W", "_", Path(name).stem)][:1]
        for cls in vars(module).values():
            if not (isinstance(cls, type) and issubclass(cls, Struct) and cls.__module__ == module.__name__):
                continue
            validator = Draft202012Validator({"$ref": f"{file}#/$defs/{cls.__name__}"}, registry=registry)
            try:
                value = dynamic.to_json(StructType(cls), struct(random, cls))
            except Endless:
                continue
            validator.validate(json.loads(json.dumps(value)))
            assert not validator.is_valid({"no such field": 1})
            assert not validator.is_valid([])
            checked += 1
    assert checked > 100


def test_schema_of_a_service(write: Callable[..., Path], tmp_path: Path) -> None:
    schema = json.loads(made(write, tmp_path, "jsonschema", base="https://example.org/")["main.schema.json"])
    assert schema["$id"] == "https://example.org/main.schema.json"
    assert schema["$defs"]["Shop.getItem.result"] == {"$ref": "#/$defs/Item"}
    assert schema["$defs"]["Shop.getItem.args"]["description"] == "Get <one>."
    assert schema["$defs"]["Item"]["required"] == ["id"]
    assert schema["$defs"]["Item"]["properties"]["name"]["default"] == "tea"


def test_markdown(write: Callable[..., Path], tmp_path: Path) -> None:
    text = made(write, tmp_path, "markdown")["main.md"]
    assert "# main" in text
    assert '#### <a id="Shop.getItem"></a>Shop.getItem' in text
    assert "Get \\<one\\>." in text
    assert "| 4 | places | map\\<i32, [Point](base.md#Point)\\> |  | by number |" in text
    assert "stream\\<[Item](#Item)\\> watch(stream\\<[Item](#Item)\\> item)" in text


def test_html(write: Callable[..., Path], tmp_path: Path) -> None:
    text = made(write, tmp_path, "html")["main.html"]
    assert "<p>Get &lt;one&gt;.</p>" in text
    assert '<a href="base.html#Point">Point</a>' in text
    assert '<h4 id="Shop.getItem">' in text
    anchors = set(re.findall(r'id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= anchors


def test_every_back_end_takes_the_corpus(tmp_path: Path) -> None:
    for target in ("typescript", "markdown", "html"):
        for number, name in enumerate(expected_to_pass()):
            assert backends.run(target, [corpus() / name], tmp_path / target / str(number)).written


def test_an_installed_back_end(write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("names", f"{__name__}:names_of_structs", backends.GROUP)
    monkeypatch.setattr(point.__class__, "load", lambda _self: names_of_structs)
    monkeypatch.setattr(backends, "entry_points", lambda **_: [point])
    assert "names" in backends.names()
    assert made(write, tmp_path, "names") == {"names.txt": "Generated by weego: Point Shape Gone Item\n"}


def names_of_structs(programs: Sequence[model.Program], options: Mapping[str, str]) -> dict[str, str]:
    found = [each.name for program in programs for each in program.definitions if isinstance(each, model.Struct)]
    return {"names.txt": f"Generated by weego: {' '.join(found)}\n"}


def test_mistakes(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(IDL, base=BASE)
    with pytest.raises(backends.UnknownBackend, match='no back end "cobol"; there is python, html, jsonschema'):
        backends.run("cobol", [path], tmp_path)
    with pytest.raises(backends.UnknownOption, match='unknown option "bass"; base: what'):
        backends.run("jsonschema", [path], tmp_path, options={"bass": "x"})
    (tmp_path / "main.ts").write_text("mine")
    with pytest.raises(IdlError, match="was not generated by weego"):
        backends.run("typescript", [path], tmp_path)
    assert (tmp_path / "main.ts").read_text() == "mine"

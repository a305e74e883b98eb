"""Plugins: thriftgo's protocol against thriftgo itself, plugins in Python, insertion points, and what each mistake is told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from idlc import plugins
from idlc.compile import compile_files
from idlc.errors import IdlError
from idlc.plugin_wire import WireError, decode, encode
from idlc.plugins import Generated, Plugin, PluginError, PluginRequest, find_plugin
from tests.idlc.test_corpus import corpus, rows
from tests.support import thriftgo

IDL = "enum E { A } struct Item { 1: i32 a } union U { 1: i32 a } exception X { 1: i32 a } service S { void x() }"


@pytest.fixture(scope="session")
def programs() -> tuple[Path, Path]:
    return thriftgo.build()


# ---- thriftgo's protocol ---------------------------------------------------------------------------------------------

# Where thriftgo itself reads a file otherwise than everybody: 1.7e+308 is 308 to it, and escaped quotes keep their backslash.
_OTHERWISE = {
    "apache_thrift/test/DoubleConstantsTest.thrift",
    "cloudwego_kitex/pkg/generic/http_test/idl/dynamicgo_go_tag_error.thrift",
}
# Comments are kept as words here, as text there; which includes are used, and where the file lies, are no matter of the tree.
_UNCOMPARED = {"ReservedComments", "Filename", "Used", "CppIncludes", "CppType"}


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_plugin_is_given_the_tree_that_thriftgo_gives_it(programs: tuple[Path, Path], tmp_path: Path) -> None:
    compiler, dump = programs
    plugin = find_plugin(f"dump={dump}")
    compared, different = 0, {}
    for number, row in enumerate(rows("RESULTS_thrift.tsv")):
        name = row[0]
        if row[1] != "ok" or name in _OTHERWISE:
            continue
        theirs, ours = tmp_path / f"a{number}", tmp_path / f"b{number}"
        command = [compiler, "-g", "go:skip_go_gen,thrift_streaming", "-o", theirs, "-p", f"dump={dump}", corpus() / name]
        subprocess.run(command, check=True, capture_output=True)
        (request,) = theirs.rglob("request.json")
        compile_files([corpus() / name], ours, dialect="kitex", plugins=[plugin])
        expected, found = (bare(json.loads(path.read_text())["AST"]) for path in (request, ours / "request.json"))
        compared += 1
        if expected != found:
            different[name] = [key for key in expected if expected[key] != found.get(key)]
    assert different == {}
    assert compared > 150


def bare(value: Any) -> Any:
    """Without what is not compared, and without what is empty: Go has no difference between nothing and null."""
    if isinstance(value, dict):
        return {key: bare(each) for key, each in value.items() if key not in _UNCOMPARED and each not in (None, [], {}, "", False)}
    return [bare(each) for each in value] if isinstance(value, list) else value


def test_a_program_warns_inserts_and_is_asked_for_its_language(programs: tuple[Path, Path], write: Callable[..., Path], tmp_path: Path) -> None:
    parameters = "warn=mind the gap,weego.language=go,insert=main/main.py@struct.Item@extra = 1"
    made = compile_files([write(IDL)], tmp_path / "out", plugins=[find_plugin(f"dump={programs[1]}:{parameters}")])
    assert [each.message for each in made.warnings] == ["plugin dump: mind the gap"]
    request = json.loads((tmp_path / "out/request.json").read_text())
    assert request["Language"] == "go"
    assert request["PluginParameters"] == [parameters.split(",", maxsplit=1)[0], parameters.split(",")[2]]
    assert "    def __init__(self, *, a: int = 0) -> None:\n        self.a = a\n    extra = 1\n" in (tmp_path / "out/main/main.py").read_text()


def test_a_program_that_says_no(programs: tuple[Path, Path], write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(IdlError, match="plugin dump: not today"):
        compile_files([write(IDL)], tmp_path / "out", plugins=[find_plugin(f"dump={programs[1]}:fail=not today")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo hello", "answered something that is no response"),
        ("echo oh no >&2; exit 3", "ended with code 3: oh no"),
        ("cat >/dev/null; printf ''", "the message ends too early"),
        ("sleep 60", "took longer than"),
    ],
)
def test_programs_that_are_no_plugins(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setattr(plugins, "TIME_LIMIT", 60.0 if "sleep" not in script else 0.2)
    program = tmp_path / "thrift-gen-odd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(IdlError, match=message):
        compile_files([write(IDL)], tmp_path / "out", plugins=[find_plugin(f"odd={program}")])
    assert not (tmp_path / "out").exists()


def test_a_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "thrift-gen-mine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_plugin("mine:a=b,c") == Plugin("mine", str(program), ("a=b", "c"))
    with pytest.raises(PluginError, match=r"no plugin other: neither an entry point in weego\.plugins nor a program thrift-gen-other"):
        find_plugin("other")
    with pytest.raises(PluginError, match="write NAME"):
        find_plugin("=x")


# ---- plugins in Python -----------------------------------------------------------------------------------------------


def run(write: Callable[..., Path], tmp_path: Path, *items: Generated) -> Path:
    compile_files([write(IDL)], tmp_path / "out", plugins=[Plugin("mine", lambda _request: items)])
    return tmp_path / "out"


def test_every_insertion_point(write: Callable[..., Path], tmp_path: Path) -> None:
    points = ["imports", "enum.E", "struct.Item", "union.U", "exception.X", "service.S", "client.S", "eof"]
    items = [Generated(f"# at {point}\n", "main/main.py", point) for point in points]
    text = (run(write, tmp_path, *items, Generated("# second", None, "eof")) / "main/main.py").read_text()
    for point in points:
        assert f"# at {point}\n" in text
    assert text.endswith("# at eof\n# second\n")
    assert "insertion_point" not in text
    compile(text, "main.py", "exec")


def test_files_of_its_own(write: Callable[..., Path], tmp_path: Path) -> None:
    out = run(write, tmp_path, Generated("a = 1  # generated\n", "main/extra.py"), Generated("b = 2\n"))
    assert (out / "main/extra.py").read_text() == "a = 1  # generated\nb = 2\n"
    run(write, tmp_path, Generated("a = 2  # generated\n", "main/extra.py"))
    assert (out / "main/extra.py").read_text() == "a = 2  # generated\n"
    (out / "main/extra.py").write_text("mine")
    with pytest.raises(IdlError, match="a plugin would overwrite it"):
        run(write, tmp_path, Generated("a = 3\n", "main/extra.py"))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Generated("x", "../outside.py"), "which is not below"),
        (Generated("x", "/tmp/outside.py"), "which is not below"),
        (Generated("x"), "without saying for which file"),
        (Generated("x", "main/main.py"), "is written already"),
        (Generated("x", "main/main.py", "struct.Nothing"), "has no insertion point struct.Nothing; it has header, imports, enum.E"),
    ],
)
def test_what_a_plugin_must_not_do(write: Callable[..., Path], tmp_path: Path, item: Generated, message: str) -> None:
    with pytest.raises(IdlError, match=message):
        run(write, tmp_path, item)


def test_an_installed_plugin_sees_the_model(write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PluginRequest] = []

    def mine(request: PluginRequest) -> Iterator[Generated]:
        seen.append(request)
        yield Generated("# generated\n", f"{request.root.stem}.txt")

    monkeypatch.setattr(EntryPoint, "load", lambda _self: mine)
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [EntryPoint("mine", "x:y", plugins.GROUP)])
    compile_files([write(IDL)], tmp_path / "out", plugins=[find_plugin("mine:key=value,flag")], version="1")
    (request,) = seen
    assert (request.options, request.version, request.root.stem) == ({"key": "value", "flag": "true"}, "1", "main")
    assert [each.name for each in request.root.definitions] == ["E", "Item", "U", "X", "S"]
    assert (tmp_path / "out/main.txt").exists()


# ---- the messages ----------------------------------------------------------------------------------------------------

REQUEST = {
    "Version": "1", "GeneratorParameters": ["a"], "PluginParameters": [], "Language": "python", "OutputPath": "ü", "Recursive": True,
    "AST": {
        "Filename": "x", "Includes": [], "Name2Category": {"A": 13},
        "Constants": [{"Name": "c", "Value": {"Type": 0, "TypedValue": {"Double": 1.5}}}, {"Name": "d", "Value": {"TypedValue": {"Int": -(2**63)}}}],
    },
}  # fmt: skip


def test_messages_come_back() -> None:
    assert decode("Request", encode("Request", REQUEST)) == REQUEST
    assert decode("Request", encode("Request", REQUEST) + b"trailer") == REQUEST


def test_unknown_fields_are_skipped() -> None:
    strange = b"\x0b\x00\x63\x00\x00\x00\x01x" + b"\x0c\x00\x64\x0a\x00\x01" + b"\x00" * 8 + b"\x00" + b"\x0d\x00\x65\x08\x0b\x00\x00\x00\x00"
    assert decode("Response", strange + encode("Response", {"Error": "e"})) == {"Error": "e"}


def test_broken_messages_are_refused() -> None:
    data = encode("Request", REQUEST)
    for size in range(len(data) - 1):
        with pytest.raises(WireError):
            decode("Request", data[:size])
    for broken in (b"\x0f\x00\x02\x0c\x7f\xff\xff\xff", b"\x0b\x00\x01\xff\xff\xff\xff", b"\x63\x00\x01", b"\x0c\x00\x09" * 1000):
        with pytest.raises(WireError):
            decode("Response", broken)

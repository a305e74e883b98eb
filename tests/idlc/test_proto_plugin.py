"""protoc-gen-weego, driven by protoc itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

from idlc.proto_compile import compile_protos
from idlc.proto_plugin import answer
from idlc.proto_protoc import find_protoc

PROTO = """
syntax = "proto3";
package plugged;
import "google/protobuf/empty.proto";
message Request { string text = 1; }
// Plugged in.
service Plugged { rpc GetIt(Request) returns (google.protobuf.Empty); }
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The entry point as pip would install it."""
    path = tmp_path / "protoc-gen-weego"
    path.write_text(f"#!{sys.executable}\nfrom weego.cli.protoc_gen import main\nmain()\n")
    path.chmod(0o755)
    return path


def protoc(plugin: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    found = find_protoc()
    include = [f"-I{found.include}"] if found.include else []
    command = [*found.command, f"--plugin={plugin}", "-I.", *include, *arguments]
    return subprocess.run(command, cwd=plugin.parent, capture_output=True, text=True, check=False)


def test_protoc_gets_what_weego_gen_writes(plugin: Path) -> None:
    (plugin.parent / "x.proto").write_text(PROTO)
    (plugin.parent / "gen").mkdir()
    done = protoc(plugin, "--weego_out=gen", "--weego_opt=names=idl", "x.proto")
    assert done.returncode == 0, done.stderr
    compile_protos([plugin.parent / "x.proto"], plugin.parent / "own", [plugin.parent], "idl")
    ours = {path.relative_to(plugin.parent / "own"): body(path) for path in (plugin.parent / "own").rglob("*.py*")}
    theirs = {path.relative_to(plugin.parent / "gen"): body(path) for path in (plugin.parent / "gen").rglob("*.py*")}
    assert ours == theirs
    assert "def GetIt(" in theirs[Path("plugged/x.py")]


def body(path: Path) -> str:
    """Without the first line, which has the digest of the text here and of the descriptor there."""
    return path.read_text().partition("\n")[2]


def test_an_unknown_option_is_protocs_error(plugin: Path) -> None:
    (plugin.parent / "x.proto").write_text(PROTO)
    done = protoc(plugin, "--weego_out=.", "--weego_opt=colour=red", "x.proto")
    assert done.returncode != 0
    assert "protoc-gen-weego knows no option 'colour'; it knows names, messages" in done.stderr


def test_bad_values_are_named() -> None:
    response = CodeGeneratorResponse.FromString(answer(CodeGeneratorRequest(parameter="names=loud").SerializeToString(), ""))
    assert response.error == "protoc-gen-weego: names is one of pep8, idl, not 'loud'"


def test_editions_are_supported() -> None:
    response = CodeGeneratorResponse.FromString(answer(CodeGeneratorRequest().SerializeToString(), ""))
    assert response.supported_features & CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS
    assert response.maximum_edition == 1001

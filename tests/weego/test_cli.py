"""The two commands and their doors: what they call, what they print, how they exit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import idlc
import weego
from prefork.application import LoadError
from tests.support.need import ROOT
from weego.cli import master
from weego.cli.commands import weego as group

GOOD = '[[listen]]\naddress = "tcp://127.0.0.1:0"\n[[service]]\nclass = "app:Echo"\n'


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("server.toml").write_text(GOOD)
    return "server.toml"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands in for weego.app, which would start a master."""
    module = ModuleType("weego.app")
    monkeypatch.setitem(sys.modules, "weego.app", module)
    monkeypatch.setattr(weego, "app", module, raising=False)
    return module


def run_master(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["weego-master", *arguments])
    with pytest.raises(SystemExit) as caught:
        master.main()
    code = caught.value.code
    assert isinstance(code, int)
    return code


# ---------------------------------------------------------------- weego-master


def test_serves(monkeypatch: pytest.MonkeyPatch, app: ModuleType, conf: str) -> None:
    app.run_master = lambda path: {conf: 71}[path]  # type: ignore[attr-defined]
    assert run_master(monkeypatch, conf) == 71


def test_check(monkeypatch: pytest.MonkeyPatch, app: ModuleType, conf: str, capfd: pytest.CaptureFixture[str]) -> None:
    checked = []
    app.check = checked.append  # type: ignore[attr-defined]
    assert run_master(monkeypatch, conf, "--check") == 0
    assert checked == [conf]
    assert capfd.readouterr() == ("server.toml: good\n", "")


def test_check_says_what_is_wrong_in_one_line(
    monkeypatch: pytest.MonkeyPatch, app: ModuleType, conf: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def check(_: str) -> None:
        raise LoadError("server.toml:4: [[service]] class: there is no module app")

    app.check = check  # type: ignore[attr-defined]
    assert run_master(monkeypatch, "--check", conf) == 78
    assert capfd.readouterr() == ("", "weego-master: server.toml:4: [[service]] class: there is no module app\n")


@pytest.mark.parametrize("option", ["--check", "--print-config"])
def test_a_broken_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, conf: str, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    Path(conf).write_text(GOOD + "[server]\nworker = 1\n")
    assert run_master(monkeypatch, conf, option) == 78
    assert capfd.readouterr() == (
        "",
        'weego-master: server.toml:6: [server] worker: unknown key, did you mean "workers"?\n',
    )


def test_print_config(monkeypatch: pytest.MonkeyPatch, conf: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_master(monkeypatch, conf, "--print-config") == 0
    out, err = capfd.readouterr()
    assert 'max_message = "16MiB"' in out
    assert err == ""


@pytest.mark.parametrize("arguments", [(), ("--chekc",), ("a", "b")])
def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert run_master(monkeypatch, *arguments) == 2
    assert "Usage: weego-master [OPTIONS] CONF" in capfd.readouterr().err


def test_help_and_version(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_master(monkeypatch, "--help") == 0
    assert "HUP         reload" in capfd.readouterr().out
    assert run_master(monkeypatch, "--version") == 0
    assert capfd.readouterr().out == f"weego-master, version {weego.__version__}\n"


def test_the_way_to_the_master_imports_nothing_heavy(conf: str) -> None:
    """What the process imports before it becomes the master, it keeps for its whole life."""
    code = (
        "import sys, types; app = sys.modules['weego.app'] = types.ModuleType('weego.app')\n"
        "app.run_master = lambda path: print(*sorted({'click', 'msgspec', 'gevent', 'tomllib'} & set(sys.modules))) or 0\n"
        f"sys.argv = ['weego-master', {conf!r}]\n"
        "from weego.cli.master import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (result.returncode, result.stdout.split(), result.stderr) == (0, [], "")


# ---------------------------------------------------------------- weego


def test_the_group_lists_its_commands() -> None:
    result = CliRunner().invoke(group, ["--help"])
    assert result.exit_code == 0
    assert "Generate typed Python" in result.output


def test_an_unknown_command() -> None:
    result = CliRunner().invoke(group, ["gne"])
    assert result.exit_code == 2
    assert "No such command 'gne'" in result.output


def test_gen_hands_over_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def compile_files(*arguments: object, **options: object) -> idlc.Compilation:
        calls.append((arguments, options))
        return idlc.Compilation([], [], [])

    monkeypatch.setattr(idlc, "compile_files", compile_files, raising=False)
    arguments = ["gen", "a.thrift", "b.thrift", "-o", "out", "-I", "x", "-I", "y", "--names=idl"]
    result = CliRunner().invoke(group, arguments)
    assert (result.exit_code, result.output) == (0, "")
    options = {"dialect": "apache", "version": weego.__version__, "levels": {}, "write": True, "plugins": []}
    assert calls == [((["a.thrift", "b.thrift"], "out", ["x", "y"], "idl"), options)]


def test_gen_makes_a_package(tmp_path: Path) -> None:
    idl = tmp_path / "greet.thrift"
    idl.write_text("service Greeter { string greet(1: string name) }\n")
    result = CliRunner().invoke(group, ["gen", str(idl), "-o", str(tmp_path / "gen")])
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "gen" / "greet" / "__init__.py").exists()


def test_gen_again_changes_nothing(tmp_path: Path) -> None:
    idl = ROOT / "examples/echo/echo.thrift"
    made = []
    for name in ("one", "two"):
        out = tmp_path / name
        assert CliRunner().invoke(group, ["gen", str(idl), "-o", str(out)]).exit_code == 0
        made.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert made[0] == made[1]
    assert made[0]


def test_gen_shows_the_place_of_a_mistake(tmp_path: Path) -> None:
    idl = tmp_path / "bad.thrift"
    idl.write_text("struct A {\n    1: Strng name\n}\n")
    result = CliRunner().invoke(group, ["gen", str(idl), "-o", str(tmp_path / "gen")])
    assert result.exit_code == 1
    assert "bad.thrift:2:8: error:" in result.output
    assert not (tmp_path / "gen").exists()


def test_gen_shows_warnings(tmp_path: Path) -> None:
    idl = tmp_path / "twice.thrift"
    idl.write_text("service A { void getId(), void get_id() }\n")
    result = CliRunner().invoke(group, ["gen", str(idl), "-o", str(tmp_path / "gen")])
    assert result.exit_code == 0
    assert "warning" in result.output


def test_gen_cannot_write(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gen").write_text("a file, no folder")
    result = CliRunner().invoke(group, ["gen", str(ROOT / "examples/echo/echo.thrift"), "-o", str(tmp_path / "gen")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "not a directory" in capfd.readouterr().err


def test_gen_without_the_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(group, ["gen", str(tmp_path / "none.thrift"), "-o", str(tmp_path / "gen")])
    assert result.exit_code == 1
    assert "none.thrift" in result.output
    assert "Traceback" not in result.output


# ---------------------------------------------------------------- bin/


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The doors and what they need, with a .venv whose python only says how it was called."""
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    (tmp_path / "weego").symlink_to(ROOT / "weego")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho again "$@"\n')
    python.chmod(0o755)
    return tmp_path


def run_door(python: list[str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*python, *command], capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("name", ["weego", "weego-master"])
def test_a_door_opens_in_an_environment(name: str) -> None:
    result = run_door([sys.executable], str(ROOT / "bin" / name), "--version")
    assert (result.stdout, result.stderr) == (f"{name}, version {weego.__version__}\n", "")


@pytest.mark.parametrize("name", ["weego", "weego-master"])
def test_a_door_finds_the_environment_of_the_checkout(checkout: Path, name: str) -> None:
    door = checkout / "bin" / name
    result = run_door([sys.executable, "-S"], str(door), "x", "--y")
    assert (result.stdout, result.stderr) == (f"again {door} x --y\n", "")


@pytest.mark.parametrize("name", ["weego", "weego-master"])
def test_a_door_without_any_environment_says_what_to_do(checkout: Path, name: str) -> None:
    shutil.rmtree(checkout / ".venv")
    result = run_door([sys.executable, "-S"], str(checkout / "bin" / name))
    assert result.returncode == 1
    assert result.stderr.startswith(f"{name}: click, gevent")
    assert result.stderr.endswith("; `make run` in the checkout sets everything up\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["weego", "weego-master"])
def test_a_door_is_executable_and_short(name: str) -> None:
    door = ROOT / "bin" / name
    assert os.access(door, os.X_OK)
    assert len(door.read_text().splitlines()) <= 12


def test_gen_into_the_working_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(group, ["gen", str(ROOT / "examples/echo/echo.thrift"), "-o", "."])
    assert result.exit_code == 2
    assert "name a folder of its own" in capfd.readouterr().err + result.output
    assert not list(tmp_path.iterdir())

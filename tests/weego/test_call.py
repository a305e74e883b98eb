"""`weego call` against a real server: results, exceptions, failures, and what each mistake is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import weego
from tests.support.need import ROOT
from tests.support.net import apart
from weego import dynamic
from weego.cli.call import call as command

IDL = """
enum Level { LOW = 1, HIGH = 2 }
union Key { 1: i64 id, 2: string name }
exception NotFound { 1: Key key, 2: binary blob }
struct Item { 1: string name, 2: map<i32, Level> levels, 3: set<string> tags }
service Shop {
  Item getItem(1: Key key) throws (1: NotFound missing)
  void ping()
  oneway void poke(1: i32 n = 5)
  string fail(1: string how)
}
"""


@pytest.fixture(scope="module")
def idl(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("idl") / "shop.thrift"
    path.write_text(IDL)
    return str(path)


@pytest.fixture(scope="module")
def address(idl: str) -> Iterator[str]:
    gen: Any = dynamic.load(idl)

    class Shop(gen.Shop):  # type: ignore[misc]
        def get_item(self, key: Any) -> Any:
            if key.id == 404:
                raise gen.NotFound(key=key, blob=b"\x00\xff")
            return gen.Item(name=key.name or "tea", levels={1: gen.Level.HIGH}, tags={"b", "a"})

        def ping(self) -> None: ...

        def poke(self, n: int = 0) -> None: ...

        def fail(self, how: str) -> str:
            if how == "business":
                raise weego.BusinessError(403, "hidden", {"reason": "embargo"})
            raise ValueError(how)

    server = weego.Server(Shop(), listen="tcp://127.0.0.1:0")
    apart(server.start)  # in a thread of its own: a test waits for a program that calls it
    yield server.addresses[0]
    server.stop()


def call(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(command, ["--timeout", "30s", *arguments], input=stdin)  # the last one given counts


def failure(code: int, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    message = capfd.readouterr().err
    assert message.startswith("weego call: ")
    assert message.count("\n") == 1
    return message.removeprefix("weego call: ").rstrip()


@pytest.mark.parametrize("framing", ["framed", "buffered", "ttheader", "ttheader-framed"])
def test_a_result(address: str, idl: str, framing: str) -> None:
    result = call(address, "Shop.getItem", '{"key": {"name": "grün"}}', "--idl", idl, "--framing", framing)
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"name": "grün", "levels": [[1, "HIGH"]], "tags": ["a", "b"]}
    assert "grün" in result.stdout


def test_the_command_itself(address: str, idl: str) -> None:
    code = "from weego.cli.call import call; call(prog_name='weego call')"
    arguments = [address, "Shop.getItem", "-", "--idl", idl, "--timeout", "30s"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], input=b'{"key": {"id": 7}}', capture_output=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["name"] == "tea"


def test_void_oneway_and_no_arguments(address: str, idl: str) -> None:
    assert call(address, "Shop.ping", "--idl", idl).stdout == "null\n"
    assert call(address, "Shop.poke", "--idl", idl).stdout == "null\n"


def test_arguments_from_stdin(address: str, idl: str) -> None:
    result = call(address, "Shop.getItem", "-", "--idl", idl, stdin='{"key": {"name": "ü"}}'.encode())
    assert json.loads(result.stdout)["name"] == "ü"


def test_a_declared_exception_is_a_result_too(address: str, idl: str) -> None:
    result = call(address, "Shop.getItem", '{"key": {"id": 404}}', "--idl", idl)
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout) == {"NotFound": {"key": {"id": 404}, "blob": "AP8="}}


def test_includes_are_looked_for(address: str, idl: str, tmp_path: Path) -> None:
    outer = tmp_path / "outer.thrift"
    outer.write_text('include "shop.thrift"\nservice Shop extends shop.Shop {}')
    result = call(address, "Shop.ping", "--idl", str(outer), "-I", str(Path(idl).parent))
    assert (result.exit_code, result.stdout) == (0, "null\n")


def test_calls_that_fail(address: str, idl: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = failure(2, capfd, address, "Shop.fail", '{"how": "boom"}', "--idl", idl)
    assert said.startswith("Shop.fail: ")
    assert "boom" in said or "INTERNAL" in said
    said = failure(2, capfd, address, "Shop.fail", '{"how": "business"}', "--idl", idl, "--framing", "ttheader")
    assert "business status 403: hidden" in said
    assert said.endswith('{"reason": "embargo"}')


def test_nobody_there(idl: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = failure(2, capfd, f"unix://{tmp_path}/none.sock", "Shop.ping", "--idl", idl)
    assert "UNAVAILABLE" in said


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("Shopp.getItem", "{}", 'no service "Shopp" in the IDL; did you mean "Shop"?'),
        ("Shop.get_item", "{}", 'service Shop has no method "get_item"; did you mean "getItem"?'),
        ("Shop.xyz", "{}", 'service Shop has no method "xyz"; there is getItem, ping, poke, fail'),
        ("ping", "{}", "ping: give the service and the method: Service.method"),
        ("Shop.getItem", "{}", 'argument "key" (Key) is missing'),
        ("Shop.getItem", '{"kee": 1}', 'the arguments of getItem: no argument "kee"; did you mean "key"?'),
        ("Shop.getItem", '{"key": {"nam": "x"}}', 'key: Key: no member "nam"; did you mean "name"?'),
        ("Shop.ping", "{", "the arguments: not JSON: Expecting property name"),
        ("Shop.ping", "[" * 100_000, "the JSON is nested too deeply"),
        ("Shop.fail", '{"how": "\\ud800"}', "how"),
    ],
    ids=lambda value: value[:20],
)
def test_mistakes(address: str, idl: str, method: str, given: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert message in failure(64, capfd, address, method, given, "--idl", idl)


def test_mistakes_of_the_options(address: str, idl: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "--timeout: 'soon' is not a duration" in failure(64, capfd, address, "Shop.ping", "--idl", idl, "--timeout", "soon")
    assert "http://x" in failure(64, capfd, "http://x", "Shop.ping", "--idl", idl)
    result = call(address, "Shop.ping", "--idl", str(tmp_path / "none.thrift"))
    assert result.exit_code == 64
    assert "none.thrift" in result.stderr


def test_a_timeout(address: str, idl: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = failure(2, capfd, address, "Shop.ping", "--idl", idl, "--timeout", "0")
    assert "DEADLINE_EXCEEDED" in said

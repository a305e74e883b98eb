"""`.proto` files → packages that import, with services of the same shape as Thrift's."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from codec.errors import UnknownMethod
from idlc.errors import IdlError
from tests.idlc.protos import Protos, protos

__all__ = ["protos"]

SERVICE = """
syntax = "proto3";
// Says things back.
package UNIQUE.echo;
import "common_UNIQUE.proto";
message Request {
  string message = 1;  // what to say
  repeated UNIQUE.common.Point.Inner inner = 2;
}
message Response { string message = 1; }
// Echoes.
service Echo {
  // Say it.
  rpc Echo(Request) returns (Response) { option idempotency_level = IDEMPOTENT; }
  rpc WatchAll(Request) returns (stream UNIQUE.common.Point.Inner);
  rpc Collect(stream Request) returns (Response);
  rpc Chat(stream Request) returns (stream Response);
  rpc Close(Request) returns (Response);
}
"""
COMMON = """
syntax = "proto3";
package UNIQUE.common;
import "google/protobuf/timestamp.proto";
message Point {
  message Inner { string s = 1; }
  enum Kind { ZERO = 0; None = 1; }
  google.protobuf.Timestamp at = 1;
  Kind kind = 2;
  map<string, Inner> inners = 3;
  oneof pick { int32 a = 4; Inner b = 5; }
  optional string from = 6;
  bytes bytes = 7;
  string str = 8;
  double stub = 9;
}
enum Color { RED = 0; BLUE = 2; }
"""


def compiled(protos: Protos) -> Protos:
    protos.compile(protos.write(echo=SERVICE, common=COMMON)[0])
    return protos


def test_services_have_a_base_a_client_and_a_spec(protos: Protos) -> None:
    echo = compiled(protos).load("UNIQUE.echo")
    spec = echo.Echo.__spec__
    assert spec is echo.EchoClient.__spec__
    assert (spec.kind, spec.full_name) == ("protobuf", f"{protos.package}.echo.Echo")
    shapes = {m.py_name: (m.client_streaming, m.server_streaming, m.idempotent) for m in spec.methods.values()}
    assert shapes == {
        "echo": (False, False, True),
        "watch_all": (False, True, False),
        "collect": (True, False, False),
        "chat": (True, True, False),
        "close": (False, False, False),
    }
    assert echo.Echo.__doc__ == "Echoes."
    assert echo.Echo.echo.__doc__ == "Say it."
    assert callable(echo.EchoClient.close_)
    with pytest.raises(UnknownMethod, match=r"Echo\.WatchAll is declared"):
        echo.Echo().watch_all(echo.Request())


def test_specs_carry_messages(protos: Protos) -> None:
    echo, common = compiled(protos).load("UNIQUE.echo"), protos.load("UNIQUE.common")
    method = echo.Echo.__spec__.methods["WatchAll"]
    assert method.response.cls is common.Point.Inner
    request = echo.Request(message="hi", inner=[{"s": "x"}])
    assert method.request.decode(method.request.encode(request)) == request


def test_well_known_types_are_protobufs_own(protos: Protos) -> None:
    common = compiled(protos).load("UNIQUE.common")
    point = common.Point()
    point.at.FromSeconds(5)
    assert point.at.ToJsonString() == "1970-01-01T00:00:05Z"


def test_messages_can_be_pickled(protos: Protos) -> None:
    common = compiled(protos).load("UNIQUE.common")
    for value in (common.Point(a=3), common.Point.Inner(s="x")):
        assert pickle.loads(pickle.dumps(value)) == value


def test_a_second_run_writes_the_same_bytes(protos: Protos) -> None:
    first = {path: path.read_bytes() for path in compiled(protos).compilation.written}
    protos.compile(protos.root / f"echo_{protos.package}.proto")
    assert {path: path.read_bytes() for path in protos.compilation.written} == first


@pytest.mark.timeout(300)
def test_what_is_emitted_passes_mypy_and_ruff(protos: Protos) -> None:
    compiled(protos)
    for command in (["mypy", "--strict", "-p", protos.package], ["ruff", "check", "--isolated", str(protos.out)]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=protos.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_the_types_of_messages_are_checked(protos: Protos) -> None:
    compiled(protos)
    (protos.root / "use.py").write_text(
        f"from {protos.package}.{protos.package}.common import Color, Point\n"
        "point = Point(a=1, str='x', inners={'k': Point.Inner(s='x')}, from_='nothing of ours')\n"
        "point.HasField('kind')\n"
        "point.str = b'x'\n"
        "point.at = None\n"
        "reveal_type(point.WhichOneof('pick'))\n"
        "reveal_type(point.inners['k'].s)\n"
        "reveal_type(Color.BLUE)\n"
    )
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "use.py"], cwd=protos.root, capture_output=True, text=True, check=False)
    for part in (
        "use.py:3: error: Argument 1 to \"HasField\"",
        "use.py:4: error: Incompatible types in assignment",
        "use.py:5: error: Property \"at\"",
        "Literal['a'] | Literal['b'] | None",
        'Revealed type is "str"',
        "common_pb2.Color",
    ):
        assert part in done.stdout.replace("Union[Literal['a'], Literal['b'], None]", "Literal['a'] | Literal['b'] | None").replace("builtins.str", "str").replace(f"{protos.package}.{protos.package}.common.common_{protos.package}_pb2", "common_pb2"), done.stdout


def test_one_name_with_two_contents_is_refused(protos: Protos) -> None:
    compiled(protos).load("UNIQUE.echo")
    for name in [name for name in sys.modules if name.partition(".")[0] == protos.package]:
        del sys.modules[name]
    protos.compile(*protos.write(echo=SERVICE.replace("message = 1", "message = 7"), common=COMMON)[:1])
    with pytest.raises(ImportError, match="One process can hold one version"):
        protos.load("UNIQUE.echo")


def test_protocs_errors_keep_their_place(protos: Protos) -> None:
    (path,) = protos.write(bad='syntax = "proto3";\npackage UNIQUE;\nmessage M {\n\tNope a = 1;\n  int32 b = 1;\n}\n')
    with pytest.raises(IdlError) as caught:
        protos.compile(path)
    text = str(caught.value)
    assert f'{path}:4:9: error: "Nope" is not defined.' in text
    assert "    \tNope a = 1;\n    \t^" in text
    assert f"{path}:5:13: error: " in text
    assert not protos.out.exists()


def test_a_file_that_is_not_there(protos: Protos, tmp_path: Path) -> None:
    with pytest.raises(IdlError, match=r"nowhere\.proto: no such file"):
        protos.compile(tmp_path / "nowhere.proto")


def test_a_file_of_the_users_own_is_not_overwritten(protos: Protos) -> None:
    paths = protos.write(echo=SERVICE, common=COMMON)
    mine = protos.out / protos.package / "echo" / f"echo_{protos.package}_pb2.pyi"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    with pytest.raises(IdlError, match="was not generated by weego"):
        protos.compile(paths[0])
    assert mine.read_text() == "mine\n"


def test_native_messages_serve_the_same_services(protos: Protos) -> None:
    made = protos.compile(protos.write(echo=SERVICE, common=COMMON)[0], messages="native")
    echo, common = protos.load("UNIQUE.echo"), protos.load("UNIQUE.common")
    request = echo.Request(message="hi", inner=[common.Point.Inner(s="x")])
    method = echo.Echo.__spec__.methods["WatchAll"]
    assert method.request.decode(method.request.encode(request)) == request
    assert method.request.full_name == f"{protos.package}.echo.Request"
    point = common.Point(from_="a", b=common.Point.Inner(s="y"), kind=common.Point.Kind.None_)
    assert (point.which_pick, point.a, point.str) == ("b", None, "")
    [warning] = [each for each in made.warnings if each.code == "renamed"]
    assert f"{protos.root}/common_{protos.package}.proto:7:3: warning: member \"None\"" in str(warning)


@pytest.mark.timeout(300)
def test_native_modules_pass_mypy_and_ruff(protos: Protos) -> None:
    protos.compile(protos.write(echo=SERVICE, common=COMMON)[0], messages="native")
    for command in (["mypy", "--strict", "-p", protos.package], ["ruff", "check", "--isolated", str(protos.out)]):
        done = subprocess.run([sys.executable, "-m", *command], cwd=protos.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

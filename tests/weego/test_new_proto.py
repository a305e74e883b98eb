"""`weego new --idl FILE.proto`: a gRPC project that type-checks, serves, is called by reflection, and gains methods."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.support.need import ROOT
from tests.support.processes import Process, assert_clean
from tests.support.projects import ENV, MASTER, failure, kept, made, new, run

TYPES = """
syntax = "proto3";
package acme.common;
message Key { string id = 1; }
"""
SHOP = """
syntax = "proto3";
package acme.shop.v1;
import "common/types.proto";
import "google/protobuf/empty.proto";
message Item { string name = 1; message Part { int32 n = 1; } }
service Shop {
  rpc GetItem(acme.common.Key) returns (Item);
  rpc Watch(acme.common.Key) returns (stream Item);
  rpc Upload(stream Item) returns (google.protobuf.Empty);
  rpc Chat(stream Item.Part) returns (stream Item.Part);
}
service Empty {}
"""
APP = '''\
"""What shop does: the services of conf/server.toml."""

from __future__ import annotations

from collections.abc import Iterator

from gen.acme.common import Key
from gen.acme.shop.v1 import Empty as Empty_, Item, Shop
from gen.google.protobuf import Empty
from weego import stub


class ShopService(Shop):
    def get_item(self, request: Key) -> Item:
        raise stub.unimplemented("Shop", "GetItem")

    def watch(self, request: Key) -> Iterator[Item]:
        # Answers with a stream: `yield Item(...)`
        raise stub.unimplemented("Shop", "Watch")

    def upload(self, requests: Iterator[Item]) -> Empty:
        # Reads a stream: `for each in requests: ...`
        raise stub.unimplemented("Shop", "Upload")

    def chat(self, requests: Iterator[Item.Part]) -> Iterator[Item.Part]:
        # Reads a stream and answers with one: `for each in requests: ...` and `yield Item.Part(...)`
        raise stub.unimplemented("Shop", "Chat")


class EmptyService(Empty_):
    pass
'''
# Each name is one that the project's own files use, too.
CLASHES = """
syntax = "proto3";
message Iterator { string stub = 1; message weego {} }
message main {}
message PlainService {}
message stub {}
service Plain {
  rpc print(main) returns (stream stub);
  rpc close(stream Iterator.weego) returns (PlainService);
  rpc timeout(PlainService) returns (main);
  rpc client(stub) returns (main);
  rpc class(Iterator) returns (Iterator);
}
service AppTest { rpc A(main) returns (main); }
"""
UNITTEST = (sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", ".")
TOOLS = (f"PYTHON={sys.executable}", f"WEEGO={ROOT / 'bin/weego'}", f"MASTER={ROOT / 'bin/weego-master'}")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src/common").mkdir(parents=True)
    (tmp_path / "src/common/types.proto").write_text(TYPES)
    (tmp_path / "src/shop.proto").write_text(SHOP)
    return tmp_path


def written(app: Path) -> None:
    """Fill in the four methods, as a user does."""
    text = app.read_text()
    for method, body in {
        "GetItem": "return Item(name=request.id)",
        "Watch": "yield from (Item(name=letter) for letter in request.id)",
        "Upload": "assert [each.name for each in requests] == ['a', 'b']\n        return Empty()",
        "Chat": "yield from (Item.Part(n=each.n + 1) for each in requests)",
    }.items():
        text = text.replace(f'raise stub.unimplemented("Shop", "{method}")', body)
    app.write_text(text)


def strictly_typed(folder: Path) -> None:
    """`mypy --strict` has nothing to say about what the project's user edits. One cache for all tests: the runtime is read once."""
    pytest.importorskip("mypy", reason="pip install mypy")
    (folder / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\nwarn_unreachable = True\nmypy_path = {ROOT}\ncache_dir = {folder.parent.parent / 'mypy'}\n"
        "[mypy-weego.*,codec.*,poller.*,governance.*]\nfollow_imports = silent\n"
        "[mypy-gevent.*,greenlet.*]\nignore_missing_imports = True\n"
    )
    assert "Success" in run(folder, sys.executable, "-m", "mypy", "app.py", "client.py", "tests/test_app.py")


# ---- a new project ---------------------------------------------------------------------------------------------------


def test_the_files(here: Path) -> None:
    said = made("shop", "--idl", "src/shop.proto")
    files = sorted(str(path.relative_to(here / "shop")) for path in (here / "shop").rglob("*") if path.is_file())
    assert [each for each in files if not each.startswith("gen/")] == [
        ".dockerignore",
        ".gitignore",
        "Dockerfile",
        "Makefile",
        "README.md",
        "app.py",
        "client.py",
        "conf/server.toml",
        "idl/common/types.proto",  # and not google/protobuf/empty.proto
        "idl/shop.proto",
        "requirements.txt",
        "tests/__init__.py",
        "tests/test_app.py",
    ]
    assert "wrote shop/idl/common/types.proto" in said
    assert (here / "shop/idl/shop.proto").read_text() == SHOP
    assert (here / "shop/app.py").read_text() == APP
    assert (here / "shop/requirements.txt").read_text() == "weego[proto]\n"
    assert not [each for each in files if "{{" in (here / "shop" / each).read_text()]
    assert "weego call tcp://127.0.0.1:8888 acme.shop.v1.Shop.GetItem '{}'\n" in (here / "shop/README.md").read_text()
    assert run(here / "shop", *MASTER, "conf/server.toml", "--check") == "conf/server.toml: good\n"


def test_it_is_typed_and_its_tests_call_every_method(here: Path) -> None:
    made("shop", "--idl", "src/shop.proto")
    assert re.search(r"Ran 4 tests[^$]*OK", run(here / "shop", *UNITTEST))
    strictly_typed(here / "shop")
    written(here / "shop/app.py")
    strictly_typed(here / "shop")
    with pytest.raises(AssertionError, match="StatusError not raised"):  # they notice that a method is there
        run(here / "shop", *UNITTEST)


@pytest.mark.parametrize("name", ["my-service_2", "struct", "google", "gen", "app", "tests", "weego", "stub", "Plain"])
def test_names_that_clash(here: Path, name: str) -> None:
    (here / "plain.proto").write_text(CLASHES)
    made(name, "--idl", "plain.proto")
    assert re.search(r"Ran 6 tests[^$]*OK", run(here / name, *UNITTEST))
    if name == "Plain":
        strictly_typed(here / name)


def test_services_without_methods(here: Path) -> None:
    (here / "bare.proto").write_text('syntax = "proto3"; service A {} service B {}')
    made("bare", "--idl", "bare.proto")
    assert "Ran 1 test" in run(here / "bare", *UNITTEST)
    strictly_typed(here / "bare")


@pytest.mark.parametrize(
    ("rpc", "call"),
    [
        ("stream M) returns (M", "with client.f() as stream:\n            stream.send(M())\n            print(stream.result())"),
        ("M) returns (stream M", "for reply in client.f(M()):\n            print(reply)"),
    ],
)
def test_a_client_where_all_methods_stream(here: Path, rpc: str, call: str) -> None:
    (here / "s.proto").write_text(f'syntax = "proto3"; message M {{}} service S {{ rpc F({rpc}); }}')
    made("s", "--idl", "s.proto")
    assert f"        {call}\n" in (here / "s/client.py").read_text()
    strictly_typed(here / "s")


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here: apt-get install make")
def test_make_run_and_calls_by_reflection(here: Path) -> None:
    made("shop", "--idl", "src/shop.proto")
    folder = here / "shop"
    shutil.rmtree(folder / "gen")
    conf = folder / "conf/server.toml"
    conf.write_text(conf.read_text().replace(":8888", ":0").replace('"auto"', "1"))
    written(folder / "app.py")
    with Process(["make", "run", *TOOLS], cwd=str(folder), env=ENV) as make:
        address = make.wait_for(r"serving on (tcp://127\.0\.0\.1:\d+)")[1]

        def call(method: str, *arguments: str) -> str:
            said = run(here, sys.executable, str(ROOT / "bin/weego"), "call", address, method, *arguments, "--timeout", "30s")
            return "".join(said.split())

        assert call("acme.shop.v1.Shop.GetItem", '{"id": "Ada"}') == '{"name":"Ada"}'
        assert call("acme.shop.v1.Shop/Watch", '{"id": "xy"}') == '{"name":"x"}{"name":"y"}'
        assert call("acme.shop.v1.Shop.Upload", '{"name": "a"} {"name": "b"}') == "{}"
        assert call("acme.shop.v1.Shop.Chat", '{"n": 1} {"n": 2}') == '{"n":2}{"n":3}'

        grpc = pytest.importorskip("grpc", reason="pip install grpcio")
        with grpc.insecure_channel(address.removeprefix("tcp://")) as channel:
            assert channel.unary_unary("/acme.shop.v1.Shop/GetItem")(b"\n\x02Bo", timeout=30) == b"\n\x02Bo"

        client = folder / "client.py"
        client.write_text(client.read_text().replace("tcp://127.0.0.1:8888", address).replace("timeout=1.0", "timeout=30.0").replace("Key()", 'Key(id="Ada")'))
        assert run(folder, sys.executable, "client.py") == 'name: "Ada"\n\n'
        make.signal(signal.SIGTERM)
        make.wait()
    assert_clean(make.output)


def test_make_generates_when_a_proto_changed(here: Path) -> None:
    made("shop", "--idl", "src/shop.proto")
    assert run(here / "shop", "make", "gen", *TOOLS).count("weego gen") == 0
    types = here / "shop/idl/common/types.proto"
    types.write_text(TYPES.replace("string id = 1;", "string id = 1; int32 shelf = 2;"))
    os.utime(types, (2**31, 2**31))
    assert run(here / "shop", "make", "gen", *TOOLS).count("gen idl/shop.proto -o gen -I idl") == 1
    assert "shelf" in (here / "shop/gen/acme/common/types_pb2.pyi").read_text()


# ---- a project that is there -----------------------------------------------------------------------------------------


def test_the_idl_gains_methods_and_a_service(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("shop", "--idl", "src/shop.proto")
    folder = here / "shop"
    written(folder / "app.py")
    before = (folder / "app.py").read_text()
    others = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "app.py" and "gen" not in path.parts}
    idl = folder / "idl/shop.proto"
    others[idl] = SHOP.replace("service Empty {}", "service Empty { rpc Ping(Item) returns (Item); }\nservice Other { rpc F(Item) returns (Item); }").replace(
        "rpc GetItem", "rpc Follow(stream acme.common.Key) returns (stream Item);\n  rpc GetItem"
    ).encode()
    idl.write_bytes(others[idl])
    said = made("shop")
    assert "added follow to ShopService in shop/app.py\n" in said
    assert "left alone EmptyService in shop/app.py: its body" not in said
    assert "added ping to EmptyService in shop/app.py\n" in said
    assert 'left alone shop/conf/server.toml: to serve it, add  [[service]] class = "app:OtherService"' in said
    text = (folder / "app.py").read_text()
    added = kept(before, text)
    for line in (
        "    def follow(self, requests: Iterator[Key]) -> Iterator[Item]:",
        '        raise stub.unimplemented("Shop", "Follow")',
        "    def ping(self, request: Item) -> Item:",
        "class OtherService(Other):",
    ):
        assert added.count(line) == 1
    assert {path: path.read_bytes() for path in others} == others
    strictly_typed(folder)
    run(folder, sys.executable, "-c", "import app; app.ShopService(); app.OtherService()")

    monkeypatch.chdir(folder)
    assert "left alone ShopService in app.py: it has every method" in made("shop")
    assert (folder / "app.py").read_text() == text


@pytest.mark.parametrize(
    "imports",
    ["from gen.acme.shop.v1.shop import Item, Shop", "from gen.acme.shop.v1.shop_pb2 import Item\nfrom gen.acme.shop.v1 import Shop", "from gen.acme.shop.v1 import *"],
)
def test_messages_are_known_by_every_path(here: Path, imports: str) -> None:
    made("shop", "--idl", "src/shop.proto")
    (here / "shop/app.py").write_text(f"{imports}\n\n\nclass A(Shop):\n    x = 1\n")
    assert "added get_item, watch, upload, chat to A in shop/app.py" in made("shop")
    text = (here / "shop/app.py").read_text()
    assert "-> Item:" in text
    assert not re.search(r"Item as|import .*Item.*\n(.*\n)*.*import .*\bItem\b", text)
    run(here / "shop", sys.executable, "-c", "import app; app.A()")


# ---- imports and mistakes --------------------------------------------------------------------------------------------


def test_imports_that_start_elsewhere(here: Path) -> None:
    (here / "src/api").mkdir()
    (here / "src/shop.proto").rename(here / "src/api/shop.proto")
    said = made("store", "--idl", "src/api/shop.proto", "-I", "src")
    assert "wrote store/idl/api/store.proto" in said
    assert (here / "store/idl/common/types.proto").read_text() == TYPES
    assert "OK" in run(here / "store", *UNITTEST)
    assert "left alone ShopService in store/app.py: it has every method" in made("store")


def test_an_import_that_is_not_found(here: Path) -> None:
    shutil.rmtree(here / "src/common")
    result = new("shop", "--idl", "src/shop.proto")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "common/types.proto: File not found.\n  hint: imports are looked up in src" in result.stderr
    assert 'src/shop.proto:4:1: error: Import "common/types.proto" was not found' in result.stderr
    assert os.listdir(here) == ["src"]


def test_mistakes(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "-I goes with --idl FILE.proto" in failure(capfd, 2, "shop", "-I", "src")
    assert "includes a file called types.proto: give the project another name" in failure(capfd, 2, "types", "--idl", "src/shop.proto")
    assert "src/common/types.proto: no service in it" in failure(capfd, 1, "a", "--idl", "src/common/types.proto")
    assert new("a", "--idl", "none.proto").exit_code == 1
    assert os.listdir(here) == ["src"]
    made("shop", "--idl", "src/shop.proto")
    assert "shop/idl/shop.proto exists and differs from src/common/types.proto" in failure(capfd, 2, "shop", "--idl", "src/common/types.proto")


def test_the_dockerfile_names_what_there_is(here: Path) -> None:
    made("shop", "--idl", "src/shop.proto")
    assert "weego gen idl/shop.proto -o gen -I idl" in (here / "shop/Dockerfile").read_text()


def test_a_template_sees_the_same_marks(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine/NOTES.in").write_text("{{service}} {{client}} {{module}} {{idl}} {{classes}} {{base}}\n")
    made("shop", "--idl", "src/shop.proto", "--template", "mine")
    notes = (here / "shop/NOTES").read_text()
    assert notes == "acme.shop.v1.Shop ShopClient gen.acme.shop.v1 idl/shop.proto ShopService, EmptyService Shop\n"

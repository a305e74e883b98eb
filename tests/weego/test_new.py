"""`weego new`: projects that work as they are, handlers that gain methods and lose nothing, and what each mistake is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.need import ROOT
from tests.support.processes import Process, assert_clean
from tests.support.projects import ENV, MASTER, failure, kept, made, new, run

BASE = """
namespace py shared.base
typedef i64 UserId
const i32 MAX = 3
struct Info { 1: string text }
service Root { Info whoAmI(1: UserId id, 2: i32 n = MAX) }
"""
SHOP = """
include "../base.thrift"
struct Item { 1: required string name, 2: uuid id }
service Shop extends base.Root {
  Item getItem(1: i64 id, 2: set<list<i32>> deep, 3: uuid trace)
  oneway void class(1: i32 n = 5)
}
service Empty {}
"""
APP = '''
from __future__ import annotations

from gen.shared.base import Info
from gen.shop import Item, Shop


class ShopService(Shop):
    """Mine."""

    stock: dict[int, Item] = {}   # as I like   it

    def get_item(self, id, deep, trace):
        return self.stock[id]

    # the end


def after() -> None: ...
'''


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shop_project(here: Path, app: str = APP) -> Path:
    (here / "src/api").mkdir(parents=True)
    (here / "src/base.thrift").write_text(BASE)
    (here / "src/api/shop.thrift").write_text(SHOP)
    made("shop", "--idl", "src/api/shop.thrift")
    (here / "shop/app.py").write_bytes(app.encode())
    return here / "shop"


# ---- a new project ---------------------------------------------------------------------------------------------------


def test_the_files(here: Path) -> None:
    said = made("greeter")
    files = sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file() and "gen" not in path.parts)
    assert files == [
        "greeter/.dockerignore",
        "greeter/.gitignore",
        "greeter/Dockerfile",
        "greeter/Makefile",
        "greeter/README.md",
        "greeter/app.py",
        "greeter/client.py",
        "greeter/conf/server.toml",
        "greeter/idl/greeter.thrift",
        "greeter/requirements.txt",
        "greeter/tests/__init__.py",
        "greeter/tests/test_app.py",
    ]
    assert [line for line in files if f"wrote {line}" not in said] == []
    assert "next: cd greeter && " in said
    assert os.listdir(here) == ["greeter"]
    for path in (here / "greeter").rglob("*"):
        assert path.is_dir() or "{{" not in path.read_text()


@pytest.mark.parametrize("name", ["greeter", "my-service_2", "Hello", "struct", "hello-request", "stub", "print"])
def test_its_own_test_passes(here: Path, name: str) -> None:
    made(name)
    assert "OK" in run(here / name, sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", ".")


def test_a_service_that_is_called_so_already(here: Path) -> None:
    (here / "s.thrift").write_text("service FooService { void f() }\nservice Service {}\nservice Foo {}\n")
    made("s", "--idl", "s.thrift")
    app = (here / "s/app.py").read_text()
    assert [line for line in app.splitlines() if line.startswith("class ")] == [
        "class FooHandler(FooService):", "class ServiceService(Service):", "class FooService_(Foo):",
    ]  # fmt: skip
    assert 'class = "app:FooHandler"' in (here / "s/conf/server.toml").read_text()
    assert "OK" in run(here / "s", sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", ".")


@pytest.mark.e2e
def test_the_client_of_a_method_that_is_not_written_says_so_in_a_line(here: Path) -> None:
    made("greeter")
    folder = here / "greeter"
    app = folder / "app.py"
    app.write_text(re.sub(r"return HelloResponse.*", 'return super().hello(req)', app.read_text()))
    assert "super" in app.read_text()
    client = folder / "client.py"
    client.write_text(client.read_text().replace(":8888", ":1"))
    assert re.fullmatch(r"client.py: cannot connect to tcp://127\.0\.0\.1:1: .*\n", run(folder, sys.executable, "client.py", code=1))
    conf = folder / "conf/server.toml"
    conf.write_text(conf.read_text().replace(":8888", ":0").replace('"auto"', "1"))
    with Process([*MASTER, "conf/server.toml"], cwd=str(folder)) as master:
        port = master.wait_for(r"serving on tcp://127\.0\.0\.1:(\d+)")[1]
        client.write_text(client.read_text().replace(":1\"", f":{port}\"").replace("timeout=1.0", "timeout=30.0"))
        said = run(folder, sys.executable, "client.py", code=1)
        assert re.fullmatch(r"client.py: .*Greeter.hello.* not .*UNIMPLEMENTED.*\n", said), said


@pytest.mark.e2e
def test_it_serves_and_reloads(here: Path) -> None:
    made("greeter")
    folder = here / "greeter"
    conf = folder / "conf/server.toml"
    conf.write_text(conf.read_text().replace(":8888", ":0").replace('"auto"', "1"))
    assert run(folder, *MASTER, "conf/server.toml", "--check") == "conf/server.toml: good\n"
    with Process([*MASTER, "conf/server.toml"], cwd=str(folder)) as master:
        port = master.wait_for(r"serving on tcp://127\.0\.0\.1:(\d+)")[1]
        client = folder / "client.py"
        client.write_text(client.read_text().replace(":8888", f":{port}").replace("timeout=1.0", "timeout=30.0"))
        assert run(folder, sys.executable, "client.py") == "Hello, Ada!\n"
        master.signal(signal.SIGTERM)
        assert master.wait() == 0
    assert_clean(master.output)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here: apt-get install make")
def test_make(here: Path) -> None:
    made("greeter")
    tools = [f"PYTHON={sys.executable}", f"WEEGO={ROOT / 'bin/weego'}"]
    assert "OK" in run(here / "greeter", "make", "test", *tools)
    assert run(here / "greeter", "make", "gen", *tools).count("weego gen") == 0  # nothing has changed
    shutil.rmtree(here / "greeter/gen")
    run(here / "greeter", "make", "gen", *tools)
    assert (here / "greeter/gen/greeter/greeter.py").exists()


def test_from_an_idl_with_includes(here: Path) -> None:
    folder = shop_project(here)
    assert (folder / "idl/base.thrift").read_text() == BASE
    assert (folder / "idl/api/shop.thrift").read_text() == SHOP
    (folder / "app.py").unlink()
    shutil.rmtree(folder)
    said = made("shop", "--idl", "src/api/shop.thrift")
    assert "wrote shop/idl/api/shop.thrift" in said
    assert (folder / "app.py").read_text() == '''\
"""What shop does: the services of conf/server.toml."""

from __future__ import annotations

from uuid import UUID

from gen.shared.base import MAX, Info, UserId
from gen.shop import Empty, Item, Shop
from weego import stub


class ShopService(Shop):
    def who_am_i(self, id: UserId, n: int = MAX) -> Info:
        raise stub.unimplemented("Shop", "whoAmI")

    def get_item(self, id: int, deep: set[tuple[int, ...]], trace: UUID) -> Item:
        raise stub.unimplemented("Shop", "getItem")

    def class_(self, n: int = 5) -> None:
        raise stub.unimplemented("Shop", "class")


class EmptyService(Empty):
    pass
'''
    assert "OK" in run(folder, sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", ".")
    assert run(folder, *MASTER, "conf/server.toml", "--check") == "conf/server.toml: good\n"


# ---- a project that is there -----------------------------------------------------------------------------------------


def test_missing_methods_are_added_and_all_else_stays(here: Path) -> None:
    folder = shop_project(here)
    others = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "app.py" and "gen" not in path.parts}
    (folder / "app.py").chmod(0o755)
    said = made("shop")
    assert "added who_am_i, class_ to ShopService in shop/app.py\n" in said
    assert "added EmptyService to shop/app.py\n" in said
    text = (folder / "app.py").read_text()
    added = kept(APP, text)
    for line in (
        "from gen.shared.base import MAX, UserId",
        "from weego import stub",
        "    def who_am_i(self, id: UserId, n: int = MAX) -> Info:",
        '        raise stub.unimplemented("Shop", "whoAmI")',
        "    def class_(self, n: int = 5) -> None:",
        "class EmptyService(Empty):",
    ):
        assert added.count(line) == 1
    assert (folder / "app.py").stat().st_mode & 0o777 == 0o755
    assert {path: path.read_bytes() for path in others} == others
    run(folder, sys.executable, "-c", "import app; app.ShopService(); app.EmptyService()")

    assert "left alone ShopService in shop/app.py: it has every method" in made("shop")
    assert (folder / "app.py").read_text() == text


def test_from_inside_the_project(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("greeter")
    monkeypatch.chdir(here / "greeter")
    assert "left alone GreeterService in app.py: it has every method" in made("greeter")


def test_the_idl_gains_a_method(here: Path) -> None:
    made("greeter")
    idl = here / "greeter/idl/greeter.thrift"
    idl.write_text(idl.read_text().replace("HelloResponse hello", "void goodBye(1: string name)\n    HelloResponse hello"))
    before = (here / "greeter/app.py").read_text()
    assert "added good_bye to GreeterService" in made("greeter")
    added = kept(before, (here / "greeter/app.py").read_text())
    assert "    def good_bye(self, name: str) -> None:" in added
    assert "OK" in run(here / "greeter", sys.executable, "-m", "unittest", "discover", "-s", "tests", "-t", ".")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("from gen.shop import Shop\nclass A(Shop): pass\n", "left alone A in shop/app.py: its body is not on lines of its own"),
        (
            "from gen.shop import Shop\nfrom mine import Mixin\nclass A(Mixin, Shop):\n    pass\n",
            "left alone A in shop/app.py: its base Mixin is not in this file and may have methods of the service",
        ),
        (
            "from gen.shop import Shop\nclass A(Shop):\n    x = 1\nclass B(Shop):\n    x = 1\n",
            "left alone B in shop/app.py: 2 classes implement Shop",
        ),
        (
            "import gen.shop as s\nclass M:\n    if 1:\n        def class_(self): ...\n    who_am_i = get_item = None\nclass A(M, s.Shop):\n    x = 1\n",
            "left alone A in shop/app.py: it has every method",
        ),
    ],
)
def test_what_is_unclear_is_left_alone(here: Path, app: str, said: str) -> None:
    folder = shop_project(here, app + "from gen.shop import Empty\nclass E(Empty):\n    pass\n")
    before = (folder / "app.py").read_text()
    assert said in made("shop")
    assert (folder / "app.py").read_text() == before


@pytest.mark.parametrize(
    "app",
    [
        "from gen.shop import Shop as Base\nItem = MAX = stub = UUID = 1\nclass A(Base):\n\tx = 1",
        "from gen.shop.shop import Shop, Item\r\nclass A(Shop):\r\n    def get_item(self): ...\r\n",
        "#!/usr/bin/env python3\n# coding: utf-8\nimport gen.shop\nclass A(gen.shop.Shop):\n  @property\n  def x(self):\n    return 'ä'\n",
        '"""Doc."""\nif True:\n    import os\nfrom gen import shop\nclass A(shop.Shop):\n    """Only this."""\n# end',
        "from gen.shop import *\nclass A(Shop):\n    x = 1\n    def f(self) -> Item: ...\n",
    ],
    ids=["aliases, clashes, tabs, no last newline", "crlf", "two spaces, decorator first", "docstring only", "star"],
)
def test_any_style_survives(here: Path, app: str) -> None:
    folder = shop_project(here, app)
    assert "to A in shop/app.py" in made("shop")
    text = (folder / "app.py").read_bytes().decode()
    assert kept(app if app.endswith("\n") else app + "\n", text)
    assert ("\r\n" in app) == bool(re.search(r"\r\n", text))
    assert not re.search(r"(?<!\r)\n", text) or "\r\n" not in app
    code = "import app; print(*sorted(n for n in vars(app.A) if not n.startswith('_')))"
    assert {"class_", "get_item", "who_am_i"} <= set(run(folder, sys.executable, "-c", code).split())
    assert "it has every method" in made("shop")


def test_handlers_elsewhere_are_found_by_the_configuration(here: Path) -> None:
    folder = shop_project(here)
    (folder / "app.py").unlink()
    (folder / "parts").mkdir()
    (folder / "parts/shop.py").write_text(APP)
    conf = folder / "conf/server.toml"
    conf.write_text(conf.read_text().replace("app:ShopService", "parts.shop:ShopService"))
    assert "added who_am_i, class_ to ShopService in shop/parts/shop.py" in made("shop")


def test_a_new_service_is_to_be_configured(here: Path) -> None:
    made("greeter")
    with (here / "greeter/idl/greeter.thrift").open("a") as file:
        file.write("service Other { void ping() }\n")
    said = made("greeter")
    assert "added OtherService to greeter/app.py" in said
    assert 'left alone greeter/conf/server.toml: to serve it, add  [[service]] class = "app:OtherService"' in said


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "2nd", "a/b", "..", "a b", "grüße", "a.b", "x" * 65, "class", "a\nb"])
def test_names(here: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert "name" in failure(capfd, 2, name)
    assert os.listdir(here) == []


def test_a_folder_of_something_else(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "greeter").mkdir()
    (here / "greeter/mine.txt").write_text("mine")
    assert "greeter exists and is no project" in failure(capfd, 2, "greeter")
    assert os.listdir(here / "greeter") == ["mine.txt"]
    (here / "greeter/mine.txt").unlink()
    made("greeter")


def test_mistakes_in_the_idl_leave_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "bad.thrift").write_text("service A { Nope f() }")
    result = new("a", "--idl", "bad.thrift")
    assert result.exit_code == 1
    assert "bad.thrift:1:13: error" in result.stderr
    assert new("a", "--idl", "none.thrift").exit_code == 1
    (here / "bare.thrift").write_text("struct A {}")
    assert "bare.thrift: no service in it" in failure(capfd, 1, "a", "--idl", "bare.thrift")
    assert sorted(os.listdir(here)) == ["bad.thrift", "bare.thrift"]


def test_another_idl_for_a_project_that_is_there(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made("greeter")
    (here / "x.thrift").write_text("service X {}")
    assert "greeter/idl/greeter.thrift exists and differs from x.thrift" in failure(capfd, 2, "greeter", "--idl", "x.thrift")
    made("greeter", "--idl", "greeter/idl/greeter.thrift")


def test_handlers_that_do_not_parse(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made("greeter")
    (here / "greeter/app.py").write_text("def broken(:\n")
    assert "greeter/app.py:1: invalid syntax; nothing was changed" in failure(capfd, 1, "greeter")
    assert (here / "greeter/app.py").read_text() == "def broken(:\n"


# ---- templates -------------------------------------------------------------------------------------------------------


def test_a_template_adds_and_replaces(here: Path) -> None:
    (here / "mine/deploy").mkdir(parents=True)
    (here / "mine/README.md.in").write_text("{{name}} {{service}} {{client}} {{module}} {{idl}} {{classes}} {{base}}\n")
    (here / "mine/deploy/start.sh").write_text("{{not a mark}}\n")
    (here / "mine/deploy/start.sh").chmod(0o755)
    (here / "mine/binary").write_bytes(b"\xff\x00")
    said = made("greeter", "--template", "mine")
    assert (here / "greeter/README.md").read_text() == (
        "greeter Greeter GreeterClient gen.greeter idl/greeter.thrift GreeterService Greeter\n"
    )
    assert (here / "greeter/deploy/start.sh").read_text() == "{{not a mark}}\n"
    assert os.access(here / "greeter/deploy/start.sh", os.X_OK)
    assert (here / "greeter/binary").read_bytes() == b"\xff\x00"
    assert "wrote greeter/deploy/start.sh" in said
    assert "class GreeterService" in (here / "greeter/app.py").read_text()


def test_mistakes_in_a_template_leave_nothing_behind(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in failure(capfd, 2, "greeter", "--template", "none")
    (here / "mine/gen").mkdir(parents=True)
    (here / "mine/x.in").write_text("{{nme}}")
    message = failure(capfd, 1, "greeter", "--template", "mine")
    assert "mine/x.in: unknown mark {{nme}}; there is base, classes, client" in message
    (here / "mine/x.in").write_bytes(b"\xff")
    assert "not UTF-8" in failure(capfd, 1, "greeter", "--template", "mine")
    (here / "mine/x.in").unlink()
    (here / "mine/gen/x.py").write_text("")
    assert "gen/ is written by `weego gen` alone" in failure(capfd, 1, "greeter", "--template", "mine")
    assert not (here / "greeter").exists()


def test_a_template_is_for_new_projects(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made("greeter")
    (here / "mine").mkdir()
    assert "its files are yours" in failure(capfd, 2, "greeter", "--template", "mine")


def test_the_dockerfile_names_what_there_is(here: Path) -> None:
    made("greeter")
    text = (here / "greeter/Dockerfile").read_text()
    assert "weego gen idl/greeter.thrift -o gen -I idl" in text
    assert 'CMD ["weego-master", "conf/server.toml"]' in text
    assert "tcp://127.0.0.1:" in (here / "greeter/conf/server.toml").read_text()  # what the Dockerfile replaces


def test_the_dockerfiles_commands_work_on_the_project(here: Path) -> None:
    """What it runs on the copied files, in the project itself: the image's base, pip and users are left out."""
    made("greeter")
    project = here / "greeter"
    text = (project / "Dockerfile").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^RUN (weego gen .*)$", text, re.MULTILINE)
    copied = re.findall(r"^COPY (?:--from=\S+ )?(\S+) ", text, re.MULTILINE)
    assert all(each in ("/install", ".") or (project / each).exists() for each in copied)
    shutil.rmtree(project / "gen")
    done = subprocess.run(command, shell=True, cwd=project, env={**ENV, "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}"}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (project / "gen/greeter/greeter.py").exists()
    assert "tcp://0.0.0.0:8888" in (project / "conf/server.toml").read_text()
    ignored = (project / ".dockerignore").read_text().split()
    assert "gen" in [each.rstrip("/") for each in ignored]

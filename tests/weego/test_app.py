"""What the loader loads: every mistake of the user is one line that says where."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import weego
from prefork.application import LoadError
from tests.support.processes import Process
from weego import config as configuration
from weego.app import App, load_middleware, load_service, make_service, version_on_disk
from weego.config_ways import LIVE_OF_CLIENT, ways

NAME = "weego_test_services"

SERVICES = """
    from tests.support.echo_stub import Echo, Request, Response
    class Good(Echo):
        class Inner(Echo):
            pass
        def echo(self, req):
            return Response(message=req.message)
    class NoBase:
        pass
    class Fails(Echo):
        def __init__(self):
            raise ValueError("no database")
    class Wants(Echo):
        def __init__(self, name):
            pass
    number = 3
    def wrap(next_):
        return lambda call, args: f"wrapped {next_(call, args)}"
    def forgets(next_):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{NAME}.py").write_text(textwrap.dedent(SERVICES))
    (tmp_path / f"{NAME}_syntax.py").write_text("x = 1\ndef f(:\n    pass\n")
    (tmp_path / f"{NAME}_broken.py").write_text("x = 1\n\n1 / 0\n")
    (tmp_path / f"{NAME}_exits.py").write_text("import sys\nsys.exit(3)\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(NAME)]:
        del sys.modules[name]


def test_a_class_is_found_by_its_name(folder: Path) -> None:
    found = load_service("c.toml", f"{NAME}:Good")
    assert make_service(found).__class__ is found
    assert load_service("c.toml", f"{NAME}:Good.Inner").__name__ == "Inner"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (NAME, "write it as package.module:Class"),
        (":Good", "write it as package.module:Class"),
        (f"{NAME}:", "write it as package.module:Class"),
        (f"{NAME}:Missing", "has no Missing"),
        (f"{NAME}:number", "number is a int, not a class"),
        (f"{NAME}:NoBase", "does not implement a generated service base"),
        ("no_such_module_at_all:X", "cannot import no_such_module_at_all: ModuleNotFoundError"),
        (f"{NAME}_syntax:X", rf"SyntaxError: .*{NAME}_syntax.py:2\)"),
        (f"{NAME}_broken:X", rf"ZeroDivisionError: .*{NAME}_broken.py:3\)"),
        (f"{NAME}_exits:X", r"called sys.exit\(3\) while it was imported"),
    ],
)
def test_mistakes_are_one_line_with_the_place(folder: Path, name: str, text: str) -> None:
    with pytest.raises(LoadError, match=text) as caught:
        load_service("conf/c.toml", name)
    assert str(caught.value).startswith(f'conf/c.toml: [[service]] class = "{name}"')
    assert "\n" not in str(caught.value)


def test_a_middleware_is_found_by_its_name(folder: Path) -> None:
    wrap = load_middleware("c.toml", f"{NAME}:wrap")
    assert wrap(lambda call, args: "inner")(None, ()) == "wrapped inner"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (NAME, "write it as package.module:name"),
        (f"{NAME}:missing", "has no missing"),
        ("weego.extend:carrying", "weego is a package of weego's own"),
        (f"{NAME}:number", "is a int; a middleware takes a handler and gives one"),
        (f"{NAME}:forgets", "gave a NoneType; a middleware takes a handler and gives one"),
        (f"{NAME}:Wants.__init__", r"failed: TypeError"),
        ("no_such_module_at_all:x", "cannot import no_such_module_at_all"),
    ],
)
def test_mistakes_with_middleware_are_one_line_with_the_place(folder: Path, name: str, text: str) -> None:
    with pytest.raises(LoadError, match=text) as caught:
        load_middleware("conf/c.toml:7", name)
    assert str(caught.value).startswith(f'conf/c.toml:7: [server] middleware "{name}"')
    assert "\n" not in str(caught.value)


def test_a_constructor_that_fails(folder: Path) -> None:
    with pytest.raises(LoadError, match=rf"{NAME}:Fails\(\) failed: ValueError: no database \(.*{NAME}.py:\d+\)"):
        make_service(load_service("c.toml", f"{NAME}:Fails"))
    with pytest.raises(LoadError, match=rf"{NAME}:Wants\(\) failed: TypeError"):
        make_service(load_service("c.toml", f"{NAME}:Wants"))


def test_a_package_that_hides_one_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "poller").mkdir()
    (tmp_path / "poller" / "__init__.py").write_text("")
    code = f"""
        import weego
        from weego.app import import_rooms
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        for name in [name for name in sys.modules if name.partition(".")[0] == "poller"]:
            del sys.modules[name]
        try:
            import_rooms()
        except Exception as error:
            print(type(error).__name__, error)
    """
    with Process([sys.executable, "-c", textwrap.dedent(code)]) as process:
        assert process.wait() == 0, process.output
    assert "LoadError the package 'poller'" in process.output
    assert "hides weego's own; rename it" in process.output


def test_every_key_of_a_client_is_live_or_not_on_purpose() -> None:
    made_with = {
        "target", "framing", "max_idle", "max_idle_total", "idle_timeout", "heartbeat", "min_idle", "max_active", "max_waiting", "wait_timeout", "warm_up",
        "pool", "fallback",
    }  # fmt: skip
    assert set(LIVE_OF_CLIENT) | made_with == set(configuration.Client.__struct_fields__)
    assert not set(LIVE_OF_CLIENT) & made_with
    listen, service = (configuration.Listen(address="tcp://127.0.0.1:1"),), (configuration.Service(class_="a:B"),)
    client = configuration.Client(method={"get": configuration.Method(retries=1)})
    found = ways(configuration.Config(listen=listen, service=service, client={"a.item": client}))
    assert (found["client.a.item.retries"], found["client.a.item.method"], found["client.a.item.method.get.fallback"]) == ("hot", "hot", "workers")
    assert "client.a.item.target" not in found


def test_a_master_of_another_version_than_the_one_on_disk_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version_on_disk() == weego.__version__
    assert App("server.toml").obstacle() is None
    monkeypatch.setattr("weego.__version__", "0.0.9")
    found = App("server.toml").obstacle()
    assert found is not None
    assert found.startswith(f"weego {version_on_disk()} has been installed, and the master is 0.0.9 still: `weego ctl upgrade --reload`")


def test_a_version_that_cannot_be_told_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text in (None, "nothing of the kind", b"\xff"):
        file = tmp_path / "init.py"
        if text is not None:
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setattr("weego.__file__", str(file))
        assert App("server.toml").obstacle() is None

"""The configuration: what is accepted, and for each mistake one line with file, line, key and remedy."""

from __future__ import annotations

import json
import marshal
import os
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.need import ROOT
from weego import config, config_keys
from weego.config import Config, ConfigError
from weego.units import Duration, Size

LEAST = """\
[[listen]]
address = "tcp://127.0.0.1:0"
[[service]]
class = "app:Echo"
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Put a server.toml into the current folder, which is the test's own, and return its name."""
    monkeypatch.chdir(tmp_path)

    def put(text: str) -> str:
        Path("server.toml").write_text(text)
        return "server.toml"

    return put


def error(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- what is accepted


def test_the_least_file_gets_the_defaults(write: Write, tmp_path: Path) -> None:
    loaded = config.load(write(LEAST))
    assert loaded.server.name == "weego"
    assert loaded.server.workers == "auto"
    assert loaded.server.worker_count() >= 1
    assert loaded.server.graceful_timeout == 30.0
    assert loaded.server.app_dir == str(tmp_path)
    assert loaded.server.control is None
    assert loaded.listen[0].address == "tcp://127.0.0.1:0"
    assert loaded.service[0].class_ == "app:Echo"
    assert loaded.admin is None
    assert loaded.limits.max_message == 16 * 2**20
    assert loaded.log.format == "auto"


def test_units_and_numbers(write: Write) -> None:
    loaded = config.load(
        write(
            LEAST
            + """
            [server]
            workers = 3
            graceful_timeout = "1m30s"
            boot_timeout = 5
            [limits]
            max_connections = 100
            max_message = "1MB"
            idle_timeout = 0
            frame_timeout = "500ms"
            """
        )
    )
    assert loaded.server.workers == loaded.server.worker_count() == 3
    assert loaded.server.graceful_timeout == 90
    assert loaded.server.boot_timeout == 5
    assert loaded.limits.max_connections == 100
    assert loaded.limits.max_message == 1_000_000
    assert loaded.limits.idle_timeout == 0
    assert loaded.limits.frame_timeout == 0.5
    assert isinstance(loaded.limits.max_message, Size)
    assert isinstance(loaded.limits.frame_timeout, Duration)


def test_relative_paths_start_from_app_dir(write: Write, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    loaded = config.load(
        write(
            """
            [server]
            app_dir = "app"
            control = "run/c.sock"
            pidfile = "../p.pid"
            [[listen]]
            address = "unix://e.sock"
            mode = 0o660
            [[listen]]
            address = "unix:///abs/e.sock"
            [[service]]
            class = "a.b:C"
            [admin]
            address = "unix://admin.sock"
            """
        )
    )
    app = str(tmp_path / "app")
    assert loaded.server.app_dir == app
    assert loaded.server.control == f"{app}/run/c.sock"
    assert loaded.server.pidfile == f"{tmp_path}/p.pid"
    assert [entry.address for entry in loaded.listen] == [f"unix://{app}/e.sock", "unix:///abs/e.sock"]
    assert loaded.listen[0].mode == 0o660
    assert loaded.admin
    assert loaded.admin.address == f"unix://{app}/admin.sock"


@pytest.mark.parametrize("address", ["tcp://[::1]:80", "tcp://[::]:0", "tcp://localhost:1", "tcp://0.0.0.0:65535"])
def test_addresses(write: Write, address: str) -> None:
    assert config.load(write(LEAST.replace("tcp://127.0.0.1:0", address))).listen[0].address == address


def test_several_free_ports_are_no_clash(write: Write) -> None:
    assert len(config.load(write(LEAST + '[[listen]]\naddress = "tcp://127.0.0.1:0"\n')).listen) == 2


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LEAST}[server]\nworker = 2", 'server.toml:6: [server] worker: unknown key, did you mean "workers"?'),
        (f"{LEAST}[servr]\nworkers = 2", 'server.toml:5: [servr]: unknown table, did you mean "server"?'),
        (f"{LEAST}[server]\nmax_message = 2", "server.toml:6: [server] max_message: unknown key, did you mean [limits] max_message?"),
        (f"{LEAST}[log]\ncolour = true", "server.toml:6: [log] colour: unknown key; known here: level, format, access, file, access_file"),
        (f'{LEAST}bind = "x"', "server.toml:5: [[service]] bind: unknown key; known here: class"),
        (f"{LEAST}[server]\nlimits.x = 1", "server.toml:6: [server] limits: unknown key; known here: name"),
        (
            f'{LEAST}[server]\nworkers = "many"',
            'server.toml:6: [server] workers: "many" is not "auto" or a whole number from 1 to 256',
        ),
        (f"{LEAST}[server]\nworkers = 0", 'server.toml:6: [server] workers: 0 is not "auto" or a whole number from 1 to 256'),
        (f"{LEAST}[server]\nworkers = true", "server.toml:6: [server] workers: true is not"),
        (f"{LEAST}[server]\nworkers = 1.5", "server.toml:6: [server] workers: 1.5 is not"),
        (f"{LEAST}[server]\nname = 5", "server.toml:6: [server] name: 5 is not text in quotes"),
        (f'{LEAST}[server]\nname = " "', 'server.toml:6: [server] name: " " is not a name'),
        (
            f'{LEAST}[server]\ngraceful_timeout = "soon"',
            'server.toml:6: [server] graceful_timeout: "soon" is not a duration like "30s", "500ms" or "2m" from 0s to 1d',
        ),
        (f"{LEAST}[server]\ngraceful_timeout = -1", "server.toml:6: [server] graceful_timeout: -1 is not a duration"),
        (f'{LEAST}[server]\npatch = "yes"', 'server.toml:6: [server] patch: "yes" is not true or false'),
        (f'{LEAST}[server]\napp_dir = "nowhere"', "server.toml:6: [server] app_dir: no such folder: "),
        (f'{LEAST}[server]\npidfile = ""', 'server.toml:6: [server] pidfile: "" is not a path'),
        (f'{LEAST}[server]\ncontrol = "{"x" * 120}"', "server.toml:6: [server] control: "),
        (f'{LEAST}[limits]\nmax_message = "16M"', 'server.toml:6: [limits] max_message: "16M" is not a size like "16MiB"'),
        (f'{LEAST}[limits]\nmax_message = "2GiB"', "from 1KiB to 2147483647B"),
        (f'{LEAST}[log]\nlevel = "loud"', '[log] level: "loud" is not one of "debug", "info", "warning", "error"'),
        (f"{LEAST}[log]\naccess = 1", "server.toml:6: [log] access: 1 is not true or false"),
        (f"server = 5\n{LEAST}", "server.toml:1: [server]: expected a table"),
        ('listen.address = "x"\n[[service]]\nclass = "a:B"', "server.toml:1: [[listen]]: there may be several: write [[listen]]"),
        ('[listen]\naddress = "x"\n[[service]]\nclass = "a:B"', "server.toml:1: [[listen]]: there may be several: write [[listen]]"),
        ('listen = []\n[[service]]\nclass = "a:B"', "server.toml:1: [[listen]]: missing: add at least one"),
        ('[[service]]\nclass = "a:B"', "server.toml: [[listen]]: missing: add at least one, such as: [[listen]] address ="),
        ('[[listen]]\naddress = "tcp://h:1"', "server.toml: [[service]]: missing: add at least one, such as: [[service]] class ="),
        ("", "server.toml: [[listen]]: missing"),
        (f"{LEAST}[[listen]]\nbacklog = 5", "server.toml:5: [[listen]] address: missing: where to listen"),
        (f"{LEAST}[admin]", "server.toml:5: [admin] address: missing: where to listen"),
        (f'{LEAST}[admin]\naddress = "127.0.0.1:80"', '[admin] address: "127.0.0.1:80" is not "tcp://host:port" or "unix:///path"'),
        (f'{LEAST}[admin]\naddress = "tcp://h:99999"', "a port is a number from 0 to 65535"),
        (f'{LEAST}[admin]\naddress = "unix://"', "is not a path"),
        (f'{LEAST}[[listen]]\naddress = "tcp://a:1"\n[admin]\naddress = "tcp://a:1"', "is already used by [[listen]] address"),
        (f'{LEAST}[[listen]]\naddress = "tcp://a:1"\nmode = 0o600', "[[listen]] mode: only a unix socket has permissions"),
        (f'{LEAST}[[listen]]\naddress = "unix:///a"\nmode = 660', "from 0 to 511; write it in octal, as 0o660"),
        (LEAST.replace("app:Echo", "app.Echo"), '"app.Echo" is not of the form "package.module:Class"'),
        (LEAST.replace("app:Echo", "1app:Echo"), "is not of the form"),
        (f'{LEAST}[[service]]\nclass = "app:Echo"', 'server.toml:6: [[service]] class: "app:Echo" is served twice'),
        (f'[server]\nhang_timeout = "500ms"\n{LEAST}', 'server.toml:2: [server] hang_timeout: "500ms" is too short'),
        ("[server\n", "server.toml:1: not valid TOML: expected ']'"),
        ('[server]\nname = "x"\nname = "y"\n', "server.toml:3: not valid TOML: cannot overwrite a value"),
        ('[server]\nname = "x', "server.toml:2: not valid TOML: "),
    ],
)
def test_mistakes(write: Write, text: str, message: str) -> None:
    assert message in error(write(text))


def test_a_missing_file(write: Write) -> None:
    assert error("conf/nothing.toml") == "conf/nothing.toml: no such file or directory"


def test_a_folder(tmp_path: Path) -> None:
    assert error(str(tmp_path)) == f"{tmp_path}: is a directory"


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# ok\n# caf\xe9\n")
    assert error(str(path)) == f"{path}:2: not UTF-8: TOML files are"


def test_the_mistake_survives_pickling(write: Write) -> None:
    import pickle

    with pytest.raises(ConfigError) as caught:
        config.load(write(""))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_locate(write: Write) -> None:
    path = write(LEAST)
    assert config.locate(path, "service", 0, "class") == "server.toml:4"
    assert config.locate(path, "service", 1, "class") == "server.toml"
    assert config.locate("gone.toml", "service") == "gone.toml"


# ---------------------------------------------------------------- the other forms of it


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(ROOT)
    return config.load("conf/full.toml")


def test_plain_and_back(full: Config) -> None:
    plain = config.to_plain(full)
    assert config.from_plain(json.loads(json.dumps(plain))) == full
    assert config.from_plain(marshal.loads(marshal.dumps(plain))) == full
    assert isinstance(config.from_plain(plain).server.graceful_timeout, Duration)


def test_dump_reads_back_equal(full: Config, write: Write) -> None:
    assert config.load(write(config.dump(full))) == full


def test_dump_escapes(write: Write) -> None:
    odd = 'quo"te \\ é ☃'
    loaded = config.load(write(LEAST + f"[server]\nname = {json.dumps(odd)}\n"))
    assert loaded.server.name == odd
    assert config.load(write(config.dump(loaded))) == loaded


# ---------------------------------------------------------------- the files in conf/ and docs/


def test_server_toml_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    loaded = config.load("conf/server.toml")
    assert [entry.address for entry in loaded.listen] == ["tcp://127.0.0.1:8888"]
    assert loaded.admin
    assert loaded.admin.address == "tcp://127.0.0.1:8889"
    assert loaded.server.control == os.path.join(ROOT, "run/weego.sock")


def keys_of(schema: dict[str, dict[str, object]], prefix: str = "") -> set[str]:
    found = set()
    for name, inner in schema.get("properties", {}).items():
        assert isinstance(inner, dict)
        inner = inner.get("items", inner)
        several = inner.get("additionalProperties")
        inner = several if isinstance(several, dict) and "properties" in several else inner
        assert isinstance(inner, dict)
        found |= keys_of(inner, f"{prefix}{name}.") if "properties" in inner else {prefix + name}
    return found


def keys_in(values: dict[str, Any], kind: Any, prefix: str = "") -> set[str]:
    """The keys of a document, without the names that its writer gave to tables."""
    found = set()
    for name, value in values.items():
        key = config_keys.keys_of(kind)[name]
        table = config_keys.table_of(key.type)
        if table is None:
            found.add(prefix + name)
            continue
        named = typing.get_origin(key.type) is dict
        for each in value if isinstance(value, list) else value.values() if named else [value]:
            found |= keys_in(each, table, f"{prefix}{name}.")
    return found


def test_full_toml_has_every_key_with_its_default(full: Config) -> None:
    document = tomllib.loads((ROOT / "conf/full.toml").read_text())
    assert keys_in(document, Config) == keys_of(config.schema())
    least = Config(listen=full.listen, service=full.service)
    assert full.limits == least.limits
    assert msgspec.structs.replace(full.log, file=None, access_file=None) == least.log
    assert full.log.file == os.path.join(ROOT, "run/echo.log")
    for field in ("workers", "graceful_timeout", "boot_timeout", "patch"):
        assert getattr(full.server, field) == getattr(least.server, field)


def test_the_schema_is_in_step() -> None:
    shipped = json.loads((ROOT / "conf/server.schema.json").read_text())
    assert shipped == config.schema(), "run: python -m weego.config > conf/server.schema.json"


def test_the_documentation_explains_every_key() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    for table, each in config.schema()["properties"].items():
        heading = f"[[{table}]]" if each.get("type") == "array" else f"[{table}]"
        section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        inner = each.get("items", each)
        inner = inner.get("additionalProperties") or inner
        for key, schema in inner["properties"].items():
            assert f"`{key}`" in section, f"docs/configuration.md, [{table}]: {key} is missing"
            if "default" in schema:
                assert f"`{json.dumps(schema['default'])}`" in section, f"docs/configuration.md, [{table}] {key}: wrong default"

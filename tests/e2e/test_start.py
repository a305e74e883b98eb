"""Starting and stopping: what works is quiet, what does not work is one clear line and an exit code."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.wire import STRING, Wire
from tests.support.processes import Process
from tests.support.service import MASTER, App, Server, run, session, titles, until

EX_OSERR = 71
EX_CONFIG = 78


def complaint(output: str) -> str:
    """The one line of an output that tells what is wrong."""
    lines = [
        line for line in output.splitlines() if re.search(r"cannot start|\"level\":\"error\"|weego-master: ", line)
    ]
    assert len(lines) == 1, output
    assert "Traceback" not in output, output
    return str(json.loads(lines[0])["message"]) if lines[0].startswith("{") else lines[0]


def refused(conf: Path, code: int, *options: str, cwd: str | None = None) -> str:
    """weego-master must refuse `conf`; returns its complaint."""
    found, output = run([MASTER, str(conf), *options], cwd=cwd)
    assert found == code, output
    return complaint(output)


# ---------------------------------------------------------------- it works


def test_the_banner_is_short_and_the_log_clean(app: App) -> None:
    with app.serve(workers=2) as server, Wire(server.address) as wire:
        assert wire.call("echo", (1, STRING, "hé")).text == "hé"
        assert len(server.workers()) == 2
        banner = [line for line in server.process.lines if not re.match(r"\{|\d{4}-", line)]
        assert 1 <= len(banner) <= 5, banner
        assert banner[0].startswith("weego ")
        assert server.address in "\n".join(banner)
        assert str(server.pid) in "\n".join(banner)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_idle_server(app: App, number: signal.Signals) -> None:
    with app.serve() as server:
        port = server.port
        server.remember()
        server.signal(number)
        assert server.process.wait() == 0, server.log
        server.assert_gone()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))  # without SO_REUSEADDR: nobody listens and nothing lingers


def test_a_stop_answers_the_call_under_way(app: App) -> None:
    with app.serve() as server, Wire(server.address) as wire:
        wire.send(frame_of_wait(0.5))
        with Wire(server.address) as other:  # answered: so the first call is under way
            other.tell()
        server.signal(signal.SIGTERM)
        assert wire.receive().text.endswith(": slow")
        assert wire.rest() == b""
        assert server.process.wait() == 0


def frame_of_wait(seconds: float, seqid: int = 1) -> bytes:
    from tests.e2e.wire import DOUBLE, call

    return call("wait", (1, DOUBLE, seconds), (2, STRING, "slow"), seqid=seqid)


def test_quit_stops_at_once(app: App) -> None:
    with app.serve(allow=["stopping fast", "cut off"]) as server, Wire(server.address) as wire:
        wire.send(frame_of_wait(60))
        with Wire(server.address) as other:
            other.tell()
        server.remember()
        server.signal(signal.SIGQUIT)
        assert server.process.wait() == 0, server.log
        assert wire.rest() == b""


def test_port_zero_is_any_port(app: App) -> None:
    with app.serve(listen=["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]) as server:
        assert len(set(server.addresses)) == 2
        for address in server.addresses:
            with Wire(address) as wire:
                wire.tell()


def test_a_unix_socket(app: App) -> None:
    path = app.folder / "run" / "probe.sock"
    path.parent.mkdir()
    app.write_conf(listen=[f"unix://{path}"])
    app.conf.write_text(app.conf.read_text().replace(f'"unix://{path}"', f'"unix://{path}"\nmode = 0o600'))
    with Server(app.conf) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Wire(server.address) as wire:
            assert wire.call("echo", (1, STRING, "u")).text == "u"
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(app: App, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with app.serve(listen=[f"unix://{path}"]) as server:
        line = refused(app.conf, EX_OSERR)
        assert str(path) in line
        with Wire(server.address) as wire:
            wire.tell()
    path.write_text("a file of the user's")
    assert str(path) in refused(app.conf, EX_OSERR)
    assert path.read_text() == "a file of the user's"


def test_from_another_folder(app: App, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    app.write_conf()
    with Server(app.conf, cwd=str(elsewhere)) as server, Wire(server.address) as wire:
        wire.tell()


def test_the_folder_it_is_started_in_is_the_default_app_dir(app: App) -> None:
    app.write_conf()
    app.conf.write_text(re.sub(r"app_dir = .*\n", "", app.conf.read_text()))
    with Server(Path("server.toml"), cwd=str(app.folder)) as server, Wire(server.address) as wire:
        wire.tell()


def test_with_no_environment_activated(app: App) -> None:
    app.write_conf()
    bare = ("/usr/bin/env", "-i", "PATH=/usr/bin:/bin", MASTER)
    with Server(app.conf, command=bare) as server, Wire(server.address) as wire:
        wire.tell()


def test_through_a_link(app: App, tmp_path: Path) -> None:
    app.write_conf()
    link = tmp_path / "weego-master"
    link.symlink_to(MASTER)
    with Server(app.conf, command=(str(link),)) as server, Wire(server.address) as wire:
        wire.tell()


def test_the_example_of_the_checkout(root: Path, tmp_path: Path, no_leaks: None) -> None:
    if not (root / "examples" / "echo" / "gen").is_dir():
        pytest.skip("examples/echo/gen is not here: make setup")
    text = (root / "conf" / "server.toml").read_text()
    conf = tmp_path / "server.toml"
    conf.write_text(
        text.replace(":8888", ":0").replace(":8889", ":0").replace("run/weego.sock", str(tmp_path / "weego.sock"))
    )
    with Server(conf, cwd=str(root)) as server:
        client = (root / "examples" / "echo" / "client.py").read_text().replace("tcp://127.0.0.1:8888", server.address)
        assert server.address in client
        copy = tmp_path / "client.py"
        copy.write_text(client)
        code, output = run(
            [sys.executable, str(copy)], cwd=str(root), env={"PYTHONPATH": f"{root}:{root / 'examples/echo'}"}
        )
        assert code == 0, output


# ---------------------------------------------------------------- --check and --print-config


def test_check_says_good_and_binds_nothing(app: App) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        conf = app.write_conf(listen=[f"tcp://127.0.0.1:{taken.getsockname()[1]}"])
        code, output = run([MASTER, str(conf), "--check"])
    assert code == 0, output
    assert len(output.splitlines()) == 1


def test_print_config_prints_a_config_that_it_reads_again(app: App, tmp_path: Path) -> None:
    conf = app.write_conf(limits='max_message = "1MiB"', server='graceful_timeout = "7s"')
    code, output = run([MASTER, str(conf), "--print-config"])
    assert code == 0, output
    printed = tomllib.loads(output)
    assert printed["server"]["name"] == "probe"
    assert {"server", "listen", "service", "limits", "log"} <= printed.keys()
    again = tmp_path / "again.toml"
    again.write_text(output)
    assert run([MASTER, str(again), "--print-config"]) == (0, output)
    with Server(again) as server, Wire(server.address) as wire:
        wire.tell()


def test_help() -> None:
    code, output = run([MASTER, "--help"])
    assert code == 0
    assert "CONF" in output
    assert "--check" in output


def test_no_argument_is_a_usage_error() -> None:
    code, output = run([MASTER])
    assert code == 2
    assert "CONF" in output
    assert "Traceback" not in output


# ---------------------------------------------------------------- it does not work

Spoil = Callable[[App], object]


def _code(text: str) -> Spoil:
    return lambda app: app.write_code(text)


def _append(text: str) -> Spoil:
    def spoil(app: App) -> None:
        app.conf.write_text(app.conf.read_text() + text)

    return spoil


def _replace(old: str, new: str) -> Spoil:
    def spoil(app: App) -> None:
        text = app.conf.read_text()
        assert old in text
        app.conf.write_text(text.replace(old, new))

    return spoil


MISTAKES: dict[str, tuple[Spoil, str]] = {
    "unknown key": (_replace("workers = 1", "worker = 1"), r'server\.toml:3: .*worker: unknown key, did you mean "?workers'),
    "unknown table": (_append("[sever]\nname = 'x'\n"), r"server\.toml:\d+: .*sever.*server"),
    "wrong type": (_replace("workers = 1", 'workers = "many"'), r"server\.toml:3: .*workers"),
    "bad toml": (_replace("workers = 1", "workers = ="), r"server\.toml:3"),
    "bad address": (_replace("tcp://127.0.0.1:0", "127.0.0.1"), r"server\.toml:\d+: .*address"),
    "missing file": (lambda app: app.conf.unlink(), r"server\.toml: no such file"),
    "no such module": (_replace("app:Service", "nowhere.at.all:Service"), r"nowhere\.at\.all.*No module named"),
    "no such class": (_replace("app:Service", "app:Servise"), r"app.*has no Servise"),
    "no colon": (_replace("app:Service", "app"), r"package\.module:Class"),
    "bad import": (_code("import missing_thing\n"), r"cannot import app: .*missing_thing.*app\.py:1"),
    "syntax error": (_code("x = 1\nclass Service(:\n"), r"SyntaxError: .*app\.py:2"),
    "import raises": (_code("\n\n1 / 0\n"), r"ZeroDivisionError.*app\.py:3"),
    "import exits": (_code("import sys\nsys.exit(3)\n"), r"app called sys\.exit\(3\)"),
    "class without base": (_code("class Service:\n    pass\n"), r"Service does not implement a generated service base"),
    "not a class": (_code("Service = 5\n"), r"Service is a int, not a class"),
}  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["start", "check"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(app: App, mistake: str, options: tuple[str, ...]) -> None:
    spoil, expected = MISTAKES[mistake]
    app.write_conf()
    spoil(app)
    line = refused(app.conf, EX_CONFIG, *options)
    assert re.search(expected, line), line


def test_a_constructor_that_fails_is_a_mistake_of_the_code(app: App) -> None:
    code = (app.folder / "app.py").read_text().replace("self.heard: list[str] = []", "raise OSError('no database')")
    app.write_code(code)
    line = refused(app.write_conf(), EX_CONFIG)
    assert "no database" in line
    assert "app.py" in line


def test_a_taken_port(app: App) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(app.write_conf(listen=[f"tcp://127.0.0.1:{port}"]), EX_OSERR)
    assert re.search(rf"127\.0\.0\.1:{port}\b.*in use", line), line


def test_an_address_that_is_not_here(app: App) -> None:
    line = refused(app.write_conf(listen=["tcp://192.0.2.1:0"]), EX_OSERR)
    assert "192.0.2.1" in line


def test_a_second_master_of_one_configuration_leaves_the_first_alone(app: App, tmp_path: Path) -> None:
    with app.serve(server=f'pidfile = "{tmp_path / "pid"}"') as server:
        assert int((tmp_path / "pid").read_text()) == server.pid
        line = refused(app.conf, EX_OSERR)
        assert "pid" in line
        with Wire(server.address) as wire:
            wire.tell()
    assert not (tmp_path / "pid").exists()


def test_term_while_it_starts(app: App) -> None:
    app.write_code("import time\ntime.sleep(30)\n" + (app.folder / "app.py").read_text())
    app.write_conf()
    with Process([MASTER, str(app.conf)]) as process:
        until(lambda: any("loader" in title for title in titles(session(process.pid))), "the loader")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.output
    assert "Traceback" not in process.output

"""What README.md and docs/getting-started.md tell a newcomer to type does what they say; the texts are read, not copied."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.service import Server, generate, run

PORT = "127.0.0.1:9000"


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def files(text: str) -> dict[str, str]:
    """Files a text tells the reader to write: a line with the name, then a fenced block."""
    return dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def commands(text: str) -> list[str]:
    """What a text tells the reader to type: indented lines."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s+#.*", "", line).strip() for line in outside.splitlines() if re.match(r"    \S", line)]


@pytest.fixture
def guide(root: Path) -> str:
    """The part of the guide that makes a service of the reader's own."""
    return (root / "docs" / "getting-started.md").read_text().partition("## 1.")[2]


@pytest.fixture
def environment(root: Path) -> dict[str, str]:
    """As after `source .venv/bin/activate`: the commands are found, the package can be imported."""
    path = [str(root / "bin"), os.path.dirname(sys.executable), "/usr/bin", "/bin"]
    return {"PATH": ":".join(path), "PYTHONPATH": str(root)}


def typed(command: str) -> list[str]:
    """A command line as a shell would take it; python is the one that runs the tests."""
    words = shlex.split(command)
    return [sys.executable if words[0] == "python" else words[0], *words[1:]]


def which(command: list[str], environment: dict[str, str]) -> list[str]:
    found = shutil.which(command[0], path=environment["PATH"])
    assert found, f"{command[0]}: not found"
    return [found, *command[1:]]


def test_the_guide_works_as_it_is_typed(
    guide: str, environment: dict[str, str], tmp_path: Path, no_leaks: None
) -> None:
    written, lines = files(guide), commands(guide)
    assert {"greet.thrift", "app.py", "server.toml", "client.py"} <= written.keys()
    generating, checking, serving, calling = lines[:4]
    assert generating.startswith("weego gen ")
    assert checking.endswith("--check")
    for name, text in written.items():
        (tmp_path / name).write_text(text.replace(PORT, "127.0.0.1:0") if name == "server.toml" else text)

    code, output = run(which(typed(generating), environment), cwd=str(tmp_path), env=environment)
    assert (code, output) == (0, "")
    assert (tmp_path / "gen" / "greet" / "__init__.py").exists()
    code, output = run(which(typed(checking), environment), cwd=str(tmp_path), env=environment)
    assert code == 0, output

    *master, conf = which(typed(serving), environment)
    with Server(Path(conf), cwd=str(tmp_path), command=master) as server:
        client = tmp_path / "client.py"
        assert PORT in client.read_text()
        client.write_text(client.read_text().replace(f"tcp://{PORT}", server.address))
        code, output = run(typed(calling), cwd=str(tmp_path), env=environment)
        assert (code, output.splitlines()) == (0, ["Hello, Ada!", "no greeting for nobody"])

        # "Edit app.py, then kill -HUP the master."
        app = tmp_path / "app.py"
        app.write_text(app.read_text().replace('f"Hello, ', 'f"Good evening, '))
        server.reload_ok()
        code, output = run(typed(calling), cwd=str(tmp_path), env=environment)
        assert (code, output.splitlines()[0]) == (0, "Good evening, Ada!")


def test_the_short_form_in_the_readme(
    root: Path, guide: str, environment: dict[str, str], tmp_path: Path, no_leaks: None
) -> None:
    readme = (root / "README.md").read_text()
    app, client = blocks(readme, "python")
    (conf,) = blocks(readme, "toml")
    (tmp_path / "greet.thrift").write_text(files(guide)["greet.thrift"])
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "server.toml").write_text(conf.replace(PORT, "127.0.0.1:0"))
    generate(tmp_path / "greet.thrift", tmp_path / "gen")
    with Server(Path("server.toml"), cwd=str(tmp_path)) as server:
        (tmp_path / "client.py").write_text(client.replace(f"tcp://{PORT}", server.address))
        code, output = run([sys.executable, "client.py"], cwd=str(tmp_path), env=environment)
        assert (code, output) == (0, "Hello, Ada!")


def test_files_the_readme_names_are_here(root: Path) -> None:
    readme = (root / "README.md").read_text()
    for name in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (root / name).exists(), name
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"^    make (\w+)", readme, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

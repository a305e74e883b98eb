"""The one direction imports may take: every import and cimport of every room, against the table of docs/design.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("codec", "poller", "governance", "idlc", "prefork", "weego")

# The words that codec lends to the other rooms, and the sans-IO side of a connection that poller drives.
WORDS = ("codec.errors", "codec.metadata", "codec.spec", "codec.structs", "codec.types")
CONNECTION = ("codec.buffer", "codec.errors", "codec.protocol")

# Who may import what of ours, as module prefixes; a room may always import itself.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "codec": (),
    "poller": CONNECTION,
    "governance": (*WORDS, "poller.clock"),
    "idlc": (),
    "prefork": (),
    "weego": ROOMS,
    "bin": ("weego",),
    "examples": ("weego",),
}

# Rooms that promise to do without: sans-IO means no sockets, no clock, no tasks.
MUST_NOT_IMPORT: dict[str, tuple[str, ...]] = {
    "codec": ("asyncio", "gevent", "greenlet", "select", "selectors", "socket", "ssl", "threading", "time"),
    "governance": ("select", "selectors", "socket", "ssl"),
    "idlc": ("gevent", "greenlet", "msgspec", "thriftpy2"),
    "prefork": ("gevent", "greenlet", "msgspec", "asyncio"),
}

_CYTHON_FROM = re.compile(r"^\s*from\s+(?P<module>\.*[\w.]*)\s+c?import\s+(?P<names>.+)$")
_CYTHON_IMPORT = re.compile(r"^\s*c?import\s+(?P<modules>[\w., ]+)$")


def sources(folder: str, *suffixes: str) -> list[Path]:
    found = [path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes and "gen" not in path.parts]
    if folder == "bin":
        found += [path for path in (ROOT / folder).iterdir() if not path.suffix]
    return sorted(found)


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, absolute module) for all that a file imports; `from a import b` counts as a.b, which may be a module too."""
    package = path.relative_to(ROOT).parent.parts
    if path.suffix in (".pyx", ".pxd", ".pxi"):
        return cython_imports(path.read_text(), package)
    return python_imports(path.read_text(), package)


def python_imports(text: str, package: tuple[str, ...]) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or ""), package)
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                found.append((node.lineno, absolute(argument.value, package)))
    return found


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def cython_imports(text: str, package: tuple[str, ...]) -> list[tuple[int, str]]:
    text = re.sub(r"\\\n", "  ", text)
    text = re.sub(r"\(([^()]*)\)", lambda group: group[0].replace("\n", " ") + "\n" * group[0].count("\n"), text)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if match := _CYTHON_FROM.match(line):
            base = absolute(match["module"], package)
            names = [name.split()[0] for name in match["names"].strip("() ").split(",") if name.strip()]
            found += [(number, f"{base}.{name}") for name in names]
        elif match := _CYTHON_IMPORT.match(line):
            found += [(number, name.split()[0]) for name in match["modules"].split(",")]
    return found


def absolute(module: str, package: tuple[str, ...]) -> str:
    name = module.lstrip(".")
    level = len(module) - len(name)
    if not level:
        return name
    base = package[: len(package) - (level - 1)]
    return ".".join([*base, *([name] if name else [])])


def is_under(module: str, prefix: str) -> bool:
    """Is `module` the prefix or inside it? A parent imported for a name of its own (`from codec import errors`) is not."""
    return module == prefix or module.startswith(prefix + ".")


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room: str) -> None:
    allowed = (room, *MAY_IMPORT[room])
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {room} may not import {module}"
        for path in sources(room, ".py", ".pyi", ".pyx", ".pxd", ".pxi")
        for line, module in imported(path)
        if module.split(".")[0] in (*ROOMS, "bench", "tests", "examples")
        and not any(is_under(module, prefix) for prefix in allowed)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", MUST_NOT_IMPORT)
def test_rooms_do_without(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {room} does without {module.split('.')[0]}"
        for path in sources(room, ".py", ".pyx", ".pxd", ".pxi")
        for line, module in imported(path)
        if module.split(".")[0] in MUST_NOT_IMPORT[room]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ROOMS)
def test_every_pyx_has_its_pxd_and_pyi(room: str) -> None:
    missing = [
        str(path.with_suffix(suffix).relative_to(ROOT))
        for path in sources(room, ".pyx")
        for suffix in (".pxd", ".pyi")
        if not path.with_suffix(suffix).exists()
    ]
    assert not missing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import weego", ["weego"]),
        ("import os, weego.log as l", ["os", "weego.log"]),
        ("from . import buffer", ["codec.buffer"]),
        ("from .errors import A, B", ["codec.errors.A", "codec.errors.B"]),
        ("from ..weego import x", ["weego.x"]),
        ("def f():\n    from poller.loop import Loop", ["poller.loop.Loop"]),
        ("import importlib\nimportlib.import_module('weego.app')", ["importlib", "weego.app"]),
    ],
)
def test_python_imports_are_seen(text: str, expected: list[str]) -> None:
    assert [module for _, module in python_imports(text, ("codec",))] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from codec.buffer cimport Cursor, left  # inline", ["codec.buffer.Cursor", "codec.buffer.left"]),
        ("from codec cimport buffer as b", ["codec.buffer"]),
        ("cimport weego.server", ["weego.server"]),
        ("from . cimport loop", ["poller.loop"]),
        ("from .loop cimport (\n    Loop,\n    Watcher,\n)", ["poller.loop.Loop", "poller.loop.Watcher"]),
        ("from governance.call import \\\n    Call", ["governance.call.Call"]),
        ('cdef extern from "weego.h":', []),
    ],
)
def test_cython_imports_are_seen(text: str, expected: list[str]) -> None:
    assert [module for _, module in cython_imports(text, ("poller",))] == expected


@pytest.mark.parametrize(
    "module", ["weego", "weego.cli", "weego.cli.master", "weego.log", *(room for room in ROOMS if room != "weego")]
)
def test_what_the_master_imports_is_light(module: str) -> None:
    """Neither gevent nor msgspec nor click comes along, and no room's __init__ pulls its room in."""
    heavy = "{'gevent', 'greenlet', 'msgspec', 'click', 'thriftpy2', 'google.protobuf', 'asyncio'}"
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []

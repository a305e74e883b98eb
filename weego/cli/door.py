"""The way in from a checkout: bin/weego-master and bin/weego work with and without an activated environment.

Standard library only, and nothing that is newer than the interpreters people have: it may run in one that cannot run weego.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import NoReturn

# What proves an interpreter able to run weego: its dependencies and the extensions compiled for it.
_NEEDED = ("click", "gevent", "msgspec", "psutil", "setproctitle", "codec.buffer")


def enter(entry: str) -> None:
    """Call `entry` ("module:function"), in the checkout's own .venv if this interpreter lacks what weego needs."""
    root = sys.path[0]
    missing = [name for name in _NEEDED if not _found(name)]
    if missing or sys.version_info < (3, 11):
        _enter_again(os.path.join(root, ".venv", "bin", "python"), missing)
    module, function = entry.split(":")
    getattr(importlib.import_module(module), function)()


def _enter_again(python: str, missing: list[str]) -> NoReturn:
    # Not realpath: the environment's python is usually a link to the very interpreter that runs now.
    if os.path.exists(python) and os.path.abspath(sys.executable) != python:
        os.execv(python, [python, *sys.argv])
    what = f"{', '.join(missing)} not found" if missing else "Python 3.11 or later needed"
    sys.exit(f"{os.path.basename(sys.argv[0])}: {what}; `make run` in the checkout sets everything up")


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, SyntaxError, ValueError):
        return False

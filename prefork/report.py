"""Why a child failed, in one line: what went wrong, at which file and line of the user's."""

from __future__ import annotations

import sys
import traceback

from prefork.application import EX_CONFIG, EX_SOFTWARE, LoadError


def exit_code(error: BaseException) -> int:
    """The status of a process that ends with ``error``."""
    if isinstance(error, LoadError):
        return EX_CONFIG
    if isinstance(error, SystemExit) and (error.code is None or error.code == 0):
        return 0
    return EX_SOFTWARE


def describe(error: BaseException) -> tuple[str, str | None]:
    """A line, and a traceback where the line is not the whole story."""
    if isinstance(error, LoadError):
        return str(error), None
    text = " ".join(f"{type(error).__name__}: {error}".split()) if str(error) else type(error).__name__
    where = _where(error)
    return (f"{where}: {text}" if where else text), "".join(traceback.format_exception(error))


def _where(error: BaseException) -> str | None:
    """``file:line`` of the innermost frame that is the user's: in no library, nor in the importer."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    import sysconfig  # only children that fail need it

    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    own = __file__.rpartition("/")[0]
    for filename, lineno in reversed(frames):
        if not filename.startswith((*libraries, own, "<frozen", sys.base_prefix + "/lib")):
            return f"{filename}:{lineno}"
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else None

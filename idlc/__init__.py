"""Thrift IDL → typed Python: `compile_files` is the door, `IdlError` what it raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idlc.compile import Compilation as Compilation
    from idlc.compile import compile_files as compile_files
    from idlc.errors import Diagnostic as Diagnostic
    from idlc.errors import IdlError as IdlError

__all__ = ["Compilation", "Diagnostic", "IdlError", "compile_files"]


def __getattr__(name: str) -> Any:
    if name in ("Compilation", "compile_files"):
        from idlc import compile as module
    elif name in ("Diagnostic", "IdlError"):
        from idlc import errors as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)

"""Running protoc: `.proto` files → descriptors, and what protoc has to say about them.

protoc reads and checks the files; we take its FileDescriptorSet, comments included. It is found as $PROTOC, beside the running
interpreter, on PATH, or inside the package grpcio-tools.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from idlc.errors import Diagnostic, IdlError, Position, Report, Source, TooManyErrors

__all__ = ["Place", "Protoc", "find_protoc", "proto_path", "read_protos"]

_NO_PROTOC: Final = "reading .proto files needs protoc, and there is none here"
_INSTALL: Final = "pip install 'weego[proto]', or put protoc on PATH or its path into $PROTOC"

# `file:line:column: warning: text`; line and column are missing where the message is about a whole file.
_MESSAGE: Final = re.compile(r"(?P<file>[^\n]+?\.proto):(?:(?P<line>\d+):(?P<column>\d+):)?\s+(?P<warning>warning:\s+)?(?P<text>.*)")

# What protoc says of an import that is in none of the folders.
_NO_FILE: Final = "File not found."

# protoc counts columns in bytes and lets a tab reach to the next multiple of eight.
_TAB: Final = 8


@dataclass(frozen=True, slots=True)
class Protoc:
    """A protoc that can be run: `command` begins its command line, `include` is its folder of well-known types."""

    command: tuple[str, ...]
    include: str | None = None


@dataclass(slots=True, eq=False)
class Place(Position):
    """A position with protoc's own numbers, so that a message says the place protoc would say."""

    protoc_line: int = 1
    protoc_column: int = 1

    def __str__(self) -> str:
        return f"{self.source.path}:{self.protoc_line}:{self.protoc_column}"


def find_protoc() -> Protoc:
    """The protoc to use. Raises IdlError when there is none."""
    named = os.environ.get("PROTOC")
    beside = os.path.join(os.path.dirname(sys.executable), "protoc")
    for candidate in (named, beside, "protoc"):
        path = shutil.which(candidate) if candidate else None
        if path is not None:
            return Protoc((path,), _include_beside(path))
    if named:
        raise IdlError([Diagnostic("error", "no-protoc", f"$PROTOC is {named}, which cannot be run", None, _INSTALL)])
    if importlib.util.find_spec("grpc_tools") is not None:
        spec = importlib.util.find_spec("grpc_tools")
        assert spec is not None
        include = os.path.join(os.path.dirname(spec.origin or ""), "_proto")
        return Protoc((sys.executable, "-m", "grpc_tools.protoc"), include)
    raise IdlError([Diagnostic("error", "no-protoc", _NO_PROTOC, None, _INSTALL)])


def _include_beside(protoc: str) -> str | None:
    """Distributions of protoc keep the well-known types in `../include`."""
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(protoc))), "include")
    return folder if os.path.isfile(os.path.join(folder, "google", "protobuf", "descriptor.proto")) else None


def proto_path(paths: Sequence[str], include_dirs: Sequence[str]) -> list[str]:
    """The folders imports are looked up in: those given, and the folder of each file that lies in none of them."""
    roots = list(include_dirs)
    for path in paths:
        if not any(_inside(path, root) for root in roots):
            roots.append(os.path.dirname(path) or ".")
    return list(dict.fromkeys(roots))


def _inside(path: str, folder: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder or "."))


def read_protos(paths: Sequence[str], include_dirs: Sequence[str], report: Report) -> tuple[FileDescriptorSet, list[str]]:
    """Descriptors of the files and all they import, imported ones first, and the names protoc gave the files asked for.

    What protoc refuses goes into `report` with its file, line and column. Raises IdlError when protoc is missing.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    for path in missing:
        report.error("missing-file", f"{path}: no such file", None)
    if missing:
        return FileDescriptorSet(), []
    protoc = find_protoc()
    roots = proto_path(paths, include_dirs)
    for folder in roots:
        if not os.path.isdir(folder or "."):
            report.error("missing-folder", f"-I {folder}: no such folder", None)
            return FileDescriptorSet(), []
    searched = [*roots, *([protoc.include] if protoc.include else [])]
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "set")
        command = [*protoc.command, *(f"-I{folder or '.'}" for folder in searched), f"--descriptor_set_out={out}"]
        command += ["--include_imports", "--include_source_info", "--retain_options", *paths]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL)
        with contextlib.suppress(TooManyErrors):
            _report(done.stderr, searched, report, failed=done.returncode != 0)
        if done.returncode or report.errors:
            return FileDescriptorSet(), []
        try:
            descriptors = FileDescriptorSet.FromString(Path(out).read_bytes())
        except (DecodeError, OSError) as error:
            report.error("protoc", f"{' '.join(protoc.command)} wrote no descriptors: {error}", None)
            return FileDescriptorSet(), []
    return descriptors, [_virtual(path, roots) for path in paths]


def _virtual(path: str, roots: Sequence[str]) -> str:
    """The name protoc gives a file: relative to the first folder that has it."""
    real = Path(os.path.realpath(path))
    for root in roots:
        folder = os.path.realpath(root or ".")
        if real.is_relative_to(folder):
            return real.relative_to(folder).as_posix()
    return path


def _report(text: str, roots: Sequence[str], report: Report, *, failed: bool) -> None:
    """Each line protoc wrote, as a diagnostic of ours."""
    sources: dict[str, Source] = {}
    for line in text.splitlines():
        found = _MESSAGE.fullmatch(line.strip())
        if found is None:
            if failed and line.strip():
                report.error("protoc", line.strip(), None)
            continue
        position = None
        if found["line"]:
            position = _place(found["file"], int(found["line"]), int(found["column"]), roots, sources)
        message = found["text"] if position is not None else f"{_on_disk(found['file'], roots)}: {found['text']}"
        if found["warning"]:
            report.warn("protoc", message, position)
        else:
            hint = f"imports are looked up in {_named(roots)}; -I names the folder they start from" if message.endswith(_NO_FILE) else None
            report.error("protoc", message, position, hint)
    if failed and not report.errors:
        report.error("protoc", "protoc failed and did not say why", None)


def _named(roots: Sequence[str]) -> str:
    return ", ".join(root or "." for root in roots)


def _place(file: str, line: int, column: int, roots: Sequence[str], sources: dict[str, Source]) -> Place | None:
    source = sources.get(file)
    if source is None:
        path = _on_disk(file, roots)
        try:
            text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
        except OSError:
            text = ""
        source = sources[file] = Source(path, text)
    return Place(source, _offset(source.text, line, column), 1, line, column)


def _offset(text: str, line: int, column: int) -> int:
    """The character at protoc's line and column."""
    start = 0
    for _ in range(line - 1):
        end = text.find("\n", start)
        if end < 0:
            return max(len(text) - 1, 0)
        start = end + 1
    seen = 1
    for offset in range(start, len(text)):
        if seen >= column or text[offset] == "\n":
            return offset
        seen += _TAB - (seen - 1) % _TAB if text[offset] == "\t" else len(text[offset].encode())
    return len(text)


def _on_disk(file: str, roots: Sequence[str]) -> str:
    for root in roots:
        path = os.path.join(root, file) if root not in ("", ".") else file
        if os.path.isfile(path):
            return path
    return file

"""The IDL of a project: copied with all it needs, and compiled; Thrift and Protobuf."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from idlc import compile_files, model
from idlc.errors import Diagnostic, Report
from idlc.packages import assign
from idlc.resolver import resolve
from weego import __version__
from weego.scaffold.stubs import Service, Stubs

if TYPE_CHECKING:
    from idlc.packages import Place

__all__ = ["NameTaken", "copy", "generate", "is_proto"]

# protoc brings these, and protobuf's runtime their classes; a copy would only grow old.
_WELL_KNOWN: Final = "google/protobuf/"


class NameTaken(Exception):
    """A file that the IDL needs is called as the project is."""


def is_proto(path: str | Path) -> bool:
    """By the suffix, as `weego gen` tells the two families apart."""
    return os.fspath(path).endswith(".proto")


def copy(idl: str, include: Iterable[str], folder: Path, name: str) -> Path:
    """Copy an IDL file, as NAME.thrift or NAME.proto, and what it needs, lying to each other as they did.

    Args:
        idl: the file.
        folder: the project's.
        name: the project's.
        include: the folders that imports of a .proto start from; its own is one if it lies in none of these.

    Returns:
        The path of the first, relative to the project's folder.

    Raises:
        IdlError: the file has mistakes, or something that it needs is not there.
        NameTaken: another of the files has that name too, so that nobody could tell which is the project's.
    """
    root, places = _protos(idl, list(include)) if is_proto(idl) else _thrifts(idl)
    places[root] = places[root].with_name(f"{name}{places[root].suffix}")
    if sum(place.name == places[root].name for place in places.values()) > 1:
        raise NameTaken(f"{idl} includes a file called {places[root].name}: give the project another name")
    for file, place in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / place)
    return places[root]


def _thrifts(idl: str) -> tuple[str, dict[str, Path]]:
    """The file itself, and the place of it and of each that it includes: under the folder that all of them lie in."""
    report = Report()
    programs = resolve([idl], [], report)
    report.raise_errors()
    files = {os.path.realpath(program.path) for program in programs}
    top = os.path.commonpath([os.path.dirname(file) for file in files])
    return os.path.realpath(idl), {file: Path("idl", os.path.relpath(file, top)) for file in files}


def _protos(idl: str, include: list[str]) -> tuple[str, dict[str, Path]]:
    """The same for Protobuf, where a file's place is the name by which others import it."""
    from idlc.proto_protoc import proto_path, read_protos

    report = Report()
    descriptors, wanted = read_protos([idl], include, report)
    report.raise_errors()
    places = {idl: Path("idl", wanted[0])}
    roots = proto_path([idl], include)
    for name in (each.name for each in descriptors.file if each.name != wanted[0] and not each.name.startswith(_WELL_KNOWN)):
        found = next((path for root in roots if os.path.isfile(path := os.path.join(root, name))), None)
        if found is not None:  # else protoc has it
            places[found] = Path("idl", name)
    return idl, places


def generate(folder: Path, idl: Path) -> tuple[list[Service], list[Diagnostic]]:
    """gen/ from the project's IDL: the services that it defines, and warnings. IdlError for mistakes in it."""
    include = [str(folder / "idl")]
    report = Report()
    if is_proto(idl):
        from idlc.proto_compile import compile_protos, load_protos

        made = compile_protos([folder / idl], folder / "gen", include, version=__version__)
        files, _, wanted = load_protos([folder / idl], include, report)
        places = assign([each.program for each in files], report)
        place = places[next(each.program for each in files if each.name == wanted[0])]
    else:
        made = compile_files([folder / idl], folder / "gen", include, version=__version__)
        places = assign(resolve([str(folder / idl)], include, report), report)
        place = _place_of(folder / idl, places)
    (folder / "gen" / ".made").touch()  # the Makefile's stamp
    return Stubs(folder / "gen").services(f"gen.{place}"), made.warnings


def _place_of(path: Path, places: Mapping[model.Program, Place]) -> Place:
    return next(place for program, place in places.items() if os.path.realpath(program.path) == os.path.realpath(path))

"""`.proto` files → packages of Python modules on disk, or in memory for protoc: the door of the Protobuf side.

Each file becomes what a Thrift file becomes: a module in the package that the file's `package` names, with a typed service
base and client for each service. Its messages are protobuf's own classes (`x_pb2.py`, typed by `x_pb2.pyi`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from idlc import model
from idlc.bindings import Bindings, export_order, import_order, module_order
from idlc.compile import Compilation, Output, package_text
from idlc.emit_python import STUB_FORMAT, header, lint_marks
from idlc.errors import Levels, Report, TooManyErrors
from idlc.layout import Group, docstring, lay_out, quoted
from idlc.names import MethodStyle, Names
from idlc.packages import Place, assign, circular
from idlc.proto_files import MessageType, ProtoFile, TypeTable, read_files
from idlc.proto_native import Native
from idlc.proto_protoc import proto_path, read_protos
from idlc.proto_services import Services
from idlc.proto_upb import emit_messages, emit_types, import_sections, module_name

__all__ = ["Messages", "check_protos", "compile_protos", "emit_protos", "load_protos"]

Messages = Literal["upb", "native"]
"""The runtime of messages: protobuf's own classes, or structs with slots and a native codec."""


def compile_protos(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    names: MethodStyle = "pep8",
    *,
    messages: Messages = "upb",
    version: str = "",
    levels: Levels | None = None,
    write: bool = True,
) -> Compilation:
    """Compile `.proto` files and all they import into packages under `out`.

    Args:
        paths: the files.
        out: the output folder; made if missing, and a package itself.
        include_dirs: where imports are looked for; a file outside all of them adds its own folder.
        names: "pep8" for methods like `get_item`, "idl" for methods as the IDL spells them.
        messages: "upb" for protobuf's own classes, "native" for structs with slots.
        version: of weego, for the first line of each file.
        levels: warning code → "error", "warn" or "ignore"; "*" for all that are not named. protoc's own have the code "protoc".
        write: False only finds out what would be written; see `Compilation.changed`.

    Raises:
        IdlError: protoc refuses the files, or is missing, or a file that nobody generated stands where one should be written.
        OSError: the output cannot be written.
    """
    report = Report(levels or {})
    files, types, wanted = load_protos(paths, include_dirs, report)
    output = Output(Path(out), report)
    with contextlib.suppress(TooManyErrors):
        emit_protos(files, types, set(wanted), output, names, messages=messages, version=version)
    report.raise_errors()
    changed = output.changed()
    if write:
        output.write(changed)
    return Compilation(output.files(), report.warnings, changed)


def load_protos(
    paths: Sequence[str | os.PathLike[str]], include_dirs: Sequence[str | os.PathLike[str]], report: Report
) -> tuple[list[ProtoFile], TypeTable, list[str]]:
    """The files and all they import, imported ones first, their types by full name, and protoc's names of the files asked for. Raises IdlError."""
    asked = [os.fspath(path) for path in paths]
    includes = [os.fspath(path) for path in include_dirs]
    descriptors, wanted = read_protos(asked, includes, report)
    report.raise_errors()
    sources = dict(zip(wanted, asked, strict=True))
    for root in reversed(proto_path(asked, includes)):
        imported = {each.name: os.path.join(root, each.name) for each in descriptors.file if each.name not in wanted}
        sources |= {name: path for name, path in imported.items() if os.path.isfile(path)}
    files, types = read_files(list(descriptors.file), sources)
    return files, types, wanted


def check_protos(
    paths: Sequence[str | os.PathLike[str]], include_dirs: Sequence[str | os.PathLike[str]] = (), *, levels: Levels | None = None
) -> Report:
    """Read and check `.proto` files without emitting."""
    report = Report(levels or {})
    read_protos([os.fspath(path) for path in paths], [os.fspath(path) for path in include_dirs], report)
    return report


def emit_protos(
    files: list[ProtoFile],
    types: TypeTable,
    roots: Collection[str],
    output: Output,
    style: MethodStyle,
    *,
    messages: Messages = "upb",
    version: str,
) -> None:
    """The modules of all files, into `output`."""
    names = Names(output.report, style)
    places = assign([file.program for file in files], output.report)
    packages: dict[tuple[str, ...], list[ProtoFile]] = {}
    for file in sorted(files, key=lambda each: each.name not in roots):
        packages.setdefault(places[file.program].package, []).append(file)
    lazy = circular(places)
    for file in files:
        place = places[file.program]
        if messages == "native":
            output.add((*place.package, f"{place.module}.py"), _native_module(file, types, places, names, version))
            continue
        output.add((*place.package, f"{module_name(place)}.py"), emit_messages(file, places, version))
        output.add((*place.package, f"{module_name(place)}.pyi"), emit_types(file, types, places, version))
        output.add((*place.package, f"{place.module}.py"), _module(file, types, places, names, version))
    for package, members in packages.items():
        modules = {places[each.program].module: _exported(each, names) for each in members}
        old = output.modules_of(package, {*modules, *(module_name(places[each.program]) for each in members)})
        text = package_text(modules | old, output.report, package, lazy=package in lazy)
        output.add((*package, "__init__.py"), header(version, [each.program for each in members]) + "\n" + text)
        for length in range(len(package)):
            output.add_folder(package[:length])


def _exported(file: ProtoFile, names: Names) -> list[str]:
    """The public names of a file's module."""
    found = _type_names(file)
    for service in file.services():
        found += [names.top(service), names.client(service)]
    return found


def _type_names(file: ProtoFile) -> list[str]:
    return [each.python[-1] for each in file.top_types()]


def _module(file: ProtoFile, types: TypeTable, places: dict[model.Program, Place], names: Names, version: str) -> str:
    """The text of `x.py`: the services, and the messages by their names."""
    place = places[file.program]
    bindings = Bindings()
    bindings.define(_exported(file, names))
    own_module = f".{module_name(place)}"

    def reference(message: MessageType, hidden: Collection[str]) -> str:
        top, *inner = message.python
        if message.file is file:
            return ".".join([bindings.own(top, hidden), *inner])
        other = places[message.file.program]
        seen = Place(other.package, module_name(other)).seen_from(place)
        return ".".join([bindings.imported(seen, top, hidden), *inner])

    services = Services(file, types, names, bindings, reference)
    classes = [block for service in file.services() for block in services.emit(service)]
    tables = [block for service in file.services() for block in services.define(service)]
    bindings.imported("weego", "stub")
    lines = [header(version, [file.program]), *lint_marks(place.module)]
    lines += docstring(file.file_doc or f"Messages and services of {file.name}.")
    lines += ["", "from __future__ import annotations"]
    imports = bindings.imports()
    if file.top_types():
        imports.append((own_module, [(name, name) for name in sorted(_type_names(file), key=import_order)]))
        imports.sort(key=lambda each: module_order(each[0]))
    lines += import_sections(imports)
    exported = sorted(_exported(file, names), key=export_order)
    lines += ["", *lay_out(Group("__all__ = [", tuple(quoted(name) for name in exported), "]"))]
    stub = bindings.imported("weego", "stub")
    lines += ["", f"{stub}.require({STUB_FORMAT}, __name__)"]
    lines += [f"{other} = {name}" for name in _type_names(file) for other in bindings.aliases(name)]
    for block in classes:
        lines += ["", "", *block]
    lines += [""] if tables else []
    for block in tables:
        lines += ["", *block]
    return "\n".join(lines).rstrip() + "\n"


def _native_module(file: ProtoFile, types: TypeTable, places: dict[model.Program, Place], names: Names, version: str) -> str:
    """The text of `x.py` with messages of ours: enums, messages, services, and the tables, where every class has its name."""
    place = places[file.program]
    bindings = Bindings()
    bindings.define(_exported(file, names))
    native = Native(file, types, places, names, bindings)
    services = Services(file, types, names, bindings, native.reference)
    classes = native.emit()
    calls = [block for service in file.services() for block in services.emit(service)]
    tables = native.define()
    specs = [block for service in file.services() for block in services.define(service)]
    stub = bindings.imported("weego", "stub")
    aliases = [f"{other} = {name}" for name in _type_names(file) for other in bindings.aliases(name)]
    lines = [header(version, [file.program]), *lint_marks(place.module)]
    lines += docstring(file.file_doc or f"Messages and services of {file.name}.")
    lines += ["", "from __future__ import annotations", *import_sections(bindings.imports())]
    lines += ["", f"{stub}.require({STUB_FORMAT}, __name__)"]
    for block in classes:
        lines += ["", "", *block]
    lines += ["", "", *aliases] if aliases else []
    for block in calls:
        lines += ["", "", *block]
    lines += ["", "", "# What the wire says of each class; down here every class has its name."] if tables else [""]
    for block in [*tables, *specs]:
        lines += [*block, ""]
    return "\n".join(lines).rstrip() + "\n"

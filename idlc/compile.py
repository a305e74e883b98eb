"""IDL files → packages of Python modules on disk: the door of the compiler.

All text is made before the first file is written, and each file is replaced in one step: a mistake in the IDL leaves the old
output as it was. The same input gives the same bytes.
"""

from __future__ import annotations

import ast as python
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from idlc import model
from idlc.bindings import export_order, import_order
from idlc.emit_python import MARK, emit, exported, header, import_lines, pyright_marks
from idlc.emit_rules import RuleSet
from idlc.errors import Diagnostic, IdlError, Levels, Report, TooManyErrors
from idlc.layout import Group, lay_out, quoted
from idlc.names import MethodStyle, Names
from idlc.output import read, replace
from idlc.packages import assign, circular
from idlc.parser import DEFAULT_DIALECT, Dialect
from idlc.plugins import Emitted, Plugin, run_all
from idlc.resolver import resolve

_FOLDER_TEXT: Final = f"{MARK}: this folder holds emitted packages.\n"


@dataclass(frozen=True, slots=True)
class Compilation:
    """What a run did: the files of the output in a fixed order, and what it wants the user to know.

    `changed` are those of the files that were not there before, or not with these bytes.
    """

    written: list[Path]
    warnings: list[Diagnostic]
    changed: list[Path]

    def __add__(self, other: Compilation) -> Compilation:
        """What two runs into the same folder did."""
        written = sorted({*self.written, *other.written})
        return Compilation(written, self.warnings + other.warnings, sorted({*self.changed, *other.changed}))


def compile_files(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    names: MethodStyle = "pep8",
    *,
    dialect: Dialect = DEFAULT_DIALECT,
    version: str = "",
    levels: Levels | None = None,
    write: bool = True,
    plugins: Sequence[Plugin] = (),
) -> Compilation:
    """Compile IDL files and all they include into packages under `out`.

    Args:
        paths: the IDL files.
        out: the output folder; made if missing, and a package itself.
        include_dirs: where included files are looked for, after the folder of the including file.
        names: "pep8" for `get_item`, "idl" for methods as the IDL spells them.
        dialect: which compiler to follow where they read a file differently (fields without ids, `017`).
        version: of weego, for the first line of each file.
        levels: warning code → "error", "warn" or "ignore"; "*" for all that are not named.
        write: False only finds out what would be written; see `Compilation.changed`.
        plugins: what else is to be made, or put into the emitted files; see `idlc.plugins`.

    Raises:
        IdlError: the IDL has mistakes, or a file that nobody generated stands where one should be written.
        OSError: the output cannot be written.
    """
    report = Report(levels or {})
    programs = resolve([os.fspath(path) for path in paths], [os.fspath(path) for path in include_dirs], report, dialect)
    report.raise_errors()
    output = Output(Path(out), report)
    roots = [os.path.realpath(path) for path in paths]
    with contextlib.suppress(TooManyErrors):
        emitted = _emit_all(programs, roots, output, names, version, points=bool(plugins))
        if plugins and not report.is_broken:
            named = [program for program in programs if os.path.realpath(program.path) in roots]
            output.extend(plugins, programs, named, version, emitted)
    report.raise_errors()
    changed = output.changed()
    if write:
        output.write(changed)
    return Compilation(output.files(), _in_order(report.warnings, programs), changed)


def _in_order(warnings: list[Diagnostic], programs: list[model.Program]) -> list[Diagnostic]:
    """By file and place, whichever step of the compiler noticed."""
    ranks = {program.path: rank for rank, program in enumerate(programs)}

    def key(warning: Diagnostic) -> tuple[int, int]:
        if warning.position is None:
            return len(ranks), 0
        return ranks.get(warning.position.file, len(ranks)), warning.position.offset

    return sorted(warnings, key=key)


def check_files(
    paths: Sequence[str | os.PathLike[str]],
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    *,
    dialect: Dialect = DEFAULT_DIALECT,
    levels: Levels | None = None,
) -> list[Diagnostic]:
    """Read and check IDL files without emitting; returns the warnings. Raises IdlError."""
    report = Report(levels or {})
    programs = resolve([os.fspath(path) for path in paths], [os.fspath(path) for path in include_dirs], report, dialect)
    if not report.is_broken:
        with contextlib.suppress(TooManyErrors):
            RuleSet(programs, report)
    report.raise_errors()
    return report.warnings


def _emit_all(
    programs: list[model.Program], roots: list[str], output: Output, style: MethodStyle, version: str, *, points: bool
) -> Emitted:
    names = Names(output.report, style)
    rules = RuleSet(programs, output.report)
    if output.report.is_broken:
        return Emitted(names, {})
    places = assign(programs, output.report)
    # Files named on the command line come first: where two modules of a package have one name, theirs is given.
    ranked = sorted(programs, key=lambda each: os.path.realpath(each.path) not in roots)
    packages: dict[tuple[str, ...], list[model.Program]] = {}
    for program in ranked:
        packages.setdefault(places[program].package, []).append(program)
    lazy = circular(places)
    for program in programs:
        place = places[program]
        output.add((*place.package, f"{place.module}.py"), emit(program, places, names, rules, version, points=points))
    for package, members in packages.items():
        modules = {places[each].module: exported(each, names) for each in members}
        old = output.modules_of(package, set(modules))
        text = package_text(modules | old, output.report, package, lazy=package in lazy)
        marks = pyright_marks(reportPrivateUsage=any(name.startswith("_") for each in (modules | old).values() for name in each))
        output.add((*package, "__init__.py"), "\n".join([header(version, members), *marks, text]))
        for length in range(len(package)):
            output.add_folder(package[:length])
    return Emitted(names, places)


def package_text(modules: dict[str, list[str]], report: Report, package: tuple[str, ...], *, lazy: bool) -> str:
    """The `__init__.py` of a package: everything its modules define."""
    given: dict[str, str] = {}
    for module, names in modules.items():
        for name in names:
            first = given.setdefault(name, module)
            if first != module:
                dotted = ".".join(package)
                message = f"{dotted}.{name} is that of {dotted}.{first}; import the other from {dotted}.{module}"
                report.warn("same-name", message, None)
    ordered = sorted(given, key=export_order)
    lines = [f'"""Everything that {" and ".join(sorted(modules))} define{"s" if len(modules) == 1 else ""}."""', ""]
    if lazy:
        lines += ["from __future__ import annotations", "", "from importlib import import_module"]
        lines += ["from typing import TYPE_CHECKING", "", "if TYPE_CHECKING:"]
    indent = "    " if lazy else ""
    imports: list[str] = []
    for module in sorted(modules):
        own = [(name, name) for name in sorted(given, key=import_order) if given[name] == module]
        imports += [indent + line for line in import_lines(f".{module}", own)]
    lines += imports or ([indent + "pass"] if lazy else [])
    if lazy:
        table = Group("_MODULES = {", tuple(f"{quoted(name)}: {quoted(given[name])}" for name in ordered), "}")
        lines += ["", *lay_out(table)]
    if ordered:
        lines += [""] if imports or lazy else []
        lines += lay_out(Group("__all__ = [", tuple(quoted(name) for name in ordered), "]"))
    if lazy:
        lines += _LAZY_LOOKUP
    return "\n".join(lines).rstrip() + "\n"


# Packages that need each other in a circle look their names up when somebody asks for them.
_LAZY_LOOKUP: Final = [
    "",
    "",
    "def __getattr__(name: str) -> object:",
    "    if name not in _MODULES:",
    '        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")',
    '    value: object = getattr(import_module(f".{_MODULES[name]}", __name__), name)',
    "    globals()[name] = value",
    "    return value",
]


@dataclass(slots=True)
class Output:
    """The files of one run, kept until all are known to be right. `is_memory`: somebody else writes them, the disk does not matter."""

    root: Path
    report: Report
    is_memory: bool = False
    _texts: dict[Path, str] = field(default_factory=dict)

    def add(self, parts: tuple[str, ...], text: str) -> None:
        """A file to write; never over one that was not generated."""
        path = self.root.joinpath(*parts)
        if self._exists(path) and not _is_ours(path):
            self.report.error(
                "not-ours",
                f"{path} was not generated by weego and would be overwritten",
                None,
                "move it away, or choose another output folder with -o",
            )
        self._texts[path] = text

    def add_folder(self, parts: tuple[str, ...]) -> None:
        """The `__init__.py` that makes a folder a package; one that is there already stays."""
        path = self.root.joinpath(*parts, "__init__.py")
        if path not in self._texts and (not self._exists(path) or path.read_bytes() == _FOLDER_TEXT.encode()):
            self._texts[path] = _FOLDER_TEXT

    def modules_of(self, package: tuple[str, ...], fresh: set[str]) -> dict[str, list[str]]:
        """Modules that earlier runs put into the package, and what it gave of them."""
        path = self.root.joinpath(*package, "__init__.py")
        if not self._exists(path) or not _is_ours(path):
            return {}
        found: dict[str, list[str]] = {}
        with contextlib.suppress(SyntaxError):
            for node in python.walk(python.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, python.ImportFrom) and node.level == 1 and node.module not in {*fresh, None}:
                    module = path.with_name(f"{node.module}.py")
                    if module.exists() and _is_ours(module):
                        found[str(node.module)] = [alias.name for alias in node.names]
        return dict(sorted(found.items()))

    def _exists(self, path: Path) -> bool:
        return not self.is_memory and path.exists()

    def texts(self) -> list[tuple[str, str]]:
        """Path below the root and text of each file, sorted."""
        return [(path.relative_to(self.root).as_posix(), self._texts[path]) for path in self.files()]

    def files(self) -> list[Path]:
        """All files, sorted."""
        return sorted(self._texts)

    def extend(
        self,
        plugins: Sequence[Plugin],
        programs: Sequence[model.Program],
        roots: Sequence[model.Program],
        version: str,
        emitted: Emitted,
    ) -> None:
        """Let plugins add files and text; a file of the user's that one would replace is an error."""
        before = set(self._texts)
        run_all(plugins, programs, roots, self._texts, self.root, version, emitted, self.report)
        for path in set(self._texts) - before:
            # What a plugin writes bears its own marks, if any: only what some run of ours wrote is replaced.
            if self._exists(path) and read(path) != self._texts[path].encode() and not _was_generated(path):
                self.report.error("not-ours", f"{path} was not generated and a plugin would overwrite it", None, "move it away")

    def changed(self) -> list[Path]:
        """The files that do not stand on disk as they should."""
        return [path for path in self.files() if read(path) != self._texts[path].encode()]

    def write(self, paths: list[Path]) -> None:
        """Write these files, each in one step."""
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, self._texts[path].encode())


def _was_generated(path: Path) -> bool:
    """Does a file say near its top that it is generated? The words differ from tool to tool."""
    start = path.read_bytes()[:1000].lower()
    return b"generated" in start or b"do not edit" in start


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(len(MARK))
    return not start or start == MARK.encode()


__all__ = ["Compilation", "IdlError", "check_files", "compile_files"]

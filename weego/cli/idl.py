"""`weego idl`: check, format, trim, compare and dump IDL files.

Exit codes of all of them: 0 fine, 1 mistakes or differences were found, 2 typed wrong.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import click

from weego.cli.idl_options import dialect_option, include_option, show, warnings_option
from weego.log import stderr_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idlc import model
    from idlc.diff import Change
    from idlc.errors import Levels
    from idlc.proto_files import ProtoFile

__all__ = ["idl"]

EX_FOUND: Final = 1
EX_USAGE: Final = 2

_Dialect = Literal["apache", "kitex"]
_CONTEXT: Final = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_CONTEXT)
def idl() -> None:
    """Check, format, trim, compare and dump IDL files."""


@contextmanager
def _mistakes() -> Iterator[None]:
    """Mistakes in IDL go to stderr with their lines, what the system refuses in one line."""
    from idlc.errors import IdlError

    try:
        yield
    except IdlError as error:
        click.echo(str(error), err=True)
        sys.exit(EX_FOUND)
    except OSError as error:
        _fail(EX_FOUND, f"{error.filename or 'idl'}: {(error.strerror or str(error)).lower()}")


def _fail(code: int, message: str) -> NoReturn:
    stderr_line(f"weego idl: {message}")
    sys.exit(code)


def _read(files: Sequence[str], include: Sequence[str], dialect: _Dialect) -> list[model.Program]:
    """The model of the files and all they include; IdlError when they have mistakes."""
    from idlc.errors import Report
    from idlc.resolver import resolve

    report = Report()
    programs = resolve(list(files), list(include), report, dialect)
    report.raise_errors()
    return programs


def _families(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Thrift files and Protobuf files."""
    return [file for file in files if not file.endswith(".proto")], [file for file in files if file.endswith(".proto")]


def _only_thrift(command: str, files: Sequence[str]) -> None:
    if protos := _families(files)[1]:
        _fail(EX_USAGE, f"{protos[0]}: {command} is for Thrift files")


def _roots(programs: Sequence[model.Program], files: Sequence[str]) -> list[model.Program]:
    """The programs of the files that were named, in their order."""
    by_path = {os.path.realpath(program.path): program for program in programs}
    return [by_path[os.path.realpath(file)] for file in files]


# ---- check -----------------------------------------------------------------------------------------------------------


@idl.command(context_settings=_CONTEXT)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@include_option
@dialect_option
@warnings_option
@click.option("--json", "as_json", is_flag=True, help="Errors and warnings as a JSON array on stdout, for editors.")
def check(files: tuple[str, ...], include: tuple[str, ...], dialect: _Dialect, warnings: Levels, as_json: bool) -> None:
    """Read and check files and all they include, and say everything there is to say about them."""
    from idlc.compile import check_files
    from idlc.errors import IdlError

    thrift, protos = _families(files)
    try:
        found = check_files(thrift, include, dialect=dialect, levels=warnings) if thrift else []
        if protos:
            from idlc.proto_compile import check_protos

            report = check_protos(protos, include, levels=warnings)
            report.raise_errors()
            found += report.warnings
    except IdlError as error:
        if as_json:
            click.echo(json.dumps([each.plain() for each in error.diagnostics], indent=2, ensure_ascii=False))
        else:
            click.echo(str(error), err=True)
        sys.exit(EX_FOUND)
    if as_json:
        click.echo(json.dumps([each.plain() for each in found], indent=2, ensure_ascii=False))
    else:
        show(found, whole=True)


# ---- format ----------------------------------------------------------------------------------------------------------


@idl.command("format", context_settings=_CONTEXT)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", "only_check", is_flag=True, help="Change nothing; exit with 1 if a file would change.")
@click.option("--diff", "show_diff", is_flag=True, help="Change nothing; print what would change.")
def format_(files: tuple[str, ...], only_check: bool, show_diff: bool) -> None:
    """Lay files out in one way; only blanks change. "-" reads stdin and writes stdout."""
    from idlc.formatter import format_text
    from idlc.output import replace

    _only_thrift("format", files)
    changed = False
    with _mistakes():
        for file in files:
            text = sys.stdin.read() if file == "-" else _text(file)
            result = format_text("<stdin>" if file == "-" else file, text)
            if file == "-" and not (only_check or show_diff):
                click.echo(result, nl=False)
                continue
            if result == text:
                continue
            changed = True
            if show_diff:
                lines = difflib.unified_diff(text.splitlines(keepends=True), result.splitlines(keepends=True), file, file)
                click.echo("".join(lines), nl=False)
            elif only_check:
                click.echo(f"would format {file}")
            else:
                replace(Path(file), result.encode())
                click.echo(f"formatted {file}")
    if changed and (only_check or show_diff):
        sys.exit(EX_FOUND)


def _text(file: str) -> str:
    try:
        return Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _fail(EX_FOUND, f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8 first")


# ---- trim ------------------------------------------------------------------------------------------------------------


@idl.command(context_settings=_CONTEXT)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--out", metavar="DIR", help="Write the trimmed files here, lying to each other as they do; without it one file goes to stdout.")
@click.option("-m", "--method", "methods", multiple=True, metavar="REGEX", help="Keep only these methods: Service.method, or the method; repeatable.")
@click.option("--keep", multiple=True, metavar="NAME", help="A struct that stays in any case; repeatable.")
@click.option("--no-preserve", is_flag=True, help="@preserve in comments keeps nothing.")
@include_option
@dialect_option
def trim(
    files: tuple[str, ...],
    out: str | None,
    methods: tuple[str, ...],
    keep: tuple[str, ...],
    no_preserve: bool,
    include: tuple[str, ...],
    dialect: _Dialect,
) -> None:
    """Cut out the structs that no service needs, and methods that were not asked for."""
    import re

    from idlc.output import write_changed
    from idlc.trim import UnknownMethod
    from idlc.trim import trim as trim_programs

    _only_thrift("trim", files)
    with _mistakes():
        programs = _read(files, include, dialect)
        try:
            result = trim_programs(programs, _roots(programs, files), methods=methods, keep=keep, preserve=not no_preserve)
        except UnknownMethod as error:
            _fail(EX_USAGE, f"-m: {error}")
        except re.error as error:
            _fail(EX_USAGE, f"-m: not a regular expression: {error}")
        if out is None:
            if len(files) > 1:
                _fail(EX_USAGE, "several files: name a folder for the result with -o")
            click.echo(result.texts[_roots(programs, files)[0]], nl=False)
        else:
            top = os.path.commonpath([os.path.dirname(os.path.realpath(program.path)) for program in programs])
            texts = {Path(out, os.path.relpath(os.path.realpath(program.path), top)): text for program, text in result.texts.items()}
            if any(path.resolve() == Path(program.path).resolve() for path in texts for program in programs):
                _fail(EX_USAGE, f"-o {out}: the trimmed files would replace the files themselves; choose another folder")
            for path in write_changed(texts):
                click.echo(f"wrote {path}")
    kept = sum(len([each for each in program.definitions if type(each).__name__ == "Struct"]) for program in programs) - len(result.structs)
    stderr_line(f"cut {len(result.structs)} of {kept + len(result.structs)} structs and {len(result.methods)} methods")


# ---- diff ------------------------------------------------------------------------------------------------------------


@idl.command(context_settings=_CONTEXT)
@click.argument("files", nargs=-1, required=True, metavar="[OLD] NEW")
@click.option("--against", metavar="REVISION", help="Compare each file with itself in this git revision instead of with OLD: main, HEAD~3, v1.2.")
@include_option
@dialect_option
@click.option("--json", "as_json", is_flag=True, help="The changes as a JSON array.")
@click.option("--all", "show_all", is_flag=True, help="Additions too, which break nobody.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
def diff(
    files: tuple[str, ...],
    against: str | None,
    include: tuple[str, ...],
    dialect: _Dialect,
    as_json: bool,
    show_all: bool,
    strict: bool,
) -> None:
    """Say what changed between two versions of an IDL, and whether it breaks peers that have the other one.

    \b
    weego idl diff old/shop.thrift shop.thrift
    weego idl diff shop.thrift --against main        # in CI: exit code 1 when something breaks
    """  # noqa: D301 - click reads the \b
    from idlc.diff import compare

    if against is None and len(files) != 2:
        _fail(EX_USAGE, "give the old file and the new one, or --against REVISION")
    thrift, protos = _families(files)
    if thrift and protos:
        _fail(EX_USAGE, "compare Thrift files and .proto files in runs of their own")
    with _mistakes():
        if protos:
            changes = _compare_protos(protos, against, include)
        elif against is None:
            old = _read(files[:1], include, dialect)
            new = _read(files[1:], include, dialect)
            changes = compare(old, new, dict(zip(_roots(old, files[:1]), _roots(new, files[1:]), strict=True)))
        else:
            changes = compare(*_versions(against, files, include, dialect))
    worst = {change.severity for change in changes}
    shown = [change for change in changes if show_all or change.severity != "addition"]
    if as_json:
        click.echo(json.dumps([change.plain() for change in shown], indent=2, ensure_ascii=False))
    else:
        for change in shown:
            click.echo(str(change))
    if "breaking" in worst or (strict and "warning" in worst):
        sys.exit(EX_FOUND)


def _versions(
    revision: str, files: Sequence[str], include: Sequence[str], dialect: _Dialect
) -> tuple[list[model.Program], list[model.Program], dict[model.Program, model.Program]]:
    """The files in a git revision, the files now, and which of them is which one now."""
    with _before(revision, files, include) as (before, folders):
        old = _read(before, folders, dialect)
        new = _read(files, include, dialect)
        return old, new, dict(zip(_roots(old, before), _roots(new, files), strict=True))


@contextmanager
def _before(revision: str, files: Sequence[str], include: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The files, and the folders for includes, as they were in a git revision."""
    from weego.cli.revision import GitError, checkout

    try:
        with checkout(revision, os.path.dirname(os.path.realpath(files[0]))) as tree:
            before = [tree.path(file) for file in files]
            missing = [file for file, path in zip(files, before, strict=True) if not os.path.exists(path)]
            if missing:
                _fail(EX_FOUND, f"{', '.join(missing)}: not in revision {revision}")
            yield before, [tree.path(each) for each in include]
    except GitError as error:
        _fail(EX_FOUND, str(error))


def _compare_protos(files: Sequence[str], against: str | None, include: Sequence[str]) -> list[Change]:
    """The changes of .proto files: of what was named, and of imports that lie beside it."""
    from idlc.errors import Report
    from idlc.proto_compile import load_protos
    from idlc.proto_diff import compare_protos

    def own(paths: Sequence[str], folders: Sequence[str]) -> list[ProtoFile]:
        found, _, _ = load_protos(paths, folders, Report({}))
        return [file for file in found if not file.name.startswith("google/protobuf/")]

    if against is None:
        return compare_protos(own(files[:1], include), own(files[1:], include))
    with _before(against, files, include) as (before, folders):
        return compare_protos(own(before, folders), own(files, include))


# ---- dump ------------------------------------------------------------------------------------------------------------


@idl.command(context_settings=_CONTEXT)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@include_option
@dialect_option
def dump(files: tuple[str, ...], include: tuple[str, ...], dialect: _Dialect) -> None:
    """Print everything the files say, comments and annotations too, as JSON for other programs."""
    from idlc.dump import dump as dump_programs

    thrift, protos = _families(files)
    with _mistakes():
        found = dump_programs(_read(thrift, include, dialect) if thrift else [])
        if protos:
            from idlc.errors import Report
            from idlc.proto_compile import load_protos
            from idlc.proto_dump import dump_protos

            read, types, _ = load_protos(protos, include, Report({}))
            found["files"] += dump_protos(read, types)["files"]
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))

"""`weego gen`: Thrift and Protobuf IDL files to typed Python."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from idlc.errors import Levels
from weego import __version__
from weego.cli.idl_options import dialect_option, include_option, show, warnings_option
from weego.log import stderr_line

if TYPE_CHECKING:
    from pathlib import Path

    from idlc import Compilation
    from idlc.errors import Diagnostic
    from idlc.names import MethodStyle
    from idlc.parser import Dialect
    from idlc.plugins import Plugin
    from idlc.proto_compile import Messages


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder to write the packages into; made if missing.")
@include_option
@dialect_option
@warnings_option
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 and the names of the files that are not up to date.")
@click.option(
    "--names",
    type=click.Choice(["pep8", "idl"]),
    default="pep8",
    show_default=True,
    help="Method names: snake_case as PEP 8 wants, or as the IDL spells them.",
)
@click.option(
    "--messages",
    type=click.Choice(["upb", "native"]),
    default="upb",
    show_default=True,
    help="Messages of .proto files: protobuf's own classes, or structs with slots and a native codec.",
)
@click.option(
    "-t",
    "--target",
    default="python",
    show_default=True,
    metavar="NAME[:K=V,...]",
    help="What to make of Thrift files instead: typescript, jsonschema, markdown, html, or what an installed package adds.",
)
@click.option(
    "-p",
    "--plugin",
    "plugins",
    multiple=True,
    metavar="NAME[=PATH][:K=V,...]",
    help="A plugin for Thrift files: an installed one, or a program that speaks thriftgo's protocol (thrift-gen-NAME); may be repeated.",
)
@click.option("--templates", metavar="DIR", help="A folder of your own templates, for text in the emitted modules and for further files.")
def gen(
    files: tuple[str, ...],
    out: str,
    include: tuple[str, ...],
    names: MethodStyle,
    dialect: Dialect,
    warnings: Levels,
    check: bool,
    messages: Messages,
    target: str,
    plugins: tuple[str, ...],
    templates: str | None,
) -> None:
    """Generate typed Python from Thrift (.thrift) and Protobuf (.proto) files, and from every file they include.

    The package is named by Thrift's `namespace py` or Protobuf's `package`, or by the file: echo.thrift becomes DIR/echo.
    Reading .proto files takes protoc: pip install 'weego[proto]'.
    """
    if (plugins or templates is not None) and (target != "python" or all(file.endswith(".proto") for file in files)):
        stderr_line("weego gen: plugins and templates are for Python from Thrift files")
        sys.exit(2)
    if target != "python":
        _other(target, files, out, include, dialect, warnings, check=check)
        return
    if os.path.realpath(out) == os.path.realpath(os.curdir):
        stderr_line(f"weego gen: -o {out}: the output folder becomes a package, the one you import from; name a folder of its own: -o gen")
        sys.exit(2)
    from idlc import IdlError
    from idlc.plugins import PluginError, find_plugin

    try:
        found = [find_plugin(each) for each in plugins]
        if templates is not None:
            from idlc.templates import find_templates

            found.append(find_templates(templates))
        made = _compile(files, out, include, names, dialect, warnings, messages, found, write=not check)
    except PluginError as error:
        stderr_line(f"weego gen: {error}")
        sys.exit(2)
    except IdlError as error:
        click.echo(str(error), err=True)  # several lines: the mistakes with the source they are in, as compilers show them
        sys.exit(1)
    except OSError as error:
        stderr_line(f"weego gen: {error.filename or out}: {(error.strerror or str(error)).lower()}")
        sys.exit(1)
    _finish(made.warnings, made.changed if check else [])


def _finish(warnings: list[Diagnostic], stale: list[Path]) -> None:
    show(warnings)
    for path in stale:
        stderr_line(f"weego gen: {path}: {'not what the IDL says now' if path.exists() else 'missing'}; run `weego gen` again")
    if stale:
        sys.exit(1)


def _other(
    target: str,
    files: tuple[str, ...],
    out: str,
    include: tuple[str, ...],
    dialect: Dialect,
    levels: Levels,
    *,
    check: bool,
) -> None:
    """Hand the files to a back end."""
    from idlc import IdlError
    from idlc.backends import UnknownBackend, UnknownOption, run

    name, _, rest = target.partition(":")
    pairs = [option.partition("=") for option in rest.split(",") if option]
    options = {key: value if sign else "true" for key, sign, value in pairs}
    try:
        made = run(name, files, out, include, options=options, dialect=dialect, levels=levels, write=not check)
    except (UnknownBackend, UnknownOption) as error:
        stderr_line(f"weego gen: --target {target}: {error}")
        sys.exit(2)
    except IdlError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except OSError as error:
        stderr_line(f"weego gen: {error.filename or out}: {(error.strerror or str(error)).lower()}")
        sys.exit(1)
    _finish(made.warnings, made.changed if check else [])


def _compile(
    files: tuple[str, ...],
    out: str,
    include: tuple[str, ...],
    names: MethodStyle,
    dialect: Dialect,
    levels: Levels,
    messages: Messages,
    plugins: list[Plugin],
    *,
    write: bool,
) -> Compilation:
    """Each family by its own compiler; what both did."""
    from idlc import Compilation, compile_files

    made = Compilation([], [], [])
    protos = [file for file in files if file.endswith(".proto")]
    others = [file for file in files if not file.endswith(".proto")]
    if others:
        made += compile_files(
            others,
            out,
            list(include),
            names,
            dialect=dialect,
            version=__version__,
            levels=levels,
            write=write,
            plugins=plugins,
        )
    if protos:
        from idlc.proto_compile import compile_protos

        made += compile_protos(
            protos, out, list(include), names, messages=messages, version=__version__, levels=levels, write=write
        )
    return made

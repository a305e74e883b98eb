"""`weego gen`: IDL files to typed Python."""

from __future__ import annotations

import os
import sys
from typing import Literal

import click

from idlc.errors import Levels
from weego import __version__
from weego.cli.idl_options import dialect_option, include_option, show, warnings_option
from weego.log import stderr_line


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
def gen(
    files: tuple[str, ...],
    out: str,
    include: tuple[str, ...],
    names: Literal["pep8", "idl"],
    dialect: Literal["apache", "kitex"],
    warnings: Levels,
    check: bool,
) -> None:
    """Generate typed Python from Thrift IDL files, and from every file they include.

    The package is named by `namespace py`, or by the file: echo.thrift becomes DIR/echo.
    """
    if os.path.realpath(out) == os.path.realpath(os.curdir):
        stderr_line(f"weego gen: -o {out}: the output folder becomes a package, the one you import from; name a folder of its own: -o gen")
        sys.exit(2)
    from idlc import IdlError, compile_files

    try:
        made = compile_files(
            list(files), out, list(include), names, dialect=dialect, version=__version__, levels=warnings, write=not check
        )
    except IdlError as error:
        click.echo(str(error), err=True)  # several lines: the mistakes with the source they are in, as compilers show them
        sys.exit(1)
    except OSError as error:
        stderr_line(f"weego gen: {error.filename or out}: {(error.strerror or str(error)).lower()}")
        sys.exit(1)
    show(made.warnings)
    if check and made.changed:
        for path in made.changed:
            stderr_line(f"weego gen: {path}: {'not what the IDL says now' if path.exists() else 'missing'}; run `weego gen` again")
        sys.exit(1)

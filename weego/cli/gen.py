"""`weego gen`: IDL files to typed Python."""

from __future__ import annotations

import os
import sys
from typing import Literal

import click

from weego import __version__
from weego.log import stderr_line


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder to write the packages into; made if missing.")
@click.option("-I", "--include", "include", multiple=True, metavar="DIR", help="Folder to look for includes in; may be repeated.")
@click.option(
    "--names",
    type=click.Choice(["pep8", "idl"]),
    default="pep8",
    show_default=True,
    help="Method names: snake_case as PEP 8 wants, or as the IDL spells them.",
)
def gen(files: tuple[str, ...], out: str, include: tuple[str, ...], names: Literal["pep8", "idl"]) -> None:
    """Generate typed Python from Thrift IDL files, and from every file they include.

    The package is named by `namespace py`, or by the file: echo.thrift becomes DIR/echo.
    """
    if os.path.realpath(out) == os.path.realpath(os.curdir):
        stderr_line(f"weego gen: -o {out}: the output folder becomes a package, the one you import from; name a folder of its own: -o gen")
        sys.exit(2)
    from idlc import IdlError, compile_files

    try:
        made = compile_files(list(files), out, list(include), names=names, version=__version__)
    except IdlError as error:
        click.echo(str(error), err=True)  # several lines: the mistakes with the source they are in, as compilers show them
        sys.exit(1)
    except OSError as error:
        stderr_line(f"weego gen: {error.filename or out}: {(error.strerror or str(error)).lower()}")
        sys.exit(1)
    for warning in made.warnings:
        click.echo(str(warning), err=True)

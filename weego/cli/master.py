"""`weego-master CONF`: check a configuration, print it, or become the master.

The process that becomes the master keeps what it imports for as long as it lives, so the plain call takes a short cut: no click,
no msgspec, no gevent, no code of the user's. Options need click and never lead to a master.
"""

from __future__ import annotations

import sys
from typing import Final

from weego.log import stderr_line

__all__ = ["main"]

EX_CONFIG: Final = 78  # sysexits.h: something in the configuration, or in the code it names, is wrong


def main() -> None:
    """Entry point of the console script `weego-master`; exits with 0, 78 (a mistake of the user's), 71 or 70."""
    arguments = sys.argv[1:]
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        sys.exit(_serve(arguments[0]))
    _command()


def _serve(conf: str) -> int:
    from weego.app import run_master

    return run_master(conf)


def _command() -> None:
    import click

    import weego

    @click.command(context_settings={"help_option_names": ["-h", "--help"]})
    @click.argument("conf", metavar="CONF")
    @click.option("--check", is_flag=True, help="Validate the file, the services and the paths; bind nothing, then exit.")
    @click.option("--print-config", is_flag=True, help="Print the effective configuration, defaults included, then exit.")
    @click.version_option(weego.__version__, prog_name="weego-master")
    def weego_master(conf: str, *, check: bool, print_config: bool) -> None:
        """Serve what CONF (a TOML file) describes: bind, start the workers, keep them alive.

        \b
        TERM, INT   stop: finish the calls in progress, then exit
        QUIT        stop at once
        HUP         reload configuration and code without losing a request
        TTIN, TTOU  one worker more, one worker less
        """  # noqa: D301 - click reads the \b
        sys.exit(_inspect(conf, check=check, print_config=print_config) if check or print_config else _serve(conf))

    weego_master.main(prog_name="weego-master")


def _inspect(conf: str, *, check: bool, print_config: bool) -> int:
    """--check and --print-config. A mistake of the user's is one line; anything else is a bug and keeps its traceback."""
    from prefork.application import LoadError
    from weego import config

    try:
        loaded = config.load(conf)
        if check:
            from weego import app

            app.check(conf)
    except (config.ConfigError, LoadError) as error:
        stderr_line(f"weego-master: {error}")
        return EX_CONFIG
    if print_config:
        sys.stdout.write(config.dump(loaded))
    else:
        sys.stdout.write(f"{conf}: good\n")
    return 0

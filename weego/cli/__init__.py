"""The command line: `weego-master` (master.py) and `weego` with its commands, each in a file of its own, loaded when called."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script `weego`."""
    from weego.cli.commands import weego

    weego.main(prog_name="weego")

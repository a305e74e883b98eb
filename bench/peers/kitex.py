"""Kitex, Go, with GOMAXPROCS=1: what one weego worker is compared with. Framings are detected, as weego does."""

from __future__ import annotations

import os
import sys

from bench.go import GoMissing, kitex
from bench.peers.serving import options


def main() -> None:
    chosen = options("pingpong", "shared")
    try:
        program = str(kitex())
    except GoMissing as missing:
        raise ModuleNotFoundError(str(missing)) from None
    command = [program, "serve", "-port", str(chosen.port)]
    if chosen.variant == "shared":
        command.append("-shared")
    sys.stdout.flush()
    os.execve(program, command, {**os.environ, "GOMAXPROCS": "1"})


if __name__ == "__main__":
    main()

"""The floor: ``bench/floor.c``, which sends back the bytes it receives."""

from __future__ import annotations

import os
import sys

from bench.native import program


def main() -> None:
    floor = str(program("floor"))
    os.execv(floor, [floor, *sys.argv[1:]])


if __name__ == "__main__":
    main()

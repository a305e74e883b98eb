"""The compiled half of the build; everything else is in pyproject.toml.

Every ``.pyx`` of a room becomes an extension of the same name. The generated C goes to ``build/cython``, so that neither
the tree nor a wheel ever holds any. ``WEEGO_WITHOUT_EXTENSIONS=1`` leaves the extensions out: the Makefile uses it for the
editable install and compiles in place in a second, incremental step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
ROOMS = ("codec", "poller", "governance", "idlc", "prefork", "weego")
JOBS = 2
NO_COMPILER = "weego needs a C compiler: apt-get install gcc python3-dev"


def extensions() -> list[Extension]:
    if os.environ.get("WEEGO_WITHOUT_EXTENSIONS") == "1":
        return []
    sources = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.pyx"))
    return [
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            include_dirs=[".", str(source.parent), *greenlet_includes()],
            extra_compile_args=["-O3", "-g0"],
        )
        for source in sources
    ]


def greenlet_includes() -> list[str]:
    """So that both ``#include "greenlet/greenlet.h"`` and ``"greenlet.h"`` are found; the package ships the header."""
    import greenlet

    package = Path(greenlet.__file__).parent
    return [str(package.parent), str(package)]


def has_compiler() -> bool:
    """Can the compiler setuptools is going to call build against Python.h? (gcc without python3-dev cannot.)"""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc").split()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <Python.h>\n#include <stdio.h>\n")
        include = sysconfig.get_path("include")
        command = [*compiler, f"-I{include}", "-fsyntax-only", str(source)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


class BuildExt(build_ext):
    """Cython first, into ``build/cython``; an Extension keeps its .pyx as its source, which the sdist needs."""

    def finalize_options(self) -> None:
        if self.distribution.ext_modules:
            if not has_compiler():
                sys.exit(NO_COMPILER)
            from Cython.Build import cythonize
            from Cython.Compiler.Errors import CompileError

            try:
                self.distribution.ext_modules = cythonize(
                    self.distribution.ext_modules,
                    nthreads=JOBS,
                    build_dir="build/cython",
                    include_path=["."],
                    language_level=3,
                    quiet=True,
                )
            except CompileError:  # Cython has shown the place; its own stack says nothing about ours
                sys.exit(1)
        super().finalize_options()
        self.parallel = self.parallel or JOBS


if __name__ == "__main__":  # cythonize starts worker processes that import this file again
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})

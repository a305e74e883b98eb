"""Where emitted modules lie: one module for each IDL file, in the package its `namespace py` names.

Files without that namespace get a package named by their stem. Several files may share a package; its `__init__.py` gives
all they define.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idlc import model
from idlc.errors import Report
from idlc.names import identifier


@dataclass(frozen=True, slots=True)
class Place:
    """A module: the parts of its package below the output folder, and its own name."""

    package: tuple[str, ...]
    module: str

    def seen_from(self, other: Place) -> str:
        """The relative import path: `..base.base` from `echo/echo.py`."""
        shared = 0
        for mine, theirs in zip(self.package, other.package, strict=False):
            if mine != theirs:
                break
            shared += 1
        dots = "." * (len(other.package) - shared + 1)
        return dots + ".".join([*self.package[shared:], self.module])

    def __str__(self) -> str:
        return ".".join([*self.package, self.module])


def assign(programs: Sequence[model.Program], report: Report) -> dict[model.Program, Place]:
    """A place for each file; two files never share one."""
    packages = {program: _package(program) for program in programs}
    # A module beside a package of the same name would be hidden by it.
    folders = {package[:length] for package in packages.values() for length in range(1, len(package) + 1)}
    places: dict[model.Program, Place] = {}
    taken: dict[Place, model.Program] = {}
    for program, package in packages.items():
        name = identifier(program.stem)
        place = Place(package, name)
        while (*package, place.module) in folders:
            place = Place(package, place.module + "_")
        number = 2
        while place in taken:
            place = Place(package, f"{name}_{number}")
            number += 1
        if number > 2:
            first = taken[Place(package, name)]
            report.warn(
                "same-module",
                f"{program.path} and {first.path} both want the module {Place(package, name)}; this one is {place}",
                None,
                "give one of them a `namespace py`",
            )
        taken[place] = program
        places[program] = place
    return places


def _package(program: model.Program) -> tuple[str, ...]:
    namespace = program.namespaces.get("py")
    if namespace:
        return tuple(identifier(part) for part in namespace.split(".") if part)
    return (identifier(program.stem),)


def circular(places: dict[model.Program, Place]) -> set[tuple[str, ...]]:
    """Packages that import each other in a circle, though their files do not.

    Importing any module of a package runs its `__init__.py` and those of the packages above it. Where that leads back,
    an `__init__.py` that imports at once would meet half-made modules.
    """
    needs: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    packages = {place.package for place in places.values()}
    for program, place in places.items():
        wanted = needs.setdefault(place.package, set())
        for included in program.includes:
            target = places[included].package
            wanted |= {target[:length] for length in range(1, len(target) + 1)} & packages
        wanted.discard(place.package)
    for package in packages:
        needs[package] |= {package[:length] for length in range(1, len(package))} & packages

    def reaches_itself(start: tuple[str, ...]) -> bool:
        seen: set[tuple[str, ...]] = set()
        open_ = list(needs[start])
        while open_:
            package = open_.pop()
            if package == start:
                return True
            if package not in seen:
                seen.add(package)
                open_ += needs[package]
        return False

    return {package for package in packages if reaches_itself(package)}

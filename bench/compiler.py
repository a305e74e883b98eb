"""What the compiler costs: `python -m bench.compiler`. CPU milliseconds, the best of several rounds, with the aims beside them.

A Thrift file of 84 KB (300 structs and a service) is parsed and checked, then emitted; a package of 500 structs of eight fields is
imported by a fresh interpreter, bytecode cached, once as weego emits it and once as slots dataclasses for comparison.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROUNDS: Final = 7
_ROOT: Final = Path(__file__).resolve().parents[1]
_FIELDS: Final = """\
  1: required i64 id
  2: string name
  3: optional i32 count = {number}
  4: list<string> tags
  5: map<string, i64> counters
  6: Colour colour = Colour.RED
  7: optional Record{before} previous
  8: double weight (go.tag = "json")
"""


def idl(structs: int) -> str:
    """A file of so many structs, and a service with a method for each fifth."""
    parts = ["namespace py big", "enum Colour { RED = 1, GREEN = 2, BLUE = 3 }"]
    for number in range(structs):
        fields = _FIELDS.format(number=number, before=max(0, number - 1))
        parts.append(f"/** Record number {number}. */\nstruct Record{number} {{\n{fields}}}\n")
    methods = [f"  /** Get one. */ Record{number} getRecord{number}(1: i64 id, 2: string why)" for number in range(0, structs, 5)]
    return "\n".join([*parts, "service Records {", *methods, "}"])


def dataclasses(structs: int) -> str:
    """The same structs the way a plain generator would write them."""
    parts = ["from __future__ import annotations\nfrom dataclasses import dataclass, field\n"]
    for number in range(structs):
        parts.append(
            f"@dataclass(slots=True, kw_only=True)\nclass Record{number}:\n    id: int\n    name: str = ''\n    count: int = {number}\n"
            "    tags: list[str] = field(default_factory=list)\n    counters: dict[str, int] = field(default_factory=dict)\n"
            f"    colour: int = 1\n    previous: Record{max(0, number - 1)} | None = None\n    weight: float = 0.0\n"
        )
    return "\n".join(parts)


def best(action: Callable[[], object]) -> float:
    """CPU milliseconds of the quickest round."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times) * 1000


def import_time(folder: Path, module: str) -> float:
    """CPU milliseconds that an import takes in an interpreter that has weego's runtime already."""
    script = f"import time, weego.stub; weego.stub.Client\nstart = time.process_time()\nimport {module}\nprint(time.process_time() - start)"
    command = [sys.executable, "-c", script]
    environment = {"PYTHONPATH": f"{folder}:{_ROOT}"}
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(ROUNDS)]
    return min(float(run.stdout) for run in runs) * 1000


def measure() -> dict[str, dict[str, float]]:
    """Figure → measured milliseconds and the aim; 0 where there is none."""
    from idlc.compile import check_files, compile_files

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "big.thrift"
        path.write_text(idl(300))
        size = path.stat().st_size / 1000
        check = best(lambda: check_files([path]))
        whole = best(lambda: compile_files([path], folder / "gen"))
        many = folder / "many.thrift"
        many.write_text(idl(500))
        compile_files([many], folder / "gen500")
        (folder / "plain.py").write_text(dataclasses(500))
        return {
            f"parse and check {size:.0f} KB": {"ms": check, "aim": 100},
            "emit it": {"ms": whole - check, "aim": 300},
            "import 500 structs": {"ms": import_time(folder, "gen500.big.many"), "aim": 50},
            "import 500 slots dataclasses": {"ms": import_time(folder, "plain"), "aim": 0},
        }


def main() -> None:
    """Print the table, or JSON with --json."""
    figures = measure()
    if "--json" in sys.argv:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures.items():
        aim = f"aim {figure['aim']:.0f}" if figure["aim"] else ""
        print(f"{name:<32} {figure['ms']:7.1f} ms   {aim}")


if __name__ == "__main__":
    main()

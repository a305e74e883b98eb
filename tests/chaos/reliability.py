"""The table of docs/reliability.md: weego and its rivals hurt in the same ways in the same run.

    python -m tests.chaos.reliability --peers build/peers/bin [--only G6,G8] [--servers weego,gunicorn] [--long]

`make reliability` makes the folder of the rivals' programs and calls this. Prints Markdown; exit code 1 when weego misses a goal.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.chaos import figures
from tests.chaos.figures import CASES, Case, Found
from tests.chaos.targets import RIVALS, Rival, Target, Weego


def measure(case: Case, kind: type[Target], *, long: bool) -> Found:
    """Run one case on one server, in folders of its own."""
    count = 0
    with tempfile.TemporaryDirectory() as folder:

        def make(**options: object) -> Target:
            nonlocal count
            count += 1
            return kind(Path(folder) / str(count), **options)  # type: ignore[arg-type]

        try:
            return case.run(make, case.long if long else case.short)
        except Exception as error:
            print("".join(traceback.format_exception(error))[-1500:], file=sys.stderr)
            return Found(f"not measured: {type(error).__name__}: {error}"[:80].replace("\n", " "), False)


def version(kind: type[Target]) -> str:
    """What runs."""
    if not issubclass(kind, Rival):
        import weego

        return weego.__version__
    command = [str(kind.bin / "python"), "-c", f"import importlib.metadata as m; print(m.version({kind.name!r}))"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder of the programs gunicorn, uvicorn and granian")
    parser.add_argument("--only", default="", help="goals, G1,G2,…")
    parser.add_argument("--servers", default="", help="weego,gunicorn,uvicorn,granian")
    parser.add_argument("--long", action="store_true", help="as often as `make chaos`")
    parser.add_argument("--slack", type=float, default=1.0, help="what limits in milliseconds are multiplied by")
    given = parser.parse_args()
    figures.slack = given.slack
    kinds: list[type[Target]] = [Weego]
    for rival in RIVALS:
        rival.bin = (given.peers or Path()).absolute()
        if given.peers and (rival.bin / rival.name).exists():
            kinds.append(rival)
        elif given.peers:
            print(f"{rival.name} is not in {given.peers}: pip install {rival.name}", file=sys.stderr)
    names = [name for name in given.servers.split(",") if name]
    goals = [goal for goal in given.only.split(",") if goal]
    kinds = [kind for kind in kinds if not names or kind.name in names]
    print("| | " + " | ".join(["what is done", *(f"{kind.title} {version(kind)}" for kind in kinds)]) + " |")
    print("|---" * (len(kinds) + 2) + "|")
    missed = []
    for case in CASES:
        if goals and case.goal not in goals:
            continue
        cells = []
        for kind in kinds:
            begun = time.monotonic()
            found = measure(case, kind, long=given.long) if kind is Weego or case.rivals else Found("–")
            print(f"  {case.goal} {kind.name}: {found.text} ({time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
            if kind is Weego and not found.ok:
                missed.append(case.goal)
            cells.append(found.text)
        print(f"| {case.goal} | {case.title} | " + " | ".join(cells) + " |", flush=True)
    if missed:
        print(f"weego misses {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

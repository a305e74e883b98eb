"""What a line in the access log costs: ``python -m bench.access``, CPU time of the server per request with and without it.

The same server in one process, alternating: without access log, to /dev/null, to a file, into a pipe that somebody reads. The
median of the rounds of each, and what it is beyond no log.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from bench.host import busy, places, raise_file_limit
from bench.load import measure
from bench.messages import files, messages
from bench.peer import running
from bench.peers.weego import VARIANTS

CONNECTIONS = 100


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    given = parser.parse_args()
    raise_file_limit()
    place = places()
    request, reply = files(messages()["1KiB"])
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(given.rounds):
        for variant in VARIANTS:
            with running("weego", place.server, "--variant", variant) as peer:
                sample = measure(
                    peer, request, reply, connections=CONNECTIONS, seconds=given.seconds, warmup=0.3, cpu=place.generator
                )
            found[variant].append(sample.server_cpu_us)
    quiet = statistics.median(found["quiet"])
    print(f"access log, {CONNECTIONS} connections, 1 KiB: CPU of the server in \u00b5s per request, median of {given.rounds}")
    for variant, values in found.items():
        median = statistics.median(values)
        print(f"  {variant:6} {median:6.2f}  {min(values):6.2f} to {max(values):5.2f}   +{median - quiet:5.2f}  {median / quiet:.2f} x")
    if busy():
        print("  (the machine is busy: read the ratios)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m bench.grpc``: servers by h2load, clients, streams; tables for people, ``--json`` for scripts."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from bench.grpc import clients, servers, streams
from bench.host import say
from tests.support.certs import Certificates

PARTS = ("servers", "clients", "streams")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grpc", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one short round: does everything run?")
    parser.add_argument("--only", choices=PARTS, action="append", default=[])
    parser.add_argument("--load", default="", help="of the servers: only loads with this in their names")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    rounds = given.rounds or (1 if given.smoke else 3)
    scale = 0.05 if given.smoke else 1.0
    parts = given.only or PARTS
    cells: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Certificates(folder)
        if "servers" in parts:
            if shutil.which("h2load") is None:
                say("bench: gRPC servers are not measured: h2load is missing (apt-get install nghttp2-client)")
            else:
                cells["servers"] = servers.run(folder, rounds, scale, given.load)
        if "clients" in parts:
            cells["clients"] = clients.run(folder, rounds, scale)
        if "streams" in parts:
            cells["streams"] = streams.run(folder, rounds, scale)
    if given.json:
        Path(given.json).write_text(json.dumps(cells, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

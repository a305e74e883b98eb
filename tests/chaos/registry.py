"""etcd is taken away for a minute under load: callers notice nothing, and services are registered again within one lease.

    python -m tests.chaos.registry [--seconds 60] [--rate 100] [kill freeze flap]

kill: etcd is killed and started again after that time; freeze: it does nothing for that time; flap: it is killed every three seconds. A line for each:
calls, failures, how long after etcd's return both instances were registered under leases that live. Exit code 1 when a call failed, or that took longer
than a lease.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.governance import Pair, load
from tests.support.etcd import EtcdServer

BEFORE = 3.0
AFTER = 8.0
TTL = 5.0
LEASES = 2


class Outage:
    """etcd's, of one kind."""

    def __init__(self, etcd: EtcdServer, kind: str, seconds: float) -> None:
        self.etcd = etcd
        self.kind = kind
        self.seconds = seconds
        self.registered = -1.0
        """Seconds from etcd's return until both were registered."""

    def __call__(self) -> None:
        time.sleep(BEFORE)
        if self.kind == "freeze":
            self.etcd.freeze()
            time.sleep(self.seconds)
            self.etcd.thaw()
        elif self.kind == "kill":
            self.etcd.kill()
            time.sleep(self.seconds)
            self.etcd.start()
        else:
            until = time.monotonic() + self.seconds
            while time.monotonic() < until:
                self.etcd.kill()
                time.sleep(1)
                self.etcd.start()
                time.sleep(2)
        came_back = time.monotonic()
        while not self._are_registered():
            if time.monotonic() - came_back > 60:
                return
            time.sleep(0.05)
        self.registered = time.monotonic() - came_back

    def _are_registered(self) -> bool:
        """Are there two keys whose leases were renewed since, so that they will stay?"""
        said = self.etcd._ctl("get", "--prefix", "kitex/registry-etcd/probe/", "-w", "json")
        if said.returncode:
            return False
        leases = {each.get("lease", 0) for each in json.loads(said.stdout).get("kvs", [])}
        alive = 0
        for lease in leases:
            left = self.etcd._ctl("lease", "timetolive", f"{lease:x}", "-w", "json")
            alive += left.returncode == 0 and json.loads(left.stdout)["ttl"] > 0
        return alive == LEASES


def run(kind: str, seconds: float, rate: float) -> bool:
    with tempfile.TemporaryDirectory() as name, EtcdServer(Path(name)) as etcd:
        pair = Pair(Path(name), registry=etcd.url, ttl=TTL)
        try:
            pair.serve(0)
            pair.serve(1)
            outage = Outage(etcd, kind, seconds)
            while not outage._are_registered():
                time.sleep(0.1)
            seen = load(
                pair.apps[0].folder, f"{etcd.url}/probe", outage, "--seconds", str(BEFORE + seconds + AFTER), "--rate", str(rate)
            )
        finally:
            pair.close()
    failed = seen.failed
    print(f"{kind:8} {seconds:4.0f} s  {len(seen.calls):6} calls  {len(failed)} failed  registered again after {outage.registered:.1f} s (lease {TTL:g} s)")
    for each in sorted(set(failed))[:5]:
        print(f"  {each}")
    return not failed and 0 <= outage.registered <= TTL


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="*", default=["kill", "freeze", "flap"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=100)
    options = parser.parse_args()
    held = [run(kind, options.seconds, options.rate) for kind in options.kind]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())

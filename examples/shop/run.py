"""The shop in one command: starts gateway, item and two stock servers, calls the gateway, makes trouble, shows what the callers notice.

    python examples/shop/run.py                       # all is well
    python examples/shop/run.py --trouble kill        # one of the two stock servers is killed after 3 s, and started again
    python examples/shop/run.py --trouble stop        # … is frozen
    python examples/shop/run.py --trouble slow        # … answers two seconds late
    python examples/shop/run.py --trouble fail        # … answers with errors
    python examples/shop/run.py --trouble overload    # eight times the calls: nearly twice what both stock servers can do
    python examples/shop/run.py --etcd                # the same, but the services find each other in an etcd that this starts (apt-get install etcd-server)
    python examples/shop/run.py --etcd --trouble registry    # that etcd is killed, and started again: nobody should notice

A line for each second: calls, answers without the number of things left, failures, median and 99th percentile in milliseconds. While the trouble lasts, and at the end, what
`weego ctl` says of item and of the stock servers. docs/governance.md explains what one sees; examples/shop/README.md where to look.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from gevent import monkey

if __name__ == "__main__":  # the program; weego-master imports only services.py
    monkey.patch_all()

import gevent

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "examples" / "shop"
REGISTRY = ROOT / "run" / "shop"
# Where the configurations have them find each other.
FOLDER = "file://run/shop"
TROUBLES = ("none", "kill", "stop", "slow", "fail", "overload", "registry")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trouble", choices=TROUBLES, default="none")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long to call (12)")
    parser.add_argument("--rate", type=float, default=60.0, help="calls a second (60)")
    parser.add_argument("--etcd", action="store_true", help="find each other in etcd, not in a folder")
    options = parser.parse_args()
    if options.trouble == "registry" and not options.etcd:
        parser.error("--trouble registry is for --etcd: a folder cannot be away")
    if options.etcd and shutil.which("etcd") is None:
        parser.error("there is no etcd: apt-get install etcd-server")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    shutil.rmtree(REGISTRY, ignore_errors=True)
    subprocess.run(
        [sys.executable, "bin/weego", "gen", str(HERE / "shop.thrift"), "-o", str(HERE / "gen")], check=True, stdout=subprocess.DEVNULL
    )
    os.makedirs(REGISTRY, exist_ok=True)
    services = {}
    etcd = Etcd() if options.etcd else None
    try:
        if etcd is not None:
            etcd.start()
        registry = etcd.url if etcd is not None else FOLDER
        services = {name: start(name, registry) for name in ("stock-1", "stock-2", "item", "gateway")}
        return drive(options, services, registry, etcd)
    finally:
        for process in services.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGTERM)
        for process in services.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if etcd is not None:
            etcd.kill()


class Etcd:
    """An etcd of our own, on free ports, its data in run/shop."""

    def __init__(self) -> None:
        self.ports = (free_port(), free_port())
        self.url = f"etcd://127.0.0.1:{self.ports[0]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again perhaps. Services need not wait for it."""
        client, peer = (f"http://127.0.0.1:{port}" for port in self.ports)
        command = ["etcd", "--data-dir", str(REGISTRY / "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        self.process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """One that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(name: str, registry: str) -> subprocess.Popen[bytes]:
    """weego-master with one of the configurations, in a process group of its own. Of stock there are two, each with a control socket of its own."""
    kind = name.partition("-")[0]
    conf = REGISTRY / f"{name}.toml"
    conf.write_text((HERE / f"{kind}.toml").read_text().replace(FOLDER, registry).replace(f"{kind}.sock", f"{name}.sock"))
    command = [sys.executable, "bin/weego-master", str(conf)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ctl(name: str, *views: str) -> str:
    """What `weego ctl` says of one of the services."""
    said = []
    for view in views:
        command = [sys.executable, "bin/weego", "ctl", "--socket", str(REGISTRY / f"{name}.sock"), view]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said += [f"    $ weego ctl --socket run/shop/{name}.sock {view}", *(f"    {line}" for line in (done.stdout + done.stderr).splitlines())]
    return "\n".join(said)


def instances(service: str, registry: str) -> list[str]:
    """Addresses the registry has."""
    from weego import Instance
    from weego.discovery import close, resolver_of

    resolver: Any = resolver_of(f"{registry}/{service}")
    try:
        found: list[Instance] = list(resolver.resolve())
        return [each.address for each in found]
    except Exception:
        return []
    finally:
        close(resolver)


def drive(options: argparse.Namespace, services: dict[str, subprocess.Popen[bytes]], registry: str, etcd: Etcd | None) -> int:
    """Wait until all are there, then call."""
    deadline = time.monotonic() + 60
    while any(len(instances(name, registry)) < count for name, count in (("stock", 2), ("item", 1), ("gateway", 1))):
        if time.monotonic() > deadline or any(process.poll() is not None for process in services.values()):
            print("not all services came up", file=sys.stderr)
            return 1
        time.sleep(0.1)
    from examples.shop.gen.shop import GatewayClient, StockClient
    from weego import RpcError

    seconds: dict[int, list[tuple[float, str]]] = defaultdict(list)
    events: dict[int, list[str]] = defaultdict(list)
    began = time.monotonic()

    def call(gateway: GatewayClient, number: int) -> None:
        started = time.monotonic()
        try:
            outcome = "unsure" if "?" in gateway.show(str(number)) else "ok"
        except RpcError as error:
            outcome = error.code.name
        seconds[int(started - began)].append((time.monotonic() - started, outcome))

    def tell(what: str) -> None:
        events[int(time.monotonic() - began)].append(what)

    def make_trouble() -> None:
        gevent.sleep(3)
        tell(f"  -- {options.trouble}")
        looking = gevent.spawn_later(2, lambda: tell(ctl("item", "instances")))
        create()
        looking.join()

    def create() -> None:
        victim = services["stock-1"]
        if options.trouble == "kill":
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
            gevent.sleep(4)
            services["stock-1"] = start("stock-1", registry)
            tell("  -- started again")
        elif options.trouble == "stop":
            os.killpg(victim.pid, signal.SIGSTOP)
            gevent.sleep(4)
            os.killpg(victim.pid, signal.SIGCONT)
            tell("  -- goes on")
        elif options.trouble in ("slow", "fail"):
            with StockClient(instances("stock", registry)[0]) as one:
                one.trouble(2.0 if options.trouble == "slow" else 0.0, options.trouble == "fail")
                gevent.sleep(4)
                one.trouble(0.0, False)
            tell("  -- well again")
        elif options.trouble == "registry" and etcd is not None:
            etcd.kill()
            gevent.sleep(4)
            etcd.start()
            tell("  -- started again")

    trouble = gevent.spawn(make_trouble) if options.trouble != "none" else None
    print("second  calls  unsure  failed    p50    p99   what failed")
    calls: list[Any] = []
    with GatewayClient(f"{registry}/gateway", timeout=2.0) as gateway:
        shown = number = 0
        due = began
        while (now := time.monotonic() - began) < options.seconds:
            rate = options.rate * (8 if options.trouble == "overload" and now >= 3 else 1)
            calls = [each for each in calls if not each.dead]
            calls.append(gevent.spawn(call, gateway, number))
            number += 1
            due = max(due + 1 / rate, time.monotonic() - 0.1)  # what this machine is too slow for is not made up for
            gevent.sleep(max(0.0, due - time.monotonic()))
            if int(now) > shown + 2:  # by now its calls are over
                show(shown, seconds[shown], events[shown])
                shown += 1
        gevent.joinall(calls, timeout=5)
        for second in range(shown, int(options.seconds)):
            show(second, seconds[second], events[second])
    if trouble is not None:
        trouble.join(timeout=10)
    print(ctl("item", "calls", "breakers"))
    print(ctl("stock-2", "limits"))
    every = [outcome for second in seconds.values() for _, outcome in second]
    failed = sum(outcome not in ("ok", "unsure") for outcome in every)
    print(f"{len(every)} calls, {every.count('unsure')} without a number, {failed} failed")
    return 0


def show(second: int, calls: list[tuple[float, str]], events: list[str]) -> None:
    """What happened in that second, and its line."""
    for event in events:
        print(event, flush=True)
    times = sorted(each * 1000 for each, _ in calls) or [0.0]
    failed = [outcome for _, outcome in calls if outcome not in ("ok", "unsure")]
    unsure = sum(outcome == "unsure" for _, outcome in calls)
    middle, late = times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]
    reasons = " ".join(sorted(set(failed)))
    print(f"{second:6} {len(calls):6} {unsure:7} {len(failed):7} {middle:6.0f} {late:6.0f}   {reasons}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

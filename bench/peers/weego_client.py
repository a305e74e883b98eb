"""weego's client under load, in a process of its own: calls ``echo`` for a while and prints what that cost, as bench/kitex's ``load`` does."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time

import gevent

from bench import stubs
from poller.tls import TLS

TRANSPORTS = {
    "framed": {"framing": "framed"},
    "ttheader": {"framing": "ttheader"},
    "ttheader-shared": {"framing": "ttheader", "pool": "shared"},
}


def cpu_ns() -> int:
    """What this process has used so far, user and kernel."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int((usage.ru_utime + usage.ru_stime) * 1e9)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--transport", choices=TRANSPORTS, default="framed")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--ca", help="TLS, and the authority of the server's certificate")
    parser.add_argument("--plain", action="store_true", help="without gevent: one thread that blocks")
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    gen = stubs.module()
    options = TRANSPORTS[given.transport]
    tls = TLS(ca=given.ca) if given.ca else None
    if not given.plain:
        gevent.get_hub()
    client = gen.BenchClient(f"tcp://{given.address}", timeout=10.0, caller="bench-client", max_idle=given.callers, tls=tls, **options)
    text = ("abcdefghijklmnopqrstuvwxyz0123456789" * (given.size // 36 + 1))[: given.size]
    calls = 0
    stop = False

    def run() -> None:
        nonlocal calls
        request = gen.EchoRequest
        while not stop:
            got = client.echo(request(action="echo", msg=text))
            if got.msg != text:
                raise AssertionError("the answer is another one")
            calls += 1

    def measured() -> dict[str, float]:
        return {"calls": calls, "cpu_ns": cpu_ns(), "time": time.monotonic()}

    if given.plain:
        end = time.monotonic() + given.warmup
        while time.monotonic() < end:
            client.echo(gen.EchoRequest(action="echo", msg=text))
        before = measured()
        end = time.monotonic() + given.seconds
        while time.monotonic() < end:
            client.echo(gen.EchoRequest(action="echo", msg=text))
            calls += 1
        after = measured()
    else:
        workers = [gevent.spawn(run) for _ in range(given.callers)]
        gevent.sleep(given.warmup)
        before = measured()
        gevent.sleep(given.seconds)
        after = measured()
        stop = True
        gevent.joinall(workers, raise_error=True)
    client.close()
    said = {
        "calls": after["calls"] - before["calls"],
        "cpu_ns": after["cpu_ns"] - before["cpu_ns"],
        "seconds": after["time"] - before["time"],
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()

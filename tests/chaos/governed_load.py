"""Calls at a fixed rate through the default policy, whatever becomes of the answers: what callers notice, as JSON lines.

    python -m tests.chaos.governed_load TARGET --seconds 10 --rate 200 [--method echo] [--bare]

Run from a folder with the probe's stubs (`gen.probe`). A line for each call: when it began (seconds since the start), how long it took, and "ok", "idl", or
the code it failed with. The first line of all says that the calls begin.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402 -- after the patch

from weego import ClientPolicy, Policy, RpcError  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--timeout", type=float, default=1.0)
    parser.add_argument("--attempt-timeout", type=float, default=0.3)
    parser.add_argument("--idempotent", action="store_true")
    parser.add_argument("--no-retry", action="store_true", help="every refusal is seen")
    parser.add_argument("--closed", type=int, default=0, help="so many callers, each with one call after the other, instead of a rate")
    options = parser.parse_args()
    sys.path.insert(0, ".")
    from gen.probe import ProbeClient  # type: ignore[import-not-found]

    changes: dict[str, Any] = {"attempt_timeout": options.attempt_timeout, "idempotent": options.idempotent or None}
    if options.no_retry:
        changes["retry"] = None
    policy = ClientPolicy(Policy(timeout=options.timeout, **changes))
    found: list[tuple[float, float, str]] = []
    with ProbeClient(options.target, policy=policy) as client:
        client.tell("first")
        print("began", flush=True)
        began = time.monotonic()

        def call() -> None:
            started = time.monotonic()
            try:
                client.tell("x")
                outcome = "ok"
            except RpcError as error:
                outcome = f"{error.code.name}: {error.message}"
            found.append((started - began, time.monotonic() - started, outcome))

        def caller() -> None:
            while time.monotonic() - began < options.seconds:
                call()

        number = 0
        calls = [gevent.spawn(caller) for _ in range(options.closed)]
        if calls:
            gevent.joinall(calls)
        while not options.closed and (now := time.monotonic() - began) < options.seconds:
            while number < now * options.rate:
                calls.append(gevent.spawn(call))
                number += 1
            calls = [each for each in calls if not each.dead]
            gevent.sleep(min(0.002, 1 / options.rate))
        gevent.joinall(calls, timeout=options.timeout + 10)
    for each in found:
        print(json.dumps(each))


if __name__ == "__main__":
    main()

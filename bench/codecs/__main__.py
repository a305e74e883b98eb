"""Measures the codecs alone on the complex message: ``python -m bench.codecs`` prints one JSON object.

A process of its own, so that nothing else is imported, on one CPU. Times are CPU time of the process: another process
that gets in between does not count, though it may leave cold caches behind.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from bench.messages import complex_message, messages, read_complex
from bench.native import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

CODECS = ("weego", "thriftpy2", "apache", "protobuf")
OPERATIONS = ("encode", "build_encode", "decode", "decode_read")


def operations(codec: Any) -> dict[str, Callable[[], object]]:
    """The timed calls of one codec by name, after a check that it does the work at all.

    Raises BenchError when a codec loses a value or, among the Thrift ones, writes other bytes than its peers.
    """
    types = codec.types()
    cls = types.ComplexResponse
    build: Callable[[Any], Any] = getattr(codec, "build", lambda cls: complex_message(types, cls))
    encode, decode = codec.encode, codec.decode
    value = build(cls)
    data = encode(value)
    if read_complex(decode(cls, data)) != read_complex(value):
        raise BenchError(f"{codec.__name__} does not decode what it encoded")
    if not codec.__name__.endswith("protobuf") and data not in messages()["complex"].reply:
        raise BenchError(f"{codec.__name__} encodes the complex message to other bytes than thriftpy2")
    return {
        "encode": lambda: encode(value),
        "build_encode": lambda: encode(build(cls)),
        "decode": lambda: decode(cls, data),
        "decode_read": lambda: read_complex(decode(cls, data)),
    }


def microseconds(call: Callable[[], object], count: int) -> float:
    """CPU µs per call over ``count`` calls."""
    calls = range(count)
    start = time.process_time_ns()
    for _ in calls:
        call()
    return (time.process_time_ns() - start) / count / 1e3


def calls_for(call: Callable[[], object], seconds: float) -> int:
    """How many calls take about ``seconds``."""
    count = 8
    while (each := microseconds(call, count)) * count < seconds * 1e5 and count < 1 << 20:
        count *= 4
    return max(1, int(seconds * 1e6 / each)) if each > 0 else count


def measure(rounds: int, seconds: float, names: tuple[str, ...] = CODECS) -> dict[str, Any]:
    """All codecs in turn, ``rounds`` times: ``{"samples": {codec: {operation: [µs, …]}}, "missing": {codec: why}}``."""
    found: dict[str, dict[str, Callable[[], object]]] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = operations(importlib.import_module(f"bench.codecs.{name}"))
        except ImportError as error:
            missing[name] = str(error)
    counts = {name: {op: calls_for(call, seconds) for op, call in calls.items()} for name, calls in found.items()}
    samples: dict[str, dict[str, list[float]]] = {name: {op: [] for op in calls} for name, calls in found.items()}
    gc.collect()
    gc.freeze()  # what the libraries brought along is no part of any message
    for _ in range(rounds):
        for operation in OPERATIONS:
            for name, calls in found.items():
                samples[name][operation].append(microseconds(calls[operation], counts[name][operation]))
    return {"samples": samples, "missing": missing}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--cpu", type=int)
    parser.add_argument("names", nargs="*", default=CODECS)
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    print(json.dumps(measure(given.rounds, given.seconds, tuple(given.names))))


if __name__ == "__main__":
    main()

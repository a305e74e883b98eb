"""A great many mutated inputs to each decoder: ``python -m tests.fuzz.million [--inputs 1000000] [TARGET …]``.

For machines without clang, where atheris sees nothing of native code: real messages, changed a little by a seeded generator, as fast as they go.
Ends with code 1 at the first input that breaks a law, which it prints; and when memory grew by more than GROWTH.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from tests.codec.test_proto_fuzz import SEEDS as PROTO_SEEDS
from tests.codec.test_thrift_fuzz import INTERESTING, SEEDS
from tests.fuzz import h2_laws, plan_atheris, proto_laws, stream_laws, view_laws
from tests.fuzz.laws import client_law, server_law

# Bytes that the process may grow by after the first tenth of the inputs: what allocators keep, and no leak of even one byte in each input's work.
GROWTH: Final = 64 * 2**20


def _server(data: bytes, cut: int) -> None:
    server_law(data, [cut])


def _client(data: bytes, cut: int) -> None:
    client_law(data, [cut])


def _streams(data: bytes, cut: int) -> None:
    stream_laws.stream_law(data, [cut])


def _plain(target: Callable[[bytes], None], data: bytes, cut: int) -> None:
    target(data)


def targets() -> dict[str, tuple[Callable[[bytes, int], None], list[bytes]]]:
    """By name: what is done with an input and where it was cut, and the messages that inputs are made of."""
    found: dict[str, tuple[Callable[[bytes, int], None], list[bytes]]] = {
        name: (partial(_plain, target), plan_atheris.seeds(name)) for name, target in plan_atheris.TARGETS.items()
    }
    messages = [seed for seed in SEEDS if len(seed) < 1000]
    return {
        **found,
        "server": (_server, messages),
        "client": (_client, messages),
        "views": (partial(_plain, view_laws.law), view_laws.seeds()),
        "streams": (_streams, [seed for seed in stream_laws.SEEDS if len(seed) < 1000]),
        "protobuf": (partial(_plain, proto_laws.law), [seed for seed in PROTO_SEEDS if len(seed) < 1000]),
        "hpack": (partial(_plain, h2_laws.hpack_law), h2_laws.BLOCKS),
        "h2-server": (partial(h2_laws.h2_law, False), h2_laws.FROM_CLIENTS),
        "h2-client": (partial(h2_laws.h2_law, True), h2_laws.FROM_SERVERS),
    }


def mutated(dice: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds, or two behind each other, with a few changes."""
    data = bytearray(dice.choice(seeds))
    if dice.random() < 0.2:
        data += dice.choice(seeds)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 6))):
        at = dice.randrange(len(data) + 1)
        kind = dice.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes((dice.choice(INTERESTING),))
        elif kind == 1:
            data[at : at + 1] = bytes((dice.randrange(256),))
        elif kind == 2:
            data[at : at + 4] = dice.getrandbits(32).to_bytes(4)
        elif kind == 3:
            del data[at : at + dice.randrange(12)]
        elif kind == 4:
            data[at:at] = dice.randbytes(dice.randrange(12))
        elif data:
            other = dice.randrange(len(data))
            data[at:at] = data[other : other + 16]
    return bytes(data)


def memory() -> int:
    """Bytes this process has had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(name: str, inputs: int, seed: int) -> int:
    """Exit code."""
    law, seeds = targets()[name]
    dice = random.Random(seed)
    began, settled = time.monotonic(), 0
    for number in range(inputs):
        data = mutated(dice, seeds)
        cut = dice.randrange(len(data) + 1)
        try:
            law(data, cut)
        except BaseException:
            sys.stderr.write(f"{name}: input {number} of seed {seed}, cut at {cut}: {data.hex()}\n")
            raise
        if number == inputs // 10:
            settled = memory()
    grown = memory() - settled
    sys.stdout.write(f"{name}: {inputs} inputs in {time.monotonic() - began:.0f} s, memory grew by {grown / 2**20:.1f} MiB\n")
    sys.stdout.flush()
    return 1 if grown > GROWTH else 0


def main() -> int:
    """Run the named targets, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.million")
    parser.add_argument("targets", nargs="*", choices=[*targets(), []], metavar="TARGET")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return max(run(name, given.inputs, given.seed) for name in given.targets or targets())


if __name__ == "__main__":
    sys.exit(main())

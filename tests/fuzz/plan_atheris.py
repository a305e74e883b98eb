"""Coverage-guided fuzzing of the decoders beneath the protocol: ``python -m tests.fuzz.plan_atheris TARGET [corpus folder] [libFuzzer options]``.

TARGET is one of: binary, compact (structs of every type, through their plans), ttheader (a header alone), scan (buffered messages that trickle in).
Not run by the suite; `tests/fuzz/thrift_atheris.py` says what it needs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from codec import ttheader
from codec.errors import EncodeError, ProtocolError
from tests.codec.schemas import Node, Shape
from tests.codec.test_plan_fuzz import FULL, KEEPING, dumps, full, tame
from tests.codec.test_thrift_fuzz import SEEDS
from tests.fuzz.laws import server_law


def binary(data: bytes) -> None:
    """Values or ProtocolError; what was decoded can be encoded again."""
    for cls in (FULL, Node, Shape, KEEPING):
        tame(cls, data)


def compact(data: bytes) -> None:
    """The same in the compact protocol."""
    for cls in (FULL, Node, Shape, KEEPING):
        tame(cls, data, compact=True)


def header(data: bytes) -> None:
    """A TTHeader packet that can be read can be written, and means the same."""
    try:
        found, payload = ttheader.loads(data)
    except ProtocolError:
        return
    try:
        again = ttheader.dumps(found, payload)
    except EncodeError:
        return  # repeated blocks may hold more pairs together than one block can
    back, rest = ttheader.loads(again)
    assert (back.strings, back.ints, back.seqid, back.flags, rest) == (
        found.strings, found.ints, found.seqid, found.flags, payload,
    )  # fmt: skip


def scan(data: bytes) -> None:
    """Whatever way a message is cut, the same requests come out."""
    whole = server_law(data, [])
    parts = server_law(data, range(1, len(data))) if len(data) < 400 else whole
    assert [each.size for each in whole] == [each.size for each in parts] or any(each.fatal for each in (*whole, *parts))


TARGETS: dict[str, Callable[[bytes], None]] = {"binary": binary, "compact": compact, "ttheader": header, "scan": scan}


def seeds(target: str) -> list[bytes]:
    """What the fuzzer begins with."""
    if target in ("binary", "compact"):
        return [dumps(full(number), target == "compact") for number in range(1, 6)]
    return [seed for seed in SEEDS if len(seed) < 1000]


def main() -> None:
    """Fuzz until a finding or until stopped."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is missing: pip install atheris")
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"choose a target: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as corpus:
        arguments = list(sys.argv)
        if all(argument.startswith("-") for argument in arguments[1:]):
            for number, seed in enumerate(seeds(name)):
                Path(corpus, f"seed-{number}").write_bytes(seed)
            arguments.append(corpus)
        atheris.Setup(arguments, TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""A coverage-guided fuzzing target for the Thrift protocol: ``python -m tests.fuzz.thrift_atheris [corpus folder] [libFuzzer options]``.

Not run by the suite. It needs atheris (``pip install atheris``), and finds more when the extensions are compiled by clang with
``CFLAGS="-fsanitize=fuzzer-no-link,address"``. Without a corpus it starts from the messages of the hypothesis suite.

The first byte of an input says which side is fed and where the rest is cut.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.codec.test_thrift_fuzz import SEEDS
from tests.fuzz.laws import client_law, server_law


def one_input(data: bytes) -> None:
    """One input; any exception is a finding."""
    if not data:
        return
    rest = data[1:]
    cuts = [len(rest) * (data[0] >> 1) // 128]
    if data[0] & 1:
        server_law(rest, cuts)
    else:
        client_law(rest, cuts)


def main() -> None:
    """Fuzz until a finding or until stopped."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is missing: pip install atheris")
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        arguments = list(sys.argv)
        if all(argument.startswith("-") for argument in arguments[1:]):
            for i, seed in enumerate(SEEDS):
                Path(corpus, f"seed-{i}-server").write_bytes(b"\x01" + seed)
                Path(corpus, f"seed-{i}-client").write_bytes(b"\x00" + seed)
            arguments.append(corpus)
        atheris.Setup(arguments, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

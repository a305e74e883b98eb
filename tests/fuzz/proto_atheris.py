"""A coverage-guided fuzzing target for native Protobuf messages: ``python -m tests.fuzz.proto_atheris [corpus folder] [libFuzzer options]``.

Not run by the suite. It needs atheris (``pip install atheris``), and finds more when the extensions are compiled by clang with
``CFLAGS="-fsanitize=fuzzer-no-link,address"``. Without a corpus it starts from the messages of the hypothesis suite.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.codec.test_proto_fuzz import SEEDS
from tests.fuzz.proto_laws import law


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
                Path(corpus, f"seed-{i}").write_bytes(seed)
            arguments.append(corpus)
        atheris.Setup(arguments, law)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

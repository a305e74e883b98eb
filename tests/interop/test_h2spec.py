"""Every case of h2spec against a weego server, the strict ones too."""

from __future__ import annotations

import re
import subprocess

from tests.support import h2spec
from tests.support.grpc_echo import NAME, EchoService
from tests.support.net import records, served, without_hub


@without_hub
def test_all_of_h2spec() -> None:
    program = h2spec.program()
    with records() as lines, served(EchoService()) as server:
        host, _, port = server.addresses[0].removeprefix("tcp://").rpartition(":")
        done = subprocess.run(
            [str(program), "-h", host, "-p", port, "-P", f"/{NAME}/Say", "--strict", "-o", "5"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    said = done.stdout[done.stdout.rfind("Failures:") :] if "Failures:" in done.stdout else done.stdout[-300:]
    counts = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout)
    assert counts, done.stdout[-2000:] + done.stderr
    assert (counts[3], counts[4]) == ("0", "0"), said
    assert int(counts[1]) >= 146
    assert not [line for line in lines if line.exc_info]

"""The messages of registries that are committed are what `weego gen` makes of their .proto files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.need import ROOT

FOLDER = ROOT / "weego" / "registries"


@pytest.mark.parametrize(("proto", "module"), [("etcd.proto", "etcdserverpb/etcd.py"), ("xds.proto", "envoy/service/discovery/v3/xds.py")])
def test_the_messages_are_those_of_the_proto_file(proto: str, module: str, tmp_path: Path) -> None:
    command = [sys.executable, "bin/weego", "gen", str(FOLDER / proto), "-o", str(tmp_path), "--messages", "native"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    made, kept = ((folder / module).read_text().splitlines() for folder in (tmp_path, FOLDER / "gen"))
    assert [line for line in made if not line.startswith("#")] == [line for line in kept if not line.startswith("#")]

"""HUPs under mixed gRPC load: unary calls and streams of grpcio's channels, which have no retry policy, while generation follows generation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.need import ROOT
from tests.support.service import PROBE_CODE, App

CODE = f"""\
import os, sys

sys.path.insert(0, {str(ROOT)!r})
from tests.support.grpc_echo import EchoService, Reply


class Grpc(EchoService):
    def say(self, request):
        return Reply(message=str(os.getpid())) if request.action == "pid" else super().say(request)
"""
BOTH = '[[service]]\nclass = "app:Grpc"\n'
# The load is one Python program of very many threads. It must not take the CPU from those it is to burden.
NICE = ("nice", "-n", "10")
ENDING = 120


@dataclass(frozen=True)
class Outcome:
    """Calls that were good, and why others were not, the number first; by kind: "unary", "stream"."""

    done: dict[str, int]
    failed: dict[str, list[object]]
    processes: int

    def __str__(self) -> str:
        good = ", ".join(f"{count} {kind}" for kind, count in self.done.items())
        return f"good: {good}; failed: {self.failed}; {self.processes} processes of {self.processes // 3} generations"


def both(folder: Path) -> App:
    """The probe service of Thrift and the echo service of gRPC."""
    return App(folder, code=PROBE_CODE.format(version=1) + "\n\n" + CODE)


def reloads(app: App, *, hups: int, channels: int, allow: Sequence[str] = ()) -> Outcome:
    """Serve with two workers, HUP so many times under load, stop. What the load saw."""
    with app.serve(more=BOTH, workers=2, allow=allow) as server:
        command = [*NICE, sys.executable, "-m", "tests.support.grpcio_load", server.address.removeprefix("tcp://"), str(channels)]
        load = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert load.stdin is not None
        assert load.stdout is not None
        processes = set(server.remember())
        try:
            assert load.stdout.readline() == "running\n"
            for _ in range(hups):
                server.reload_ok()
                processes |= set(server.remember())
            load.stdin.write("\n")
            load.stdin.flush()
            said = json.loads(load.stdout.readline())
            assert load.wait(ENDING) == 0
        finally:
            load.kill()
            load.wait()
            load.stdin.close()
            load.stdout.close()
    return Outcome(said["done"], said["failed"], len(processes))

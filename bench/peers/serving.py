"""What the peers written in Python share: options, place and end of the process, the line that says it listens."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.messages import Types

BACKLOG = 1024
"""Connections that may wait to be accepted; the load generator opens a thousand."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Options:
    """Options of a peer's command line."""

    port: int
    cpu: int | None
    variant: str


def options(*variants: str) -> Options:
    """Reads the command line and puts the process in its place: on its CPU, and ending with its parent.

    ``variants`` are the peer's ways to serve, its best one first.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--variant", choices=variants or ("",), default=variants[0] if variants else "")
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return Options(given.port, given.cpu, given.variant)


def announce(port: int) -> None:
    """Tells the harness that the server listens on 127.0.0.1:``port``."""
    sys.stdout.write(json.dumps({"port": port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()


class Echo:
    """The handler, for servers that take any object with the service's methods."""

    def __init__(self, types: Types) -> None:
        self._echo = types.EchoResponse
        self._complex = types.ComplexResponse

    def echo(self, req: Any) -> Any:
        return self._echo(action=req.action, msg=req.msg)

    def echoComplex(self, req: Any) -> Any:  # noqa: N802 - the IDL's name
        return self._complex(
            action=req.action,
            msg=req.msg,
            itemMap=req.itemMap,
            itemList=req.itemList,
            groupSet=req.groupSet,
            flag=req.flag,
        )

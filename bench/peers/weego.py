"""weego in one process: what a worker runs, without the master; handlers in greenlets, as by default.

No access log, unless a variant asks for one: to /dev/null, to a file, or into a pipe whose reader throws everything away.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import Any

from bench import stubs
from bench.peers.serving import announce, options
from weego import Server, log

VARIANTS = ("quiet", "null", "file", "pipe")


def output(variant: str) -> int:
    """Where the access log goes."""
    if variant == "null":
        return os.open(os.devnull, os.O_WRONLY)
    if variant == "file":
        fd, path = tempfile.mkstemp()
        os.unlink(path)
        return fd
    reader, writer = os.pipe()
    subprocess.Popen(["cat"], stdin=reader, stdout=subprocess.DEVNULL)  # ends with us: it reads the end of file
    os.close(reader)
    return writer


def main() -> None:
    chosen = options(*VARIANTS)
    gen = stubs.module()

    class Bench(gen.Bench):  # type: ignore[misc, name-defined]  # generated at run time
        def echo(self, req: Any) -> Any:
            return gen.EchoResponse(action=req.action, msg=req.msg)

        def echo_complex(self, req: Any) -> Any:
            return gen.ComplexResponse(
                action=req.action,
                msg=req.msg,
                itemMap=req.itemMap,
                itemList=req.itemList,
                groupSet=req.groupSet,
                flag=req.flag,
            )

    is_logged = chosen.variant != "quiet"
    if is_logged:
        log.setup({"level": "warning", "format": "json"}, "worker 0", fd=output(chosen.variant), threaded=True)
    server = Server([Bench()], listen=[f"tcp://127.0.0.1:{chosen.port}"], access_log=is_logged)
    announce(int(server.addresses[0].rpartition(":")[2]))
    server.serve_forever()


if __name__ == "__main__":
    main()

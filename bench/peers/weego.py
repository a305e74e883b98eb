"""weego in one process: what a worker runs, without the master; handlers in greenlets, as by default, and no access log."""

from __future__ import annotations

from typing import Any

from bench import stubs
from bench.peers.serving import announce, options
from weego import Server


def main() -> None:
    chosen = options()
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

    server = Server([Bench()], listen=[f"tcp://127.0.0.1:{chosen.port}"], access_log=False)
    announce(int(server.addresses[0].rpartition(":")[2]))
    server.serve_forever()


if __name__ == "__main__":
    main()

"""What the policies of a client cost: CPU per call of the bare client, of one with every policy on, and the difference.

    python -m bench.governance [--calls 20000] [--rounds 5]

The server is a process of its own; the client calls one after the other in a greenlet. Rounds alternate, the medians count. The second table leaves the
connection out: the stack alone above an attempt that answers at once.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

SERVER = """
import sys
from weego import Server
from examples.echo.gen.echo import Echo, Response
class Service(Echo):
    def echo(self, req):
        return Response(message=req.message)
server = Server([Service()], listen=["tcp://127.0.0.1:0"])
print(server.addresses[0], flush=True)
server.serve_forever()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            measure(process.stdout.readline().strip(), options.calls, options.rounds)
        finally:
            process.terminate()
    return 0


def measure(address: str, calls: int, rounds: int) -> None:
    import gevent

    from examples.echo.gen.echo import EchoClient, Request
    from weego import ClientPolicy, Policy

    full = ClientPolicy(Policy(timeout=5.0, attempt_timeout=1.0, idempotent=True, fallback=lambda call, args, error: None))
    clients = {"bare": EchoClient(address, timeout=5.0), "full": EchoClient(address, policy=full)}
    request = Request(message="x" * 100)
    spent: dict[str, list[float]] = {name: [] for name in clients}

    def run(client: Any) -> float:
        call = client.echo
        before = time.thread_time()
        for _ in range(calls):
            call(request)
        return (time.thread_time() - before) / calls * 1e6

    def all_rounds() -> None:
        for client in clients.values():
            client.echo(request)
        for _ in range(rounds):
            for name, client in clients.items():
                spent[name].append(run(client))

    gevent.spawn(all_rounds).get()
    middle = {name: statistics.median(values) for name, values in spent.items()}
    print("CPU of the client, µs a call")
    for name, values in spent.items():
        print(f"  {name}   {middle[name]:6.2f}   ({min(values):.2f} to {max(values):.2f})")
    print(f"  the difference   {middle['full'] - middle['bare']:6.2f}, {middle['full'] / middle['bare']:.2f} ×")

    governed: Any = clients["full"]._governed
    from governance.call import Call

    spec = EchoClient.__spec__.methods["echo"]
    carry = lambda call, address, args: None  # noqa: E731
    governed.attempts.carry = carry
    governed._handlers.clear()
    alone = []
    for _ in range(rounds):
        before = time.thread_time()
        for _ in range(calls):
            governed.handle(Call(spec, service="Echo"), (request,))
        with_stack = time.thread_time() - before
        before = time.thread_time()
        for _ in range(calls):
            carry(Call(spec, service="Echo"), address, (request,))
        alone.append((with_stack - (time.thread_time() - before)) / calls * 1e6)
    print(f"the stack alone   {statistics.median(alone):6.2f}   ({min(alone):.2f} to {max(alone):.2f})")
    for client in clients.values():
        client.close()


if __name__ == "__main__":
    sys.exit(main())

"""What the policies of a client cost: CPU per call of the bare client, of one with every policy on, and the difference.

    python -m bench.governance [thrift grpc] [--calls 10000] [--rounds 7]

The server is a process of its own; the client calls one after the other, in a greenlet and then in a plain thread. Rounds alternate, the medians count, and
the difference is that of two rounds side by side. The last line leaves the connection out: the stack alone above an attempt that answers at once.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
#: µs of CPU that all policies together may add to a call.
LIMIT: Final = 8.0

SERVERS: Final = {
    "thrift": """
from examples.echo.gen.echo import Echo, Response
class Service(Echo):
    def echo(self, req):
        return Response(message=req.message)
""",
    "grpc": """
from bench.grpc.peers.weego import Echo as Service
""",
}
SERVE: Final = """
from weego import Server
server = Server([Service()], listen=["tcp://127.0.0.1:0"])
print(server.addresses[0], flush=True)
server.serve_forever()
"""


def thrift() -> tuple[type[Any], Any]:
    """The client's class and a request of 100 bytes."""
    from examples.echo.gen.echo import EchoClient, Request

    return EchoClient, Request(message="x" * 100)


def grpc() -> tuple[type[Any], Any]:
    """The same of gRPC."""
    from google.protobuf import wrappers_pb2

    from bench.grpc.peers.weego import Echo
    from weego import Client

    class EchoClient(Client):
        __spec__ = Echo.__spec__

        def echo(self, request: Any) -> Any:
            return self._invoke(METHOD, (request,), None)

    METHOD = Echo.__spec__.methods["Echo"]  # noqa: N806 -- as a generated module has it
    return EchoClient, wrappers_pb2.BytesValue(value=bytes(100))


CLIENTS: Final[dict[str, Callable[[], tuple[type[Any], Any]]]] = {"thrift": thrift, "grpc": grpc}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", nargs="*", default=[*CLIENTS])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print("CPU of the client, µs a call     bare            all policies    more")
    good = True
    for protocol in options.protocol:
        with subprocess.Popen([sys.executable, "-c", SERVERS[protocol] + SERVE], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().strip()
                for kind in ("thread", "greenlet"):  # a thread that once had a hub would use it again
                    good &= measure(protocol, kind, address, options.calls, options.rounds)
            finally:
                process.terminate()
    return 0 if good else 1


def measure(protocol: str, kind: str, address: str, calls: int, rounds: int) -> bool:
    """One line of the table; whether it is within the limit."""
    from weego import ClientPolicy, Policy

    cls, request = CLIENTS[protocol]()
    full = ClientPolicy(Policy(timeout=5.0, attempt_timeout=1.0, idempotent=True, fallback=lambda call, args, error: None))
    clients = {"bare": cls(address, timeout=5.0), "full": cls(address, policy=full)}
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
        alone.append(stack_alone(clients["full"], request, calls))

    alone: list[float] = []
    if kind == "greenlet":
        import gevent

        gevent.spawn(all_rounds).get()
    else:
        from threading import Thread

        thread = Thread(target=all_rounds)
        thread.start()
        thread.join()
    more = statistics.median(full - bare for bare, full in zip(spent["bare"], spent["full"], strict=True))
    text = "".join(f"{statistics.median(found):7.2f} ±{(max(found) - min(found)) / 2:5.2f}  " for found in spent.values())
    good = more <= LIMIT
    print(f"{protocol:7} in a {kind:9} {text:>40} {more:6.2f}  {'met' if good else 'MISSED'}: at most {LIMIT:g}; the stack alone {alone[0]:.2f}", flush=True)
    for client in clients.values():
        client.close()
    return good


def stack_alone(client: Any, request: Any, calls: int) -> float:
    """µs a call, above what making a Call takes."""
    from governance.call import Call

    governed = client._governed
    spec = next(iter(client.__spec__.methods.values()))
    before_carry = governed.attempts.carry
    carry = lambda call, address, args: None  # noqa: E731
    governed.attempts.carry = carry
    governed._handlers.clear()
    before = time.thread_time()
    for _ in range(calls):
        governed.handle(Call(spec, service="Echo"), (request,))
    with_stack = time.thread_time() - before
    before = time.thread_time()
    for _ in range(calls):
        carry(Call(spec, service="Echo"), "", (request,))
    spent = with_stack - (time.thread_time() - before)
    governed.attempts.carry = before_carry
    governed._handlers.clear()
    return spent / calls * 1e6


if __name__ == "__main__":
    sys.exit(main())

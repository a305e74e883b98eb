"""Apache Thrift's Python servers with the C accelerator.

Variants: ``threaded`` (a thread per connection; the quickest) and ``pool`` (as many threads as connections may come, as
each holds one). The library's TNonblockingServer is no candidate: it costs up to twice as much and comes to a stop with
some hundred busy connections, when its threads block on waking the one that would read their wake-ups.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

from thrift.protocol.TBinaryProtocol import TBinaryProtocolAcceleratedFactory
from thrift.server.TServer import TThreadedServer, TThreadPoolServer
from thrift.Thrift import TApplicationException, TMessageType, TType
from thrift.transport import TSocket, TTransport

from bench.codecs import apache as codec
from bench.peers.serving import BACKLOG, Echo, announce, options

POOL_THREADS = 1100
"""The pool serves a connection with one thread from its first byte to its last: it needs one for each."""

STACK_BYTES = 256 * 1024
"""Per thread; the default of 8 MiB reserves address space that some containers do not have for a thousand threads."""


class Processor:
    """What the compiler generates for the service: one method per IDL method, found by name."""

    def __init__(self, handler: Echo) -> None:
        self._handler = handler
        self._process_map = {"echo": self._echo, "echoComplex": self._echo_complex}

    def process(self, iprot: Any, oprot: Any) -> bool:
        name, _kind, sequence = iprot.readMessageBegin()
        process = self._process_map.get(name)
        if process is None:
            iprot.skip(TType.STRUCT)
            iprot.readMessageEnd()
            refusal = TApplicationException(TApplicationException.UNKNOWN_METHOD, f"Unknown function {name}")
            self._reply(name, TMessageType.EXCEPTION, sequence, refusal, oprot)
            return True
        process(sequence, iprot, oprot)
        return True

    def _echo(self, sequence: int, iprot: Any, oprot: Any) -> None:
        args = codec.EchoArgs()
        args.read(iprot)
        iprot.readMessageEnd()
        result = codec.EchoResult()
        result.success = self._handler.echo(args.req)
        self._reply("echo", TMessageType.REPLY, sequence, result, oprot)

    def _echo_complex(self, sequence: int, iprot: Any, oprot: Any) -> None:
        args = codec.EchoComplexArgs()
        args.read(iprot)
        iprot.readMessageEnd()
        result = codec.EchoComplexResult()
        result.success = self._handler.echoComplex(args.req)
        self._reply("echoComplex", TMessageType.REPLY, sequence, result, oprot)

    def _reply(self, name: str, kind: int, sequence: int, result: Any, oprot: Any) -> None:
        oprot.writeMessageBegin(name, kind, sequence)
        result.write(oprot)
        oprot.writeMessageEnd()
        oprot.trans.flush()


class Listener(TSocket.TServerSocket):  # type: ignore[misc]  # thrift has no types
    """A server socket that tells the harness its port."""

    def listen(self) -> None:
        super().listen()
        announce(self.handle.getsockname()[1])

    def accept(self) -> Any:
        client = super().accept()
        if client is not None:
            client.handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client


def main() -> None:
    chosen = options("threaded", "pool")
    threading.stack_size(STACK_BYTES)
    listener = Listener("127.0.0.1", chosen.port)
    listener.setBacklog(BACKLOG)
    processor = Processor(Echo(codec.types()))
    protocols = TBinaryProtocolAcceleratedFactory(fallback=False)
    cls = TThreadedServer if chosen.variant == "threaded" else TThreadPoolServer
    server = cls(processor, listener, TTransport.TFramedTransportFactory(), protocols, daemon=True)
    if chosen.variant == "pool":
        server.setNumThreads(POOL_THREADS)
    server.serve()


if __name__ == "__main__":
    main()

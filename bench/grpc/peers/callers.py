"""Clients of /bench.Echo/Echo, each in a process of its own: ``python -m bench.grpc.peers.callers CLIENT PORT CALLS IN-FLIGHT BYTES [CA]``.

CLIENT is weego (in gevent's greenlets), weego-threads, grpcio (threads), or one of the floors: sockets and gevent-sockets, which send as many bytes as a call
has and read as many, one at a time, from a server that answers as many (`bench.peers.floor`). Prints the CPU µs of a call as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM = 200
# Frames' heads, header blocks of indexed fields, the prefix and the field of a message: what a call has besides its body.
AROUND = 70


def main(client: str, port: int, calls: int, flight: int, size: int, ca: str) -> None:
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        "weego": lambda: weego(port, size, ca),
        "weego-threads": lambda: weego(port, size, ca),
        "grpcio": lambda: grpcio(port, size, ca),
        "sockets": lambda: sockets(port, size, "socket"),
        "gevent-sockets": lambda: sockets(port, size, "gevent.socket"),
    }
    if client == "weego":
        import gevent

        gevent.get_hub()
    once = makers[client]()

    def repeat(times: int) -> None:
        for _ in range(times):
            once()

    repeat(WARM)
    share = calls // flight
    began, spent = time.perf_counter(), time.process_time()
    if flight == 1:
        repeat(share)
    elif client == "weego":
        import gevent

        gevent.joinall([gevent.spawn(repeat, share) for _ in range(flight)], raise_error=True)
    else:
        threads = [threading.Thread(target=repeat, args=(share,)) for _ in range(flight)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    spent, took = time.process_time() - spent, time.perf_counter() - began
    print(json.dumps({"us": spent / (share * flight) * 1e6, "rate": share * flight / took}))


def weego(port: int, size: int, ca: str) -> Callable[[], object]:
    from google.protobuf import wrappers_pb2

    from bench.grpc.peers.weego import Echo
    from poller.tls import TLS
    from weego.client import Client

    class EchoClient(Client):
        __spec__ = Echo.__spec__

        def echo(self, request: wrappers_pb2.BytesValue) -> Any:
            return self._invoke(method, (request,), None)

    method = Echo.__spec__.methods["Echo"]
    client = EchoClient(f"tcp://localhost:{port}", timeout=30, tls=TLS(ca=ca) if ca else None)
    request = wrappers_pb2.BytesValue(value=bytes(size))
    return lambda: client.echo(request)


def grpcio(port: int, size: int, ca: str) -> Callable[[], object]:
    import grpc
    from google.protobuf import wrappers_pb2

    target = f"localhost:{port}"
    channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(ca).read_bytes())) if ca else grpc.insecure_channel(target)
    call = channel.unary_unary("/bench.Echo/Echo", request_serializer=wrappers_pb2.BytesValue.SerializeToString, response_deserializer=wrappers_pb2.BytesValue.FromString)
    request = wrappers_pb2.BytesValue(value=bytes(size))
    return lambda: call(request, timeout=30)


def sockets(port: int, size: int, module: str) -> Callable[[], object]:
    import importlib
    import socket

    sock = importlib.import_module(module).create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(30)  # a call has a deadline, so its floor has one too
    data = bytes(size + AROUND)

    def once() -> None:
        sock.sendall(data)
        left = len(data)
        while left:
            left -= len(sock.recv(65536))

    return once


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6] if len(sys.argv) > 6 else "")  # type: ignore[arg-type]

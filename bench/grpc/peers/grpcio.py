"""grpcio: the server with a thread pool, or with asyncio (``--asyncio``)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import wrappers_pb2

BytesValue = wrappers_pb2.BytesValue


def handlers(echo: Any) -> tuple[Any]:
    method = grpc.unary_unary_rpc_method_handler(echo, BytesValue.FromString, BytesValue.SerializeToString)
    return (grpc.method_handlers_generic_handler("bench.Echo", {"Echo": method}),)


def tell(port: int) -> None:
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)


def bind(server: Any) -> int:
    """Its port; with two files, a certificate and its key, for TLS."""
    files = [Path(each).read_bytes() for each in sys.argv[1:] if not each.startswith("-")]
    if not files:
        return int(server.add_insecure_port("127.0.0.1:0"))
    return int(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(files[1], files[0])])))


def with_threads() -> None:
    server = grpc.server(ThreadPoolExecutor(os.cpu_count() or 1))
    server.add_generic_rpc_handlers(handlers(lambda request, _: BytesValue(value=request.value)))
    port = bind(server)
    server.start()
    tell(port)
    server.wait_for_termination()


async def with_asyncio() -> None:
    async def echo(request: Any, _: Any) -> Any:
        return BytesValue(value=request.value)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers(echo))
    port = bind(server)
    await server.start()
    tell(port)
    await server.wait_for_termination()


if __name__ == "__main__":
    if "--asyncio" in sys.argv:
        asyncio.run(with_asyncio())
    else:
        with_threads()

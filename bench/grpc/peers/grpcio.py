"""grpcio: the server with a thread pool, or with asyncio (``--asyncio``)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import wrappers_pb2

BytesValue = wrappers_pb2.BytesValue


def handlers(echo: Any) -> tuple[Any]:
    method = grpc.unary_unary_rpc_method_handler(echo, BytesValue.FromString, BytesValue.SerializeToString)
    return (grpc.method_handlers_generic_handler("bench.Echo", {"Echo": method}),)


def tell(port: int) -> None:
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)


def with_threads() -> None:
    server = grpc.server(ThreadPoolExecutor(os.cpu_count() or 1))
    server.add_generic_rpc_handlers(handlers(lambda request, _: BytesValue(value=request.value)))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tell(port)
    server.wait_for_termination()


async def with_asyncio() -> None:
    async def echo(request: Any, _: Any) -> Any:
        return BytesValue(value=request.value)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers(echo))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tell(port)
    await server.wait_for_termination()


if __name__ == "__main__":
    if "--asyncio" in sys.argv:
        asyncio.run(with_asyncio())
    else:
        with_threads()

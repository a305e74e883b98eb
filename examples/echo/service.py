"""The service of conf/server.toml: answers with what it was sent.

The base class comes from echo.thrift: `weego gen examples/echo/echo.thrift -o examples/echo/gen`, which `make run` does.
"""

from __future__ import annotations

from .gen.echo import Echo, Request, Response


class EchoService(Echo):
    def echo(self, req: Request) -> Response:
        return Response(message=req.message)

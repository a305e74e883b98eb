"""What a client of the echo service may answer with instead when a call failed: ``fallback = "examples.echo.fallback:sorry"`` in its [client.…] table."""

from __future__ import annotations

from typing import Any

from examples.echo.gen.echo import Response
from weego import Call


def sorry(call: Call, args: tuple[Any, ...], error: BaseException) -> Response:
    """Say so. To let the error through, raise it."""
    return Response(message=f"sorry, {call.service} could not answer: {error}")

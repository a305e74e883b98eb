"""Calls the echo service: `python examples/echo/client.py [message]`, while `make run` serves in another terminal."""

from __future__ import annotations

import sys

from gen.echo import EchoClient, Request  # made by `weego gen examples/echo/echo.thrift -o examples/echo/gen`

import weego


def main() -> None:
    message = sys.argv[1] if len(sys.argv) > 1 else "hello, weego"
    try:
        with EchoClient("tcp://127.0.0.1:8888") as echo:
            print(echo.echo(Request(message=message), timeout=1.0).message)
    except weego.RpcError as error:
        sys.exit(f"client: {error}")


if __name__ == "__main__":
    main()

"""`protoc-gen-weego`: the plugin that protoc starts for `--weego_out`."""

from __future__ import annotations

import sys

from weego import __version__


def main() -> None:
    """Answer the request on stdin."""
    if sys.stdin.isatty():
        sys.exit("protoc-gen-weego is a plugin of protoc: protoc --weego_out=gen x.proto; by hand: weego gen x.proto -o gen")
    from idlc.proto_plugin import answer

    sys.stdout.buffer.write(answer(sys.stdin.buffer.read(), __version__))

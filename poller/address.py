"""Addresses as people write them: ``tcp://host:port`` and ``unix:///path``."""

from __future__ import annotations

import _socket
import os
from typing import Final, NamedTuple

from codec.errors import UsageError

__all__ = ["Address", "parse"]

# sizeof(sockaddr_un.sun_path), less the zero byte at its end.
_LONGEST_PATH: Final = 107


class Address(NamedTuple):
    """Where to connect: `family` of the socket module, and the host and port, or the path."""

    text: str
    host: str
    port: int
    path: str

    @property
    def is_unix(self) -> bool:
        """A path in the file system and not a host."""
        return bool(self.path)

    @property
    def family(self) -> int:
        """AF_UNIX, AF_INET6 for an IPv6 literal, else AF_UNSPEC: the name decides."""
        if self.path:
            return int(_socket.AF_UNIX)
        return int(_socket.AF_INET6 if ":" in self.host else _socket.AF_UNSPEC)


def parse(text: str) -> Address:
    """Read ``tcp://host:port``, ``tcp://[::1]:port``, ``host:port`` or ``unix:///path``. UsageError says what is wrong."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path:
            raise UsageError(f"address {text!r} names no path; write unix:///run/name.sock")
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise UsageError(f"address {text!r}: the path is longer than the {_LONGEST_PATH} bytes that the path of a unix socket may have")
        return Address(text, "", 0, path)
    rest = text.removeprefix("tcp://")
    if "://" in rest:
        raise UsageError(f"address {text!r}: unknown scheme; use tcp://host:port or unix:///path")
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"address {text!r}: write an IPv6 host in brackets, tcp://[{host}]:{port}")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"address {text!r} is not host:port; use tcp://host:port or unix:///path")
    return Address(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}", host, int(port), "")

"""Addresses as people write them: ``tcp://host:port``, ``tcps://host:port`` (with TLS) and ``unix:///path``."""

from __future__ import annotations

import _socket
import os
from typing import Final, NamedTuple

from codec.errors import UsageError

__all__ = ["Address", "parse"]

# sizeof(sockaddr_un.sun_path), less the zero byte at its end.
_LONGEST_PATH: Final = 107
_SECURE: Final = "tcps://"


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
    def is_secure(self) -> bool:
        """Written as one that wants TLS."""
        return self.text.startswith(_SECURE)

    @property
    def family(self) -> int:
        """AF_UNIX, AF_INET6 for an IPv6 literal, else AF_UNSPEC: the name decides."""
        if self.path:
            return int(_socket.AF_UNIX)
        return int(_socket.AF_INET6 if ":" in self.host else _socket.AF_UNSPEC)


def parse(text: str) -> Address:
    """Read ``tcp://host:port``, ``tcp://[::1]:port``, ``host:port``, the same with ``tcps``, or ``unix:///path``. UsageError says what is wrong."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path:
            raise UsageError(f"address {text!r} names no path; write unix:///run/name.sock")
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise UsageError(f"address {text!r}: the path is longer than the {_LONGEST_PATH} bytes that the path of a unix socket may have")
        return Address(text, "", 0, path)
    scheme = _SECURE if text.startswith(_SECURE) else "tcp://"
    rest = text.removeprefix(scheme)
    if "://" in rest:
        raise UsageError(f"address {text!r}: unknown scheme; use tcp://host:port or unix:///path")
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"address {text!r}: write an IPv6 host in brackets, tcp://[{host}]:{port}")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"address {text!r} is not host:port; use tcp://host:port or unix:///path")
    return Address(f"{scheme}[{host}]:{port}" if ":" in host else f"{scheme}{host}:{port}", host, int(port), "")

"""Ports for servers that take none of their own choice."""

from __future__ import annotations

import random
import socket
from pathlib import Path

# From here on, up to where the system takes ports for outgoing connections. One of those may be somebody's own end of a connection when a server wants it
# or wants it again, and who calls an address there while nobody listens may be connected to himself.
FIRST = 10_000


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on just now."""
    last = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(FIRST, last)  # tests that seed the generator in several processes would all take the same
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

"""Ports for servers that take none of their own choice."""

from __future__ import annotations

import random
import socket
from pathlib import Path

# From here on, up to where the system takes ports for outgoing connections. One of those may be somebody's own end of a connection when a server wants it
# or wants it again, and who calls an address there while nobody listens may be connected to himself.
FIRST = 10_000
# Where that is set to begin below, there is no better choice: as far as Linux has it by itself.
USUAL_END = 32_768


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on just now."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if end <= FIRST:
        end = USUAL_END
    while True:
        port = random.SystemRandom().randrange(FIRST, end)  # tests that seed the generator in several processes would all take the same
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

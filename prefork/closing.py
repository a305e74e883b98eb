"""The last moments of a listening socket: no handshake begins any more, so its queue can be emptied for good.

Who accepts until nothing is there and then closes resets whoever got into the queue between the two. A packet filter on the socket that drops
SYN ends that: the handshake of a client that comes now does not begin, its kernel tries again after a second, and finds the port closed,
or the next server. A filter may be set by anybody on a socket of their own (SO_ATTACH_FILTER, socket(7)) and holds in all processes that share it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

__all__ = ("turn_away",)

# <asm-generic/socket.h>
_SO_ATTACH_FILTER: Final = 26
# <linux/filter.h>: load the byte at 13 of the TCP header, its flags; if SYN (2) is among them drop the packet, else take it whole.
_PROGRAM: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 2), (0x06, 0, 0, 0), (0x06, 0, 0, 0x40000))
)
_INSTRUCTIONS: Final = len(_PROGRAM) // 8


def turn_away(listener: socket.socket) -> bool:
    """Let no more handshakes begin. False where that cannot be: a unix socket has none, and a sandbox may refuse."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = ctypes.create_string_buffer(_PROGRAM, len(_PROGRAM))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", _INSTRUCTIONS, ctypes.addressof(program)))
    except OSError:
        return False
    return True

"""Memory of large messages stays with the process, for the next one.

glibc gives the top of its heap back to the kernel as soon as more than 128 KiB of it are free, and takes what is larger from the kernel each time, until
a block that is larger still has been freed once: then it keeps twice that block's size (mallopt(3), M_MMAP_THRESHOLD). A server of messages of 100 KB
gives back and takes again with every few of them, and each page costs a fault and is cleared: 16 faults a call, 30 % of its CPU (`bench.grpc`, 100 KB).
"""

from __future__ import annotations

from typing import Final

__all__ = ["keep_freed"]

KEPT_BLOCK: Final = 8 << 20
"""Bytes of the block that glibc learns from; it keeps up to twice as much that is free. What 64 messages of 100 KB need, in and out."""


def keep_freed() -> None:
    """From now on keep what large messages leave free, up to 16 MiB. With another malloc, or where MALLOC_… says otherwise, nothing changes."""
    bytes(KEPT_BLOCK)  # fresh pages of zeros, which nobody touches, and freed at once

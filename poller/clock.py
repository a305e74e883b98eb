"""The one clock: seconds of CLOCK_MONOTONIC, which no one can set. Native code uses `clock.pxd`."""

from time import monotonic

__all__ = ["monotonic"]

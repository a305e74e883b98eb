"""Durations and sizes as people write them in a configuration: "30s", "1m30s", "16MiB", or a plain number."""

from __future__ import annotations

import math
import re

__all__ = ["Duration", "Size"]

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)\s*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?b|b)", re.IGNORECASE)


class Duration(float):
    """A span of time: a float of seconds, which prints the way it is written."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Duration:
        """Read "500ms", "30s", "1m30s" or a plain number of seconds; ValueError for anything else."""
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return cls(value)
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not a duration")  # noqa: TRY004 -- one error for all that is not one
        text, at, seconds = value.strip(), 0, 0.0
        while part := _DURATION_PART.match(text, at):
            seconds += float(part[1]) * _SECONDS[part[2]]
            at = part.end()
        if not text or at != len(text):
            raise ValueError(f"{value!r} is not a duration")
        return cls(seconds)

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s", "ms", "us"):
            count = round(float(self) / _SECONDS[unit], 6)
            if count == int(count) and (count or unit == "s"):
                return f"{int(count)}{unit}"
        return f"{float(self):.9f}".rstrip("0") + "s"


class Size(int):
    """An amount of memory: an int of bytes, which prints the way it is written."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Size:
        """Read "64KiB" (1024), "1MB" (1000²) or a plain number of bytes; ValueError for anything else."""
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(value)
        if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
            size = float(match[1]) * _BYTES[match[2].lower()]
            if size == int(size):
                return cls(size)
        raise ValueError(f"{value!r} is not a size")

    def __str__(self) -> str:
        for unit, label in (("gib", "GiB"), ("mib", "MiB"), ("kib", "KiB")):
            if self and int(self) % _BYTES[unit] == 0:
                return f"{int(self) // _BYTES[unit]}{label}"
        return f"{int(self)}B"

"""One file per library: its classes for ``bench/idl/bench.thrift``, and how it encodes and decodes a struct.

Each module has ``types()``, ``encode(value) -> bytes`` and ``decode(cls, data) -> value``, and imports its library at
the top, so that a library that is not installed is an ImportError of that module alone.
"""

from __future__ import annotations

from pathlib import Path

IDL = Path(__file__).resolve().parent.parent / "idl" / "bench.thrift"

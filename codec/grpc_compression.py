"""Compression of gRPC messages: gzip, deflate (which is zlib's format), zstd where the package is there, and what `register` adds."""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from codec.errors import Code, ProtocolError, ResourceExhausted, RpcError, UsageError

__all__ = ["IDENTITY", "accepted", "compress", "decompress", "is_known", "names", "register"]

IDENTITY: Final = "identity"

# What zlib adds to the window's bits to write and read gzip's head and check sum.
_GZIP: Final = 16 + zlib.MAX_WBITS
# gRPC's own default level of compression: what it saves beyond is not worth its time.
_LEVEL: Final = 6
_CHUNK: Final = 1 << 16
# What a name in grpc-accept-encoding may be: there a comma separates them, and gRPC's own are lower case.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")


class _Method(NamedTuple):
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]


def _zlib_method(bits: int) -> _Method:
    def compress(data: bytes) -> bytes:
        made = zlib.compressobj(_LEVEL, zlib.DEFLATED, bits)
        return made.compress(data) + made.flush()

    def decompress(data: bytes, limit: int) -> bytes:
        reader = zlib.decompressobj(bits)
        out = reader.decompress(data, limit + 1)
        if len(out) > limit:
            raise _too_long(limit)
        if not reader.eof or reader.unused_data:
            raise ValueError("it does not end where it should")
        return out

    return _Method(compress, decompress)


def _zstd_method() -> _Method | None:
    try:
        zstandard: Any = importlib.import_module("zstandard")
    except ModuleNotFoundError:
        return None

    def compress(data: bytes) -> bytes:
        made: bytes = zstandard.ZstdCompressor().compress(data)
        return made

    def decompress(data: bytes, limit: int) -> bytes:
        reader: Any = zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(data)
        out = bytearray()
        try:
            while chunk := reader.read(_CHUNK):
                out += chunk
                if len(out) > limit:
                    raise _too_long(limit)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
        return bytes(out)

    return _Method(compress, decompress)


def _too_long(limit: int) -> ResourceExhausted:
    return ResourceExhausted(f"a message is longer than the limit of {limit} bytes once it is decompressed")


_METHODS: Final[dict[str, _Method]] = {"gzip": _zlib_method(_GZIP), "deflate": _zlib_method(zlib.MAX_WBITS)}
_zstd = _zstd_method()
if _zstd is not None:
    _METHODS["zstd"] = _zstd


def register(name: str, compress: Callable[[bytes], bytes], decompress: Callable[[bytes, int], bytes]) -> None:
    """Add an encoding, or replace the one of its name. UsageError when a header cannot carry the name.

    `decompress(data, most)` raises ValueError for what it did not make, and instead of making more than `most` bytes.
    """
    if not _NAME.fullmatch(name) or name == IDENTITY:
        raise UsageError(
            f"compressor {name!r}: gRPC takes a name of up to 40 of a-z, 0-9, '_', '.' and '-', other than {IDENTITY!r}"
        )
    _METHODS[name] = _Method(compress, decompress)


def names() -> list[str]:
    """The encodings that are known, beside identity."""
    return list(_METHODS)


def accepted() -> bytes:
    """The grpc-accept-encoding that says what we can read, as of now."""
    return ",".join((IDENTITY, *_METHODS)).encode()


def is_known(name: str) -> bool:
    """Can messages of this encoding be read and written?"""
    return name == IDENTITY or name in _METHODS


def compress(name: str, data: bytes) -> bytes:
    """`data` compressed. KeyError for a name that is not known."""
    return _METHODS[name].compress(data)


def decompress(name: str, data: bytes, limit: int) -> bytes:
    """`data` decompressed; never makes more than about `limit` bytes.

    ResourceExhausted when it would be longer; ProtocolError (INTERNAL) when it is not of this encoding, or there is none.
    """
    method = _METHODS.get(name)
    if method is None:
        raise ProtocolError(f"a message is said to be compressed, but the encoding is {name or 'not given'}", code=Code.INTERNAL)
    try:
        found = method.decompress(data, limit)
    except RpcError:
        raise
    except Exception as error:  # of somebody else's code too
        raise ProtocolError(f"a message is not the {name} it is said to be: {error}", code=Code.INTERNAL) from None
    if len(found) > limit:
        raise _too_long(limit)
    return found

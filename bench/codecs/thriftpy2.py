"""thriftpy2: classes parsed from the IDL when loaded, binary protocol in Cython."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import thriftpy2
from thriftpy2.protocol.cybin.cybin import TCyBinaryProtocol
from thriftpy2.transport.memory.cymemory import TCyMemoryBuffer

from bench.codecs import IDL

if TYPE_CHECKING:
    from bench.messages import Types


@cache
def module() -> Any:
    """The module thriftpy2 makes of the IDL: structs, and the service as ``Bench``."""
    return thriftpy2.load(str(IDL), module_name="bench_thrift")


def types() -> Types:
    """Classes of the IDL. thriftpy2 reads and writes a set as a list."""
    return cast("Types", SimpleNamespace(**vars(module()), group_set=list))


def encode(value: Any) -> bytes:
    """``value`` in Thrift binary, as one frame of thriftpy2's would carry it."""
    buffer = TCyMemoryBuffer()
    TCyBinaryProtocol(buffer).write_struct(value)
    return cast("bytes", buffer.getvalue())


def decode(cls: Any, data: bytes) -> Any:
    """A new ``cls`` from Thrift binary."""
    value = cls()
    TCyBinaryProtocol(TCyMemoryBuffer(data)).read_struct(value)
    return value

"""The messages of the benchmark: their values, and their bytes on the wire.

The values are built with whichever library's classes the caller brings, so that every server and codec works on the
same data. The bytes come from thriftpy2's encoder: what a peer answers is compared with them byte for byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from bench.native import BUILD
from codec import ttheader

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL_BYTES = 16
MEDIUM_BYTES = 1024

# The complex message has the proportions of the echo benchmark it is modelled on: seven strings of 1 KiB (five in a
# map, one in a set element, one in the flag) and a hundred small structs in a list; framed it is about 11 KB.
LONG_STRING_BYTES = 1024
MAP_ENTRIES = 5
LIST_ITEMS = 100

CALL, REPLY = 1, 2
SEQUENCE_ID = 1


class Types(Protocol):
    """One library's classes for ``bench/idl/bench.thrift``; all take their fields as keywords."""

    EchoRequest: Any
    EchoResponse: Any
    ComplexRequest: Any
    ComplexResponse: Any
    Group: Any
    Item: Any
    group_set: Callable[[list[Any]], Any]
    """What the library holds a ``set<Group>`` in: a set, or a list where its structs have no hash."""


@dataclass(frozen=True)
class Message:
    """One row of the result: a request, and the reply that is the only right one."""

    name: str
    method: str
    request: bytes
    reply: bytes


def text(size: int, seed: int = 0) -> str:
    """Printable ASCII of ``size`` characters; different seeds give different strings."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    start = seed % len(alphabet)
    turned = alphabet[start:] + alphabet[:start]
    return (turned * (size // len(turned) + 1))[:size]


@cache
def strings() -> tuple[list[str], list[str]]:
    """The long strings and the values of the list; made once, so that building a message does not measure this."""
    return (
        [text(LONG_STRING_BYTES, seed) for seed in range(MAP_ENTRIES + 2)],
        [f"list item number {index:03d}" for index in range(LIST_ITEMS)],
    )


KEYS = [f"entry-{index}" for index in range(MAP_ENTRIES)]


def complex_message(types: Types, cls: Any) -> Any:
    """A new ``cls`` (ComplexRequest or ComplexResponse) with the benchmark's values, every part of it new."""
    long, short = strings()
    item, group = types.Item, types.Group
    return cls(
        action="complex",
        msg="a complex message",
        itemMap={key: item(id=index, value=long[index]) for index, key in enumerate(KEYS)},
        itemList=[item(id=index, value=value) for index, value in enumerate(short)],
        groupSet=types.group_set([group(id=1, value=long[-2])]),
        flag=group(id=2, value=long[-1]),
    )


def read_complex(value: Any) -> int:
    """Reads every field of a complex message, as a handler that uses its argument would; returns a checksum."""
    total = len(value.action) + len(value.msg)
    items = value.itemMap
    for key in items:
        item = items[key]
        total += len(key) + item.id + len(item.value)
    for item in value.itemList:
        total += item.id + len(item.value)
    for group in value.groupSet:
        total += group.id + len(group.value)
    flag = value.flag
    return total + int(flag.id) + len(flag.value)


def framed(method: str, kind: int, body: bytes) -> bytes:
    """A framed strict Thrift binary message of type ``kind`` around the encoded arguments or result."""
    name = method.encode()
    head = struct.pack(f">HBBi{len(name)}si", 0x8001, 0, kind, len(name), name, SEQUENCE_ID)
    return struct.pack(">i", len(head) + len(body)) + head + body


def _message(name: str, method: str, request: bytes, response: bytes) -> Message:
    argument = struct.pack(">Bh", 12, 1) + request + b"\0"
    result = struct.pack(">Bh", 12, 0) + response + b"\0"
    return Message(name, method, framed(method, CALL, argument), framed(method, REPLY, result))


TTHEADER = "1KiB-ttheader"
"""The message of 1 KiB as Kitex's client sends it when told to use a TTHeader, with its infos, and as Kitex and weego answer it."""


MUX = "1KiB-mux"
"""The same, `MUX_DEPTH` of them under way on each connection, with the flag that allows answers in any order (Kitex's mux)."""
MUX_DEPTH = 16
OUT_OF_ORDER = 1


def with_ttheader(message: Message, name: str = TTHEADER, flags: int = 0) -> Message:
    """The same message behind a TTHeader instead of in a frame."""
    names = {3: "bench-client", 6: "bench", 9: message.method, 12: "10000", 20: "", 22: "1", 1: "unframed"}
    request = ttheader.Header(SEQUENCE_ID, flags=flags, ints=names, strings={"isn": "Bench"})
    reply = ttheader.Header(SEQUENCE_ID, ints={22: "2"})
    return Message(name, message.method, ttheader.dumps(request, message.request[4:]), ttheader.dumps(reply, message.reply[4:]))


@cache
def messages() -> dict[str, Message]:
    """All messages of the benchmark by name, in the order of the report."""
    from bench.codecs import thriftpy2 as codec

    types = codec.types()
    found: dict[str, Message] = {}
    for name, size in (("16B", SMALL_BYTES), ("1KiB", MEDIUM_BYTES)):
        fields = {"action": "echo", "msg": text(size)}
        request, response = types.EchoRequest(**fields), types.EchoResponse(**fields)
        found[name] = _message(name, "echo", codec.encode(request), codec.encode(response))
    request = complex_message(types, types.ComplexRequest)
    response = complex_message(types, types.ComplexResponse)
    found["complex"] = _message("complex", "echoComplex", codec.encode(request), codec.encode(response))
    found[TTHEADER] = with_ttheader(found["1KiB"])
    found[MUX] = with_ttheader(found["1KiB"], MUX, OUT_OF_ORDER)
    return found


def files(message: Message) -> tuple[str, str]:
    """Paths of files with the request's and the reply's bytes, written now, for the load generator."""
    BUILD.mkdir(parents=True, exist_ok=True)
    paths = BUILD / f"{message.name}.request", BUILD / f"{message.name}.reply"
    for path, data in zip(paths, (message.request, message.reply), strict=True):
        path.write_bytes(data)
    return str(paths[0]), str(paths[1])

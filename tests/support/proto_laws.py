"""What native Protobuf messages owe: to say what protobuf's own say, on every message and on any bytes."""

from __future__ import annotations

import math
import struct
from random import Random
from typing import Any

from google.protobuf.message import DecodeError

from codec.errors import ProtocolError
from tests.support.proto_values import differences

__all__ = ["agree", "agree_on_bytes", "mutated"]


def agree(native: type[Any], message: Any) -> bytes:
    """A message of protobuf's, read natively field by field, written again, and read by protobuf. Its bytes."""
    plan = native.__plan__
    data: bytes = message.SerializeToString()
    mine = plan.loads(data)
    assert differences(mine, message) == []
    again = plan.dumps(mine)
    assert len(again) == len(data)  # the order of a map's entries is free
    assert type(message).FromString(again) == message
    assert plan.dumps(plan.loads(again)) == again
    assert plan.loads(again) == mine
    return data


def agree_on_bytes(native: type[Any], cls: type[Any], data: bytes) -> None:
    """Any bytes: both take them and say the same, or neither; and ours says no by ProtocolError only."""
    plan = native.__plan__
    theirs: Any = None
    try:
        theirs = cls.FromString(data)
        if not theirs.IsInitialized():  # upb's Python reads it all the same; other implementations refuse
            theirs = None
    except DecodeError:
        pass
    try:
        mine = plan.loads(data)
    except ProtocolError:
        assert theirs is None, data.hex()
        return
    assert theirs is not None, data.hex()
    assert differences(mine, theirs) == [], data.hex()
    again = cls.FromString(plan.dumps(mine))
    if _has_nan(theirs):
        return  # a float's NaN may lose its payload on the way through a Python float
    assert again.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True), data.hex()


def _has_nan(message: Any) -> bool:
    if hasattr(message, "ListFields"):
        return any(_has_nan(value) for _, value in message.ListFields())
    if isinstance(message, float):
        return math.isnan(message)
    if hasattr(message, "values"):
        return any(_has_nan(value) for value in message.values())
    if isinstance(message, str | bytes | int):
        return False
    return any(_has_nan(value) for value in message)


def mutated(data: bytes, random: Random) -> bytes:
    """The bytes with a few bytes changed, added or taken away, cut, or doubled."""
    changed = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        at = random.randrange(len(changed) + 1)
        match random.randrange(4):
            case 0 if at < len(changed):
                changed[at] = random.randrange(256)
            case 1:
                changed.insert(at, random.choice((0, 0x7F, 0x80, 0xFF, random.randrange(256))))
            case 2 if at < len(changed):
                del changed[at]
            case 3:
                changed[at:at] = random.choice((b"\x0b\x0c", b"\xf8\x01\x05", struct.pack("<BI", 0x0D, 7), b"\x12\x00"))
    match random.randrange(6):
        case 0:
            return bytes(changed[: random.randrange(len(changed) + 1)])
        case 1:
            return bytes(changed) + data
    return bytes(changed)

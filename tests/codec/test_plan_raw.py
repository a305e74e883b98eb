"""Structs as bytes: for those who pass them on without knowing what is in them."""

from __future__ import annotations

import pytest

from codec.errors import EncodeError, ProtocolError
from codec.spec import Field, MethodSpec, RawMethodSpec
from codec.types import I32, STRING, List

SPEC = MethodSpec("m", args=[Field(1, "a", I32), Field(2, "b", List(STRING))], result=STRING)
RAW = RawMethodSpec("m")


@pytest.mark.parametrize("compact", [False, True])
def test_bytes_go_through_as_they_are(compact: bool) -> None:
    data = SPEC.args_plan.dumps((7, ["x", "y"]), compact)
    assert RAW.args_plan.loads(data, compact) == (data,)
    assert RAW.args_plan.dumps((data,), compact) == data
    result = SPEC.result_plan.dumps("hello", compact)
    assert RAW.result_plan.loads(result, compact) == result
    assert RAW.result_plan.dumps(result, compact) == result


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x08\x00\x01\x00\x00\x00", b"\x00\x00", b"\x99\x00\x01\x00"])
def test_what_is_no_struct_is_not_sent(data: bytes) -> None:
    with pytest.raises(EncodeError):
        RAW.args_plan.dumps((data,))
    with pytest.raises(EncodeError):
        RAW.result_plan.dumps(data)


def test_what_is_no_struct_is_not_taken() -> None:
    with pytest.raises(ProtocolError):
        RAW.args_plan.loads(b"\x08\x00\x01\x00")


def test_only_bytes_are_bytes() -> None:
    with pytest.raises(EncodeError, match="expected the bytes of a struct, got str"):
        RAW.args_plan.dumps(("text",))
    assert RAW.args_plan.dumps((bytearray(b"\x00"),)) == b"\x00"

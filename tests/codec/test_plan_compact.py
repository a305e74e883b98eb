"""The compact protocol, byte by byte, and what only it can get wrong; the random schemas are in test_plan_fuzz.py."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import pytest

from codec.errors import EncodeError, ProtocolError, ProtocolErrorKind
from codec.types import Type
from tests.codec.schemas import Color, Node, NotFound, Point, Shape, one, struct
from weego import stub
from weego.stub import (
    BINARY,
    BOOL,
    BYTE,
    DOUBLE,
    I16,
    I32,
    I64,
    OPTIONAL,
    STRING,
    UUID,
    EnumType,
    Field,
    List,
    Map,
    Set,
    StructType,
)

# Worked out by hand from Apache's `thrift-compact-protocol.md`.
BYTES: list[tuple[Type, Any, str]] = [
    (BOOL, True, "11"),
    (BOOL, False, "12"),
    (BYTE, -1, "13 ff"),
    (I16, -1, "14 01"),
    (I16, 32767, "14 fe ff 03"),
    (I32, 0, "15 00"),
    (I32, 1, "15 02"),
    (I32, -64, "15 7f"),
    (I32, 64, "15 80 01"),
    (I32, -(2**31), "15 ff ff ff ff 0f"),
    (I64, 2**63 - 1, "16 fe ff ff ff ff ff ff ff ff 01"),
    (I64, -(2**63), "16 ff ff ff ff ff ff ff ff ff 01"),
    (DOUBLE, 1.0, "17 00 00 00 00 00 00 f0 3f"),
    (STRING, "hi", "18 02 68 69"),
    (BINARY, b"\xff" * 200, "18 c8 01" + " ff" * 200),
    (List(I32), [1, -1], "19 25 02 01"),
    (List(I32), [], "19 05"),
    (List(BYTE), [0] * 15, "19 f3 0f" + " 00" * 15),
    (List(BOOL), [True, False], "19 21 01 02"),
    (Set(STRING), {""}, "1a 18 00"),
    (Map(I16, STRING), {1: "a"}, "1b 01 48 02 01 61"),
    (Map(I16, STRING), {}, "1b 00"),
    (StructType(Point), Point(x=1, y=2), "1c 15 02 15 04 00"),
    (EnumType(Color), Color.DARK, "15 09"),
    (UUID, uuid.UUID(int=1), "1d" + " 00" * 15 + " 01"),
]


@pytest.mark.parametrize(("type_", "value", "bytes_"), BYTES, ids=[f"{t} {str(v)[:20]}" for t, v, _ in BYTES])
def test_bytes(type_: Type, value: Any, bytes_: str) -> None:
    cls = one(type_)
    data = bytes.fromhex(bytes_) + b"\0"
    assert cls.__plan__.dumps(cls(x=value), compact=True) == data
    assert cls.__plan__.loads(data, compact=True) == cls(x=value)


def test_field_ids_near_and_far() -> None:
    """A step of 1 to 15 is in the head; all else, also backwards, is written out."""
    ids = [1, 16, 32, 31, -1, 32767, -32768]
    cls = struct("Ids", *(Field(number, f"f{index}", I32) for index, number in enumerate(ids)))
    value = cls(**{f"f{index}": index for index in range(len(ids))})
    data = cls.__plan__.dumps(value, compact=True)
    assert data == bytes.fromhex("15 00  f5 02  05 40 04  05 3e 06  05 01 08  05 fe ff 03 0a  05 ff ff 03 0c  00")
    assert cls.__plan__.loads(data, compact=True) == value


@pytest.mark.parametrize(
    ("what", "data", "kind"),
    [
        ("a number of eleven bytes (TH-05)", "16" + "80" * 10 + "01", ProtocolErrorKind.INVALID_DATA),
        ("a number of 65 bits", "16" + "ff" * 9 + "02", ProtocolErrorKind.INVALID_DATA),
        ("an unknown number of eleven bytes", "26" + "80" * 10 + "01", ProtocolErrorKind.INVALID_DATA),
        ("a length of 2^31", "f8 80 80 80 80 08", ProtocolErrorKind.NEGATIVE_SIZE),
        ("a length behind the end", "f8 05 61", ProtocolErrorKind.SIZE_LIMIT),
        ("an unknown list of 2^31-1", "29 f3 ff ff ff ff 07", ProtocolErrorKind.SIZE_LIMIT),
        ("an unknown map of 2^31", "2b 80 80 80 80 08 33", ProtocolErrorKind.NEGATIVE_SIZE),
        ("an unknown list of nothing known", "29 2e 00 00", ProtocolErrorKind.INVALID_DATA),
        ("an unknown field of type 14", "2e 00", ProtocolErrorKind.INVALID_DATA),
        ("lists, 10 000 deep", "29" + "19" * 10_000, ProtocolErrorKind.DEPTH_LIMIT),
        ("structs, 10 000 deep", "2c" + "1c" * 10_000, ProtocolErrorKind.DEPTH_LIMIT),
        ("field ids beyond 16 bits", "05 fe ff 03 00 f5 00", ProtocolErrorKind.INVALID_DATA),
        ("an id of 17 bits", "05 80 80 04 00", ProtocolErrorKind.INVALID_DATA),
    ],
)
def test_hostile_bytes(what: str, data: str, kind: ProtocolErrorKind) -> None:
    cls = struct("Wide", Field(1, "x", I64), Field(15, "text", STRING))
    with pytest.raises(ProtocolError) as caught:
        cls.__plan__.loads(bytes.fromhex(data) + b"\0", compact=True)
    assert caught.value.kind is kind, caught.value


@pytest.mark.parametrize("type_", [I32, I16])
def test_numbers_that_do_not_fit(type_: Type) -> None:
    with pytest.raises(ProtocolError, match="does not fit its type"):
        one(type_).__plan__.loads(
            bytes.fromhex("14" if type_ == I16 else "15") + b"\x80\x80\x80\x80\x80\x01\0", compact=True
        )


def test_a_bool_in_a_list_by_either_number() -> None:
    """Apache's languages name it by 1 or 2; and what is not 1 is false."""
    plan = one(List(BOOL)).__plan__
    for head in ("21", "22"):
        assert plan.loads(bytes.fromhex(f"19 {head} 01 00 00"), compact=True).x == [True, False]


def test_recursion_is_bounded() -> None:
    value = Node()
    for _ in range(63):
        value = Node(next=value)
    assert Node.__plan__.loads(Node.__plan__.dumps(value, compact=True), compact=True) == value
    with pytest.raises(EncodeError, match="deeper than 64"):
        Node.__plan__.dumps(Node(next=value), compact=True)


def test_values_that_do_not_fit_name_their_field() -> None:
    cls = one(Map(STRING, List(I32)))
    with pytest.raises(EncodeError, match=r"One\.x\['a'\]\[1\]"):
        cls.__plan__.dumps(cls(x={"a": [1, "2"]}), compact=True)
    with pytest.raises(EncodeError, match="expected bool"):
        flag = one(BOOL)
        flag.__plan__.dumps(flag(x=1), compact=True)


def test_unions_and_exceptions() -> None:
    for value in (Shape(label="x"), Shape(point=Point(x=1)), NotFound(message="gone", key=4)):
        plan = type(value).__plan__
        assert plan.loads(plan.dumps(value, compact=True), compact=True) == value
    with pytest.raises(ProtocolError, match="a union has one member"):
        Shape.__plan__.loads(bytes.fromhex("28 00 15 02 00"), compact=True)


# ---- unknown fields (both protocols)

OLD = struct("Old", Field(2, "name", STRING), keeps_unknown=True)
PLAIN = struct("Plain", Field(2, "name", STRING))
NEW = struct(
    "New",
    Field(1, "flag", BOOL, OPTIONAL),
    Field(2, "name", STRING),
    Field(3, "tree", StructType(Node), OPTIONAL),
    Field(300, "table", Map(STRING, List(DOUBLE)), OPTIONAL),
    Field(301, "flags", List(BOOL), OPTIONAL),
    Field(-7, "many", Set(I64), OPTIONAL),
    Field(400, "id", UUID, OPTIONAL),
    Field(401, "small", Map(BYTE, I16), OPTIONAL),
    Field(402, "none", List(I32), OPTIONAL),
    Field(403, "nothing", Map(I32, I32), OPTIONAL),
)
BOTH = pytest.mark.parametrize("compact", [False, True], ids=["binary", "compact"])


def newer() -> Any:
    return NEW(
        flag=False,
        name="n",
        tree=Node(name="root", next=Node(name="next"), children=[Node(name="child")]),
        table={"a": [1.5, -2.0], "": []},
        flags=[True, False],
        many={1, -(2**63)},
        id=uuid.UUID(int=5),
        small={-1: -300},
        none=[],
        nothing={},
    )


@BOTH
@pytest.mark.parametrize("back", [False, True], ids=["to binary", "to compact"])
def test_unknown_fields_go_on(compact: bool, back: bool) -> None:
    """Through a service that is older than both its neighbours, and from one protocol to the other."""
    passed = OLD.__plan__.loads(NEW.__plan__.dumps(newer(), compact), compact)
    assert passed.name == "n"
    passed.name = "changed"
    assert NEW.__plan__.loads(OLD.__plan__.dumps(passed, back), back) == newer().copy(name="changed")


@BOTH
def test_unknown_fields_are_dropped_unless_asked_for(compact: bool) -> None:
    passed = PLAIN.__plan__.loads(NEW.__plan__.dumps(newer(), compact), compact)
    assert NEW.__plan__.loads(PLAIN.__plan__.dumps(passed, compact), compact) == NEW(name="n")


def test_unknown_fields_are_part_of_the_value() -> None:
    data = NEW.__plan__.dumps(newer())
    passed, other = OLD.__plan__.loads(data), OLD(name="n")
    assert passed != other
    assert passed == OLD.__plan__.loads(data)
    assert hash(passed) == hash(OLD.__plan__.loads(data))
    for twin in (copy.copy(passed), copy.deepcopy(passed), passed.copy()):
        assert twin == passed
        assert OLD.__plan__.dumps(twin) == OLD.__plan__.dumps(passed)
    passed.__unknown__ = None
    assert passed == other


@BOTH
def test_a_union_member_of_a_newer_peer_goes_on(compact: bool) -> None:
    newer_shape = struct("Shape", Field(1, "point", StructType(Point)), Field(9, "angle", DOUBLE), base=stub.Union)
    older = struct("Shape", Field(1, "point", StructType(Point)), base=stub.Union, keeps_unknown=True)
    holder = struct("Holder", Field(1, "shape", StructType(older)))
    sender = struct("Holder", Field(1, "shape", StructType(newer_shape)))
    data = sender.__plan__.dumps(sender(shape=newer_shape(angle=1.5)), compact)
    passed = holder.__plan__.loads(data, compact)
    assert passed.shape.which is None
    assert holder.__plan__.dumps(passed, compact) == data


@BOTH
@pytest.mark.parametrize("content", [b"\0", b"\x08", b"\x08\0\x01", b"\x05\0\x01\0", "text", 5])
def test_nonsense_among_unknown_fields_is_not_sent(compact: bool, content: Any) -> None:
    value = OLD(name="n")
    value.__unknown__ = content
    with pytest.raises(EncodeError, match="__unknown__"):
        OLD.__plan__.dumps(value, compact)


# ---- memory


@BOTH
def test_a_message_that_would_take_too_much_memory(compact: bool) -> None:
    """TH-02: a struct of one byte becomes an object with a list and a dict; 256 MiB are allowed."""
    heavy = struct("Heavy", *(Field(number, f"f{number}", List(I32)) for number in range(1, 40)))
    plan = one(List(StructType(heavy))).__plan__
    count = 200_000

    def message(count: int) -> bytes:
        if compact:
            size = bytes([count & 0x7F | 0x80, count >> 7 & 0x7F | 0x80, count >> 14])
            return b"\x19\xfc" + size + bytes(count) + b"\0"
        return b"\x0f\0\1\x0c" + count.to_bytes(4) + bytes(count) + b"\0"

    with pytest.raises(ProtocolError, match="more memory") as caught:
        plan.loads(message(count), compact)
    assert caught.value.kind is ProtocolErrorKind.SIZE_LIMIT
    assert len(plan.loads(message(40_000), compact).x) == 40_000

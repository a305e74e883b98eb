"""Native Protobuf messages: each rule at the top of codec/proto_plan.pyx. Expected bytes are the specification's."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from typing import Any

import pytest

from codec.errors import EncodeError, ProtocolError, ProtocolErrorKind
from codec.proto_fields import ProtoField, ProtoMap
from codec.proto_plan import MAX_DEPTH, define_proto, which
from codec.proto_structs import ProtoStruct, or_default, unknown_fields
from codec.protobuf import message_type
from codec.structs import Enum


class Color(Enum):
    RED = 0
    BLUE = 2


class Inner(ProtoStruct):
    __slots__ = ("n", "s")

    def __init__(self, *, s: str = "", n: int = 0) -> None:
        self.s = s
        self.n = n


class Outer(ProtoStruct):
    __slots__ = ("a", "blob", "color", "double", "inner", "items", "maybe", "names", "numbers", "pick", "text", "tree")

    def __init__(
        self,
        *,
        a: int = 0,
        text: str = "",
        blob: bytes = b"",
        double: float = 0.0,
        color: Color | None = None,
        numbers: list[int] | None = None,
        items: list[Inner] | None = None,
        names: dict[str, int] | None = None,
        inner: Inner | None = None,
        maybe: int | None = None,
        pick: str | None = None,
        tree: Outer | None = None,
    ) -> None:
        self.a = a
        self.text = text
        self.blob = blob
        self.double = double
        self.color = Color.RED if color is None else color
        self.numbers = [] if numbers is None else numbers
        self.items = [] if items is None else items
        self.names = {} if names is None else names
        self.inner = inner
        self.maybe = maybe
        self.pick = pick
        self.tree = tree


class Old(ProtoStruct):
    """proto2: required, closed enum, unchecked text, group, defaults."""

    __slots__ = ("color", "colors", "grouped", "must", "number", "raw")

    def __init__(
        self,
        *,
        must: int,
        color: Color | None = None,
        colors: list[Color] | None = None,
        raw: str | None = None,
        grouped: Inner | None = None,
        number: int | None = None,
    ) -> None:
        self.must = must
        self.color = color
        self.colors = [] if colors is None else colors
        self.raw = raw
        self.grouped = grouped
        self.number = number


class Holder(ProtoStruct):
    __slots__ = ("old", "olds")

    def __init__(self, *, old: Old | None = None, olds: dict[int, Old] | None = None) -> None:
        self.old = old
        self.olds = {} if olds is None else olds


define_proto(Inner, "t.Inner", ProtoField(1, "s", "string"), ProtoField(2, "n", "int32"))
define_proto(
    Outer,
    "t.Outer",
    ProtoField(1, "a", "int64"),
    ProtoField(2, "text", "string"),
    ProtoField(3, "blob", "bytes"),
    ProtoField(4, "double", "double"),
    ProtoField(5, "color", Color),
    ProtoField(6, "numbers", "sint32", repeated=True, packed=True),
    ProtoField(7, "items", Inner, repeated=True),
    ProtoField(8, "names", ProtoMap("string", "uint64")),
    ProtoField(9, "inner", Inner, presence="explicit", oneof="choice"),
    ProtoField(10, "maybe", "fixed32", presence="explicit"),
    ProtoField(11, "pick", "string", presence="explicit", oneof="choice"),
    ProtoField(5000, "tree", Outer, presence="explicit"),
)
define_proto(
    Old,
    "t.Old",
    ProtoField(1, "must", "int32", presence="required"),
    ProtoField(2, "color", Color, presence="explicit", closed=True),
    ProtoField(3, "colors", Color, repeated=True, closed=True),
    ProtoField(4, "raw", "string", presence="explicit", utf8=False),
    ProtoField(5, "grouped", Inner, presence="explicit", group=True),
    ProtoField(6, "number", "int32", presence="explicit", default=-7),
)
define_proto(Holder, "t.Holder", ProtoField(1, "old", Old, presence="explicit"), ProtoField(2, "olds", ProtoMap("int32", Old)))


def dumps(message: Any) -> bytes:
    return type(message).__plan__.dumps(message)


def outer(data: bytes) -> Outer:
    return Outer.__plan__.loads(data)


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (Outer(), b""),
        (Outer(a=150), b"\x08\x96\x01"),
        (Outer(a=-1), b"\x08" + b"\xff" * 9 + b"\x01"),
        (Outer(text="é", blob=b"\xff"), b"\x12\x02\xc3\xa9\x1a\x01\xff"),
        (Outer(double=-0.0), b"\x21" + bytes(7) + b"\x80"),
        (Outer(color=Color.BLUE), b"\x28\x02"),
        (Outer(numbers=[0, -1, 1, -2, 2147483647]), b"\x32\x09\x00\x01\x02\x03\xfe\xff\xff\xff\x0f"),
        (Outer(items=[Inner(), Inner(n=1)]), b"\x3a\x00\x3a\x02\x10\x01"),
        (Outer(names={"": 0}), b"\x42\x04\x0a\x00\x10\x00"),
        (Outer(maybe=0), b"\x55\x00\x00\x00\x00"),
        (Outer(pick=""), b"\x5a\x00"),
        (Outer(tree=Outer()), b"\xc2\xb8\x02\x00"),
        (Outer(inner=Inner(s="x" * 200)), b"\x4a\xcb\x01\x0a\xc8\x01" + b"x" * 200),
    ],
)
def test_messages_are_the_bytes_of_the_specification(message: Outer, data: bytes) -> None:
    assert dumps(message) == data
    assert outer(data) == message


def test_decoding_fills_every_field() -> None:
    message = outer(b"")
    assert (message.a, message.text, message.blob, message.double, message.color) == (0, "", b"", 0.0, Color.RED)
    assert (message.numbers, message.items, message.names) == ([], [], {})
    assert (message.inner, message.maybe, message.pick, message.tree) == (None, None, None, None)
    assert message.numbers is not outer(b"").numbers


# 1: nothing is believed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80", "Outer: a tag is cut off"),
        (b"\x08", r"Outer\.a: a varint is cut off"),
        (b"\x08" + b"\x80" * 10 + b"\x01", r"Outer\.a: a varint is cut off or too long"),
        (b"\x12\x05ab", r"Outer\.text: a length of 5 bytes, 2 are there"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", r"Outer\.text: a length of 18446744073709551615 bytes"),
        (b"\x21abc", r"Outer\.double: 8 bytes are needed, 3 are there"),
        (b"\x55abc", r"Outer\.maybe: 4 bytes are needed"),
        (b"\x3a\x00\x3a\x02\x10", r"Outer\.items\[1\]: a length of 2 bytes, 1 are there"),
        (b"\x3a\x03\x0a\x05x", r"Outer\.items\[0\]\.s: a length of 5 bytes, 1 are there"),
        (b"\x32\x02\x01\x80", r"Outer\.numbers\[1\]: a varint is cut off"),
        (b"\x42\x04\x0a\x01k\x10", r"Outer\.names\['k'\]: a varint is cut off"),
        (b"\x00\x01", "field number 0"),
        (b"\x0c", "the end of group 1, which is not open"),
        (b"\xf3\x07\x0b\xf4\x07", "the end of group 126, which is not open"),
        (b"\xf3\x07\x0b\x0c", "the message ends inside group 126"),
        (b"\x0e", "wire type 6, which does not exist"),
        (b"\x80\x80\x80\x80\x80\x01", "a tag is cut off or too long"),
    ],
)
def test_broken_bytes_are_a_protocol_error_that_says_where(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        outer(data)


def test_a_claimed_length_makes_nothing() -> None:
    before = sys.getsizeof([])
    with pytest.raises(ProtocolError) as caught:
        outer(b"\x32\xff\xff\xff\xff\x07\x01")
    assert caught.value.kind is ProtocolErrorKind.SIZE_LIMIT
    assert before == sys.getsizeof([])


# 2: depth


def nested(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        size = len(data)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        data = b"\xc2\xb8\x02" + length + data
    return data


def test_depth_is_bounded_in_both_directions() -> None:
    message = outer(nested(MAX_DEPTH - 1))
    assert dumps(message) == nested(MAX_DEPTH - 1)
    with pytest.raises(ProtocolError, match="nested deeper than 100 levels") as caught:
        outer(nested(MAX_DEPTH))
    assert caught.value.kind is ProtocolErrorKind.DEPTH_LIMIT
    with pytest.raises(EncodeError, match="nested deeper than 100 levels; does it contain itself"):
        dumps(Outer(tree=message))


def test_unknown_groups_count_as_depth() -> None:
    assert unknown_fields(outer(b"\xf3\x07" * 99 + b"\xf4\x07" * 99))
    with pytest.raises(ProtocolError, match="groups nested deeper"):
        outer(b"\xf3\x07" * 100 + b"\xf4\x07" * 100)


def test_a_message_that_contains_itself_is_an_error() -> None:
    message = Outer()
    message.tree = message
    with pytest.raises(EncodeError, match="does it contain itself"):
        dumps(message)
    assert "..." in repr(message)
    message.tree = None


# 3: what is not known is kept


def test_unknown_fields_are_written_behind_the_known() -> None:
    unknown = b"\xf8\x07\x05" + b"\xf2\x07\x01x" + b"\xf3\x07\x08\x01\xf4\x07" + b"\x0a\x01y"  # the last: field 1 as text
    message = outer(unknown[:3] + b"\x08\x07" + unknown[3:])
    assert message.a == 7
    assert unknown_fields(message) == unknown
    assert dumps(message) == b"\x08\x07" + unknown
    assert dumps(message.copy()) == dumps(pickle.loads(pickle.dumps(message))) == dumps(copy.deepcopy(message)) == dumps(message)
    assert message != outer(b"\x08\x07")


def test_open_enums_keep_numbers_without_names() -> None:
    message = outer(b"\x28\x07")
    assert (message.color, message.color.name) == (7, "UNKNOWN_7")
    assert dumps(message) == b"\x28\x07"


def test_closed_enums_leave_numbers_without_names_unknown() -> None:
    old = Old.__plan__.loads(b"\x08\x01\x10\x07\x18\x02\x18\x09\x1a\x03\x00\x09\x02")
    assert (old.color, old.colors) == (None, [Color.BLUE, Color.RED, Color.BLUE])
    assert unknown_fields(old) == b"\x10\x07\x18\x09\x18\x09"


# 4: fields that come twice


def test_the_last_scalar_wins_and_messages_are_merged() -> None:
    message = outer(b"\x08\x01\x08\x02" + b"\x4a\x03\x0a\x01x" + b"\x4a\x02\x10\x05")
    assert (message.a, message.inner) == (2, Inner(s="x", n=5))
    assert outer(b"\x42\x05\x0a\x01k\x10\x01\x42\x05\x0a\x01k\x10\x02").names == {"k": 2}


def test_a_oneof_keeps_what_came_last() -> None:
    assert outer(b"\x4a\x00\x5a\x01x") == Outer(pick="x")
    assert outer(b"\x5a\x01x\x4a\x00") == Outer(inner=Inner())


def test_setting_a_member_of_a_oneof_clears_the_others() -> None:
    message = Outer(pick="x")
    message.inner = Inner()
    assert (message.pick, which(message, "inner", "pick")) == (None, "inner")
    message.inner = None
    assert which(message, "inner", "pick") is None
    message.pick = "y"
    del message.pick
    assert message.pick is None
    with pytest.raises(ValueError, match="inner and pick are members of one oneof"):
        Outer(inner=Inner(), pick="x")
    with pytest.raises(TypeError, match="a field of Outer, not of Inner"):
        Outer.__dict__["pick"].__set__(Inner(), "x")


# 5: packed or not


def test_repeated_scalars_come_packed_and_unpacked() -> None:
    assert outer(b"\x30\x02\x32\x02\x04\x06\x30\x08\x32\x00").numbers == [1, 2, 3, 4]
    assert dumps(outer(b"\x30\x02\x30\x04")) == b"\x32\x02\x02\x04"


def test_long_packed_fields_outgrow_what_is_made_ahead() -> None:
    numbers = list(range(10_000))
    assert outer(dumps(Outer(numbers=numbers))).numbers == numbers


# 6: text


def test_text_is_checked_where_the_idl_says_so() -> None:
    with pytest.raises(ProtocolError, match=r"Outer\.text: invalid UTF-8 at byte 1 of a string of 2"):
        outer(b"\x12\x02a\xff")
    with pytest.raises(EncodeError, match="lone surrogate at position 1"):
        dumps(Outer(text="a\udcff"))
    old = Old.__plan__.loads(b"\x08\x01\x22\x02a\xff")
    assert old.raw == "a\udcff"
    assert dumps(old) == b"\x08\x01\x22\x02a\xff"


# 7: required


def test_required_fields_must_be_there_wherever_they_are() -> None:
    with pytest.raises(ProtocolError, match=r"Old\.must: the required field is missing"):
        Old.__plan__.loads(b"")
    with pytest.raises(ProtocolError, match=r"Holder\.old\.must: the required field is missing"):
        Holder.__plan__.loads(b"\x0a\x00")
    with pytest.raises(ProtocolError, match=r"Holder\.olds\[5\]\.must"):
        Holder.__plan__.loads(b"\x12\x04\x08\x05\x12\x00")
    with pytest.raises(TypeError, match="must"):
        Old()  # type: ignore[call-arg]
    old = Old(must=1)
    old.must = None  # type: ignore[assignment]
    with pytest.raises(EncodeError, match=r"Holder\.old\.must: the field is required"):
        dumps(Holder(old=old))


def test_the_other_half_of_a_message_may_come_later() -> None:
    holder = Holder.__plan__.loads(b"\x0a\x02\x10\x02" + b"\x0a\x02\x08\x01")
    assert holder == Holder(old=Old(must=1, color=Color.BLUE))


def test_defaults_stand_for_what_is_absent() -> None:
    old = Old(must=1)
    assert (old.number, or_default(old, "number"), or_default(old, "raw")) == (None, -7, "")
    assert or_default(Outer(), "inner") == Inner()
    assert or_default(Old(must=1, number=0), "number") == 0


def test_groups_are_delimited_by_tags() -> None:
    old = Old(must=1, grouped=Inner(s="x"))
    assert dumps(old) == b"\x08\x01\x2b\x0a\x01x\x2c"
    assert Old.__plan__.loads(dumps(old)) == old
    with pytest.raises(ProtocolError, match=r"Old\.grouped: the message ends inside group 5"):
        Old.__plan__.loads(b"\x08\x01\x2b\x0a\x01x")


# 8: errors of the encoder


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Outer(a="1"), r"Outer\.a: expected int, got str"),  # type: ignore[arg-type]
        (Outer(a=True), r"Outer\.a: expected int, got bool"),
        (Outer(a=2**63), r"Outer\.a: int64 out of range"),
        (Outer(names={"k": -1}), r"Outer\.names\['k'\]: uint64 out of range"),
        (Outer(names={"k": 2**64}), r"Outer\.names\['k'\]: uint64 out of range"),
        (Outer(maybe=-1), r"Outer\.maybe: uint32 out of range"),
        (Outer(numbers=[1, 2**31]), r"Outer\.numbers\[1\]: int32 out of range"),
        (Outer(items=[Inner(), Inner(s=5)]), r"Outer\.items\[1\]\.s: expected str, got int"),  # type: ignore[arg-type]
        (Outer(items=Inner()), r"Outer\.items\[0\]: expected list, got Inner"),  # type: ignore[arg-type]
        (Outer(items=[Outer()]), r"Outer\.items\[0\]: expected Inner, got Outer"),  # type: ignore[list-item]
        (Outer(names=[]), r"Outer\.names\[key\]: expected dict, got list"),  # type: ignore[arg-type]
        (Outer(blob="x"), r"Outer\.blob: expected bytes, got str"),  # type: ignore[arg-type]
        (Outer(double="x"), r"Outer\.double: expected float, got str"),  # type: ignore[arg-type]
        (Outer(color="RED"), r"Outer\.color: expected Color, got str"),  # type: ignore[arg-type]
    ],
)
def test_values_that_do_not_fit_are_named(message: Outer, reason: str) -> None:
    with pytest.raises(EncodeError, match=reason):
        dumps(message)
    assert dumps(Outer(a=1)) == b"\x08\x01"


def test_values_that_fit_in_other_types() -> None:
    message = Outer(double=3, blob=bytearray(b"x"), color=2, numbers=(1, 2), names={})  # type: ignore[arg-type]
    assert outer(dumps(message)) == Outer(double=3.0, blob=b"x", color=Color.BLUE, numbers=[1, 2])
    assert dumps(Outer(blob=memoryview(b"abcd")[::2])) == b"\x1a\x02ac"  # type: ignore[arg-type]


# Values


def test_messages_are_values() -> None:
    message = Outer(a=1, items=[Inner(s="x")], names={"k": 1}, pick="p")
    assert message == Outer(a=1, items=[Inner(s="x")], names={"k": 1}, pick="p")
    assert message != Outer(a=1)
    assert message != Inner()
    assert pickle.loads(pickle.dumps(message)) == copy.deepcopy(message) == copy.copy(message) == message
    assert message.copy(a=2) == Outer(a=2, items=[Inner(s="x")], names={"k": 1}, pick="p")
    with pytest.raises(TypeError, match="no field 'b'"):
        message.copy(b=2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(message)
    assert repr(Outer(a=1, maybe=0, items=[Inner(s="x")])) == "Outer(a=1, items=[Inner(s='x')], maybe=0)"


def test_subclasses_are_made_and_sent_as_what_they_are() -> None:
    class Mine(Inner):
        pass

    assert dumps(Outer(items=[Mine(s="x")])) == dumps(Outer(items=[Inner(s="x")]))
    assert copy.copy(Mine(s="x")).s == "x"


def test_constructors_say_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'b'"):
        Outer(b=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Outer(1)  # type: ignore[misc]


def test_a_table_must_fit_its_class() -> None:
    class Bad(ProtoStruct):
        __slots__ = ("a",)

    with pytest.raises(TypeError, match=r"Bad\.b is not a slot"):
        define_proto(Bad, "t.Bad", ProtoField(1, "b", "int32"))
    with pytest.raises(ValueError, match="have the same number 1"):
        define_proto(Bad, "t.Bad", ProtoField(1, "a", "int32"), ProtoField(1, "b", "int32"))
    with pytest.raises(TypeError, match="no scalar of Protobuf"):
        ProtoField(1, "a", "i32")
    with pytest.raises(ValueError, match="no field number"):
        ProtoField(0, "a", "int32")
    with pytest.raises(TypeError, match=r"not a stub\.ProtoStruct"):
        define_proto(int, "t.Bad")


def test_message_types_hide_which_runtime_it_is() -> None:
    kind = message_type(Inner)
    assert (kind.cls, kind.full_name) == (Inner, "t.Inner")
    assert kind.decode(memoryview(kind.encode(Inner(s="x")))) == Inner(s="x")
    with pytest.raises(EncodeError, match="expected Inner, got Outer"):
        kind.encode(Outer())


def test_nothing_leaks() -> None:
    message = Outer(a=2**40, text="tx", items=[Inner(s="x")] * 3, names={"k": 2**40}, pick="p", tree=Outer(blob=b"b" * 40))
    data = dumps(message) + b"\xf2\x07\x01x"
    bad = [data[:cut] for cut in range(1, len(data))]

    def once() -> None:
        dumps(outer(data))
        Outer(a=2**40, items=[Inner()], pick="p")
        for each in bad:
            try:
                outer(each)
            except ProtocolError:
                pass

    once()
    gc.collect()
    before = sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else len(gc.get_objects())
    blocks = sys.getallocatedblocks()
    for _ in range(50):
        once()
    gc.collect()
    after = sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else len(gc.get_objects())
    assert after - before < 50
    assert sys.getallocatedblocks() - blocks < 500

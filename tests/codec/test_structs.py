"""Structs, unions, enums and exceptions as Python values."""

from __future__ import annotations

import copy
import gc
import pickle
import traceback
import weakref

import pytest

from codec.structs import Struct
from tests.codec.schemas import Color, Node, NotFound, Point, Shape, declare, struct
from weego import stub


class Sub(Point):
    """A user's subclass without __slots__: it has a __dict__."""


class Slotted(Point):
    __slots__ = ("note",)


# ---------------------------------------------------------------- Struct


def test_equal_by_value_within_one_class():
    assert Point(x=1, y=2) == Point(x=1, y=2)
    assert Point(x=1, y=2) != Point(x=1, y=3)
    assert Point() != Sub()
    assert Point() != (0, 0)
    assert Point() != Shape(count=1)


def test_hash_by_value_also_over_mutable_fields():
    cls = struct(
        "Bag",
        stub.Field(1, "a", stub.List(stub.I32)),
        stub.Field(2, "b", stub.Map(stub.I32, stub.List(stub.I32))),
        stub.Field(3, "c", stub.Set(stub.I32)),
        stub.Field(4, "d", stub.BINARY),
    )
    one = cls(a=[1, 2], b={1: [2], 3: [4]}, c={5, 6}, d=b"x")
    other = cls(a=[1, 2], b={3: [4], 1: [2]}, c={6, 5}, d=bytearray(b"x"))
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, cls(a=[2, 1])}) == 2


def test_hash_of_equal_maps_is_equal():
    cls = struct("M", stub.Field(1, "m", stub.Map(stub.I32, stub.STRING)))
    one, other = cls(m={1: "a"}), cls(m=stub.FrozenMap({1: "a"}))
    assert one == other
    assert hash(one) == hash(other)


def test_hash_refuses_what_cannot_be_hashed():
    class Odd:
        __hash__ = None

    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(x=Odd()))


def test_deep_values_end_in_recursion_error():
    items = []
    items.append(items)
    with pytest.raises(RecursionError):
        hash(Node(children=items))
    one, other = Node(), Node()
    one.next, other.next = one, other
    with pytest.raises(RecursionError):
        hash(one)
    with pytest.raises(RecursionError):
        assert one == other


def test_comparing_may_change_what_is_compared():
    class Hostile:
        def __eq__(self, other):
            del left.x, right.x
            gc.collect()
            return True

        def __hash__(self):
            del left.x
            gc.collect()
            return 1

    left, right = Point(x=Hostile()), Point(x=Hostile())
    assert left == right
    left.x = Hostile()
    hash(left)
    assert not hasattr(left, "x")


def test_repr():
    assert repr(Point(x=1)) == "Point(x=1, y=0)"
    assert repr(Node(name="n")) == "Node(name='n', children=[])"
    node = Node(name="loop")
    node.next = node
    assert repr(node) == "Node(name='loop', next=..., children=[])"


@pytest.mark.parametrize("cls", [Point, Sub, Slotted])
def test_copies(cls):
    value = cls(x=1, y=[1])
    if cls is not Point:
        value.note = "mine"
    for same in (copy.copy(value), value.copy(), pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert type(same) is cls
        assert same == value
        assert same is not value
        assert getattr(same, "note", None) == getattr(value, "note", None)
    assert value.copy().y is value.y
    assert copy.deepcopy(value).y is not value.y
    assert value.copy(x=9).x == 9
    assert value.x == 1


def test_copy_refuses_unknown_fields():
    with pytest.raises(TypeError, match="Point has no field 'z'; it has x, y"):
        Point().copy(z=1)


def test_copy_of_a_half_empty_struct():
    point = Point.__new__(Point)
    assert not hasattr(copy.copy(point), "x")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_protocols(protocol):
    if protocol < 2:
        with pytest.raises(TypeError):
            pickle.dumps(Point(), protocol)
    else:
        assert pickle.loads(pickle.dumps(Node(children=[Node()]), protocol)) == Node(children=[Node()])


def test_pickle_survives_a_changed_idl():
    value = Point.__new__(Point)
    value.__setstate__((None, {"x": 5, "gone": 1}))
    assert value == Point(x=5, y=0)


def test_pattern_matching():
    match Node(name="a", next=Node(name="b")):
        case Node(name="a", next=Node(name=inner)):
            assert inner == "b"
        case _:
            pytest.fail("no match")


def test_fields_win_over_our_names():
    cls = struct("Clash", stub.Field(1, "copy", stub.STRING), stub.Field(2, "__x", stub.I32))
    value = cls(copy="mine")
    assert value.copy == "mine"
    assert copy.copy(value) == value
    assert cls.__plan__.loads(cls.__plan__.dumps(value)) == value
    assert pickle.loads(pickle.dumps(NotFound(message="m"))).message == "m"


def test_no_dict_and_no_extra_attributes():
    assert not hasattr(Point(), "__dict__")
    with pytest.raises(AttributeError):
        Point().z = 1


def test_cycles_are_collected():
    class Watched(Node):
        __slots__ = ("__weakref__",)

    node = Watched()
    node.next = node
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


def test_use_before_define_is_explained():
    cls = declare("Early", "x")
    for use in (lambda: hash(cls.__new__(cls)), lambda: cls.__new__(cls) == cls.__new__(cls)):
        with pytest.raises(TypeError, match=r"stub\.define\(Early, \.\.\.\) is missing"):
            use()


def test_a_foreign_plan_is_refused():
    cls = declare("Thief", "x")
    cls.__plan__ = Node.__plan__
    with pytest.raises(TypeError, match="missing"):
        hash(cls.__new__(cls))


@pytest.mark.parametrize(
    ("cls", "fields", "error"),
    [
        (declare("A"), [stub.Field(1, "x", stub.I32)], r"A\.x is not a slot"),
        (declare("B", "x", "y"), [stub.Field(1, "x", stub.I32), stub.Field(1, "y", stub.I32)], "same id 1"),
        (declare("C", "x"), [stub.Field(1, "x", stub.I32), stub.Field(2, "x", stub.I32)], "same name"),
        (declare("D"), [stub.Field(1, "__suppress_context__", stub.I32)], "is not a slot"),
        (declare("E", base=stub.IdlException), [stub.Field(1, "__suppress_context__", stub.I32)], "not a slot for"),
        (int, [], "not a stub.Struct"),
    ],
)
def test_define_checks_its_arguments(cls, fields, error):
    with pytest.raises((TypeError, ValueError), match=error):
        stub.define(cls, *fields)


# ---------------------------------------------------------------- Union


def test_union_holds_one():
    shape = Shape(label="a")
    assert (shape.which, shape.value, shape.point) == ("label", "a", None)
    shape.count = 0
    assert (shape.which, shape.value, shape.label) == ("count", 0, None)
    shape.point = None
    assert shape.which == "count"
    shape.count = None
    assert (shape.which, shape.value) == (None, None)


@pytest.mark.parametrize(
    ("members", "text"),
    [({}, "got none"), ({"label": None}, "got none"), ({"label": "a", "count": 1}, "got label and count")],
)
def test_union_constructor_takes_exactly_one(members, text):
    with pytest.raises(ValueError, match=f"Shape takes exactly one of point, label, count; {text}"):
        Shape(**members)


def test_union_constructor_knows_its_members():
    class Loose(stub.Union):
        __slots__ = ("a",)

    stub.define(Loose, stub.Field(1, "a", stub.I32))
    with pytest.raises(TypeError, match="Loose has no member 'b'; it has a"):
        Loose(b=1)


def test_union_copies_and_compares():
    shape = Shape(label="a")
    assert pickle.loads(pickle.dumps(shape)) == shape == copy.deepcopy(shape) == copy.copy(shape)
    assert hash(copy.copy(shape)) == hash(shape)
    assert shape.copy(count=3) == Shape(count=3)
    assert repr(shape) == "Shape(label='a')"


# ---------------------------------------------------------------- IdlException


def test_exception_is_raised_and_caught():
    with pytest.raises(NotFound) as caught:
        raise NotFound(message="no such user", key=7)
    assert str(caught.value) == "no such user (key=7)"
    assert repr(caught.value) == "NotFound(message='no such user', key=7)"
    assert "NotFound: no such user (key=7)" in "".join(traceback.format_exception(caught.value))


def test_exception_text_without_a_message():
    cls = struct(
        "Quota",
        stub.Field(1, "limit", stub.I32),
        stub.Field(2, "user", stub.STRING, stub.OPTIONAL),
        base=stub.IdlException,
    )
    assert str(cls(limit=3)) == "limit=3"
    assert str(NotFound(key=1)) == "message='', key=1"
    only = struct("Only", stub.Field(1, "msg", stub.STRING), base=stub.IdlException)
    assert str(only(msg="just this")) == "just this"


def test_exception_equality_hash_and_copies():
    error = NotFound(message="m", key=1)
    assert error == NotFound(message="m", key=1)
    assert error != NotFound(message="m", key=2)
    assert len({error, NotFound(message="m", key=1)}) == 1
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        same = pickle.loads(pickle.dumps(error, protocol))
        assert same == error
        assert same.args == ()
    assert copy.copy(error) == copy.deepcopy(error) == error.copy() == error
    assert error.copy(key=2).key == 2


def test_exception_keeps_what_exceptions_have():
    error = NotFound(message="m")
    error.add_note("a note")
    try:
        try:
            raise ValueError("first")
        except ValueError as first:
            raise error from first
    except NotFound as caught:
        assert caught.__cause__ is not None
        assert caught.__traceback__ is not None
        assert "a note" in "".join(traceback.format_exception(caught))
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["a note"]
    assert NotFound.__plan__.loads(NotFound.__plan__.dumps(error)) == error


def test_exception_may_have_fields_named_like_ours():
    cls = struct("Odd", stub.Field(1, "args", stub.STRING), stub.Field(2, "copy", stub.I32), base=stub.IdlException)
    error = cls.__plan__.loads(cls.__plan__.dumps(cls(args="a", copy=2)))
    assert (error.args, error.copy) == ("a", 2)
    assert "Odd" in "".join(traceback.format_exception(error))
    assert copy.copy(error) == error


# ---------------------------------------------------------------- Enum


def test_enum_keeps_unknown_numbers_but_forgets_them():
    unknown = Color(7)
    assert unknown == 7
    assert hash(unknown) == hash(7)
    assert unknown.name == "UNKNOWN_7"
    assert isinstance(unknown, Color)
    assert Color(7) is not unknown
    assert 7 not in Color._value2member_map_
    assert pickle.loads(pickle.dumps(unknown)) == unknown
    assert copy.deepcopy(unknown) is unknown
    assert repr(unknown) == "<Color.UNKNOWN_7: 7>"


def test_enum_members_stay_themselves():
    assert Color(1) is Color.GREEN
    assert pickle.loads(pickle.dumps(Color.GREEN)) is Color.GREEN
    assert copy.copy(Color.GREEN) is Color.GREEN


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, "RED", None, 1.5])
def test_enum_refuses_what_is_no_i32(value):
    with pytest.raises(ValueError, match="is not a valid Color"):
        Color(value)


# ---------------------------------------------------------------- FrozenMap


def test_frozen_map_is_a_mapping():
    frozen = stub.FrozenMap({"a": 1, "b": 2})
    assert frozen == {"a": 1, "b": 2}
    assert hash(frozen) == hash(stub.FrozenMap({"b": 2, "a": 1}))
    assert (len(frozen), frozen["a"], list(frozen)) == (2, 1, ["a", "b"])
    assert copy.deepcopy(frozen) == pickle.loads(pickle.dumps(frozen)) == frozen
    assert repr(frozen) == "FrozenMap({'a': 1, 'b': 2})"
    assert stub.FrozenMap() == {}


def test_frozen_map_does_not_change():
    source = {"a": 1}
    frozen = stub.FrozenMap(source)
    source["a"] = 2
    assert frozen["a"] == 1
    with pytest.raises(TypeError):
        frozen["a"] = 3
    with pytest.raises(AttributeError, match="cannot change"):
        frozen._items = {}
    with pytest.raises(AttributeError, match="cannot change"):
        del frozen._items


def test_frozen_map_hash_needs_hashable_keys_only():
    assert hash(stub.FrozenMap({1: [2]})) == hash(stub.FrozenMap({1: [2]}))


def test_struct_base_is_the_native_one():
    assert Struct.__hash__ is Struct.__mro__[1].__hash__

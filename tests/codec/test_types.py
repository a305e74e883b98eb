"""Type descriptors: values that say what they are."""

from __future__ import annotations

import copy
import enum
import pickle

import pytest
from thrift.Thrift import TType

from codec import types
from codec.types import BINARY, BOOL, BYTE, DOUBLE, I16, I32, I64, STRING, UUID, EnumType, List, Map, Set, StructType
from tests.codec.schemas import Color, Point

ALL = {
    BOOL: (2, 1),
    BYTE: (3, 1),
    I16: (6, 2),
    I32: (8, 4),
    I64: (10, 8),
    DOUBLE: (4, 8),
    STRING: (11, 4),
    BINARY: (11, 4),
    UUID: (16, 16),
    List(I32): (15, 5),
    Set(I32): (14, 5),
    Map(I32, I32): (13, 6),
    StructType(Point): (12, 1),
    EnumType(Color): (8, 4),
}


@pytest.mark.parametrize("type", ALL, ids=str)
def test_wire_type_and_smallest_size(type):
    assert (types.wire_type(type), types.min_wire_size(type)) == ALL[type]


def test_wire_numbers_are_those_of_apache():
    for number in types.WireType:
        assert getattr(TType, number.name) == number


def test_compare_and_hash_by_value():
    assert List(Set(I32)) == List(Set(I32))
    assert List(I32) != Set(I32)
    assert len({Map(STRING, I64), Map(STRING, I64), Map(STRING, I32)}) == 2


def test_speak_idl():
    assert str(Map(STRING, List(StructType(Point)))) == "map<string,list<Point>>"


def test_cannot_change():
    with pytest.raises(AttributeError):
        List(I32).elem = I64


@pytest.mark.parametrize("type", ALL, ids=str)
def test_copy_and_pickle(type):
    assert copy.deepcopy(type) == type
    assert pickle.loads(pickle.dumps(type)) == type


@pytest.mark.parametrize(
    "make",
    [
        lambda: List(int),
        lambda: Set("i32"),
        lambda: Map(STRING, None),
        lambda: Map(str, STRING),
        lambda: StructType(Point()),
        lambda: EnumType(enum.Enum),
        lambda: EnumType(7),
    ],
)
def test_refuse_what_is_not_a_type(make):
    with pytest.raises(TypeError, match=r"must be a type|takes"):
        make()

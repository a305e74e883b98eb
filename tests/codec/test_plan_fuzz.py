"""Plans against random schemas, random values and hostile bytes, with Apache Thrift as the second opinion."""

from __future__ import annotations

import itertools
import random
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.Thrift import TType
from thrift.transport.TTransport import TMemoryBuffer

from codec.errors import EncodeError, ProtocolError
from codec.types import Type, wire_type
from tests.codec.schemas import Color, Node, NotFound, Point, Shape, struct
from weego import stub
from weego.stub import (
    BINARY,
    BOOL,
    BYTE,
    DOUBLE,
    I16,
    I32,
    I64,
    STRING,
    UUID,
    EnumType,
    Field,
    List,
    Map,
    Set,
    StructType,
)

pytestmark = pytest.mark.fuzz

# Schemas and values are made by a seeded generator, because hypothesis' own way of building classes is slow;
# hypothesis picks the seed, remembers those that failed, and mutates bytes.
LEAVES: list[Type] = [BOOL, BYTE, I16, I32, I64, DOUBLE, STRING, BINARY, UUID, EnumType(Color)]
NUMBERS = itertools.count()


class Dice(random.Random):
    """Chance, and what is left out of it."""

    frozen_maps = True  # maps inside sets and map keys


SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def random_type(rng: Dice, depth: int, key: bool = False) -> Type:
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(LEAVES)
    kind = rng.randrange(5)
    if kind == 2 and key and not rng.frozen_maps:
        return rng.choice(LEAVES)
    if kind == 0:
        return List(random_type(rng, depth - 1, key))
    if kind == 1:
        return Set(random_type(rng, depth - 1, True))
    if kind == 2:
        return Map(random_type(rng, depth - 1, True), random_type(rng, depth - 1, key))
    return StructType(random_struct(rng, depth - 1))


def random_struct(rng: Dice, depth: int) -> Any:
    count = rng.randint(0, 6)
    ids = rng.sample(range(1, 20), count)
    fields = [
        Field(number, f"f{number}", random_type(rng, depth), rng.choice([stub.DEFAULT, stub.OPTIONAL, stub.REQUIRED]))
        for number in ids
    ]
    union = count and rng.random() < 0.2
    return struct(f"S{next(NUMBERS)}", *fields, base=stub.Union if union else stub.Struct)


def random_value(rng: Dice, type: Type, frozen: bool = False) -> Any:
    if type == BOOL:
        return rng.random() < 0.5
    if isinstance(type, List):
        items = [random_value(rng, type.elem, frozen) for _ in range(rng.randint(0, 4))]
        return tuple(items) if frozen else items
    if isinstance(type, Set):
        members = {random_value(rng, type.elem, True) for _ in range(rng.randint(0, 4))}
        return frozenset(members) if frozen else members
    if isinstance(type, Map):
        entries = {
            random_value(rng, type.key, True): random_value(rng, type.value, frozen) for _ in range(rng.randint(0, 4))
        }
        return stub.FrozenMap(entries) if frozen else entries
    if isinstance(type, StructType):
        return random_instance(rng, type.cls)
    if isinstance(type, EnumType):
        return rng.choice([*Color, Color(rng.randint(-(2**31), 2**31 - 1))])
    if type == STRING:
        return "".join(chr(rng.choice([rng.randint(32, 126), 233, 0x4E2D, 0x1D11E])) for _ in range(rng.randint(0, 12)))
    if type == BINARY:
        return rng.randbytes(rng.randint(0, 12))
    if type == DOUBLE:
        return rng.choice([0.0, 1.0, rng.uniform(-1e9, 1e9), float("inf")])
    if type == UUID:
        return uuid.UUID(bytes=rng.randbytes(16))
    bits = {"byte": 8, "i16": 16, "i32": 32, "i64": 64}[str(type)]
    return rng.choice(
        [0, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), rng.randrange(-(2 ** (bits - 1)), 2 ** (bits - 1))]
    )


def random_instance(rng: Dice, cls: Any) -> Any:
    if cls is Node:
        return TREE.copy(name=str(rng.random()))
    fields = cls.__plan__.fields
    if issubclass(cls, stub.Union):
        chosen = rng.choice(fields)
        return cls(**{chosen.name: random_value(rng, chosen.type)})
    value = cls()
    for field in fields:
        # An absent struct or uuid of DEFAULT requiredness is None; leave such fields out sometimes.
        if field.requiredness is stub.REQUIRED or rng.random() < 0.8:
            setattr(value, field.name, random_value(rng, field.type))
    return value


def dumps(value: Any, compact: bool = False) -> bytes:
    data: bytes = type(value).__plan__.dumps(value, compact)
    return data


BOTH = pytest.mark.parametrize("compact", [False, True], ids=["binary", "compact"])


@BOTH
@SLOW
@given(seed=st.integers(0, 2**32))
def test_round_trip(compact, seed):
    rng = Dice(seed)
    cls = random_struct(rng, 4)
    for _ in range(5):
        value = random_instance(rng, cls)
        data = dumps(value, compact)
        back = cls.__plan__.loads(data, compact)
        assert back == value
        assert hash(back) == hash(value)
        assert len(dumps(back, compact)) == len(data)
        assert repr(back)


# ---------------------------------------------------------------- Apache Thrift


class Peer:
    """A struct as Apache's generic reader and writer want it."""

    thrift_spec: Any = ()
    cls: Any = None

    def __init__(self, **values: Any) -> None:
        for spec in self.thrift_spec:
            if spec is not None:
                setattr(self, spec[2], values.get(spec[2]))

    @classmethod
    def read(cls, protocol: Any) -> Any:
        made = cls()
        protocol.readStruct(made, cls.thrift_spec)
        return made

    def write(self, protocol: Any) -> None:
        protocol.writeStruct(self, self.thrift_spec)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(to_weego(self, StructType(self.cls))))


def peer_class(cls: Any) -> Any:
    made: Any = type("Peer" + cls.__name__, (Peer,), {"cls": cls})
    spec: list[Any] = [None] * 20
    for field in cls.__plan__.fields:
        spec[field.id] = (field.id, int(wire_type(field.type)), field.name, peer_spec(field.type, False), None)
    made.thrift_spec = tuple(spec)
    return made


def peer_spec(type: Type, frozen: bool) -> Any:
    if type == STRING:
        return "UTF8"
    if type == BINARY:
        return "BINARY"
    if isinstance(type, List):
        return (int(wire_type(type.elem)), peer_spec(type.elem, frozen), frozen)
    if isinstance(type, Set):
        return (int(wire_type(type.elem)), peer_spec(type.elem, True), frozen)
    if isinstance(type, Map):
        return (
            int(wire_type(type.key)),
            peer_spec(type.key, True),
            int(wire_type(type.value)),
            peer_spec(type.value, frozen),
            frozen,
        )
    if isinstance(type, StructType):
        made = peer_class(type.cls)
        return [made, made.thrift_spec]
    return None


def to_weego(value: Any, type: Type, frozen: bool = False) -> Any:
    if value is None:
        return None
    if isinstance(type, List):
        items = [to_weego(item, type.elem, frozen) for item in value]
        return tuple(items) if frozen else items
    if isinstance(type, Set):
        members = {to_weego(item, type.elem, True) for item in value}
        return frozenset(members) if frozen else members
    if isinstance(type, Map):
        entries = {to_weego(k, type.key, True): to_weego(v, type.value, frozen) for k, v in value.items()}
        return stub.FrozenMap(entries) if frozen else entries
    if isinstance(type, StructType):
        fields = type.cls.__plan__.fields
        made = type.cls.__new__(type.cls)
        for field in fields:
            member = to_weego(getattr(value, field.name), field.type)
            if member is not None:
                setattr(made, field.name, member)
        type.cls.__plan__.fill(made)
        return made
    if isinstance(type, EnumType):
        return type.cls(value)
    return value


def to_peer(value: Any, type: Type, frozen: bool = False) -> Any:
    if value is None:
        return None
    if isinstance(type, List | Set):
        # Apache writes any iterable, in the order it comes: the same order as ours.
        items = [to_peer(item, type.elem, frozen or isinstance(type, Set)) for item in value]
        return tuple(items) if frozen else items
    if isinstance(type, Map):
        return {to_peer(k, type.key, True): to_peer(v, type.value, frozen) for k, v in value.items()}
    if isinstance(type, StructType):
        made = peer_class(type.cls)()
        for field in type.cls.__plan__.fields:
            setattr(made, field.name, to_peer(getattr(value, field.name), field.type))
        return made
    return value


@BOTH
@SLOW
@given(seed=st.integers(0, 2**32))
def test_apache_thrift_agrees(compact, seed):
    rng = Dice(seed)
    protocol = TCompactProtocol if compact else TBinaryProtocol
    rng.frozen_maps = False  # its frozen map sorts its entries, which cannot be done with structs
    cls = random_struct(rng, 3)
    value = random_instance(rng, cls)
    peer = peer_class(cls)
    theirs = to_peer(value, StructType(cls))
    transport = TMemoryBuffer()
    peer.write(theirs, protocol(transport))
    assert cls.__plan__.loads(transport.getvalue(), compact) == value
    data = dumps(value, compact)
    # Apache writes the fields in the order of their ids, which in compact decides how long their heads are.
    assert compact or len(transport.getvalue()) == len(data)
    back = peer.read(protocol(TMemoryBuffer(data)))
    assert to_weego(back, StructType(cls)) == value


# ---------------------------------------------------------------- hostile bytes

FULL = struct(
    "Full",
    *(
        Field(i, f"f{i}", t)
        for i, t in enumerate(
            [
                *LEAVES,
                List(I32),
                List(STRING),
                Set(StructType(Point)),
                Map(STRING, StructType(Node)),
                StructType(Node),
                StructType(Shape),
                StructType(NotFound),
                Map(List(I32), Set(STRING)),
                Set(Map(I16, BINARY)),
                List(List(List(BOOL))),
            ]
        )
    ),
)
# Knows nothing, keeps everything.
KEEPING = struct("Keeping", keeps_unknown=True)
TREE = Node(name="root", next=Node(name="näxt"), children=[Node(name=str(i), children=[Node()]) for i in range(3)])


def full(seed: int = 1) -> Any:
    rng = Dice(seed)
    value = FULL()
    for field in FULL.__plan__.fields:
        setattr(value, field.name, random_value(rng, field.type))
    value.f13 = {"a": TREE, "b": Node(next=TREE)}
    return value


def tame(cls: Any, data: bytes, compact: bool = False) -> None:
    """Either a value that can be written again, or ProtocolError: nothing else, whatever the bytes."""
    try:
        value = cls.__plan__.loads(data, compact)
    except ProtocolError:
        return
    repr(value)
    hash(value)
    value.copy()
    try:
        again = dumps(value, compact)
    except EncodeError:
        return  # an empty union, which may be read but not written
    assert cls.__plan__.loads(again, compact) == value or has_nan(value)


def has_nan(value: Any) -> bool:
    return "nan" in repr(value)


@BOTH
def test_truncation_at_every_byte(compact):
    data = dumps(full(), compact)
    assert FULL.__plan__.loads(data, compact) == full()
    for cut in range(len(data)):
        with pytest.raises(ProtocolError):
            FULL.__plan__.loads(data[:cut], compact)
        with pytest.raises(ProtocolError):
            Point.__plan__.loads(data[:cut], compact)  # all of it unknown fields, or of another type


@BOTH
def test_every_byte_flipped(compact):
    data = bytearray(dumps(full(), compact))
    for place in range(len(data)):
        for value in (0, 1, 0x7F, 0x80, 0xFF, data[place] ^ 1, data[place] ^ 8):
            was, data[place] = data[place], value
            tame(FULL, bytes(data), compact)
            data[place] = was


@BOTH
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutations(compact, data):
    content = bytearray(dumps(full(data.draw(st.integers(1, 5))), compact))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.integers(0, 3)):
            case 0:
                content[place : place + 1] = data.draw(st.binary(max_size=4))
            case 1:
                del content[place : place + data.draw(st.integers(0, 20))]
            case 2:
                other = data.draw(st.integers(0, max(0, len(content) - 1)))
                content[place:place] = content[other : other + 16]
            case _:
                content[place : place + 4] = data.draw(st.integers(-(2**31), 2**31 - 1)).to_bytes(4, "big", signed=True)
    tame(FULL, bytes(content), compact)
    tame(Node, bytes(content), compact)
    tame(KEEPING, bytes(content), compact)


@BOTH
@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=200))
def test_noise(compact, data):
    for cls in (FULL, Node, Point, Shape, NotFound, KEEPING):
        tame(cls, data, compact)


TOKENS = [
    *(bytes([wire, 0, number]) for wire in (2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16) for number in (1, 2, 3, 14, 99)),
    b"\0",
    b"\0\0\0\0",
    b"\0\0\0\1",
    b"\0\0\0\2",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x0c",
    b"\x0b",
    b"\x0d",
    b"abc",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=60))
def test_plausible_noise(tokens):
    data = b"".join(tokens)
    for cls in (FULL, Node, Shape):
        tame(cls, data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=60))
def test_skipping_agrees_with_apache(tokens):
    """What is skipped here is skipped there, to the same byte, when both accept it."""
    data = b"\x0c\0\x63" + b"".join(tokens) + b"\0" * 8
    protocol = TBinaryProtocol(TMemoryBuffer(data))
    protocol.readFieldBegin()
    try:
        protocol.skip(TType.STRUCT)
    except Exception:  # the oracle fails in many ways
        return
    used = protocol.trans.cstringio_buf.tell()
    if used > len(data) or b"\xff\xff\xff\xff" in data:
        return  # its reader reads negative lengths as nothing
    try:
        Point.__plan__.loads(data[:used] + b"\0")
    except ProtocolError as error:
        # It passes over elements of unknown types as if they were nothing.
        assert "unknown wire type" in str(error), error

"""Fields, methods and services as emitted code writes them down."""

from __future__ import annotations

import pytest

from codec.errors import Code, UnknownMethod
from codec.spec import STUB_FORMAT, Requiredness
from tests.codec.schemas import NotFound, Point, declare
from weego import stub

GET = stub.MethodSpec(
    "getPoint",
    args=(stub.Field(1, "key", stub.STRING), stub.Field(2, "limit", stub.I32)),
    result=stub.StructType(Point),
    throws=(stub.Field(1, "missing", stub.StructType(NotFound)),),
    py_name="get_point",
    doc="Look one up.",
)
PING = stub.MethodSpec("ping", args=(), result=None, oneway=True)


def test_field_is_an_immutable_value():
    field = stub.Field(1, "name", stub.STRING, stub.REQUIRED)
    assert field == stub.Field(1, "name", stub.STRING, Requiredness.REQUIRED)
    assert field.default is stub.ABSENT
    assert repr(stub.ABSENT) == "ABSENT"
    with pytest.raises(AttributeError):
        field.id = 2


@pytest.mark.parametrize("number", [-32769, 32768])
def test_field_id_has_16_bits(number):
    with pytest.raises(ValueError, match="16 bits"):
        stub.Field(number, "x", stub.I32)


def test_field_takes_a_default_or_a_factory():
    with pytest.raises(ValueError, match="not both"):
        stub.Field(1, "x", stub.List(stub.I32), default=(), factory=list)
    with pytest.raises(TypeError, match="the type of field 'x'"):
        stub.Field(1, "x", int)


def test_method_knows_its_names():
    assert (GET.name, GET.wire_name, GET.py_name) == ("getPoint", b"getPoint", "get_point")
    assert PING.py_name == "ping"
    assert repr(GET) == "<MethodSpec Point getPoint(string key, i32 limit)>"
    assert repr(PING) == "<MethodSpec oneway void ping()>"


def test_plans_are_made_once_and_late():
    late = declare("Late", "x")
    method = stub.MethodSpec("m", args=(stub.Field(1, "late", stub.StructType(late)),), result=None)
    plan = method.args_plan
    assert method.args_plan is plan
    with pytest.raises(TypeError, match=r"stub\.define\(Late, \.\.\.\) is missing"):
        plan.dumps((late,))
    stub.define(late, stub.Field(1, "x", stub.I32))
    assert plan.loads(plan.dumps((late(x=1),))) == (late(x=1),)
    assert method.result_plan is method.result_plan


def test_oneway_gives_nothing_back():
    with pytest.raises(ValueError, match="oneway"):
        stub.MethodSpec("m", args=(), result=stub.I32, oneway=True)


def test_throws_takes_exceptions():
    with pytest.raises(TypeError, match="Point is not an exception"):
        stub.MethodSpec("m", args=(), result=None, throws=(stub.Field(1, "p", stub.StructType(Point)),))


def test_result_must_be_a_type():
    with pytest.raises(TypeError, match="the result of method 'm'"):
        stub.MethodSpec("m", args=(), result=int)


def test_service_inherits_and_overrides():
    base = stub.ServiceSpec("Base", (PING, GET))
    newer = stub.MethodSpec("ping", args=(), result=stub.BOOL)
    derived = stub.ServiceSpec("Derived", (newer,), base=base, doc="…")
    assert list(derived.methods) == ["ping", "getPoint"]
    assert derived.methods["ping"] is newer
    assert derived.own_methods == (newer,)
    assert base.methods["ping"] is PING
    assert repr(derived) == "<ServiceSpec Derived: ping, getPoint>"


def test_service_refuses_two_methods_of_one_name():
    with pytest.raises(ValueError, match="two methods 'ping'"):
        stub.ServiceSpec("S", (PING, PING))


def test_unimplemented_is_unknown_method_for_the_peer():
    error = stub.unimplemented("Echo", "echo")
    assert isinstance(error, UnknownMethod)
    assert error.code is Code.UNIMPLEMENTED
    assert "Echo.echo" in str(error)


def test_require():
    stub.require(STUB_FORMAT, "gen.echo")
    with pytest.raises(ImportError, match=r"gen\.echo: .*run `weego gen` again"):
        stub.require(STUB_FORMAT - 1, "gen.echo")
    with pytest.raises(ImportError, match="upgrade weego"):
        stub.require(STUB_FORMAT + 1, "gen.echo")

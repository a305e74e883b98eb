"""Random and mutated bytes against both sides of the Thrift protocol. The law: messages or ProtocolError, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from codec.buffer import ReadBuffer, WriteBuffer
from codec.errors import ApplicationError, ProtocolError
from codec.thrift import Reply, Request, ThriftClientProtocol
from codec.ttheader import ACL_KEY
from tests.codec.hostile import ANSWERED, REFUSED
from tests.codec.schemas import Node, NotFound, Point
from tests.codec.thrift_wire import (
    ARGUMENTS,
    CALL,
    EXCEPTION,
    FRAMINGS,
    REPLY,
    RESULTS,
    SHAPES,
    Message,
    application_exception,
    facts,
    framed,
    pairs,
    route,
    server,
    shaped,
    thrift,
    ttheader,
    waiting,
)
from tests.fuzz.laws import client_law, server_law

pytestmark = pytest.mark.fuzz
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
THOROUGH = settings(RELAXED, max_examples=1000)

SEEDS = [
    *(
        shaped(shape, name, CALL, 1, route(name).spec.args_plan.dumps(args))
        for shape in SHAPES
        for name, args in ARGUMENTS.items()
    ),
    *(
        shaped(shape, name, REPLY, 1, route(name).spec.result_plan.dumps(result))
        for shape in SHAPES
        for name, result in RESULTS.items()
    ),
    *(shaped(shape, "echo", EXCEPTION, 1, application_exception("boom", 6)) for shape in SHAPES),
    *(
        wrap(b"\x82\x21\x01" + bytes([len(name)]) + name.encode() + route(name).spec.args_plan.dumps(args, True))
        for wrap in FRAMINGS.values()
        for name, args in ARGUMENTS.items()
    ),
    *(
        wrap(b"\x82\x41\x01" + bytes([len(name)]) + name.encode() + route(name).spec.result_plan.dumps(result, True))
        for wrap in FRAMINGS.values()
        for name, result in RESULTS.items()
    ),
    framed(b"\x82\x61\x01\x04echo\x18\x04boom\x15\x0c\0"),
    *(
        ttheader(thrift("echo", REPLY, 1, b"\0"), pairs(1, [("biz-status", status), ("biz-extra", extra)]))
        for status in ("5", "0", "x")
        for extra in ('{"a": "b"}', "[[")
    ),
    *(data[:3000] for data, _ in REFUSED.values()),
    *(data[:3000] for data, _, _ in ANSWERED.values()),
]
INTERESTING = (0, 1, 2, 8, 11, 12, 13, 14, 15, 16, 17, 0x7F, 0x80, 0xFF)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """Some real messages after one another, with a few changes such as a peer's bug or a bit flip makes."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = bytes([draw(st.sampled_from(INTERESTING) | st.integers(0, 255))])
            case 1:
                data[at : at + 4] = draw(st.integers(-(2**31), 2**31 - 1)).to_bytes(4, signed=True)
            case 2:
                del data[at : at + draw(st.integers(1, 12))]
            case 3:
                data[at:at] = draw(st.binary(max_size=12))
            case 4:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case _:
                del data[at:]
    return bytes(data)


CUTS = st.lists(st.integers(0, 300), max_size=6).map(sorted)


@THOROUGH
@given(mutations(), CUTS)
def test_mutations_against_a_server(data, cuts):
    server_law(data, cuts)


@THOROUGH
@given(mutations(), CUTS)
def test_mutations_against_a_client(data, cuts):
    client_law(data, cuts)


@THOROUGH
@given(st.binary(max_size=200), CUTS)
@example(b"\x80\x01\x00\x01" + bytes(40), [])
@example(b"\x00\x00\x00\x05echo\x01" + bytes(40), [])
@example(bytes(4) + b"\x10\x00" + bytes(40), [])
def test_noise(data, cuts):
    server_law(data, cuts)
    client_law(data, cuts)


@THOROUGH
@given(st.sampled_from(list(FRAMINGS)), st.binary(max_size=120), st.sampled_from(sorted(ARGUMENTS)), CUTS)
def test_noise_in_the_place_of_the_body(framing, body, name, cuts):
    server_law(FRAMINGS[framing](thrift(name, CALL, 1, body)), cuts)
    client_law(FRAMINGS[framing](thrift(name, REPLY, 1, body)), cuts)
    client_law(FRAMINGS[framing](thrift(name, EXCEPTION, 1, body)), cuts)


@RELAXED
@given(st.binary(max_size=120), st.integers(0, 255), st.binary(max_size=8))
def test_noise_in_the_place_of_the_infos(block, protocol, transforms):
    data = ttheader(thrift("echo", REPLY, 1, b"\0"), block, protocol=protocol, transforms=transforms)
    server_law(data, [])
    client_law(data, [])


# ---------------------------------------------------------------- round trips

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
I32 = st.integers(-(2**31), 2**31 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
POINTS = st.builds(Point, x=I32, y=I32)
NODES = st.recursive(
    st.builds(Node, name=TEXT),
    lambda inner: st.builds(Node, name=TEXT, next=st.none() | inner, children=st.lists(inner, max_size=3)),
    max_leaves=8,
)
ARGS: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "echo": st.tuples(st.builds(Message, message=TEXT) | st.none()),
    "ping": st.just(()),
    "notify": st.tuples(TEXT),
    "total": st.tuples(st.lists(I64, max_size=30)),
    "tree": st.tuples(NODES, st.dictionaries(TEXT, I32, max_size=5)),
    "near": st.tuples(st.sets(POINTS, max_size=5), st.binary(max_size=50)),
}
GOOD_RESULTS: dict[str, st.SearchStrategy[Any]] = {
    "echo": st.builds(Message, message=TEXT) | st.builds(NotFound, message=TEXT, key=I64),
    "ping": st.none(),
    "total": I64,
    "tree": NODES,
    "near": st.lists(POINTS, max_size=5),
}
OPAQUE = TEXT | st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
INFOS = st.dictionaries(
    OPAQUE.filter(lambda key: key not in ("isn", "biz-status")) | st.just(ACL_KEY), OPAQUE, max_size=4
)
CALLS = st.sampled_from(sorted(ARGS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        ARGS[name],
        I32,
        st.sampled_from(list(FRAMINGS)),
        st.dictionaries(st.integers(0, 65535), OPAQUE),
        INFOS,
    )
)


@RELAXED
@given(st.lists(CALLS, min_size=1, max_size=4), CUTS)
def test_calls_arrive_as_they_were_made(calls, cuts):
    out = WriteBuffer()
    for name, args, seqid, framing, ints, strings in calls:
        ThriftClientProtocol(framing).write_call(route(name), args, seqid, out, ints, strings)
    data = out.take()
    found = in_pieces(server(), data, cuts)
    assert len(found) == len(calls)
    for request, (name, args, seqid, framing, ints, strings) in zip(found, calls, strict=True):
        assert request.error is None
        assert (request.method, request.args, request.seqid, request.framing_name) == (name, args, seqid, framing)
        if framing.startswith("ttheader"):
            assert (request.header.seqid, request.header.ints, request.header.strings) == (seqid, ints, strings)
    assert sum(request.size for request in found) == len(data)


ANSWERS = st.sampled_from(sorted(GOOD_RESULTS)).flatmap(
    lambda name: st.tuples(st.just(name), GOOD_RESULTS[name], st.sampled_from(SHAPES), INFOS)
)


@RELAXED
@given(st.lists(ANSWERS, min_size=1, max_size=4), CUTS)
def test_answers_arrive_as_they_were_given(answers, cuts):
    out = WriteBuffer()
    protocol = server()
    for seqid, (name, value, shape, strings) in enumerate(answers):
        body = route(name).spec.args_plan.dumps(ARGUMENTS[name])
        [request] = in_pieces(protocol, shaped(shape, name, CALL, seqid, body), [])
        if isinstance(value, NotFound):
            assert protocol.write_declared(request, value, out, strings)
        else:
            protocol.write_reply(request, value, out, strings)
    found = in_pieces(waiting(*((name, i) for i, (name, *_) in enumerate(answers))), out.take(), cuts)
    assert len(found) == len(answers)
    for seqid, (reply, (_, value, shape, strings)) in enumerate(zip(found, answers, strict=True)):
        assert reply.seqid == seqid
        assert (reply.error if isinstance(value, NotFound) else reply.value) == value
        if shape[0].startswith("ttheader"):
            assert reply.header.strings == strings


@RELAXED
@given(st.text(), st.integers(-(2**31), 2**31 - 1), st.sampled_from(SHAPES), st.integers(-(2**31), 2**31 - 1))
def test_failures_arrive_as_they_were_given(message, number, shape, seqid):
    [request] = in_pieces(server(), shaped(shape, "nope", CALL, seqid, b"\0"), [])
    out = WriteBuffer()
    server().write_failure(request, number, message, out)
    [reply] = in_pieces(waiting(("echo", seqid)), out.take(), [])
    assert isinstance(reply.error, ApplicationError)
    assert (reply.error.type, reply.error.message) == (number, message)


def in_pieces(protocol: Any, data: bytes, cuts: list[int]) -> list[Any]:
    buffer = ReadBuffer()
    found: list[Any] = []
    at = 0
    for cut in [*cuts, len(data)]:
        buffer.write(data[at:cut])
        at = max(at, cut)
        found += protocol.feed(buffer)
    assert len(buffer) == 0
    return found


@RELAXED
@given(st.lists(st.sampled_from(SEEDS[: len(SHAPES) * len(ARGUMENTS)]), min_size=1, max_size=5), CUTS)
def test_how_it_was_cut_does_not_matter(parts, cuts):
    data = b"".join(parts)
    assert [facts(r) for r in in_pieces(server(), data, cuts)] == [facts(r) for r in in_pieces(server(), data, [])]


def test_the_laws_see_what_they_should():
    """So that the fuzzing above is not a test of nothing."""
    assert [type(message) for message in server_law(SEEDS[0], [5])] == [Request]
    assert [type(message) for message in client_law(framed(thrift("echo", EXCEPTION, 1, b"\0")), [])] == [Reply]
    assert server_law(b"\xff" * 20, []) == []
    with pytest.raises(ProtocolError):
        server().feed(_buffer(b"\xff" * 20))


def _buffer(data: bytes) -> ReadBuffer:
    buffer = ReadBuffer()
    buffer.write(data)
    return buffer

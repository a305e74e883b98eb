"""What a client says to a server, whoever made them: each check takes a Talk and is run for every pair of weego and a peer."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.service import until


@dataclass(frozen=True)
class Talk:
    """A client of the service Beyond, connected to a server that has only Interop.

    `sets` is what the client decodes a set to: thriftpy2 makes lists of them.
    `types` has the client's structs, `refusal` is what the client raises for an application exception (it has a `type`), `fails` the types
    that a handler's bug may show as.
    """

    client: Any
    types: Any
    refusal: type[Exception]
    fails: tuple[type[Exception], ...]
    sets: type[set[Any]] | type[list[Any]] = set


def full(types: Any) -> Any:
    """A struct with something in every field but `absent`."""
    inner = types.Inner
    return types.Every(
        needed=1,
        flag=True,
        small=-128,
        medium=-32768,
        normal=2**31 - 1,
        large=-(2**63),
        real=-1.5e300,
        text="ключ 🜁 \0 end",
        raw=bytes(range(256)),
        colour=types.Colour.BLUE,
        identity=2**62,
        numbers=[0, -1, 2**31 - 1, -(2**31)],
        words={"a", "b", ""},
        counts={"one": 1, "": -(2**63), "много": 2**63 - 1},
        inner=inner(name="in", number=3),
        choice=types.Choice(inner=inner(name="chosen", number=-1)),
        inners=[inner(name=str(number), number=number) for number in range(5)],
        groups={"empty": [], "two": [inner(name="x", number=1), inner(name="y", number=2)]},
        nested={1: {"pi": math.pi, "inf": math.inf}, -1: {}},
        flags=[[True, False], [], [False]],
        identities={1, 2, 3},
        maybe="",
        preset="set",
        colours=[types.Colour.RED, types.Colour.GREEN, types.Colour.RED],
        raws=[b"", b"\xff\x00"],
        names={types.Colour.RED: "red", types.Colour.BLUE: "blue"},
        deep=[{1: {1, 2}, -2: set()}, {}],
        far=-1,
    )


def every_type(talk: Talk) -> None:
    sent = full(talk.types)
    got = talk.client.echo(sent)
    assert isinstance(got.words, talk.sets)
    got.words, got.identities = set(got.words), set(got.identities)
    got.deep = [{key: set(items) for key, items in each.items()} for each in got.deep]
    assert got == sent
    assert got.absent is None
    assert got.choice.inner.name == "chosen"
    assert type(got.raw) is bytes
    assert type(got.text) is str


def empty_values(talk: Talk) -> None:
    sent = talk.types.Every(
        needed=0,
        flag=False,
        text="",
        raw=b"",
        numbers=[],
        words=set(),
        counts={},
        inners=[],
        flags=[[]],
        inner=talk.types.Inner(),
        deep=[{}],
    )
    got = talk.client.echo(sent)
    assert (got.needed, got.flag, got.text, got.raw, got.numbers, got.words, got.counts) == (
        0,
        False,
        "",
        b"",
        [],
        talk.sets(),
        {},
    )
    assert (got.inners, got.flags, got.deep) == ([], [[]], [{}])
    assert got.maybe is None
    assert got.preset == "preset"


def each_member_of_a_union(talk: Talk) -> None:
    types = talk.types
    for choice in (
        types.Choice(text="t"),
        types.Choice(number=-5),
        types.Choice(inner=types.Inner(name="i", number=1)),
    ):
        assert talk.client.echo(types.Every(needed=1, choice=choice)).choice == choice


def doubles(talk: Talk) -> None:
    for real in (0.0, 1.0, -1e-310, math.inf, -math.inf, 5e-324):
        assert talk.client.echo(talk.types.Every(needed=1, real=real)).real == real
    assert math.copysign(1, talk.client.echo(talk.types.Every(needed=1, real=-0.0)).real) == -1
    assert math.isnan(talk.client.echo(talk.types.Every(needed=1, real=math.nan)).real)


def inherited_and_void(talk: Talk) -> None:
    assert talk.client.ping() == "pong"
    assert talk.client.nothing() is None
    assert talk.client.add(2, -5) == -3


def unicode_text(talk: Talk) -> None:
    for text in ("", "a", "é", "日本語 🜁 \U0010ffff", "\0\t\n", "x" * 70_000, "ü" * 40_000):
        assert talk.client.text(text) == text


def binary(talk: Talk) -> None:
    for raw in (b"", b"\x80\x01\x00\x01", bytes(range(256)) * 300):
        assert talk.client.raw(raw) == raw


def large_payloads(talk: Talk) -> None:
    raw = random.Random(1).randbytes(6 << 20)
    assert talk.client.raw(raw) == raw
    text = "weego ü " * 200_000
    assert talk.client.text(text) == text
    many = talk.client.many(20_000)
    assert (len(many), many[-1].name, many[-1].number) == (20_000, "number 19999", 19_999)


def declared_exceptions(talk: Talk) -> None:
    client, types = talk.client, talk.types
    assert client.find("thing") == types.Inner(name="thing", number=5)
    with pytest.raises(types.NotFound) as missing:
        client.find("nothing")
    assert (missing.value.what, missing.value.code) == ("nothing", 404)
    with pytest.raises(types.Denied) as denied:
        client.find("secret")
    assert denied.value.why == "it is a secret: ключ"
    assert client.check("thing") is None
    with pytest.raises(types.NotFound):
        client.check("nothing")
    assert client.ping() == "pong"


def an_unknown_method(talk: Talk) -> None:
    with pytest.raises(talk.refusal) as refusal:
        talk.client.missing("x")
    assert refusal.value.type == 1  # type: ignore[attr-defined]
    assert talk.client.ping() == "pong"


def a_handler_that_fails(talk: Talk) -> None:
    with pytest.raises(talk.fails):
        talk.client.fail()
    with_patience = until(lambda: _ping(talk), "the next call to work")
    assert with_patience == "pong"


def _ping(talk: Talk) -> Any:
    try:
        return talk.client.ping()
    except EOFError:
        return None


def oneway(talk: Talk) -> None:
    before = talk.client.noted()
    for number in range(5):
        assert talk.client.note(f"number {number}") is None
    until(lambda: talk.client.noted() == before + 5, "the notes to arrive")


def many_calls_on_one_connection(talk: Talk) -> None:
    for number in range(200):
        assert talk.client.add(number, number) == 2 * number


def after_a_pause(talk: Talk) -> None:
    talk.client.ping()
    time.sleep(0.05)
    assert talk.client.ping() == "pong"


CHECKS: list[Callable[[Talk], None]] = [
    every_type,
    empty_values,
    each_member_of_a_union,
    doubles,
    inherited_and_void,
    unicode_text,
    binary,
    large_payloads,
    declared_exceptions,
    an_unknown_method,
    oneway,
    many_calls_on_one_connection,
    after_a_pause,
    a_handler_that_fails,
]

# The weego service that peers call: the same as tests/support/peers.py has for them.
SERVICE_CODE = """\
from gen.interop import Denied, Every, Inner, Interop, NotFound


class Service(Interop):
    def __init__(self) -> None:
        self.count = 0

    def ping(self) -> str:
        return "pong"

    def echo(self, every: Every) -> Every:
        return every

    def nothing(self) -> None:
        pass

    def text(self, text: str) -> str:
        return text

    def raw(self, raw: bytes) -> bytes:
        return raw

    def add(self, a: int, b: int) -> int:
        return a + b

    def find(self, what: str) -> Inner:
        if what == "nothing":
            raise NotFound(what=what, code=404)
        if what == "secret":
            raise Denied(why="it is a secret: ключ")
        return Inner(name=what, number=len(what))

    def check(self, what: str) -> None:
        if what == "nothing":
            raise NotFound(what=what, code=-1)

    def many(self, count: int) -> list[Inner]:
        return [Inner(name=f"number {number}", number=number) for number in range(count)]

    def note(self, text: str) -> None:
        self.count += 1

    def noted(self) -> int:
        return self.count

    def fail(self) -> None:
        raise RuntimeError("on purpose")
"""


def names(module: Any) -> SimpleNamespace:
    """The IDL's types in a generated module."""
    wanted = ("Colour", "Inner", "Choice", "NotFound", "Denied", "Every")
    return SimpleNamespace(**{name: getattr(module, name) for name in wanted})

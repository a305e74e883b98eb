"""Every file of the corpus that a compiler takes: its package is imported, and random values make a trip through peers.

For each struct, union, exception, argument list and result of the file: a random value as our bytes, through each peer that can
hold it, back, and equal. The table that the test prints says for each file how many values went through whom.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from codec.spec import Field, ServiceSpec
from codec.structs import Struct
from codec.types import EnumType, List, Map, Primitive, Set, StructType, Type
from idlc.errors import Report
from idlc.packages import assign
from idlc.resolver import resolve
from tests.idlc import wire_peers
from tests.idlc.random_values import Endless, given, struct, value
from tests.idlc.test_corpus import corpus, expected_to_pass
from weego import dynamic

_ROUNDS = 4

@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    """File → the module made of it, imported."""
    from idlc.compile import compile_files

    root = tmp_path_factory.mktemp("wire")
    sys.path.insert(0, str(root))
    found = {}
    for number, name in enumerate(expected_to_pass()):
        package = f"wire{number}"
        compile_files([corpus() / name], root / package)
        report = Report()
        programs = resolve([str(corpus() / name)], [], report)
        found[name] = importlib.import_module(f"{package}.{assign(programs, report)[programs[-1]]}")
    yield found
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.startswith("wire") and name.partition(".")[0][4:].isdigit()]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_values_make_the_trip_through_peers(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    wrong: list[str] = []
    for number, (name, module) in enumerate(modules.items()):
        trips = Trips(name, module, tmp_path / f"apache{number}")
        trips.run(Random(number))
        wrong += trips.wrong
        rows.append((name, trips.things, trips.counts))
        if trips.values and not trips.counts:
            wrong.append(f"{name}: no value of it made any trip")
    with capsys.disabled():
        print_table(rows)
    assert wrong == []
    total = sum((counts for _, _, counts in rows), Counter[str]())
    assert total["thriftpy2"] > 4000
    assert total["apache"] > 4000
    assert total["protocol"] > 5000


def print_table(rows: list[tuple[str, int, Counter[str]]]) -> None:
    """By file: how many types, and how many values made the trip through each peer."""
    print(f"\n{'file':<86} {'types':>5} {'thriftpy2':>9} {'apache':>7} {'protocol':>8}")
    for name, things, counts in rows:
        shown = [str(counts[peer]) if counts[peer] else "-" for peer in ("thriftpy2", "apache", "protocol")]
        print(f"{name:<86} {things:>5} {shown[0]:>9} {shown[1]:>7} {shown[2]:>8}")


class Trips:
    """All trips of one file."""

    def __init__(self, name: str, module: ModuleType, folder: Path) -> None:
        self.name = name
        self.values = 0
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._plans: dict[str, Any] = {}
        self._services: dict[str, ServiceSpec] = dynamic.services(module)
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, Struct) and each.__module__ == module.__name__:
                self._plans[_idl_name(each)] = each.__plan__
        for service in self._services.values():
            for method in service.own_methods:
                self._plans[f"{service.name}.{method.name}_args"] = method.args_plan
                if not method.oneway:
                    self._plans[f"{service.name}.{method.name}_result"] = method.result_plan
        self.things = len(self._plans)
        path = corpus() / name
        self._peers = {"protocol": wire_peers.apache_protocol({key: _fields(plan) for key, plan in self._plans.items()})}
        for peer, make in (("thriftpy2", lambda: wire_peers.thriftpy2(path)), ("apache", lambda: wire_peers.apache(path, folder))):
            try:
                self._peers[peer] = make()
            except wire_peers.Unable:
                pass

    def run(self, random: Random) -> None:
        for name, plan in self._plans.items():
            for _ in range(_ROUNDS):
                try:
                    thing = self._value(random, name, plan)
                except Endless:
                    break
                if thing is None:
                    continue
                self.values += 1
                data = plan.dumps(thing)
                assert plan.loads(data) == thing, f"{self.name}: {name}"
                for peer, trip in self._peers.items():
                    if not can_hold(peer, _fields(plan)):
                        continue
                    try:
                        back = plan.loads(trip(name, data))
                    except Exception as error:
                        self.wrong.append(f"{self.name}: {name} through {peer}: {type(error).__name__}: {error}")
                        continue
                    if back == thing:
                        self.counts[peer] += 1
                    else:
                        self.wrong.append(f"{self.name}: {name} through {peer}: {thing!r} came back as {back!r}")

    def _value(self, random: Random, name: str, plan: Any) -> Any:
        if name.endswith("_args"):
            arguments = given(random, plan.fields)
            # What is not given is as a server would see it.
            return plan.loads(plan.dumps(tuple(arguments.get(field.name, _default(field)) for field in plan.fields)))
        if name.endswith("_result"):
            service, _, method = name.removesuffix("_result").rpartition(".")
            result = self._services[service].methods[method].result
            return None if result is None else value(random, result)
        return struct(random, plan.cls)


def _idl_name(cls: type) -> str:
    return cls.__name__


def _default(field: Field) -> Any:
    return None if field.factory is None else field.factory()


def _fields(plan: Any) -> tuple[Field, ...]:
    fields: tuple[Field, ...] = plan.fields
    return fields


def can_hold(peer: str, fields: tuple[Field, ...]) -> bool:
    """Has the peer a value for all of it? Neither has uuids (Apache 0.17), nor has Apache's code structs or containers as keys."""
    if peer == "protocol":
        return True
    types = list(_types_in(fields))
    if any(isinstance(each, Primitive) and each.name == "uuid" for each in types):
        return False
    keys = [each.key if isinstance(each, Map) else each.elem for each in types if isinstance(each, Map | Set)]
    return peer == "thriftpy2" or all(isinstance(key, Primitive | EnumType) for key in keys)


def _types_in(fields: tuple[Field, ...]) -> Iterator[Type]:
    """All types that a value may have in it."""
    seen: set[int] = set()

    def walk(type: Type) -> Iterator[Type]:
        yield type
        match type:
            case List(elem) | Set(elem):
                yield from walk(elem)
            case Map():
                yield from walk(type.key)
                yield from walk(type.value)
            case StructType():
                if id(type.cls) not in seen:
                    seen.add(id(type.cls))
                    for field in type.cls.__plan__.fields:
                        yield from walk(field.type)

    for field in fields:
        yield from walk(field.type)

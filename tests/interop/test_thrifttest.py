"""Apache's own test programs for ThriftTest.thrift: its client against a weego server, weego's client against its server.

The programs are fetched when needed (tests/support/peers.py) and never part of this project.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from codec.errors import ApplicationError
from tests.interop.test_weego_calls_peers import UnderGevent
from tests.support import need, peers
from tests.support.processes import Process
from tests.support.service import App, Server, generate, run, until

VARIANTS = [(protocol, transport) for protocol in ("binary", "accel") for transport in ("framed", "buffered")]


@pytest.fixture(scope="module")
def programs() -> Path:
    """Apache's folder ``test``."""
    need.module("thrift")
    return peers.apache_tests()


@pytest.fixture(scope="module")
def apache_gen(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Apache's compiler makes of ThriftTest.thrift."""
    return peers.generate_apache(programs / "ThriftTest.thrift", tmp_path_factory.mktemp("gen-py"))


# ---------------------------------------------------------------- Apache's client


@pytest.fixture(scope="module")
def server(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    idl = (programs / "ThriftTest.thrift").read_text()
    code = (Path(__file__).parent / "thrifttest_service.py").read_text()
    app = App(tmp_path_factory.mktemp("thrifttest") / "app", idl=idl, idl_name="ThriftTest.thrift", code=code)
    with app.serve(workers=2, allow=[r"ThriftTest\.testException: the handler failed"]) as server:
        yield server


@pytest.mark.parametrize(("protocol", "transport"), VARIANTS)
def test_apaches_client(programs: Path, apache_gen: Path, server: Server, protocol: str, transport: str) -> None:
    code, output = run(
        [
            sys.executable, str(programs / "py" / "TestClient.py"), "--genpydir", str(apache_gen), "--host", "127.0.0.1",
            "--port", str(server.port), "--protocol", protocol, "--transport", transport,
        ],
        cwd=str(programs / "py"),
    )  # fmt: skip
    assert code == 0, output
    ran = re.search(r"^Ran (\d+) tests", output, re.MULTILINE)
    assert ran is not None, output
    assert int(ran[1]) >= 20, output
    assert re.search(r"^OK$", output, re.MULTILINE), output  # "OK (skipped=…)" would not do


# ---------------------------------------------------------------- Apache's server


@pytest.fixture(scope="module")
def module(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """What weego makes of ThriftTest.thrift."""
    folder = tmp_path_factory.mktemp("weego")
    generate(programs / "ThriftTest.thrift", folder / "weego_thrifttest")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("weego_thrifttest.ThriftTest")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module", params=VARIANTS, ids=["-".join(each) for each in VARIANTS])
def apaches_server(
    request: pytest.FixtureRequest, programs: Path, apache_gen: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Address and framing. On a unix socket, for on TCP it would listen on every address of the machine."""
    protocol, transport = request.param
    path = tmp_path_factory.mktemp("s") / "s"
    command = [
        sys.executable, str(programs / "py" / "TestServer.py"), "--genpydir", str(apache_gen), "--domain-socket", str(path),
        "--protocol", protocol, "--transport", transport, "-q", "TThreadedServer",
    ]  # fmt: skip
    with Process(command, cwd=str(programs / "py")) as process:
        until(lambda: path.exists() or process.child.poll() is not None, "its socket")
        assert process.child.poll() is None, process.output
        yield f"unix://{path}", transport


@pytest.fixture(scope="module", params=["blocking", "gevent"])
def client(request: pytest.FixtureRequest, module: ModuleType, apaches_server: tuple[str, str]) -> Iterator[Any]:
    address, framing = apaches_server

    def make() -> Any:
        return module.ThriftTestClient(address, framing=framing, timeout=30.0)

    made = make() if request.param == "blocking" else UnderGevent(make)
    # The socket's file is there a moment before somebody listens on it.
    until(lambda: _answers(made), "an answer")
    yield made
    made.close()


def _answers(client: Any) -> bool:
    from codec.errors import Unavailable

    try:
        client.test_void()
    except Unavailable:
        return False
    return True


def scalars(client: Any, types: Any) -> None:
    assert client.test_void() is None
    for text in ("Python" * 20, "", '\b\t\n/\\\\\r{}:パイソン"', "Afrikaans العربية 中文 粵語 🜁"):
        assert client.test_string(text) == text
    assert client.test_bool(True) is True
    assert client.test_bool(False) is False
    assert [client.test_byte(each) for each in (63, -127)] == [63, -127]
    assert [client.test_i32(each) for each in (-1, 0, 2**31 - 1)] == [-1, 0, 2**31 - 1]
    assert [client.test_i64(each) for each in (1, -34359738368)] == [1, -34359738368]
    for real in (-5.235098235, 0.0, -1.0, -0.000341012439638598279):
        assert client.test_double(real) == real
    raw = bytes(range(256))
    assert client.test_binary(raw) == raw


def structs(client: Any, types: Any) -> None:
    inner = types.Xtruct(string_thing="Zero", byte_thing=1, i32_thing=-3, i64_thing=-5)
    assert client.test_struct(inner) == inner
    nested = types.Xtruct2(struct_thing=inner, byte_thing=0, i32_thing=0)
    assert client.test_nest(nested) == nested


def containers(client: Any, types: Any) -> None:
    numbers = {0: 1, 1: 2, 2: 3, 3: 4, -1: -2}
    assert client.test_map(numbers) == numbers
    strings = {"a": "2", "b": "blah", "some": "ключ"}
    assert client.test_string_map(strings) == strings
    assert client.test_set({8, 1, 42}) == {8, 1, 42}
    assert client.test_list([1, 4, 9, -42]) == [1, 4, 9, -42]
    assert client.test_map_map(42) == {
        -4: {-4: -4, -3: -3, -2: -2, -1: -1},
        4: {4: 4, 3: 3, 2: 2, 1: 1},
    }


def enums_and_typedefs(client: Any, types: Any) -> None:
    assert client.test_enum(types.Numberz.FIVE) is types.Numberz.FIVE
    assert client.test_typedef(0xFFFFFFFFFFFFFF) == 0xFFFFFFFFFFFFFF


def insanity(client: Any, types: Any) -> None:
    one = types.Xtruct(string_thing="Goodbye4", byte_thing=4, i32_thing=4, i64_thing=4)
    mad = types.Insanity(userMap={types.Numberz.FIVE: 5, types.Numberz.EIGHT: 8}, xtructs=[one])
    numberz = types.Numberz
    found = client.test_insanity(mad)
    assert found[1] == {numberz.TWO: mad, numberz.THREE: mad}
    assert found[2].keys() == {numberz.SIX}
    assert not found[2][numberz.SIX].xtructs


def several_arguments(client: Any, types: Any) -> None:
    found = client.test_multi(74, 0xFF00FF, 0xFFFFFFFFD0D0, {0: "abc"}, types.Numberz.FIVE, 0xF0F0F0)
    assert found == types.Xtruct(string_thing="Hello2", byte_thing=74, i32_thing=0xFF00FF, i64_thing=0xFFFFFFFFD0D0)


def exceptions(client: Any, types: Any) -> None:
    client.test_exception("Safe")
    with pytest.raises(types.Xception) as declared:
        client.test_exception("Xception")
    assert (declared.value.errorCode, declared.value.message) == (1001, "Xception")
    with pytest.raises(ApplicationError):
        client.test_exception("TException")
    client.test_exception("success")
    with pytest.raises(types.Xception) as first:
        client.test_multi_exception("Xception", "ignore")
    assert (first.value.errorCode, first.value.message) == (1001, "This is an Xception")
    with pytest.raises(types.Xception2) as second:
        client.test_multi_exception("Xception2", "ignore")
    assert (second.value.errorCode, second.value.struct_thing.string_thing) == (2002, "This is an Xception2")
    assert client.test_multi_exception("success", "foobar").string_thing == "foobar"


def oneway_and_then_normal(client: Any, types: Any) -> None:
    assert client.test_oneway(1) is None
    assert client.test_string("Python") == "Python"


CHECKS: list[Callable[[Any, Any], None]] = [
    scalars, structs, containers, enums_and_typedefs, insanity, several_arguments, exceptions, oneway_and_then_normal,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_apaches_server(client: Any, module: ModuleType, check: Callable[[Any, Any], None]) -> None:
    check(client, module)

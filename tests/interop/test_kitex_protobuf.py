"""weego and Kitex call each other in Kitex Protobuf: framed, TTHeader around a frame, and that shared by many calls; with both kinds of messages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

import weego
from codec.protobuf import ProtobufMethodSpec
from governance.call import current
from idlc.proto_compile import compile_protos
from tests.support import kitex_protobuf as kitex

# The first test waits for the build; what may hang has its own bound.
pytestmark = [pytest.mark.timeout(600), pytest.mark.interop]

TRANSPORTS = ["framed", "ttheader-framed", "ttheader-framed-shared"]
ANYWHERE = ["echo", "empty", "large", "error", "unknown-method", "many"]
HEADED = ["business", "metainfo"]
CALLS = 1000


@pytest.fixture(scope="module", params=["upb", "native"])
def stubs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    kitex.talk()
    folder = tmp_path_factory.mktemp("talk")
    package = f"talk_{request.param}"
    compile_protos([kitex.IDL], folder / package, messages=request.param)
    sys.path.insert(0, str(folder))
    yield importlib.import_module(f"{package}.interop.talk")
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def address(stubs: Any) -> Iterator[str]:
    """Of a weego server."""

    class Service(stubs.Talk):  # type: ignore[misc]
        def echo(self, request: Any) -> Any:
            return stubs.Response(back=request)

        def fail(self, request: Any) -> Any:
            raise RuntimeError(request.message)

        def refuse(self, request: Any) -> Any:
            raise weego.BusinessError(404, request.message, {"what": "ключ"})

        def facts(self, request: Any) -> Any:
            call = current()
            assert call is not None
            facts = {"caller": call.caller}
            for name, key in (("RPC_PERSIST_KEPT", "kept"), ("RPC_TRANSIT_ONCE", "once")):
                if name in call.metadata:
                    facts[key] = call.metadata[name]
            return stubs.Response(facts=facts)

    with weego.Server(Service(), listen="tcp://127.0.0.1:0") as server:
        yield server.addresses[0]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("check", ANYWHERE)
def test_kitex_calls_weego(address: str, transport: str, check: str) -> None:
    kitex.call(address, transport, check)


@pytest.mark.parametrize("transport", TRANSPORTS[1:])
@pytest.mark.parametrize("check", HEADED)
def test_kitex_calls_weego_with_a_header(address: str, transport: str, check: str) -> None:
    kitex.call(address, transport, check)


# ---------------------------------------------------------------- weego calls Kitex


@pytest.fixture(scope="module", params=TRANSPORTS)
def client(stubs: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    shared = request.param.endswith("-shared")
    with kitex.server(shared=shared) as address:
        pool = "shared" if shared else "exclusive"
        with stubs.TalkClient(address, framing=request.param.removesuffix("-shared"), pool=pool, timeout=20, caller="weego") as made:
            made.has_header = request.param != "framed"
            yield made


def full(stubs: Any) -> Any:
    return stubs.Request(
        message="日本語 🜁 \0 end", counts={"": -(2**63), "one": 1}, numbers=[0, -1, -(2**31), 2**31 - 1], raw=b"\0\xff",
        kind=7, inner=stubs.Request(kind=3, real=-0.5), text="chosen", maybe=2**64 - 1,
        more=[stubs.Request(), stubs.Request(message="x" * 300)],
    )  # fmt: skip


def test_weego_calls_kitex(stubs: Any, client: Any) -> None:
    for message in (full(stubs), stubs.Request(), stubs.Request(message="weego ü " * 100_000)):
        assert client.echo(message).back == message


def test_errors_of_kitex(stubs: Any, client: Any) -> None:
    for _ in range(3):
        with pytest.raises(weego.ApplicationError, match="it failed") as caught:
            client.fail(stubs.Request(message="it failed"))
        assert caught.value.type == 6


def test_business_statuses_of_kitex(stubs: Any, client: Any) -> None:
    if not client.has_header:  # Kitex loses them there: the reply is an empty message
        assert client.refuse(stubs.Request(message="not found")) == stubs.Response()
        return
    with pytest.raises(weego.BusinessError) as caught:
        client.refuse(stubs.Request(message="not found"))
    assert (caught.value.status, caught.value.message, caught.value.extra) == (404, "not found", {"what": "ключ"})


def test_unknown_methods_of_kitex(stubs: Any, client: Any) -> None:
    echo = stubs.Talk.__spec__.methods["Echo"]
    unknown = ProtobufMethodSpec("Nope", request=echo.request, response=echo.response)
    with pytest.raises(weego.ApplicationError, match="nknown") as caught:
        client._invoke(unknown, (stubs.Request(),), None)
    assert caught.value.type in (1, 20)
    assert client.echo(stubs.Request()).back == stubs.Request()


def test_metainfo_reaches_kitex(stubs: Any, client: Any) -> None:
    with weego.metainfo.persistent({"KEPT": "for ever"}), weego.metainfo.values({"ONCE": "for one hop"}):
        facts = client.facts(stubs.Request()).facts
    if client.has_header:
        assert dict(facts) == {"kept": "for ever", "once": "for one hop", "caller": "weego"}
    else:  # a frame carries none
        assert "kept" not in facts
        assert "once" not in facts


def test_many_calls_to_kitex(stubs: Any, client: Any) -> None:
    def call(number: int) -> bool:
        return bool(client.echo(stubs.Request(message=str(number))).back.message == str(number))

    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(call, range(CALLS)))
